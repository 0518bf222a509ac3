"""Operators switch queues, and everybody sees who did and why."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from pandaserver.errors import BadInput, Conflict, NotFound
from pandaserver.model.grid import QueueStatus, Source, Switch
from pandaserver.taskbuffer import activity, switches, topology
from pandaserver.taskbuffer.activity import QueueActivity
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection
from pandaserver.taskbuffer.switches import REASON_LENGTH, Standing, StatusChange
from pandaserver.userinterface.submit import User

log = logging.getLogger(__name__)

PILOTS_SEEN = timedelta(hours=3)
_LONGEST = timedelta(days=366)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What an operator wants of a queue; until when, if not until further notice."""

    queue: str
    status: QueueStatus
    reason: str
    until: datetime | None = None


@dataclass(frozen=True)
class Overview:
    """How queues stand, and what pilots asked for there in the last hours."""

    standings: Mapping[str, Standing]
    pilots: Mapping[str, QueueActivity]


def set_status(buffer: TaskBuffer, wish: Wish, who: User) -> Standing:
    """Let an operator's word hold, whatever the queue's source says; the same word again changes nothing.

    Raises:
        NotFound: there is no such queue.
        Conflict: its source does not describe it any more.
        BadInput: the reason is missing or too long, or the time is not in the future.
    """
    now = buffer.now()
    _check(wish, now)
    said = Switch(
        queue=wish.queue, status=wish.status, reason=wish.reason, by=who.dn, by_name=who.name, at=now, until=wish.until
    )

    def work(connection: Connection) -> tuple[Standing, Standing]:
        before = _look_at(connection, wish.queue)
        if before.removed_at is not None:
            text = f"queue {wish.queue} is described nowhere any more since {before.removed_at:%Y-%m-%d %H:%M} UTC"
            raise Conflict(text, field="queue", value=wish.queue)
        if not _is_same(before.switch, said):
            switches.set_status(connection, said)
        return before, _look_at(connection, wish.queue)

    return _done(buffer.run(work), who)


def clear_status(buffer: TaskBuffer, queue: str, reason: str, who: User) -> Standing:
    """Let the source of a queue decide again; where no operator said anything, nothing changes.

    Raises:
        NotFound: there is no such queue.
        BadInput: the reason is too long.
    """
    _check_reason(reason)

    def work(connection: Connection) -> tuple[Standing, Standing]:
        before = _look_at(connection, queue)
        if before.switch is not None:
            to = QueueStatus.OFFLINE if before.removed_at else before.configured
            said = {"queue": queue, "at": buffer.now(), "reason": reason, "by": who.dn, "by_name": who.name}
            end = StatusChange(action="cleared", from_status=before.status, to_status=to, **said)  # type: ignore[arg-type]
            switches.clear(connection, queue, end)
        return before, _look_at(connection, queue)

    return _done(buffer.run(work), who)


def history(buffer: TaskBuffer, queue: str) -> list[StatusChange]:
    """Give the history of a queue, newest first, also of one that is no more.

    Raises:
        NotFound: there never was such a queue.
    """

    def work(connection: Connection) -> list[StatusChange]:
        found = switches.history(connection, queue)
        if not found:
            _look_at(connection, queue)
        return found

    return buffer.read(work)


def overview(buffer: TaskBuffer) -> Overview:
    """Tell how all queues stand."""
    now = buffer.now()
    return buffer.read(lambda c: Overview(switches.standings(c), activity.since(c, now - PILOTS_SEEN)))


def source_of(standing: Standing) -> Source | None:
    """Tell who describes a queue, None where nobody does any more."""
    return None if standing.removed_at else standing.source


def _look_at(connection: Connection, queue: str) -> Standing:
    found = switches.look_at(connection, queue)
    if found is None:
        known = ", ".join(sorted(topology.load(connection).queues))
        raise NotFound(f"there is no queue {queue}; known are {known}", field="queue", value=queue)
    return found


def _check(wish: Wish, now: datetime) -> None:
    if not wish.reason.strip():
        raise BadInput("a reason is missing: others will want to know why", field="reason")
    _check_reason(wish.reason)
    if wish.until is not None and not now < wish.until <= now + _LONGEST:
        text = f"until = {wish.until:%Y-%m-%d %H:%M:%S} UTC: a moment in the next {_LONGEST.days} days is expected"
        raise BadInput(text, field="until", value=wish.until.isoformat())


def _check_reason(reason: str) -> None:
    if len(reason) > REASON_LENGTH or not reason.isprintable():
        text = f"a reason is one line of at most {REASON_LENGTH} printable characters"
        raise BadInput(text, field="reason", value=reason)


def _is_same(before: Switch | None, said: Switch) -> bool:
    return before is not None and (before.status, before.reason, before.by, before.until) == (
        said.status, said.reason, said.by, said.until,
    )  # fmt: skip


def _done(steps: tuple[Standing, Standing], who: User) -> Standing:
    before, after = steps
    topology.forget()
    if before != after:
        log.info("%s: queue %s from %s to %s: %s", who.dn, after.queue, before.status, after.status, after.reason)
    return after
