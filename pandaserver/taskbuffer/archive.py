"""The archive: jobs that ended long ago, with all that is recorded of them, in tables of their own by month.

What is read of the archive is read like what lives: `find` the jobs first, which also tells in which months to look.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from pandaserver.model.attempt import Attempt
from pandaserver.model.file import File, FileStatus
from pandaserver.model.job import Job, JobWithFiles
from pandaserver.model.states import FINAL, JobState
from pandaserver.taskbuffer import attempts, files, jobs, reasons, retries, schema
from pandaserver.taskbuffer.reasons import RecordedRound
from pandaserver.taskbuffer.retries import RecordedDecision
from pandaserver.taskbuffer.schema_archive import MONTH
from pandaserver.taskbuffer.statements import Prepared, values

_jobs = schema.jobs
_ended = schema.archived["jobs"]


def month_of(moment: datetime) -> date:
    """Give the month that what ended at a moment is kept under: its first day."""
    return moment.date().replace(day=1)


# --- reading


@dataclass(frozen=True)
class Found:
    """Jobs of the archive by id, and the months in which all that is recorded of them lies."""

    jobs: dict[int, Job]
    months: tuple[date, ...]


def find(connection: Connection, job_ids: Iterable[int]) -> Found:
    """Load jobs of the archive by id; those that are not there are left out."""
    wanted = sorted(set(job_ids))
    rows = [row for part in jobs.in_parts(wanted) for row in _FIND.rows(connection, ids=part)]
    loaded = {job.job_id: job for job in (jobs.job_of(row[1:]) for row in rows)}
    return Found(loaded, tuple(sorted({row[0] for row in rows})))


_FIND = Prepared(
    sa.select(_ended.c[MONTH], *(_ended.c[column.name] for column in _jobs.c))
    .where(_ended.c.job_id.in_(values("ids")))
    .order_by(_ended.c.job_id)
)


def load_jobs(connection: Connection, found: Found) -> list[JobWithFiles]:
    """Load jobs of the archive together with their files."""
    own: dict[int, list[File]] = defaultdict(list)
    for row in _rows(connection, schema.files, found):
        own[row.job_id].append(files.file_of(row))
    return [JobWithFiles(job=job, files=tuple(own[job_id])) for job_id, job in found.jobs.items()]


def details_of(connection: Connection, found: Found) -> dict[int, jobs.Details]:
    """Give the long texts of jobs."""
    rows = _rows(connection, schema.job_details, found)
    return {r.job_id: jobs.texts_of([getattr(r, field.name) for field in fields(jobs.Details)]) for r in rows}


def history_of(connection: Connection, found: Found) -> list[jobs.HistoryRow]:
    """Give all changes of state, job by job, oldest first."""
    return [jobs.change_of(row) for row in _rows(connection, schema.job_history, found)]


def errors_of(connection: Connection, found: Found) -> dict[int, list[jobs.RecordedError]]:
    """Give the recorded errors by job, oldest first."""
    errors: dict[int, list[jobs.RecordedError]] = defaultdict(list)
    for row in _rows(connection, schema.job_errors, found):
        errors[row.job_id].append(jobs.error_of(row))
    return errors


def attempts_of(connection: Connection, found: Found) -> list[Attempt]:
    """Give all attempts, job by job, oldest first."""
    told = [field.name for field in fields(Attempt)]
    return [attempts.attempt_of(row) for row in _rows(connection, schema.attempts, found, only=told)]


def rounds_of(connection: Connection, found: Found) -> list[RecordedRound]:
    """Give the rounds of the brokerage, job by job, oldest first."""
    older, rounds = (_rows(connection, t, found) for t in (schema.brokerage_reasons, schema.brokerage_rounds))
    return reasons.read(older, rounds)


def decisions_of(connection: Connection, found: Found) -> list[RecordedDecision]:
    """Give what was decided after failed attempts, job by job, oldest first."""
    told = [field.name for field in fields(RecordedDecision)]
    return [retries.decision_of(row) for row in _rows(connection, schema.retry_decisions, found, only=told)]


def _rows(
    connection: Connection, live: sa.Table, found: Found, *, only: Sequence[str] | None = None
) -> list[Row[tuple[object, ...]]]:
    """Read what is recorded of jobs: rows with the columns of the table of living jobs, or only some of them."""
    table = schema.archived[live.name]
    columns = [table.c[name] for name in only or live.c.keys()]
    statement = sa.select(*columns).order_by(*table.primary_key.columns)
    return [
        row
        for part in jobs.in_parts(list(found.jobs))
        for row in connection.execute(statement.where(table.c.job_id.in_(part), table.c[MONTH].in_(found.months)))
    ]


def owners(connection: Connection, job_ids: Iterable[int]) -> dict[int, str]:
    """Tell whose the jobs are that are in the archive; those that are not there are left out."""
    wanted = sorted(set(job_ids))
    return {job_id: owner for part in jobs.in_parts(wanted) for job_id, owner in _OWNERS.rows(connection, ids=part)}


_OWNERS = Prepared(sa.select(_ended.c.job_id, _ended.c.owner).where(_ended.c.job_id.in_(values("ids"))))


# --- moving


@dataclass(frozen=True)
class Due:
    """Which jobs are due: those that ended before a moment; with files still on their way, before another."""

    ended_before: datetime
    unsettled_before: datetime


def find_due(connection: Connection, due: Due, limit: int) -> list[int]:
    """Find jobs that shall go into the archive, and that nobody is working on right now."""
    found: list[int] = []
    for state in FINAL:
        found += list(connection.execute(_due(state, due, limit - len(found))).scalars())
    return found


def _due(state: JobState, due: Due, limit: int) -> sa.Select[int]:
    moving = sa.and_(schema.files.c.job_id == _jobs.c.job_id, schema.files.c.status == FileStatus.TRANSFERRING.value)
    settled = ~sa.exists().where(moving)
    conditions = (_jobs.c.state == state.value, _jobs.c.state_since < due.ended_before)
    statement = sa.select(_jobs.c.job_id).where(*conditions, settled | (_jobs.c.state_since < due.unsettled_before))
    return statement.order_by(_jobs.c.state_since).limit(limit)


def move(connection: Connection, job_ids: Sequence[int]) -> int:
    """Move ended jobs into the archive, with all that is recorded of them; tell how many.

    Those that somebody else holds at this moment are left for the next time.
    """
    by_month: dict[date, list[int]] = defaultdict(list)
    for job_id, ended_at in _HOLD.rows(connection, ids=sorted(job_ids)):
        by_month[month_of(ended_at)].append(job_id)
    for month, held in by_month.items():
        for copy in _COPY:
            copy.run(connection, ids=held, month=month)
        _DELETE.run(connection, ids=held)
    return sum(map(len, by_month.values()))


# A job that has ended never changes its state again, and whoever changes its files holds the job.
_HOLD = Prepared(
    sa.select(_jobs.c.job_id, _jobs.c.state_since)
    .where(_jobs.c.job_id.in_(values("ids")))
    .order_by(_jobs.c.job_id)
    .with_for_update(skip_locked=True)
)


def _copy(live: sa.Table) -> Prepared:
    table, month = schema.archived[live.name], sa.bindparam("month", type_=sa.Date)
    rows = sa.select(*live.c, month.label(MONTH)).where(live.c.job_id.in_(values("ids")))
    return Prepared(sa.insert(table).from_select([*live.c.keys(), MONTH], rows))


_COPY = [_copy(schema.metadata.tables[name]) for name in schema.archived]
_DELETE = Prepared(sa.delete(_jobs).where(_jobs.c.job_id.in_(values("ids"))))  # all that refers to them goes with them


def forget(connection: Connection, before: date, limit: int) -> int:
    """Delete jobs of months before a month, at most so many; tell how many."""
    statement = sa.select(_ended.c.job_id).where(_ended.c[MONTH] < before).order_by(_ended.c.job_id).limit(limit)
    job_ids = list(connection.execute(statement).scalars())
    for one in schema.archived.values():
        connection.execute(sa.delete(one).where(one.c.job_id.in_(job_ids), one.c[MONTH] < before))
    return len(job_ids)


def oldest_end(connection: Connection) -> datetime | None:
    """Tell when the first of the jobs ended that have ended and live outside of the archive."""
    first = [
        connection.execute(sa.select(sa.func.min(_jobs.c.state_since, type_=schema.UTC6())).where(_jobs.c.state == s))
        for s in FINAL
    ]
    return min((end for end in (one.scalar_one() for one in first) if end is not None), default=None)
