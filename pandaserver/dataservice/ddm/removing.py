"""Removes from storage what the catalogue has forgotten: background work for each endpoint."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from datetime import datetime

from pandaserver.dataservice.ddm.storage import Stores, below_root
from pandaserver.errors import ConfigError, DDMError
from pandaserver.taskbuffer import deletions, topology
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection
from pandaserver.taskbuffer.deletions import Deletion
from pandaserver.taskbuffer.work import NewWork, WorkItem
from pandaserver.taskbuffer.work import add as add_work

log = logging.getLogger(__name__)

DELETE = "ddm_delete"  # an endpoint has copies that nobody needs

_AT_ONCE = 100
_TURN_S = 10.0  # then others may do something too


def ask_removals(connection: Connection, endpoints: Iterable[str], now: datetime, *, delay_s: float = 0) -> None:
    """Have endpoints looked after."""
    new = [NewWork(kind=DELETE, key=name, payload={"endpoint": name}) for name in sorted(endpoints)]
    if new:
        add_work(connection, new, now=now, delay_s=delay_s)


class Remover:
    """Does the removals of one endpoint at a time."""

    def __init__(self, buffer: TaskBuffer, stores: Stores) -> None:
        self._buffer, self._stores = buffer, stores

    def run(self, item: WorkItem) -> None:
        """Remove what is due at an endpoint: background work of kind `ddm_delete`."""
        endpoint, turn_ends_s = item.payload["endpoint"], time.monotonic() + _TURN_S
        while time.monotonic() < turn_ends_s:
            now = self._buffer.now()
            due = self._buffer.run(lambda c, now=now: deletions.begin(c, endpoint, now, limit=_AT_ONCE))  # type: ignore[misc]
            if not due:
                break
            failed = {row: error for row in due if (error := self._remove(row))}
            done = [row for row in due if row not in failed]
            self._buffer.run(lambda c, done=done, failed=failed: self._note(c, done, failed))  # type: ignore[misc]
        self._buffer.run(lambda c: self._look_again(c, endpoint))

    def _remove(self, row: Deletion) -> str:
        """Remove one; say what is wrong where that fails."""
        endpoint = topology.of(self._buffer).endpoints.get(row.endpoint)
        try:
            if endpoint is not None:  # else nobody knows any more where it was
                self._stores.at(endpoint).remove(below_root(row.scope, row.lfn))
        except (DDMError, ConfigError) as error:
            log.warning("%s stays at %s: %s", row.lfn, row.endpoint, error)
            return str(error)
        return ""

    def _note(self, connection: Connection, done: list[Deletion], failed: dict[Deletion, str]) -> None:
        deletions.end(connection, done)
        for row, error in failed.items():
            deletions.postpone(connection, row, self._buffer.now(), error)

    def _look_again(self, connection: Connection, endpoint: str) -> None:
        now, due = self._buffer.now(), deletions.next_due(connection, endpoint)
        if due is not None:
            ask_removals(connection, [endpoint], now, delay_s=max(0.0, (due - now).total_seconds()))
