"""Where queues and endpoints are described: when each place was read last, what changed then, what is wrong now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.model.grid import Source
from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.database import upsert

_sources = schema.grid_sources
_MOST, _LONGEST_PLACE = 20_000, 1024  # characters


@dataclass(frozen=True)
class SourceState:
    """What is known of a source; with a problem, what it said before goes on to hold."""

    name: Source
    place: str
    read_at: datetime | None
    changed_at: datetime | None
    changes: str | None
    problem: str | None
    problem_at: datetime | None


def note_read(
    connection: Connection, name: Source, place: str, *, now: datetime, changes: Sequence[str], problem: str = ""
) -> None:
    """Note that a source was read and is in force; what was wrong with it is over, but for parts of it."""
    row: dict[str, object] = {"name": name.value, "place": place[:_LONGEST_PLACE], "read_at": now}
    if changes:
        row |= {"changed_at": now, "changes": "\n".join(changes)[:_MOST]}
    if not problem:
        row |= {"problem": None, "problem_at": None}
    upsert(connection, _sources, [row], update=list(row)[1:])
    if problem:
        note_problem(connection, name, place, now=now, problem=problem)


def note_problem(connection: Connection, name: Source, place: str, *, now: datetime, problem: str) -> None:
    """Note what is wrong with a source; `problem_at` is when this was seen first."""
    known = connection.execute(sa.select(_sources.c.problem).where(_sources.c.name == name.value)).scalar()
    told = problem[:_MOST]
    row = {"name": name.value, "place": place[:_LONGEST_PLACE], "problem": told, "problem_at": now}
    upsert(connection, _sources, [row], update=["place"] if known == told else list(row)[1:])


def states(connection: Connection) -> list[SourceState]:
    """Give all sources that were ever read."""
    found = connection.execute(sa.select(_sources).order_by(_sources.c.name.desc()))
    return [SourceState(**(dict(row._mapping) | {"name": Source(row.name)})) for row in found]
