"""The durable work queue: work is committed with the change that causes it, and done by whoever claims it.

A row has a kind and a key. Asking again for the same key while the work is being done makes it run once more after,
not before `again_at`.
`due_at` is when a row may be taken; while it is held, it is the end of the holder's lease, so a killed holder's rows
come back by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.database import note_work_added, upsert

_work = schema.work


@dataclass(frozen=True, kw_only=True)
class WorkItem:
    """Something to be done by a background thread."""

    work_id: int
    kind: str
    key: str
    payload: dict[str, Any]
    version: int
    tries: int
    first_tried_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class NewWork:
    """Work to be asked for; the key makes repeated asking one piece of work."""

    kind: str
    key: str
    payload: dict[str, Any]


def add(connection: Connection, new: Sequence[NewWork], *, now: datetime, delay_s: float = 0) -> None:
    """Ask for work, to be done after this transaction commits."""
    due = now + timedelta(seconds=delay_s)
    rows = [{"kind": n.kind, "key": n.key, "payload": n.payload, "due_at": due, "created_at": now} for n in new]
    again: dict[str, Any] = {
        "version": _work.c.version + 1,
        "due_at": sa.case((_work.c.owner.is_(None), _sooner(_work.c.due_at, due)), else_=_work.c.due_at),
        "again_at": sa.case((_work.c.owner.is_(None), sa.null()), else_=_sooner(_work.c.again_at, due)),
    }
    upsert(connection, _work, rows, update=again)
    note_work_added(connection)


def _sooner(column: sa.Column[datetime], due: datetime) -> Any:
    """Give the earlier of two moments; the column may be empty."""
    return sa.case((column <= due, column), else_=sa.literal(due, schema.UTC6))


def claim(connection: Connection, owner: str, limit: int, *, now: datetime, lease_s: float) -> list[WorkItem]:
    """Take up to `limit` rows that are due, oldest first, under a lease."""
    statement = (
        sa.select(_work)
        .where(_work.c.due_at <= now)
        .order_by(_work.c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = connection.execute(statement).all()
    if not rows:
        return []
    ids = [row.work_id for row in rows]
    values = {
        "owner": owner,
        "due_at": now + timedelta(seconds=lease_s),
        "first_tried_at": sa.func.coalesce(_work.c.first_tried_at, sa.literal(now, schema.UTC6)),
        "again_at": None,
    }
    connection.execute(sa.update(_work).where(_work.c.work_id.in_(ids)).values(values))
    return [
        WorkItem(
            work_id=r.work_id,
            kind=r.kind,
            key=r.key,
            payload=dict(r.payload),
            version=r.version,
            tries=r.tries,
            first_tried_at=r.first_tried_at,
        )
        for r in rows
    ]


def renew(connection: Connection, owner: str, work_ids: Sequence[int], *, now: datetime, lease_s: float) -> None:
    """Prolong the leases of rows that are still being worked on."""
    if work_ids:
        held = sa.and_(_work.c.work_id.in_(sorted(work_ids)), _work.c.owner == owner)
        connection.execute(sa.update(_work).where(held).values(due_at=now + timedelta(seconds=lease_s)))


def done(connection: Connection, item: WorkItem, *, now: datetime) -> None:
    """Remove finished work; if it was asked for again meanwhile, let it run once more instead."""
    same = sa.and_(_work.c.work_id == item.work_id, _work.c.version == item.version)
    if connection.execute(sa.delete(_work).where(same)).rowcount == 0:
        due = sa.func.coalesce(_work.c.again_at, sa.literal(now, schema.UTC6))
        again = {"owner": None, "due_at": due, "tries": 0, "first_tried_at": None, "last_error": None}
        connection.execute(sa.update(_work).where(_work.c.work_id == item.work_id).values(again))
        note_work_added(connection)


def postpone(connection: Connection, item: WorkItem, *, now: datetime, delay_s: float, error: str) -> None:
    """Give work back to be tried later, with what went wrong."""
    values = {
        "owner": None,
        "due_at": now + timedelta(seconds=delay_s),
        "tries": item.tries + 1,
        "last_error": error[:2000],
    }
    connection.execute(sa.update(_work).where(_work.c.work_id == item.work_id).values(values))


def pending(connection: Connection) -> dict[str, int]:
    """Count open work by kind."""
    rows = connection.execute(sa.select(_work.c.kind, sa.func.count()).group_by(_work.c.kind))
    return {row[0]: row[1] for row in rows}


def next_due(connection: Connection) -> datetime | None:
    """Tell when the next row becomes due."""
    soonest: datetime | None = connection.execute(sa.select(sa.func.min(_work.c.due_at))).scalar_one()
    return soonest
