"""Marks: up to which moment a periodic duty has done its work, moved in the transaction that does it: never twice."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.database import upsert

_counters = schema.counters
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True)
class Step:
    """One transaction's part of a run: how much it did, and whether there is more to do."""

    done: int
    more: bool


def take(connection: Connection, name: str) -> datetime | None:
    """Give a mark, None before the first run; others who want it wait until this transaction has ended."""
    upsert(connection, _counters, [{"name": _row(name), "value": 0}], update={})
    statement = sa.select(_counters.c.value).where(_counters.c.name == _row(name)).with_for_update()
    value = int(connection.execute(statement).scalar_one())
    return _EPOCH + value * _TICK if value else None


def move(connection: Connection, name: str, to: datetime) -> None:
    """Move a mark that was taken in this transaction."""
    moved = sa.update(_counters).where(_counters.c.name == _row(name)).values(value=(to - _EPOCH) // _TICK)
    connection.execute(moved)


def _row(name: str) -> str:
    return f"mark {name}"
