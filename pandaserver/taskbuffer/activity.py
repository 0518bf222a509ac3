"""How alive queues are: pilots' requests and updates, counted by hour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.statements import Upsert

_activity = schema.queue_activity


@dataclass(frozen=True)
class QueueActivity:
    """Pilots at a queue in a stretch of time."""

    requests: int
    jobs: int
    updates: int
    last_seen: datetime


_KINDS = ("requests", "jobs", "updates")
_ADD = Upsert(
    _activity,
    lambda new: {name: _activity.c[name] + new[name] for name in _KINDS} | {"last_seen": new.last_seen},
)


def note(
    connection: Connection, queue: str, now: datetime, *, requests: int = 0, jobs: int = 0, updates: int = 0
) -> None:
    """Count calls of pilots at one queue."""
    add(connection, {queue: {"requests": requests, "jobs": jobs, "updates": updates}}, now)


def add(connection: Connection, calls: Mapping[str, Mapping[str, int]], now: datetime) -> None:
    """Count calls of pilots by queue and kind, all queues in one order, so that nobody waits crosswise."""
    hour = now.replace(minute=0, second=0, microsecond=0)
    rows = [
        {"queue": queue, "hour": hour, "last_seen": now} | {kind: counts.get(kind, 0) for kind in _KINDS}
        for queue, counts in sorted(calls.items())
    ]
    _ADD.many(connection, rows)


def since(connection: Connection, start: datetime) -> dict[str, QueueActivity]:
    """Sum the calls by queue since the hour of a moment."""
    total = [sa.func.sum(_activity.c[n]).label(n) for n in _KINDS]
    last = sa.func.max(_activity.c.last_seen, type_=schema.UTC6()).label("last_seen")
    statement = sa.select(_activity.c.queue, *total, last).group_by(_activity.c.queue)
    rows = connection.execute(statement.where(_activity.c.hour > start - timedelta(hours=1)))
    return {r.queue: QueueActivity(int(r.requests), int(r.jobs), int(r.updates), r.last_seen) for r in rows}
