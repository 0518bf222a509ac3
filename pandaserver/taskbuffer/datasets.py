"""Datasets the server works with: dispatch datasets, outputs and their parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.model.dataset import Dataset, DatasetStatus, DatasetType
from pandaserver.model.file import FileStatus
from pandaserver.model.states import FINAL
from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.statements import Prepared, Upsert, values

_datasets = schema.datasets


def add(connection: Connection, new: Iterable[Dataset]) -> None:
    """Write datasets that are not there yet; those that are stay as they are, and are not locked."""
    wanted = {dataset.name: dataset for dataset in new}
    known = {row[0] for row in _KNOWN.rows(connection, names=sorted(wanted))}
    missing = [wanted[name] for name in sorted(wanted) if name not in known]
    _ADD.many(connection, [vars(d) | {"type": d.type.value, "status": d.status.value} for d in missing])


_KNOWN = Prepared(sa.select(_datasets.c.name).where(_datasets.c.name.in_(values("names"))))
_ADD = Upsert(_datasets, lambda new: {"name": new.name})


def load(connection: Connection, name: str) -> Dataset | None:
    """Load one dataset."""
    return next(iter(load_many(connection, [name])), None)


def load_many(connection: Connection, names: Iterable[str]) -> list[Dataset]:
    """Load datasets by name; unknown ones are left out."""
    return [_dataset(row) for row in _LOAD.rows(connection, names=sorted(set(names)))]


_COLUMNS = tuple(column.name for column in _datasets.c)
_LOAD = Prepared(sa.select(_datasets).where(_datasets.c.name.in_(values("names"))).order_by(_datasets.c.name))


def _dataset(row: Sequence[Any]) -> Dataset:
    told = dict(zip(_COLUMNS, row, strict=True))
    return Dataset(**(told | {"type": DatasetType(told["type"]), "status": DatasetStatus(told["status"])}))


def set_status(
    connection: Connection,
    names: Iterable[str],
    new: DatasetStatus,
    *,
    expected: Sequence[DatasetStatus],
    now: datetime,
) -> None:
    """Change the status of those datasets whose status is one of the expected."""
    before = [status.value for status in expected]
    _SET.run(connection, names=sorted(names), expected=before, new_status=new.value, now=now)


_SET = Prepared(
    sa.update(_datasets)
    .where(_datasets.c.name.in_(values("names")), _datasets.c.status.in_(values("expected")))
    .values(status=sa.bindparam("new_status"), modified_at=sa.bindparam("now"))
)


def left_open(connection: Connection, *, before: datetime, limit: int) -> list[str]:
    """Find _sub datasets that nobody changed since a moment and that are not completed, though nothing is to come."""
    files = schema.files
    to_come = sa.exists().where(
        files.c.block == _datasets.c.name,
        files.c.status.in_([FileStatus.UNKNOWN.value, FileStatus.TRANSFERRING.value]),
    )
    still = [status.value for status in DatasetStatus if status is not DatasetStatus.COMPLETED]
    match = (_datasets.c.type == DatasetType.SUB.value, _datasets.c.status.in_(still), _datasets.c.modified_at < before)
    statement = sa.select(_datasets.c.name).where(*match, ~to_come).order_by(_datasets.c.modified_at).limit(limit)
    return list(connection.execute(statement).scalars())


def not_in_use(connection: Connection, kind: DatasetType, *, before: datetime, limit: int) -> list[tuple[str, str]]:
    """Find dispatch datasets, as (name, endpoint), that were changed long ago and belong to no job that goes on."""
    jobs = schema.jobs
    used = sa.exists().where(
        jobs.c.dispatch_dataset == _datasets.c.name, jobs.c.state.not_in([state.value for state in FINAL])
    )
    match = (_datasets.c.type == kind.value, _datasets.c.modified_at < before, ~used)
    statement = sa.select(_datasets.c.name, _datasets.c.endpoint).where(*match).order_by(_datasets.c.modified_at)
    return [(row.name, row.endpoint or "") for row in connection.execute(statement.limit(limit))]


def remove(connection: Connection, names: Iterable[str]) -> None:
    """Forget datasets."""
    _REMOVE.run(connection, names=sorted(names))


_REMOVE = Prepared(sa.delete(_datasets).where(_datasets.c.name.in_(values("names"))))
