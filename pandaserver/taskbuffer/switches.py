"""What operators say of queues, and the history of every queue's status: who, when, from, to, why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.model.grid import SOURCES, QueueStatus, Source, Switch
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.database import upsert

_queues, _switches, _history = schema.queues, schema.queue_switches, schema.queue_history
REASON_LENGTH = 500


@dataclass(frozen=True, kw_only=True)
class StatusChange:
    """One line of a queue's history; `by` is the DN of an operator, or the source that describes the queue."""

    queue: str
    at: datetime
    action: str  # set, cleared, over, added, changed, removed
    from_status: QueueStatus | None
    to_status: QueueStatus
    reason: str
    by: str
    by_name: str
    until: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a queue's status came about."""

    queue: str
    status: QueueStatus
    configured: QueueStatus  # by its source
    source: Source
    removed_at: datetime | None
    switch: Switch | None  # what an operator said, if that holds
    last: StatusChange | None  # the last line of the history

    @property
    def by_name(self) -> str:
        """Name who is behind the status: an operator, or the source."""
        return self.switch.by_name if self.switch else SOURCES[self.source]

    @property
    def reason(self) -> str:
        """Say why."""
        if self.switch:
            return self.switch.reason
        return self.last.reason if self.last else ""

    @property
    def since(self) -> datetime | None:
        """Tell since when."""
        if self.switch:
            return self.switch.at
        return self.last.at if self.last else None

    @property
    def until(self) -> datetime | None:
        """Tell until when, if that was said."""
        return self.switch.until if self.switch else None


def look_at(connection: Connection, queue: str) -> Standing | None:
    """Give how a queue stands, None if there is none; the queue stays as it is until this transaction has ended."""
    connection.execute(sa.select(_queues.c.name).where(_queues.c.name == queue).with_for_update()).first()
    return standings(connection, [queue]).get(queue)


def set_status(connection: Connection, switch: Switch) -> None:
    """Let an operator's word hold for a queue that is there, and note it."""
    before = _status_of(connection, switch.queue)
    upsert(connection, _switches, [vars(switch) | {"status": switch.status.value}], update=_SAID)
    put(connection, switch.queue, switch.status)
    said = {name: getattr(switch, name) for name in ("queue", "at", "reason", "by", "by_name", "until")}
    note(connection, [StatusChange(action="set", from_status=before, to_status=switch.status, **said)])


_SAID = ["status", "reason", "by", "by_name", "at", "until"]


def clear(connection: Connection, queue: str, end: StatusChange) -> None:
    """Let the source of a queue decide again; `end` says who wants that and why, and where it leads."""
    connection.execute(sa.delete(_switches).where(_switches.c.queue == queue))
    put(connection, queue, end.to_status)
    note(connection, [end])


def end_over(connection: Connection, now: datetime) -> list[str]:
    """Let go the words of operators whose time is over; give the queues."""
    over = sa.select(_switches.c.queue).where(_switches.c.until <= now).order_by(_switches.c.queue)
    ended = []
    for queue in connection.execute(over).scalars().all():
        standing = look_at(connection, queue)
        if standing is None or standing.switch is None or standing.until is None or standing.until > now:
            continue
        to = QueueStatus.OFFLINE if standing.removed_at else standing.configured
        reason = f"the time of {standing.by_name}'s word was over: {standing.reason}"
        end = StatusChange(
            queue=queue, at=now, action="over", from_status=standing.status, to_status=to, reason=reason,
            by=standing.switch.by, by_name=standing.by_name,
        )  # fmt: skip
        clear(connection, queue, end)
        ended.append(queue)
    return ended


def note(connection: Connection, changes: Sequence[StatusChange]) -> None:
    """Add to the history."""
    rows = [vars(c) | {"to_status": c.to_status.value, "reason": c.reason[:REASON_LENGTH]} for c in changes]
    for row, change in zip(rows, changes, strict=True):
        row["from_status"] = change.from_status.value if change.from_status else None
    if rows:
        connection.execute(sa.insert(_history), rows)


def history(connection: Connection, queue: str, limit: int = 200) -> list[StatusChange]:
    """Give the history of a queue, newest first."""
    newest = sa.select(_history).where(_history.c.queue == queue).order_by(_history.c.history_id.desc())
    return [_change(row) for row in connection.execute(newest.limit(limit))]


def switches(connection: Connection, queues: Sequence[str] | None = None) -> dict[str, Switch]:
    """Give what operators said, by queue."""
    chosen = sa.select(_switches) if queues is None else sa.select(_switches).where(_switches.c.queue.in_(queues))
    found = [row._mapping for row in connection.execute(chosen)]
    return {row["queue"]: Switch(**(dict(row) | {"status": QueueStatus(row["status"])})) for row in found}


def standings(connection: Connection, queues: Sequence[str] | None = None) -> dict[str, Standing]:
    """Tell of all queues, or some, how their status came about."""
    columns = (_queues.c.name, _queues.c.status, _queues.c.configured, _queues.c.source, _queues.c.removed_at)
    chosen = sa.select(*columns).order_by(_queues.c.name)
    newest = sa.select(sa.func.max(_history.c.history_id)).group_by(_history.c.queue)
    if queues is not None:
        chosen = chosen.where(_queues.c.name.in_(queues))
        newest = newest.where(_history.c.queue.in_(queues))
    told = sa.select(_history).where(_history.c.history_id.in_(newest))
    last = {row.queue: _change(row) for row in connection.execute(told)}
    said = switches(connection, queues)
    return {
        row.name: Standing(
            queue=row.name,
            status=QueueStatus(row.status),
            configured=QueueStatus(row.configured or row.status),
            source=Source(row.source),
            removed_at=row.removed_at,
            switch=said.get(row.name),
            last=last.get(row.name),
        )
        for row in connection.execute(chosen)
    }


def _change(row: sa.Row[tuple[object, ...]]) -> StatusChange:
    told = {column.name: getattr(row, column.name) for column in _history.c if column.name != "history_id"}
    told["from_status"] = QueueStatus(told["from_status"]) if told["from_status"] else None
    return StatusChange(**(told | {"to_status": QueueStatus(told["to_status"])}))


def _status_of(connection: Connection, queue: str) -> QueueStatus:
    return QueueStatus(connection.execute(sa.select(_queues.c.status).where(_queues.c.name == queue)).scalar_one())


def put(connection: Connection, queue: str, status: QueueStatus) -> None:
    """Set the status; jobs of a queue that opens are news for the pilots that wait there."""
    values: dict[str, object] = {"status": status.value}
    if status is not QueueStatus.OFFLINE and _status_of(connection, queue) is QueueStatus.OFFLINE:
        ready = (schema.jobs.c.site == queue, schema.jobs.c.state == JobState.ACTIVATED.value)
        waiting = connection.execute(sa.select(sa.func.count()).where(*ready)).scalar_one()
        values["activations"] = _queues.c.activations + waiting
    connection.execute(sa.update(_queues).where(_queues.c.name == queue).values(values))
