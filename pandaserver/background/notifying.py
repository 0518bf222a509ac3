"""Tells users by mail that all jobs of one of their sets have ended: once for each set, and in nobody's way."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from pandaserver.background.duties import Duty
from pandaserver.background.pool import Bunch, Handler
from pandaserver.config import Config, NotificationSection
from pandaserver.dataservice.service import NOTIFY
from pandaserver.errors import BadInput
from pandaserver.externalinterface.mail import MailServer, address_of, compose
from pandaserver.taskbuffer import marks, notifications
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection
from pandaserver.taskbuffer.work import NewWork, WorkItem
from pandaserver.taskbuffer.work import add as add_work

log = logging.getLogger(__name__)

_PERIOD_S = 60.0
_MARK = "notified"
_OVERLAP = timedelta(minutes=5)  # a transaction that ended a job may become visible so long after it began


@dataclass(frozen=True)
class Notifier:
    """Finds sets that are complete and sends the mail about each."""

    buffer: TaskBuffer
    told: NotificationSection
    server: MailServer

    def look(self) -> int:
        """Ask for mail about sets that have become complete; tell how many."""
        return self.buffer.run(self._look)

    def _look(self, connection: Connection) -> int:
        now, before = self.buffer.now(), marks.take(connection, _MARK)
        if before is None:  # nobody wants to hear now of what was long ago
            marks.move(connection, _MARK, now + _OVERLAP)
            return 0
        marks.move(connection, _MARK, max(now, before))
        complete = notifications.complete_since(connection, before - _OVERLAP)
        new = notifications.note_complete(connection, complete, now)
        wanted = [NewWork(kind=NOTIFY, key=_key(*one), payload={"owner": one[0], "jobset_id": one[1]}) for one in new]
        if wanted:
            add_work(connection, wanted, now=now)
        return len(new)

    def tell(self, item: WorkItem) -> None:
        """Send the mail about one set: background work of kind `notify`."""
        owner, jobset_id = item.payload["owner"], item.payload["jobset_id"]
        summary = self.buffer.read(lambda c: notifications.to_be_told(c, owner, jobset_id))
        if summary is None:
            return
        address = address_of(owner, summary.owner_name, self.told.domain)
        if address is None:
            log.info("%s has no address to tell that set %d is complete", owner, jobset_id)
        else:
            try:
                self.server.send(compose(summary, address, self.told))
            except BadInput as error:  # it would be refused again
                log.warning("%s cannot be told that set %d is complete: %s", owner, jobset_id, error)
        self.buffer.run(lambda c: notifications.note_told(c, summary, self.buffer.now(), address=address))


def _key(owner: str, jobset_id: int) -> str:
    return f"{jobset_id}.{hashlib.blake2b(owner.encode(), digest_size=16).hexdigest()}"


def notification(buffer: TaskBuffer, config: Config) -> tuple[Mapping[str, Handler], list[Duty]]:
    """Give the work and the duty of it; where it is off, work that was left from before is dropped."""
    told = config.notification
    if not told.smtp_host:
        return {NOTIFY: Handler(_drop)}, []
    server = MailServer(told.smtp_host, told.smtp_port, told.starttls, config.server.ca_dir)
    notifier = Notifier(buffer, told, server)

    def run(bunch: Bunch) -> None:
        for item in bunch:
            notifier.tell(item)

    return {NOTIFY: Handler(run, _leave)}, [Duty("notify users", _PERIOD_S, notifier.look)]


def _drop(bunch: Bunch) -> None:
    log.info("%d users are not told: notification is off", len(bunch))


def _leave(item: WorkItem, error: str) -> None:
    log.warning("the owner of set %d was not told that it is complete: %s", item.payload["jobset_id"], error)
