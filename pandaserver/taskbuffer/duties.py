"""Leases of periodic duties: at any time one process does each."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.database import upsert

_duties = schema.duties


def take(connection: Connection, name: str, owner: str, *, now: datetime, lease_s: float) -> bool:
    """Take a duty that is due and that nobody holds; True when it is ours now."""
    upsert(connection, _duties, [{"name": name, "next_run_at": now}], update={})
    free = sa.or_(_duties.c.lease_until.is_(None), _duties.c.lease_until < now)
    due = sa.and_(_duties.c.name == name, _duties.c.next_run_at <= now, free)
    taken = sa.update(_duties).where(due).values(owner=owner, lease_until=now + timedelta(seconds=lease_s))
    return connection.execute(taken).rowcount == 1


def is_due(connection: Connection, name: str, *, now: datetime) -> bool:
    """Look, without taking anything, whether a duty wants to be done."""
    row = connection.execute(
        sa.select(_duties.c.next_run_at, _duties.c.lease_until).where(_duties.c.name == name)
    ).one_or_none()
    return row is None or (row.next_run_at <= now and (row.lease_until is None or row.lease_until < now))


def give_back(connection: Connection, name: str, owner: str, *, now: datetime, period_s: float, result: str) -> None:
    """End a run: the duty is due again after its period."""
    values = {
        "lease_until": None,
        "last_run_at": now,
        "next_run_at": now + timedelta(seconds=period_s),
        "last_result": result[:500],
    }
    held = sa.and_(_duties.c.name == name, _duties.c.owner == owner)
    connection.execute(sa.update(_duties).where(held).values(values))
