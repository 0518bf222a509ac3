"""The built-in DDM's deletions: datasets that are forgotten, and copies that are to be removed from storage.

A copy leaves the catalogue first. It is removed from storage later, and only if it is not in the catalogue again by
then; once its removal has begun it cannot come back, so no copy that counts is ever removed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.model.file import Replica
from pandaserver.taskbuffer import catalogue, schema, transfers
from pandaserver.taskbuffer.catalogue import FileName, in_parts
from pandaserver.taskbuffer.statements import Prepared, Upsert, values

_datasets, _contents, _files = schema.ddm_datasets, schema.ddm_contents, schema.ddm_files
_replicas, _deletions = schema.ddm_replicas, schema.ddm_deletions

_LONGEST_DELAY_S = 3600.0
_MESSAGE = 500


@dataclass(frozen=True)
class Deletion:
    """A copy to be removed."""

    scope: str
    lfn: str
    endpoint: str
    tries: int


def forget_part(connection: Connection, dataset: str, now: datetime, *, files: int) -> tuple[bool, set[str]]:
    """Forget a dataset, up to so many files of it; give True when more are left, and where copies are to be removed."""
    transfers.forget(connection, dataset)
    catalogue.lock(connection, [dataset])
    catalogue.freeze(connection, [dataset])
    names = [(row[0], row[1]) for row in _SOME.rows(connection, dataset=dataset, limit=files)]
    if not names:
        connection.execute(sa.delete(_datasets).where(_datasets.c.name == dataset))
        return False, set()
    for scope, lfns in in_parts(names):
        _TAKE_OUT.run(connection, name=dataset, its_scope=scope, lfns=lfns)
    return True, _forget_orphans(connection, names, now)


_SOME = Prepared(
    sa.select(_contents.c.scope, _contents.c.lfn)
    .where(_contents.c.dataset == sa.bindparam("dataset"))
    .order_by(_contents.c.scope, _contents.c.lfn)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_TAKE_OUT = Prepared(
    sa.delete(_contents).where(
        _contents.c.dataset == sa.bindparam("name"),
        _contents.c.scope == sa.bindparam("its_scope"),
        _contents.c.lfn.in_(values("lfns")),
    )
)


def _forget_orphans(connection: Connection, names: Sequence[FileName], now: datetime) -> set[str]:
    """Forget those of these files that are in no dataset."""
    orphans = list[FileName]()
    for scope, lfns in in_parts(names):
        _LOCK.rows(connection, its_scope=scope, lfns=lfns)  # whoever puts one into a dataset now waits, or comes first
        held = {row[0] for row in _HELD.rows(connection, its_scope=scope, lfns=lfns)}
        orphans += [(scope, lfn) for lfn in lfns if lfn not in held]
    copies = [copy for some in catalogue.replicas(connection, orphans).values() for copy in some]
    add(connection, copies, now)
    for scope, lfns in in_parts(orphans):
        _DROP_REPLICAS.run(connection, its_scope=scope, lfns=lfns)
        _DROP_FILES.run(connection, its_scope=scope, lfns=lfns)
    return {copy.endpoint for copy in copies}


def _these(table: sa.Table) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.scope == sa.bindparam("its_scope"), table.c.lfn.in_(values("lfns")))


_LOCK = Prepared(sa.select(_files.c.lfn).where(_these(_files)).order_by(_files.c.lfn).with_for_update())
_HELD = Prepared(sa.select(_contents.c.lfn).distinct().where(_these(_contents)))
_DROP_REPLICAS = Prepared(sa.delete(_replicas).where(_these(_replicas)))
_DROP_FILES = Prepared(sa.delete(_files).where(_these(_files)))


def add(connection: Connection, copies: Iterable[Replica], now: datetime) -> None:
    """Have copies removed that are not in the catalogue any more."""
    same = {"tries": 0, "created_at": now, "due_at": now}
    rows = [
        same | {"scope": r.scope, "lfn": r.lfn, "endpoint": r.endpoint, "size_bytes": r.size_bytes}
        for r in sorted(set(copies), key=lambda r: (r.scope, r.lfn, r.endpoint))
    ]
    _ADD.many(connection, rows)


_ADD = Upsert(_deletions, lambda new: {"due_at": new.due_at})


def begin(connection: Connection, endpoint: str, now: datetime, *, limit: int) -> list[Deletion]:
    """Take copies that are to be removed from an endpoint; from now on they cannot come back."""
    rows = [Deletion(*row) for row in _DUE.rows(connection, endpoint=endpoint, now=now, limit=limit)]
    names = {(row.scope, row.lfn) for row in rows}
    counting = {
        name
        for name, copies in catalogue.replicas(connection, names).items()
        if any(copy.endpoint == endpoint for copy in copies)
    }
    end(connection, [row for row in rows if (row.scope, row.lfn) in counting])
    mine = [row for row in rows if (row.scope, row.lfn) not in counting]
    for scope, lfns in in_parts({(row.scope, row.lfn) for row in mine}):
        _BEGIN.run(connection, its_scope=scope, lfns=lfns, place=endpoint)
    return mine


_DUE = Prepared(
    sa.select(_deletions.c.scope, _deletions.c.lfn, _deletions.c.endpoint, _deletions.c.tries)
    .where(_deletions.c.endpoint == sa.bindparam("endpoint"), _deletions.c.due_at <= sa.bindparam("now"))
    .order_by(_deletions.c.due_at, _deletions.c.scope, _deletions.c.lfn)
    .limit(sa.bindparam("limit", type_=sa.Integer))
    .with_for_update()
)
_here = sa.and_(_these(_deletions), _deletions.c.endpoint == sa.bindparam("place"))
_BEGIN = Prepared(sa.update(_deletions).where(_here).values(begun=sa.true()))
_END = Prepared(sa.delete(_deletions).where(_here))


def end(connection: Connection, removed: Collection[Deletion]) -> None:
    """Forget copies that are gone from storage."""
    for endpoint in {row.endpoint for row in removed}:
        names = {(row.scope, row.lfn) for row in removed if row.endpoint == endpoint}
        for scope, lfns in in_parts(names):
            _END.run(connection, its_scope=scope, lfns=lfns, place=endpoint)


def postpone(connection: Connection, failed: Deletion, now: datetime, error: str) -> None:
    """Try it later again, for as long as it takes."""
    again: dict[str, Any] = {"tries": failed.tries + 1, "message": error[:_MESSAGE]}
    again["due_at"] = now + timedelta(seconds=min(2.0 ** min(failed.tries, 12), _LONGEST_DELAY_S))
    match = sa.and_(
        _deletions.c.scope == failed.scope, _deletions.c.lfn == failed.lfn, _deletions.c.endpoint == failed.endpoint
    )
    connection.execute(sa.update(_deletions).where(match).values(again))


def next_due(connection: Connection, endpoint: str) -> datetime | None:
    """Tell when the next copy is to be removed from an endpoint."""
    statement = sa.select(sa.func.min(_deletions.c.due_at, type_=schema.UTC6)).where(_deletions.c.endpoint == endpoint)
    due: datetime | None = connection.execute(statement).scalar_one()
    return due


def pending(connection: Connection) -> dict[str, int]:
    """Count the copies to be removed, by endpoint."""
    statement = sa.select(_deletions.c.endpoint, sa.func.count()).group_by(_deletions.c.endpoint)
    return {row[0]: row[1] for row in connection.execute(statement)}
