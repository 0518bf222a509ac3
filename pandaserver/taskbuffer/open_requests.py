"""Which datasets are on their way to somewhere with jobs waiting for them."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.model.dataset import Dataset, DatasetStatus, DatasetType
from pandaserver.model.file import FileStatus
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import datasets, schema

_datasets, _jobs, _files = schema.datasets, schema.jobs, schema.files

_AWAITED = sa.exists().where(_jobs.c.dispatch_dataset == _datasets.c.name, _jobs.c.state == JobState.ASSIGNED.value)
_MOVING = sa.exists().where(_files.c.block == _datasets.c.name, _files.c.status == FileStatus.TRANSFERRING.value)
_ON_THE_WAY = sa.or_(
    sa.and_(_datasets.c.type == DatasetType.DISPATCH.value, _AWAITED),
    sa.and_(_datasets.c.type == DatasetType.SUB.value, _MOVING),
)
_OPEN = (DatasetStatus.DEFINED.value, DatasetStatus.RUNNING.value)


def find(connection: Connection, *, after: str, limit: int) -> list[Dataset]:
    """List dispatch datasets that jobs wait for, and _sub datasets with files under way, by name and `after` one."""
    statement = (
        sa.select(_datasets.c.name)
        .where(
            _datasets.c.type.in_([DatasetType.DISPATCH.value, DatasetType.SUB.value]),
            _datasets.c.status.in_(_OPEN),
            _datasets.c.endpoint.is_not(None),
            _datasets.c.name > after,
            _ON_THE_WAY,
        )
        .order_by(_datasets.c.name)
        .limit(limit)
    )
    return datasets.load_many(connection, list(connection.execute(statement).scalars()))
