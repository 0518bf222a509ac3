"""The built-in DDM's catalogue: datasets, files, replicas, subscriptions and transfers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.errors import DDMFatal
from pandaserver.model.file import Replica
from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.database import upsert
from pandaserver.taskbuffer.statements import Prepared, Upsert, values

_datasets, _files, _contents = schema.ddm_datasets, schema.ddm_files, schema.ddm_contents
_replicas, _subscriptions, _transfers = schema.ddm_replicas, schema.ddm_subscriptions, schema.ddm_transfers

FileName = tuple[str, str]  # scope, lfn
_AT_ONCE = 500  # names in one statement


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """A copy to be made, made or failed."""

    transfer_id: int
    dataset: str
    scope: str
    lfn: str
    destination: str
    source: str | None
    state: str
    size_bytes: int
    message: str | None
    created_at: datetime
    ended_at: datetime | None
    seconds: float | None


def add_datasets(connection: Connection, names: Iterable[str], now: datetime) -> None:
    """Register datasets that are not there."""
    _ADD_DATASETS.many(connection, [{"name": name, "created_at": now} for name in sorted(names)])


def _as_it_was(name: str) -> Callable[[Any], dict[str, Any]]:
    """Leave a row alone that is there already; unlike INSERT IGNORE, other errors stay errors."""
    return lambda new: {name: new[name]}


_ADD_DATASETS = Upsert(_datasets, _as_it_was("name"))


def lock(connection: Connection, names: Iterable[str]) -> None:
    """Let nobody else look at datasets with `lock` or add to them until the transaction ends."""
    _LOCK.rows(connection, names=sorted(names))


_LOCK = Prepared(
    sa.select(_datasets.c.name)
    .where(_datasets.c.name.in_(values("names")))
    .order_by(_datasets.c.name)
    .with_for_update()
)


def frozen(connection: Connection, names: Iterable[str]) -> dict[str, bool]:
    """Say of datasets whether nothing can be added any more; unknown ones are left out."""
    return {name: bool(value) for name, value in _FROZEN.rows(connection, names=sorted(names))}


_FROZEN = Prepared(sa.select(_datasets.c.name, _datasets.c.frozen).where(_datasets.c.name.in_(values("names"))))


def freeze(connection: Connection, names: Iterable[str]) -> None:
    """Let nothing be added to datasets any more."""
    _FREEZE.run(connection, names=sorted(names))


_FREEZE = Prepared(sa.update(_datasets).where(_datasets.c.name.in_(values("names"))).values(frozen=sa.true()))


def add_replicas(connection: Connection, replicas: Iterable[Replica], now: datetime) -> None:
    """Register files with a copy each.

    Raises:
        DDMFatal: a file of that name is known with other bytes.
    """
    new = sorted(set(replicas), key=lambda r: (r.scope, r.lfn, r.endpoint))
    _ADD_FILES.many(connection, [_file_row(r, now) for r in new])
    known = facts(connection, {(r.scope, r.lfn) for r in new})  # after the insert: nobody can come in between
    for replica in new:
        there = known[replica.scope, replica.lfn]
        if (there.size_bytes, there.adler32) != (replica.size_bytes, replica.adler32):
            text = (
                f"{replica.scope}:{replica.lfn} is in the catalogue with {there.size_bytes} bytes, adler32 "
                f"{there.adler32}; {replica.endpoint} offers {replica.size_bytes} bytes, adler32 {replica.adler32}"
            )
            raise DDMFatal(text, field="lfn", value=replica.lfn)
    copies = [{"scope": r.scope, "lfn": r.lfn, "endpoint": r.endpoint, "created_at": now} for r in new]
    _ADD_REPLICAS.many(connection, copies)


_ADD_FILES = Upsert(_files, _as_it_was("scope"))
_ADD_REPLICAS = Upsert(_replicas, _as_it_was("scope"))


def _file_row(replica: Replica, now: datetime) -> dict[str, Any]:
    return {
        "scope": replica.scope,
        "lfn": replica.lfn,
        "guid": replica.guid,
        "size_bytes": replica.size_bytes,
        "adler32": replica.adler32,
        "created_at": now,
    }


def add_contents(connection: Connection, placed: Mapping[str, Iterable[FileName]]) -> None:
    """Put known files into datasets."""
    rows = [
        {"dataset": dataset, "scope": scope, "lfn": lfn}
        for dataset in sorted(placed)
        for scope, lfn in sorted(set(placed[dataset]))
    ]
    _ADD_CONTENTS.many(connection, rows)


_ADD_CONTENTS = Upsert(_contents, _as_it_was("dataset"))


def contents(connection: Connection, dataset: str) -> list[FileName]:
    """List the files of a dataset."""
    statement = sa.select(_contents.c.scope, _contents.c.lfn).where(_contents.c.dataset == dataset)
    return [(r.scope, r.lfn) for r in connection.execute(statement.order_by(_contents.c.lfn))]


def of_dataset(connection: Connection, dataset: str, names: Iterable[FileName]) -> set[FileName]:
    """Tell which of these files are in a dataset."""
    return {
        (row[0], row[1])
        for scope, part in _in_parts(names)
        for row in _THERE.rows(connection, dataset=dataset, scope=scope, lfns=part)
    }


_THERE = Prepared(
    sa.select(_contents.c.scope, _contents.c.lfn).where(
        _contents.c.dataset == sa.bindparam("dataset"),
        _contents.c.scope == sa.bindparam("scope"),
        _contents.c.lfn.in_(values("lfns")),
    )
)


@dataclass(frozen=True)
class FileFacts:
    """What the bytes of a file must be."""

    guid: str
    size_bytes: int
    adler32: str


def facts(connection: Connection, names: Iterable[FileName]) -> dict[FileName, FileFacts]:
    """Give what is known of files; unknown ones are left out."""
    return {
        (row[0], row[1]): FileFacts(*row[2:])
        for scope, part in _in_parts(names)
        for row in _FACTS.rows(connection, scope=scope, lfns=part)
    }


_FACT_COLUMNS = [_files.c[name] for name in ("scope", "lfn", "guid", "size_bytes", "adler32")]
_these = sa.and_(_files.c.scope == sa.bindparam("scope"), _files.c.lfn.in_(values("lfns")))
_FACTS = Prepared(sa.select(*_FACT_COLUMNS).where(_these))


def replicas(connection: Connection, names: Iterable[FileName]) -> dict[FileName, list[Replica]]:
    """Give the copies of files; files without a copy are left out."""
    found: dict[FileName, list[Replica]] = defaultdict(list)
    for scope, part in _in_parts(names):
        for endpoint, *known in _COPIES.rows(connection, scope=scope, lfns=part):
            replica = Replica(endpoint=endpoint, **dict(zip(_REPLICA_COLUMNS, known, strict=True)))
            found[replica.scope, replica.lfn].append(replica)
    return dict(found)


_REPLICA_COLUMNS = tuple(column.name for column in _FACT_COLUMNS)
_same_file = sa.and_(_replicas.c.scope == _files.c.scope, _replicas.c.lfn == _files.c.lfn)
_COPIES = Prepared(
    sa.select(_replicas.c.endpoint, *_FACT_COLUMNS)
    .join(_replicas, _same_file)
    .where(_these)
    .order_by(_files.c.lfn, _replicas.c.endpoint)
)


def missing_at(connection: Connection, dataset: str, endpoint: str) -> dict[FileName, int]:
    """Give the files of a dataset that have no copy at an endpoint, with their sizes in bytes."""
    rows = _MISSING.rows(connection, dataset=dataset, endpoint=endpoint)
    return {(scope, lfn): size_bytes for scope, lfn, size_bytes in rows}


_in_dataset = sa.and_(_contents.c.scope == _files.c.scope, _contents.c.lfn == _files.c.lfn)
_MISSING = Prepared(
    sa.select(_contents.c.scope, _contents.c.lfn, _files.c.size_bytes)
    .select_from(
        _contents.join(_files, _in_dataset).outerjoin(
            _replicas, sa.and_(_same_file, _replicas.c.endpoint == sa.bindparam("endpoint"))
        )
    )
    .where(_contents.c.dataset == sa.bindparam("dataset"), _replicas.c.endpoint.is_(None))
    .order_by(_contents.c.lfn)
)


def subscribe(connection: Connection, datasets: Iterable[str], endpoint: str, now: datetime) -> None:
    """Let datasets be complete at an endpoint, now and for what comes in later."""
    rows = [{"dataset": name, "endpoint": endpoint, "created_at": now} for name in sorted(datasets)]
    upsert(connection, _subscriptions, rows, update={})


def unsubscribe(connection: Connection, dataset: str, endpoint: str) -> None:
    """End a subscription and drop what is still queued for it."""
    match = sa.and_(_subscriptions.c.dataset == dataset, _subscriptions.c.endpoint == endpoint)
    connection.execute(sa.delete(_subscriptions).where(match))
    queued = sa.and_(
        _transfers.c.dataset == dataset, _transfers.c.destination == endpoint, _transfers.c.state == "queued"
    )
    connection.execute(sa.delete(_transfers).where(queued))


def subscriptions(connection: Connection, datasets: Iterable[str]) -> list[tuple[str, str]]:
    """List where datasets shall be, as (dataset, endpoint)."""
    return [(row[0], row[1]) for row in _SUBSCRIPTIONS.rows(connection, datasets=sorted(datasets))]


_SUBSCRIPTIONS = Prepared(
    sa.select(_subscriptions.c.dataset, _subscriptions.c.endpoint)
    .where(_subscriptions.c.dataset.in_(values("datasets")))
    .order_by(_subscriptions.c.dataset, _subscriptions.c.endpoint)
)


def add_transfers(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Queue copies of what is missing; one that was given up, or whose result was lost, is queued again."""
    upsert(connection, _transfers, rows, update=["state"])


def queued_transfers(connection: Connection, dataset: str, destination: str) -> list[Transfer]:
    """List the copies of a subscription still to be made."""
    match = sa.and_(
        _transfers.c.dataset == dataset, _transfers.c.destination == destination, _transfers.c.state == "queued"
    )
    rows = connection.execute(sa.select(_transfers).where(match).order_by(_transfers.c.transfer_id))
    return [Transfer(**row._mapping) for row in rows]


def any_queued(connection: Connection, dataset: str, destination: str) -> bool:
    """Say whether a subscription has copies still to be made."""
    return bool(_ANY_QUEUED.rows(connection, dataset=dataset, destination=destination))


_ANY_QUEUED = Prepared(
    sa.select(_transfers.c.transfer_id)
    .where(
        _transfers.c.dataset == sa.bindparam("dataset"),
        _transfers.c.destination == sa.bindparam("destination"),
        _transfers.c.state == "queued",
    )
    .limit(1)
)


def still_queued(connection: Connection, transfer_ids: Sequence[int]) -> list[Transfer]:
    """Load those of these transfers that are still to be made."""
    statement = sa.select(_transfers).where(_transfers.c.transfer_id.in_(transfer_ids), _transfers.c.state == "queued")
    return [Transfer(**row._mapping) for row in connection.execute(statement.order_by(_transfers.c.transfer_id))]


def end_transfer(connection: Connection, transfer_id: int, state: str, **columns: Any) -> None:
    """Record how a copy ended."""
    match = _transfers.c.transfer_id == transfer_id
    connection.execute(sa.update(_transfers).where(match).values({"state": state} | columns))


def end_transfers(connection: Connection, ended: Sequence[Transfer]) -> None:
    """Record how copies ended, each for itself."""
    _END.many(connection, [vars(transfer) for transfer in sorted(ended, key=lambda t: t.transfer_id)])


# The rows are there: an "insert" of many is how MariaDB changes many rows, each in its own way, with one statement.
_END = Upsert(
    _transfers, lambda new: {name: new[name] for name in ("state", "source", "seconds", "message", "ended_at")}
)


def count_transfers(connection: Connection) -> dict[str, int]:
    """Count transfers by state."""
    rows = connection.execute(sa.select(_transfers.c.state, sa.func.count()).group_by(_transfers.c.state))
    return {row[0]: row[1] for row in rows}


def _in_parts(names: Iterable[FileName]) -> Iterator[tuple[str, list[str]]]:
    """Cut names into parts of one scope each, which is how the tables are ordered."""
    by_scope: dict[str, set[str]] = defaultdict(set)
    for scope, lfn in names:
        by_scope[scope].add(lfn)
    for scope in sorted(by_scope):
        lfns = sorted(by_scope[scope])
        for start in range(0, len(lfns), _AT_ONCE):
            yield scope, lfns[start : start + _AT_ONCE]
