"""Attempts: claiming jobs for pilots, leases, and what pilots said."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from pandaserver.model.attempt import Attempt, ClaimRequest, PilotReport
from pandaserver.model.job import InState, Job
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import jobs, schema
from pandaserver.taskbuffer.statements import Prepared, Upsert, values

_attempts = schema.attempts

LOST = "lost"  # the outcome of an attempt whose pilot fell silent


@dataclass(frozen=True)
class Taken:
    """A job that a request gets."""

    request: ClaimRequest
    job_id: int
    lane_id: int


def start(connection: Connection, taken: Sequence[Taken], *, now: datetime, lease_s: float) -> list[Job]:
    """Begin an attempt at each of these jobs, which `lanes.take` took hold of; give the jobs in that order."""
    locked = jobs.load(connection, [one.job_id for one in taken], lock=True)
    pairs = [(one, replace(locked[one.job_id], attempt=locked[one.job_id].attempt + 1)) for one in taken]
    jobs.change_states(
        connection, [(job, f"taken by {one.request.node or 'a pilot'}") for one, job in pairs], JobState.SENT, now=now,
        count_attempt=True, started_at=None, ended_at=None,
    )  # fmt: skip
    _INSERT.many(connection, [_new_attempt(job, one, now, lease_s) for one, job in pairs])
    return [replace(job, state=JobState.SENT) for _, job in pairs]


_INSERT = Prepared(sa.insert(_attempts))


def _new_attempt(job: Job, taken: Taken, now: datetime, lease_s: float) -> dict[str, Any]:
    request = taken.request
    return {
        "job_id": job.job_id,
        "number": job.attempt,
        "queue": request.queue,
        "lane_id": taken.lane_id,
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


def claimed_by(connection: Connection, requests: Sequence[ClaimRequest]) -> dict[tuple[str, str], Earlier]:
    """Find what these very requests of these pilots got before, by pilot and request id."""
    by_pilot: dict[str, list[str]] = defaultdict(list)
    for request in requests:
        if request.request_id:
            by_pilot[request.pilot].append(request.request_id)
    rows = [row for pilot, ids in by_pilot.items() for row in _EARLIER.rows(connection, pilot=pilot, ids=ids)]
    if not rows:
        return {}
    living = jobs.load(connection, [job_id for _, _, job_id, _, ended_at in rows if ended_at is None])
    return {
        (pilot, request_id): Earlier(_in_attempt(living.get(job_id), number), spent=True)
        for pilot, request_id, job_id, number, _ in rows
    }


_EARLIER = Prepared(
    sa.select(*(_attempts.c[name] for name in ("pilot", "request_id", "job_id", "number", "ended_at"))).where(
        _attempts.c.pilot == sa.bindparam("pilot"), _attempts.c.request_id.in_(values("ids"))
    )
)


def _in_attempt(job: Job | None, number: int) -> Job | None:
    return job if job is not None and job.attempt == number else None


@dataclass(frozen=True)
class Word:
    """What a pilot's word changes of an attempt; columns left out stay as they are."""

    job: InState
    columns: Mapping[str, Any]


def renew(connection: Connection, words: Sequence[Word], *, now: datetime, lease_s: float) -> None:
    """Prolong the leases of current attempts and note what their pilots told of their use of the machines."""
    until = now + timedelta(seconds=lease_s)
    _RENEW.many(connection, [_told_row(word, now) | {"lease_until": until} for word in _in_order(words)])


def end(connection: Connection, words: Sequence[Word], *, now: datetime) -> None:
    """End current attempts; the columns say `outcome`: finished, failed or lost."""
    rows = [{"report": {}} | _told_row(word, now) | {"ended_at": now} for word in _in_order(words)]
    _END.many(connection, rows)


def _in_order(words: Sequence[Word]) -> list[Word]:
    return sorted(words, key=lambda word: word.job.job_id)


# What pilots tell, and how nothing told looks in the row that is sent.
_NOTHING = {
    "cpu_time_s": "NULL",
    "max_rss_kb": "NULL",
    "timing": "NULL",
    "exit_code": "NULL",
    "usage": "'{}'",
    "node": "''",
}
_TOLD: dict[str, Any] = dict.fromkeys(_NOTHING) | {"usage": {}, "node": ""}


def _unless_nothing(new: Any) -> dict[str, Any]:
    return {
        name: sa.func.coalesce(sa.func.nullif(new[name], sa.text(nothing)), _attempts.c[name])
        for name, nothing in _NOTHING.items()
    }


# The rows are there: an "insert" of many is how MariaDB changes many rows, each in its own way, with one statement.
_RENEW = Upsert(_attempts, lambda new: _unless_nothing(new) | {"lease_until": new["lease_until"]})
_END = Upsert(
    _attempts, lambda new: _unless_nothing(new) | {name: new[name] for name in ("ended_at", "outcome", "report")}
)


def _told_row(word: Word, now: datetime) -> dict[str, Any]:
    key = {"job_id": word.job.job_id, "number": word.job.attempt, "queue": "", "claimed_at": now, "lease_until": now}
    return key | _TOLD | dict(word.columns)


def last_reports(connection: Connection, reported: Iterable[Job]) -> dict[int, dict[str, Any]]:
    """Give the last words of the current attempts of jobs, by job; those without one are left out."""
    numbers = {job.job_id: job.attempt for job in reported}
    rows = [row for part in jobs.in_parts(sorted(numbers)) for row in _REPORTS.rows(connection, ids=part)]
    return {job_id: dict(report) for job_id, number, report in rows if report and number == numbers[job_id]}


_REPORTS = Prepared(
    sa.select(_attempts.c.job_id, _attempts.c.number, _attempts.c.report).where(_attempts.c.job_id.in_(values("ids")))
)


def outcome(connection: Connection, job: InState) -> str | None:
    """Tell how the current attempt ended, None while it has not."""
    return connection.execute(sa.select(_attempts.c.outcome).where(_current(job))).scalar_one_or_none()


def of_jobs(connection: Connection, job_ids: Sequence[int]) -> list[Attempt]:
    """Load all attempts of jobs, oldest first."""
    columns = [c for c in _attempts.c if c.name not in ("report", "request_id", "lane_id")]
    statement = sa.select(*columns).where(_attempts.c.job_id.in_(list(job_ids)))
    rows = connection.execute(statement.order_by(_attempts.c.job_id, _attempts.c.number))
    return [attempt_of(row) for row in rows]


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


def _current(job: InState) -> sa.ColumnElement[bool]:
    return sa.and_(_attempts.c.job_id == job.job_id, _attempts.c.number == job.attempt)


def attempt_of(row: Row[Any]) -> Attempt:
    """Make an attempt of a row with the columns of the table that it has."""
    values = dict(row._mapping)
    return Attempt(**(values | {"usage": dict(values["usage"] or {})}))
