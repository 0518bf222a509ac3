"""The built-in DDM's catalogue: containers, datasets, files, replicas."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.errors import DDMError, DDMFatal, DDMUnknown
from pandaserver.model.file import Replica
from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.statements import Prepared, Upsert, values

_datasets, _files, _contents = schema.ddm_datasets, schema.ddm_files, schema.ddm_contents
_replicas, _containers, _deletions = schema.ddm_replicas, schema.ddm_containers, schema.ddm_deletions

FileName = tuple[str, str]  # scope, lfn
_AT_ONCE = 500  # names in one statement


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
    _save_from_deletion(connection, new)
    copies = [{"scope": r.scope, "lfn": r.lfn, "endpoint": r.endpoint, "created_at": now} for r in new]
    _ADD_REPLICAS.many(connection, copies)


def _save_from_deletion(connection: Connection, copies: Sequence[Replica]) -> None:
    """Let copies stay of which the deletion has not begun.

    Raises:
        DDMError: that of one has; the file may be gone.
    """
    places = {(r.scope, r.lfn, r.endpoint) for r in copies}
    for scope, part in in_parts({(r.scope, r.lfn) for r in copies}):
        rows = _DYING.rows(connection, scope=scope, lfns=part)
        dying = {lfn: (endpoint, begun) for lfn, endpoint, begun in rows if (scope, lfn, endpoint) in places}
        for lfn, (endpoint, begun) in sorted(dying.items()):
            if begun:
                raise DDMError(f"{lfn} is just being removed from {endpoint}", field="lfn", value=lfn)
            _SPARE.run(connection, scope=scope, name=lfn, place=endpoint)


_DYING = Prepared(
    sa.select(_deletions.c.lfn, _deletions.c.endpoint, _deletions.c.begun)
    .where(_deletions.c.scope == sa.bindparam("scope"), _deletions.c.lfn.in_(values("lfns")))
    .with_for_update()
)
_SPARE = Prepared(
    sa.delete(_deletions).where(
        _deletions.c.scope == sa.bindparam("scope"),
        _deletions.c.lfn == sa.bindparam("name"),
        _deletions.c.endpoint == sa.bindparam("place"),
    )
)


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


def contents(connection: Connection, name: str) -> list[FileName]:
    """List the files of a dataset, or of the datasets of a container."""
    return [(scope, lfn) for scope, lfn in _CONTENTS.rows(connection, name=name)]


_members = sa.select(_containers.c.dataset).where(_containers.c.container == sa.bindparam("name"))
_CONTENTS = Prepared(
    sa.select(_contents.c.scope, _contents.c.lfn)
    .distinct()
    .where(sa.or_(_contents.c.dataset == sa.bindparam("name"), _contents.c.dataset.in_(_members)))
    .order_by(_contents.c.lfn, _contents.c.scope)
)


def of_dataset(connection: Connection, dataset: str, names: Iterable[FileName]) -> set[FileName]:
    """Tell which of these files are in a dataset."""
    return {
        (row[0], row[1])
        for scope, part in in_parts(names)
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
        for scope, part in in_parts(names)
        for row in _FACTS.rows(connection, scope=scope, lfns=part)
    }


_FACT_COLUMNS = [_files.c[name] for name in ("scope", "lfn", "guid", "size_bytes", "adler32")]
_these = sa.and_(_files.c.scope == sa.bindparam("scope"), _files.c.lfn.in_(values("lfns")))
_FACTS = Prepared(sa.select(*_FACT_COLUMNS).where(_these))


def replicas(connection: Connection, names: Iterable[FileName]) -> dict[FileName, list[Replica]]:
    """Give the copies of files; files without a copy are left out."""
    found: dict[FileName, list[Replica]] = defaultdict(list)
    for scope, part in in_parts(names):
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


def count_files(connection: Connection, datasets: Iterable[str]) -> dict[str, int]:
    """Count the files of datasets; those without are left out."""
    return {row[0]: row[1] for row in _COUNT.rows(connection, names=sorted(datasets))}


_COUNT = Prepared(
    sa.select(_contents.c.dataset, sa.func.count())
    .where(_contents.c.dataset.in_(values("names")))
    .group_by(_contents.c.dataset)
)


def used(connection: Connection, endpoint: str) -> int:
    """Sum the sizes of all copies at an endpoint; dear where there are many."""
    statement = sa.select(sa.func.sum(_files.c.size_bytes)).join(_replicas, _same_file)
    return int(connection.execute(statement.where(_replicas.c.endpoint == endpoint)).scalar_one() or 0)


def lock_files(connection: Connection, names: Iterable[FileName]) -> set[FileName]:
    """Let nobody remove these files until the transaction ends; give those that there are."""
    return {
        (row[0], row[1]) for scope, part in in_parts(names) for row in _KEEP.rows(connection, scope=scope, lfns=part)
    }


_KEEP = Prepared(sa.select(_files.c.scope, _files.c.lfn).where(_these).with_for_update(read=True))


def collect(connection: Connection, container: str, datasets: Iterable[str]) -> None:
    """Put datasets into a container.

    Raises:
        DDMFatal: the name is that of a dataset.
        DDMUnknown: one of the datasets is not there.
    """
    names = sorted(datasets)
    known = frozen(connection, [container, *names])
    if container in known:
        raise DDMFatal(f"{container} is a dataset, not a container", field="container", value=container)
    if unknown := [name for name in names if name not in known]:
        raise DDMUnknown(f"there is no dataset {unknown[0]}", field="dataset", value=unknown[0])
    _COLLECT.many(connection, [{"container": container, "dataset": name} for name in names])


_COLLECT = Upsert(_containers, _as_it_was("container"))


def containers(connection: Connection, names: Iterable[str]) -> set[str]:
    """Tell which of these names are those of containers."""
    return {row[0] for row in _WHICH_CONTAINERS.rows(connection, names=sorted(names))}


_WHICH_CONTAINERS = Prepared(
    sa.select(_containers.c.container).distinct().where(_containers.c.container.in_(values("names")))
)


def forget_container(connection: Connection, name: str) -> None:
    """Forget a container; its datasets stay."""
    connection.execute(sa.delete(_containers).where(_containers.c.container == name))


def in_parts(names: Iterable[FileName]) -> Iterator[tuple[str, list[str]]]:
    """Cut names into parts of one scope each, which is how the tables are ordered."""
    by_scope: dict[str, set[str]] = defaultdict(set)
    for scope, lfn in names:
        by_scope[scope].add(lfn)
    for scope in sorted(by_scope):
        lfns = sorted(by_scope[scope])
        for start in range(0, len(lfns), _AT_ONCE):
            yield scope, lfns[start : start + _AT_ONCE]
