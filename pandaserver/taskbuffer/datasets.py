"""Datasets the server works with: dispatch datasets, outputs and their parts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.model.dataset import Dataset, DatasetStatus, DatasetType
from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.database import upsert

_datasets = schema.datasets


def add(connection: Connection, new: Sequence[Dataset]) -> None:
    """Write datasets that are not there yet; those that are stay as they are."""
    rows = [vars(d) | {"type": d.type.value, "status": d.status.value} for d in new]
    upsert(connection, _datasets, rows, update={})


def load(connection: Connection, name: str, *, lock: bool = False) -> Dataset | None:
    """Load one dataset; with `lock` nobody else changes it until the transaction ends."""
    statement = sa.select(_datasets).where(_datasets.c.name == name)
    row = connection.execute(statement.with_for_update() if lock else statement).one_or_none()
    if row is None:
        return None
    values = dict(row._mapping)
    return Dataset(**(values | {"type": DatasetType(values["type"]), "status": DatasetStatus(values["status"])}))


def set_status(
    connection: Connection, name: str, new: DatasetStatus, *, expected: Sequence[DatasetStatus], now: datetime
) -> bool:
    """Change a status if it is one of the expected; True for the one caller who did it."""
    match = sa.and_(_datasets.c.name == name, _datasets.c.status.in_([s.value for s in expected]))
    changed = connection.execute(sa.update(_datasets).where(match).values(status=new.value, modified_at=now))
    return changed.rowcount == 1
