"""Jobs that wait at a queue and could as well wait elsewhere."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.model.states import JobState
from pandaserver.taskbuffer import schema

MOVABLE = (JobState.ASSIGNED, JobState.ACTIVATED)
_jobs = schema.jobs


def movable(connection: Connection, queue: str, *, since: datetime, below: int | None, limit: int) -> list[int]:
    """Find jobs that wait at a queue since before a moment, and whose user did not name it; the youngest first.

    Args:
        below: only jobs with smaller ids, to go on after those of an earlier call.
    """
    conditions = [
        _jobs.c.site == queue,
        _jobs.c.state.in_([state.value for state in MOVABLE]),
        _jobs.c.pinned.is_(sa.false()),
        _jobs.c.state_since < since,
    ]
    if below is not None:
        conditions.append(_jobs.c.job_id < below)
    statement = sa.select(_jobs.c.job_id).where(*conditions).order_by(_jobs.c.job_id.desc()).limit(limit)
    return list(connection.execute(statement).scalars())
