"""Links between endpoints: what they have carried, by the hour, and what waits to go over them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.model.grid import at_once
from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.statements import Upsert
from pandaserver.taskbuffer.transfers import NOWHERE, QUEUED, Link

_hours, _links, _transfers = schema.ddm_link_hours, schema.links, schema.ddm_transfers

_RECENT = timedelta(hours=24)  # of which speed is told
KEPT = timedelta(days=90)


@dataclass(frozen=True)
class Carried:
    """What a link carried in some time; `seconds` are those of copying, all lanes together."""

    files: int = 0
    size_bytes: int = 0
    seconds: float = 0.0
    failures: int = 0


@dataclass(frozen=True)
class Backlog:
    """What waits to go over a link, and how fast that goes with all lanes busy; None where nothing was carried."""

    files: int
    size_bytes: int
    bytes_per_s: float | None


def note(connection: Connection, link: Link, carried: Carried, now: datetime) -> None:
    """Add to what a link has carried."""
    row = {"source": link[0], "destination": link[1], "hour": now.replace(minute=0, second=0, microsecond=0)}
    told = {"files": carried.files, "bytes": carried.size_bytes, "seconds": carried.seconds}
    _NOTE.many(connection, [row | told | {"failures": carried.failures}])


_NOTE = Upsert(
    _hours, lambda new: {name: _hours.c[name] + new[name] for name in ("files", "bytes", "seconds", "failures")}
)


def carried(connection: Connection, since: datetime) -> dict[Link, Carried]:
    """Tell what each link has carried since a moment, to the hour."""
    sums = (sa.func.sum(_hours.c[name]) for name in ("files", "bytes", "seconds", "failures"))
    statement = sa.select(_hours.c.source, _hours.c.destination, *sums).where(
        _hours.c.hour > since - timedelta(hours=1)
    )
    rows = connection.execute(statement.group_by(_hours.c.source, _hours.c.destination))
    return {(r[0], r[1]): Carried(int(r[2]), int(r[3]), float(r[4]), int(r[5])) for r in rows}


def backlog(connection: Connection) -> dict[Link, Backlog]:
    """Tell what waits on each link, also where nothing does and something was carried not long ago."""
    waiting = (
        sa.select(_transfers.c.source, _transfers.c.destination, sa.func.count(), sa.func.sum(_transfers.c.size_bytes))
        .where(_transfers.c.state == QUEUED, _transfers.c.source.is_not(None), _transfers.c.source != NOWHERE)
        .group_by(_transfers.c.source, _transfers.c.destination)
    )
    found = {(r[0], r[1]): (int(r[2]), int(r[3])) for r in connection.execute(waiting)}
    told, last = limits(connection), _last_hour(connection)
    moved = carried(connection, last - _RECENT) if last else {}
    return {
        link: Backlog(*found.get(link, (0, 0)), _speed(moved.get(link), at_once(told, *link)))
        for link in sorted(found.keys() | moved.keys())
    }


def _last_hour(connection: Connection) -> datetime | None:
    """Tell when anything was carried last: an old speed says more than none."""
    last: datetime | None = connection.execute(sa.select(sa.func.max(_hours.c.hour, type_=schema.UTC6))).scalar_one()
    return last


def _speed(carried: Carried | None, lanes: int) -> float | None:
    return carried.size_bytes / carried.seconds * lanes if carried and carried.seconds and carried.size_bytes else None


def limits(connection: Connection) -> dict[Link, int]:
    """Load how many copies links make at once, as configured."""
    rows = connection.execute(sa.select(_links.c.source, _links.c.destination, _links.c.at_once))
    return {(row[0], row[1]): row[2] for row in rows}


def save_limits(connection: Connection, told: dict[Link, int]) -> None:
    """Write how links may be used."""
    if limits(connection) == told:
        return
    connection.execute(sa.delete(_links))
    rows = [{"source": s, "destination": d, "at_once": number} for (s, d), number in sorted(told.items())]
    if rows:
        connection.execute(sa.insert(_links), rows)


def forget(connection: Connection, before: datetime) -> int:
    """Forget what was carried long ago."""
    return connection.execute(sa.delete(_hours).where(_hours.c.hour < before)).rowcount
