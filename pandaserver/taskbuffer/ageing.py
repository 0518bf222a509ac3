"""Ageing: analysis jobs that no pilot has taken for long move forward, once in each time that they wait."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.model.job import PRODUCTION_LABELS
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import jobs, marks, schema
from pandaserver.taskbuffer.marks import Step

_jobs = schema.jobs
_MARK = "ageing"
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Ageing:
    """After how long analysis jobs that wait for a pilot are lifted, and by how many points of priority."""

    after_s: float
    points: int


def raise_waiting(connection: Connection, ageing: Ageing, *, now: datetime, limit: int) -> Step:
    """Lift jobs that have waited for long enough since the last run; about `limit` jobs are looked at.

    The mark stands at the activation of the last job that was looked at, so none is looked at twice.
    """
    since = marks.take(connection, _MARK) or _BEGINNING
    until = now - timedelta(seconds=ageing.after_s)
    in_order = sa.select(_jobs.c.state_since).where(*_activated(since, until)).order_by(_jobs.c.state_since)
    # Many jobs are activated at the same moment: they are looked at together.
    last = connection.execute(in_order.offset(limit - 1).limit(1)).scalar_one_or_none()
    upto = last or until
    if upto <= since:
        return Step(0, more=False)
    raised = _raise(connection, since, upto, points=ageing.points, now=now)
    marks.move(connection, _MARK, upto)
    return Step(raised, more=last is not None)


def _raise(connection: Connection, since: datetime, upto: datetime, *, points: int, now: datetime) -> int:
    analysis = _jobs.c.label.not_in(sorted(PRODUCTION_LABELS))
    found = connection.execute(sa.select(_jobs.c.job_id).where(*_activated(since, upto), analysis)).scalars()
    locked = jobs.load(connection, list(found), lock=True)
    # What a pilot has taken meanwhile, or what came back, does not wait any more or waits anew.
    still = [job for job in locked.values() if job.state is JobState.ACTIVATED and job.state_since <= upto]
    if still:
        jobs.raise_priority(connection, still, points, now=now)
    return len(still)


def _activated(since: datetime, until: datetime) -> list[sa.ColumnElement[bool]]:
    return [
        _jobs.c.state == JobState.ACTIVATED.value,
        _jobs.c.state_since > since,
        _jobs.c.state_since <= until,
    ]
