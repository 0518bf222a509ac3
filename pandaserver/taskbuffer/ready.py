"""Looks at the activated jobs without taking any."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.taskbuffer import schema

_ready = schema.ready


def first_jobs(connection: Connection, queues: Collection[str], limit: int) -> dict[str, list[int]]:
    """Give the first activated jobs, up to `limit`, of those of the queues that have any.

    What a queue without jobs costs does not depend on how many jobs the others have.
    """
    return {queue: _first_of(connection, queue, limit) for queue in _with_jobs(connection, queues)}


def _with_jobs(connection: Connection, queues: Collection[str]) -> list[str]:
    # The LIMIT keeps MariaDB from turning this into a join that reads all of the table.
    some_job = sa.select(_ready.c.job_id).where(_ready.c.queue == schema.queues.c.name).limit(1).scalar_subquery()
    statement = sa.select(schema.queues.c.name).where(schema.queues.c.name.in_(sorted(queues)), some_job.is_not(None))
    return list(connection.execute(statement).scalars())


def _first_of(connection: Connection, queue: str, limit: int) -> list[int]:
    in_order = sa.select(_ready.c.job_id).where(_ready.c.queue == queue).order_by(_ready.c.rank, _ready.c.job_id)
    return list(connection.execute(in_order.limit(limit)).scalars())
