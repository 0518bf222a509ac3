"""Jobs: accepting, loading, and the one function that changes a state."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from pandaserver.errors import InvalidTransition
from pandaserver.model.codes import DIAGNOSTIC_LENGTH, ErrorFamily, JobError
from pandaserver.model.job import PRODUCTION_LABELS, Job, NewJob
from pandaserver.model.states import FINAL, JobState, allowed
from pandaserver.taskbuffer import schema

_jobs = schema.jobs
_REASON_LENGTH = 500


@dataclass(frozen=True)
class Accepted:
    """A new job with what the server adds to it."""

    job_id: int
    job: NewJob
    owner: str
    owner_name: str
    priority: int


@dataclass(frozen=True)
class HistoryRow:
    """One change of state."""

    job_id: int
    at: datetime
    from_state: JobState | None
    to_state: JobState
    attempt: int
    reason: str


@dataclass(frozen=True)
class RecordedError:
    """One error of one attempt, with its time."""

    job_id: int
    attempt: int
    at: datetime
    error: JobError


@dataclass(frozen=True)
class Details:
    """The long texts of a job."""

    parameters: str
    metadata: str
    attributes: dict[str, object]
    log_extract: str
    stdout_tail: str


def insert(connection: Connection, accepted: Sequence[Accepted], now: datetime) -> None:
    """Write new jobs as `defined`, with their details and first history row; files are files.insert's."""
    connection.execute(sa.insert(_jobs), [_new_row(a, now) for a in accepted])
    details = [{"job_id": a.job_id, "parameters": a.job.parameters, "attributes": a.job.attributes} for a in accepted]
    connection.execute(sa.insert(schema.job_details), details)
    first = [_history(a.job_id, None, JobState.DEFINED, now, reason="submitted") for a in accepted]
    connection.execute(sa.insert(schema.job_history), first)


_NOT_COLUMNS = ("files", "attributes", "parameters")


def _new_row(accepted: Accepted, now: datetime) -> dict[str, Any]:
    wanted = {key: value for key, value in vars(accepted.job).items() if key not in _NOT_COLUMNS}
    return wanted | {
        "job_id": accepted.job_id,
        "state": JobState.DEFINED.value,
        "owner": accepted.owner,
        "owner_name": accepted.owner_name,
        "priority": accepted.priority,
        "pinned": accepted.job.site is not None,
        "created_at": now,
        "state_since": now,
        "modified_at": now,
    }


def load(connection: Connection, job_ids: Iterable[int], *, lock: bool = False) -> dict[int, Job]:
    """Load jobs by id; with `lock` nobody else changes them until the transaction ends. Unknown ids are left out."""
    statement = sa.select(_jobs).where(_jobs.c.job_id.in_(sorted(set(job_ids)))).order_by(_jobs.c.job_id)
    rows = connection.execute(statement.with_for_update() if lock else statement)
    return {row.job_id: _job(row) for row in rows}


def load_in_state(
    connection: Connection, state: JobState, before: datetime, limit: int, *, production: bool | None = None
) -> list[Job]:
    """Load jobs that have been in a state since before a moment, oldest first; of one kind only where told."""
    conditions = [_jobs.c.state == state.value, _jobs.c.state_since < before]
    if production is not None:
        kind = _jobs.c.label.in_(sorted(PRODUCTION_LABELS))
        conditions.append(kind if production else sa.not_(kind))
    statement = sa.select(_jobs).where(*conditions).order_by(_jobs.c.state_since).limit(limit)
    return [_job(row) for row in connection.execute(statement)]


def with_dispatch_dataset(connection: Connection, dataset: str) -> list[int]:
    """Find the jobs that wait for a dispatch dataset."""
    statement = sa.select(_jobs.c.job_id).where(
        _jobs.c.dispatch_dataset == dataset, _jobs.c.state == JobState.ASSIGNED.value
    )
    return list(connection.execute(statement).scalars())


def change_state(
    connection: Connection, changed: Sequence[Job], new: JobState, *, now: datetime, reason: str, **columns: Any
) -> None:
    """Move jobs to `new`, with other columns where given, and write their history: the only place that does.

    The jobs must have been loaded with `lock` in this transaction.

    Raises:
        InvalidTransition: the table of transitions forbids it for one of them; nothing is changed.
    """
    for job in changed:
        if not allowed(job.state, new):
            text = f"job {job.job_id} is {job.state} and may not become {new}"
            raise InvalidTransition(text, field="jobStatus", value=new)
    if not changed:
        return
    ids = [job.job_id for job in changed]
    ended = {"ended_at": now} if new in FINAL else {}
    values: dict[str, Any] = {"state": new.value, "state_since": now, "modified_at": now} | ended | columns
    connection.execute(sa.update(_jobs).where(_jobs.c.job_id.in_(ids)).values(values))
    rows = [_history(j.job_id, j.state, new, now, attempt=j.attempt, reason=reason) for j in changed]
    connection.execute(sa.insert(schema.job_history), rows)
    _keep_ready(connection, changed, new, columns)


def _keep_ready(connection: Connection, changed: Sequence[Job], new: JobState, columns: dict[str, Any]) -> None:
    """Let the table of activated jobs follow, in the same transaction."""
    leaving = [job.job_id for job in changed if job.state is JobState.ACTIVATED]
    if leaving:
        connection.execute(sa.delete(schema.ready).where(schema.ready.c.job_id.in_(leaving)))
    if new is JobState.ACTIVATED:
        connection.execute(sa.insert(schema.ready), [_ready_row(job, columns) for job in changed])


def _ready_row(job: Job, columns: dict[str, Any]) -> dict[str, Any]:
    return {
        "queue": columns.get("site", job.site),
        "rank": -job.priority,
        "job_id": job.job_id,
        "label": job.label,
        "memory_mb": job.memory_mb,
        "disk_mb": job.disk_mb,
        "wall_time_s": job.wall_time_s,
    }


def touch(connection: Connection, job_ids: Sequence[int], now: datetime) -> None:
    """Note that a pilot spoke of these jobs."""
    connection.execute(sa.update(_jobs).where(_jobs.c.job_id.in_(sorted(job_ids))).values(modified_at=now))


def restart_clock(connection: Connection, job_ids: Sequence[int], now: datetime) -> None:
    """Let the time in their state begin anew for jobs that stay where they are."""
    values = {"state_since": now, "modified_at": now}
    connection.execute(sa.update(_jobs).where(_jobs.c.job_id.in_(sorted(job_ids))).values(values))


def set_command(connection: Connection, job_ids: Sequence[int], command: str) -> None:
    """Leave a command that the pilot gets with its next heartbeat."""
    connection.execute(sa.update(_jobs).where(_jobs.c.job_id.in_(sorted(job_ids))).values(command=command))


def add_errors(connection: Connection, job: Job, errors: Sequence[JobError], now: datetime) -> None:
    """Record what went wrong with the current attempt."""
    if errors:
        connection.execute(sa.insert(schema.job_errors), [_error_row(job, e, now) for e in errors])


def _error_row(job: Job, error: JobError, now: datetime) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "attempt": job.attempt,
        "family": error.family.value,
        "code": error.code,
        "diagnostic": error.diagnostic[: DIAGNOSTIC_LENGTH[error.family]],
        "at": now,
    }


def errors_of(connection: Connection, job_ids: Iterable[int]) -> dict[int, list[RecordedError]]:
    """Give the recorded errors by job, oldest first."""
    table = schema.job_errors
    found: dict[int, list[RecordedError]] = defaultdict(list)
    statement = sa.select(table).where(table.c.job_id.in_(list(job_ids))).order_by(table.c.error_id)
    for row in connection.execute(statement):
        error = JobError(ErrorFamily(row.family), row.code, row.diagnostic)
        found[row.job_id].append(RecordedError(row.job_id, row.attempt, row.at, error))
    return found


def history_of(connection: Connection, job_id: int) -> list[HistoryRow]:
    """Give all changes of state of a job, oldest first."""
    table = schema.job_history
    rows = connection.execute(sa.select(table).where(table.c.job_id == job_id).order_by(table.c.history_id))
    return [
        HistoryRow(
            r.job_id, r.at, JobState(r.from_state) if r.from_state else None, JobState(r.to_state), r.attempt, r.reason
        )
        for r in rows
    ]


def details_of(connection: Connection, job_ids: Iterable[int]) -> dict[int, Details]:
    """Give the long texts of jobs."""
    table = schema.job_details
    rows = connection.execute(sa.select(table).where(table.c.job_id.in_(list(job_ids))))
    return {
        r.job_id: Details(r.parameters, r.metadata or "", dict(r.attributes), r.log_extract or "", r.stdout_tail or "")
        for r in rows
    }


def save_details(connection: Connection, job_id: int, **texts: str) -> None:
    """Replace some of the long texts of a job: metadata, log_extract, stdout_tail."""
    if texts:
        table = schema.job_details
        connection.execute(sa.update(table).where(table.c.job_id == job_id).values(texts))


def count_by_queue_and_state(connection: Connection) -> dict[str, dict[str, int]]:
    """Count live jobs by queue and state; jobs without a queue stand under the empty name."""
    columns = (_jobs.c.site, _jobs.c.state, sa.func.count().label("number"))
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for row in connection.execute(sa.select(*columns).group_by(_jobs.c.site, _jobs.c.state)):
        counts[row.site or ""][row.state] = row.number
    return dict(counts)


def count_unfinished(connection: Connection, owner: str) -> int:
    """Count the jobs of a user that are not in a final state."""
    final = [state.value for state in FINAL]
    statement = sa.select(sa.func.count()).where(_jobs.c.owner == owner, _jobs.c.state.not_in(final))
    return int(connection.execute(statement).scalar_one())


def _history(
    job_id: int, old: JobState | None, new: JobState, now: datetime, *, attempt: int = 0, reason: str = ""
) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "at": now,
        "from_state": old.value if old else None,
        "to_state": new.value,
        "attempt": attempt,
        "reason": reason[:_REASON_LENGTH],
    }


def _job(row: Row[Any]) -> Job:
    values = dict(row._mapping)
    return Job(**(values | {"state": JobState(values["state"])}))
