"""The duty that moves ended jobs into the archive, and forgets what was kept there long enough."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from pandaserver.taskbuffer import archive, migrate, partitions
from pandaserver.taskbuffer.buffer import TaskBuffer

log = logging.getLogger(__name__)

SINCE_REVISION = "0003"  # from there on every server that may run looks into the archive
UNSETTLED_FOR = timedelta(days=14)  # a job whose files are still on their way so long after its end moves all the same
_AHEAD = 3  # months that get their partitions before they begin
_BATCHES = 40  # in one run: other duties wait
_AGAIN = timedelta(minutes=10)  # until partitions that could not be made or dropped are tried again


@dataclass(frozen=True)
class ArchivePolicy:
    """When jobs move into the archive, how many in one transaction, and for how many months they stay there."""

    after_s: float
    batch: int
    keep_months: int = 0  # 0: for ever


class Archiver:
    """Moves jobs; one process at a time should, but two do no harm."""

    def __init__(self, buffer: TaskBuffer, policy: ArchivePolicy) -> None:
        self._buffer, self._policy = buffer, policy
        self._in_order: date | None = None  # the month for which nothing is left to be made or dropped
        self._not_before: datetime | None = None  # when that is looked at again, where it did not work

    def run_once(self) -> int:
        """Move what is due, a bounded number of batches; tell how many jobs were moved."""
        if not self._buffer.read(_every_server_looks_there):
            log.info("nothing is archived yet: some servers may not know of the archive; see panda-server db status")
            return 0
        now = self._buffer.now()
        month = archive.month_of(now)
        if self._in_order != month and (self._not_before is None or now >= self._not_before):
            self._in_order, self._not_before = self._put_in_order(month)
        return self._move_all(now)

    def _move_all(self, now: datetime) -> int:
        ended_before = now - timedelta(seconds=self._policy.after_s)
        due = archive.Due(ended_before, min(ended_before, now - UNSETTLED_FOR))
        total = 0
        for _ in range(_BATCHES):
            found, moved = self._buffer.run(lambda c: self._move(c, due))
            total += moved
            if found < self._policy.batch or not moved:
                break
        return total

    def _move(self, connection: Connection, due: archive.Due) -> tuple[int, int]:
        if not _every_server_looks_there(connection):
            return 0, 0
        found = archive.find_due(connection, due, self._policy.batch)
        return len(found), archive.move(connection, found)

    def _put_in_order(self, month: date) -> tuple[date | None, datetime | None]:
        """Make and drop partitions; give the month if that is done, or else when to try again."""
        database, keep = self._buffer.database, self._policy.keep_months
        oldest = self._buffer.read(archive.oldest_end)
        first = min(month, archive.month_of(oldest)) if oldest else month
        try:
            partitions.make(database, first, partitions.following(month, _AHEAD))
            done = not keep or self._forget(partitions.following(month, -keep))
            return (month if done else None), None
        except DBAPIError as error:  # the archive can do without for a while
            log.warning("partitions of the archive are left as they are until the next time: %s", error.orig)
            return None, self._buffer.now() + _AGAIN

    def _forget(self, before: date) -> bool:
        """Forget the months before a month; say whether all of them are gone."""
        partitions.drop(self._buffer.database, before)
        if self._buffer.read(partitions.are_used):
            return True
        for _ in range(_BATCHES):
            if self._buffer.run(lambda c: archive.forget(c, before, self._policy.batch)) < self._policy.batch:
                return True
        return False


def _every_server_looks_there(connection: Connection) -> bool:
    return migrate.has(connection, SINCE_REVISION)
