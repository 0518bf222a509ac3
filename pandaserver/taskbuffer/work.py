"""The durable work queue: work is committed with the change that causes it, and done by whoever claims it.

All is written over lists, since the same few statements do for one piece of work and for hundreds.

A row has a kind and a key. Asking again for the same key while the work is being done makes it run once more after,
not before `again_at`.
`due_at` is when a row may be taken; while it is held, it is the end of the holder's lease, so a killed holder's rows
come back by themselves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.database import note_work_added
from pandaserver.taskbuffer.statements import Prepared, Upsert, values

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
    _ASK.many(connection, sorted(rows, key=lambda row: (row["kind"], row["key"])))
    note_work_added(connection, {n.kind for n in new})


def _again(new: Any) -> dict[str, Any]:
    """Say what becomes of a row that is there already: it is due at the soonest of the moments asked for."""
    free, old = _work.c.owner.is_(None), _work.c
    return {
        "version": old.version + sa.literal_column("1"),
        "due_at": sa.case((free, _sooner(old.due_at, new.due_at)), else_=old.due_at),
        "again_at": sa.case((free, sa.null()), else_=_sooner(old.again_at, new.due_at)),
    }


def _sooner(column: Any, due: Any) -> Any:
    """Give the earlier of two moments; the column may be empty."""
    return sa.case((column <= due, column), else_=due)


_ASK = Upsert(_work, _again)


def claim(
    connection: Connection, owner: str, limit: int, *, now: datetime, lease_s: float, kind: str | None = None
) -> list[WorkItem]:
    """Take up to `limit` rows that are due, oldest first, under a lease; of one kind where told."""
    told = {"now": now, "limit": limit}
    rows = _DUE.rows(connection, **told) if kind is None else _DUE_OF.rows(connection, kind=kind, **told)
    until = now + timedelta(seconds=lease_s)
    _HOLD.run(connection, ids=sorted(row[0] for row in rows), new_owner=owner, until=until, now=now)
    return [_item(row) for row in rows]


_COLUMNS = ("work_id", "kind", "key", "payload", "version", "tries", "first_tried_at")
_due = (
    sa.select(*(_work.c[name] for name in _COLUMNS))
    .where(_work.c.due_at <= sa.bindparam("now"))
    .order_by(_work.c.due_at)
    .limit(sa.bindparam("limit", type_=sa.Integer))
    .with_for_update(skip_locked=True)
)
_DUE = Prepared(_due)
_DUE_OF = Prepared(_due.where(_work.c.kind == sa.bindparam("kind")))
_HOLD = Prepared(
    sa.update(_work)
    .where(_work.c.work_id.in_(values("ids")))
    .values(
        owner=sa.bindparam("new_owner"),
        due_at=sa.bindparam("until"),
        first_tried_at=sa.func.coalesce(_work.c.first_tried_at, sa.bindparam("now", type_=schema.UTC6)),
        again_at=sa.null(),
    )
)


def _item(row: Sequence[Any]) -> WorkItem:
    return WorkItem(**dict(zip(_COLUMNS, row, strict=True)))


def renew(connection: Connection, owner: str, work_ids: Sequence[int], *, now: datetime, lease_s: float) -> None:
    """Prolong the leases of rows that are still being worked on."""
    _RENEW.run(connection, ids=sorted(work_ids), holder=owner, until=now + timedelta(seconds=lease_s))


_RENEW = Prepared(
    sa.update(_work)
    .where(_work.c.work_id.in_(values("ids")), _work.c.owner == sa.bindparam("holder"))
    .values(due_at=sa.bindparam("until"))
)


def done(connection: Connection, items: Sequence[WorkItem], *, now: datetime) -> None:
    """Remove finished work; what was asked for again meanwhile runs once more instead."""
    by_version: dict[int, list[int]] = defaultdict(list)
    for item in items:
        by_version[item.version].append(item.work_id)
    gone = sum(_REMOVE.run(connection, ids=sorted(ids), known=v) for v, ids in by_version.items())
    if gone < len(items):
        _FREE.run(connection, ids=sorted(item.work_id for item in items), now=now)
        note_work_added(connection, {item.kind for item in items})


_REMOVE = Prepared(sa.delete(_work).where(_work.c.work_id.in_(values("ids")), _work.c.version == sa.bindparam("known")))
_FREE = Prepared(
    sa.update(_work)
    .where(_work.c.work_id.in_(values("ids")))
    .values(
        owner=sa.null(),
        due_at=sa.func.coalesce(_work.c.again_at, sa.bindparam("now", type_=schema.UTC6)),
        tries=0,
        first_tried_at=sa.null(),
        last_error=sa.null(),
    )
)


def postpone(connection: Connection, item: WorkItem, *, now: datetime, delay_s: float, error: str) -> None:
    """Give work back to be tried later, with what went wrong."""
    values = {
        "owner": None,
        "due_at": now + timedelta(seconds=delay_s),
        "tries": item.tries + 1,
        "last_error": error[:2000],
    }
    connection.execute(sa.update(_work).where(_work.c.work_id == item.work_id).values(values))


def due(connection: Connection, kinds: Sequence[str]) -> dict[str, datetime]:
    """Tell when the next row of each kind becomes due; costs little, however many there are."""
    (row,) = _next_of(tuple(kinds)).rows(connection)
    return {kind: moment for kind, moment in zip(kinds, row, strict=True) if moment is not None}


@cache
def _next_of(kinds: tuple[str, ...]) -> Prepared:
    first = (sa.select(sa.func.min(_work.c.due_at)).where(_work.c.kind == kind) for kind in kinds)
    return Prepared(sa.select(*(one.scalar_subquery().label(f"due_{n}") for n, one in enumerate(first))))


def pending(connection: Connection) -> dict[str, int]:
    """Count open work by kind."""
    rows = connection.execute(sa.select(_work.c.kind, sa.func.count()).group_by(_work.c.kind))
    return {row[0]: row[1] for row in rows}


def next_due(connection: Connection) -> datetime | None:
    """Tell when the next row becomes due."""
    soonest: datetime | None = connection.execute(sa.select(sa.func.min(_work.c.due_at))).scalar_one()
    return soonest
