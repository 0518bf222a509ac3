"""How alive queues are: pilots' requests and updates, counted by hour."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.database import upsert

_activity = schema.queue_activity


@dataclass(frozen=True)
class QueueActivity:
    """Pilots at a queue in a stretch of time."""

    requests: int
    jobs: int
    updates: int
    last_seen: datetime


def note(
    connection: Connection, queue: str, now: datetime, *, requests: int = 0, jobs: int = 0, updates: int = 0
) -> None:
    """Count calls of pilots."""
    hour = now.replace(minute=0, second=0, microsecond=0)
    told = {"requests": requests, "jobs": jobs, "updates": updates}
    row = {"queue": queue, "hour": hour, "last_seen": now} | told
    sums = {name: _activity.c[name] + number for name, number in told.items()}
    upsert(connection, _activity, [row], update=sums | {"last_seen": sa.literal(now, schema.UTC6)})


def since(connection: Connection, start: datetime) -> dict[str, QueueActivity]:
    """Sum the calls by queue since the hour of a moment."""
    total = [sa.func.sum(_activity.c[n]).label(n) for n in ("requests", "jobs", "updates")]
    last = sa.func.max(_activity.c.last_seen, type_=schema.UTC6()).label("last_seen")
    statement = sa.select(_activity.c.queue, *total, last).group_by(_activity.c.queue)
    rows = connection.execute(statement.where(_activity.c.hour > start - timedelta(hours=1)))
    return {r.queue: QueueActivity(int(r.requests), int(r.jobs), int(r.updates), r.last_seen) for r in rows}
