"""Attempts: claiming jobs for pilots, leases, and what pilots said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from pandaserver.model.attempt import Attempt, ClaimRequest, PilotReport
from pandaserver.model.job import Job
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import jobs, schema

_attempts = schema.attempts
_ready = schema.ready

LOST = "lost"  # the outcome of an attempt whose pilot fell silent


def claim(connection: Connection, request: ClaimRequest, *, now: datetime, lease_s: float) -> Job | None:
    """Give the first job in order that fits, as a new attempt; None when there is none.

    Rows that another pilot is taking at this moment are stepped over, not waited for.
    """
    job_id = connection.execute(_first_ready(request)).scalar_one_or_none()
    if job_id is None:
        return None
    job = jobs.load(connection, [job_id], lock=True)[job_id]
    number = job.attempt + 1
    taken = replace(job, attempt=number)
    jobs.change_state(
        connection, [taken], JobState.SENT, now=now, reason=f"taken by {request.node or 'a pilot'}",
        attempt=number, started_at=None, ended_at=None,
    )  # fmt: skip
    connection.execute(sa.insert(_attempts).values(_new_attempt(taken, request, now, lease_s)))
    return replace(taken, state=JobState.SENT)


def _first_ready(request: ClaimRequest) -> sa.Select[Any]:
    conditions = [_ready.c.queue == request.queue]
    if request.labels is not None:
        conditions.append(_ready.c.label.in_(request.labels))
    limits = (
        (_ready.c.memory_mb, request.memory_mb),
        (_ready.c.disk_mb, request.disk_mb),
        (_ready.c.wall_time_s, request.remaining_s),
    )
    conditions += [column <= limit for column, limit in limits if limit > 0]
    in_order = sa.select(_ready.c.job_id).where(*conditions).order_by(_ready.c.rank, _ready.c.job_id)
    return in_order.limit(1).with_for_update(skip_locked=True)


def _new_attempt(job: Job, request: ClaimRequest, now: datetime, lease_s: float) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "number": job.attempt,
        "queue": request.queue,
        "pilot": request.pilot,
        "node": request.node,
        "pilot_id": request.pilot_id,
        "scheduler_id": request.scheduler_id,
        "request_id": request.request_id or None,
        "claimed_at": now,
        "lease_until": now + timedelta(seconds=lease_s),
        "computing_element": request.computing_element,
        "usage": {},
    }


@dataclass(frozen=True)
class Earlier:
    """What a request got before: its job while that attempt lives, and whether its id is spent."""

    job: Job | None = None
    spent: bool = False


def claimed_by(connection: Connection, request: ClaimRequest) -> Earlier:
    """Find what this very request of this pilot got before."""
    if not request.request_id:
        return Earlier()
    columns = (_attempts.c.job_id, _attempts.c.number, _attempts.c.ended_at)
    same = sa.and_(_attempts.c.pilot == request.pilot, _attempts.c.request_id == request.request_id)
    row = connection.execute(sa.select(*columns).where(same)).one_or_none()
    if row is None:
        return Earlier()
    job = jobs.load(connection, [row.job_id]).get(row.job_id) if row.ended_at is None else None
    return Earlier(job if job is not None and job.attempt == row.number else None, spent=True)


def renew(connection: Connection, job: Job, *, now: datetime, lease_s: float, **columns: Any) -> None:
    """Prolong the lease of the current attempt and note what the pilot told of its use of the machine."""
    values = {"lease_until": now + timedelta(seconds=lease_s)} | columns
    connection.execute(sa.update(_attempts).where(_current(job)).values(values))


def end(connection: Connection, job: Job, outcome: str, *, now: datetime, **columns: Any) -> None:
    """End the current attempt: finished, failed or lost."""
    values = {"ended_at": now, "outcome": outcome} | columns
    connection.execute(sa.update(_attempts).where(_current(job)).values(values))


def last_report(connection: Connection, job: Job) -> dict[str, Any] | None:
    """Give the last word of the current attempt, as `end` stored it under `report`."""
    report = connection.execute(sa.select(_attempts.c.report).where(_current(job))).scalar_one_or_none()
    return dict(report) if report else None


def outcome(connection: Connection, job: Job) -> str | None:
    """Tell how the current attempt ended, None while it has not."""
    return connection.execute(sa.select(_attempts.c.outcome).where(_current(job))).scalar_one_or_none()


def of_jobs(connection: Connection, job_ids: Sequence[int]) -> list[Attempt]:
    """Load all attempts of jobs, oldest first."""
    columns = [c for c in _attempts.c if c.name not in ("report", "request_id")]
    statement = sa.select(*columns).where(_attempts.c.job_id.in_(list(job_ids)))
    rows = connection.execute(statement.order_by(_attempts.c.job_id, _attempts.c.number))
    return [_attempt(row) for row in rows]


def lost(
    connection: Connection, state: JobState, *, silent_since: datetime, lease_over: datetime, limit: int
) -> list[int]:
    """Find jobs whose pilot has been silent since a moment, and whose lease ended before another."""
    table = schema.jobs
    statement = (
        sa.select(table.c.job_id)
        .join(_attempts, sa.and_(_attempts.c.job_id == table.c.job_id, _attempts.c.number == table.c.attempt))
        .where(
            table.c.state == state.value,
            table.c.modified_at < silent_since,
            _attempts.c.lease_until < lease_over,
        )
        .order_by(table.c.job_id)
        .limit(limit)
    )
    return list(connection.execute(statement).scalars())


def usage_columns(report: PilotReport) -> dict[str, Any]:
    """Give what a report says of the machine's use, as columns; what it does not say is left alone."""
    told = {
        "cpu_time_s": report.cpu_time_s,
        "max_rss_kb": report.max_rss_kb,
        "timing": report.timing,
        "exit_code": report.exit_code,
        "usage": report.usage or None,
        "node": report.node or None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _current(job: Job) -> sa.ColumnElement[bool]:
    return sa.and_(_attempts.c.job_id == job.job_id, _attempts.c.number == job.attempt)


def _attempt(row: Row[Any]) -> Attempt:
    values = dict(row._mapping)
    return Attempt(**(values | {"usage": dict(values["usage"] or {})}))
