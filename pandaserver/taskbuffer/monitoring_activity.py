"""What the monitor reads of the present and the last hours: counts, endings, errors, pilots, background work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.model.codes import ErrorFamily
from pandaserver.model.states import FINAL, WITH_PILOT, JobState
from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.shelves import ARCHIVE, Shelf, shelves, together

ERROR_LIMIT = 50_000  # errors looked at for one grouping; more is told as partial

_jobs = schema.jobs
_work = schema.work
_activity = schema.queue_activity


@dataclass(frozen=True)
class Living:
    """Jobs of one site in one state that is not final."""

    site: str
    state: JobState
    number: int
    oldest: datetime  # in this state since


def living(connection: Connection) -> list[Living]:
    """Count all jobs that have not ended, by site and state."""
    states = [s.value for s in JobState if s not in FINAL]
    oldest = sa.func.min(_jobs.c.state_since, type_=schema.UTC6()).label("oldest")
    columns = (_jobs.c.site, _jobs.c.state, sa.func.count().label("number"), oldest)
    statement = sa.select(*columns).where(_jobs.c.state.in_(states)).group_by(_jobs.c.site, _jobs.c.state)
    return [Living(r.site or "", JobState(r.state), r.number, r.oldest) for r in connection.execute(statement)]


@dataclass(frozen=True)
class Ended:
    """Jobs of one site that ended alike within the same ten minutes."""

    site: str
    state: JobState
    at: datetime  # start of the ten minutes
    number: int


def ended(connection: Connection, since: datetime, *, site: str | None = None) -> list[Ended]:
    """Count the jobs that ended since a moment, by site, state and ten minutes."""
    chosen = together([_ended(shelf, since, site) for shelf in shelves()]).subquery()
    rows = connection.execute(sa.select(*chosen.c, sa.func.count().label("number")).group_by(*chosen.c))
    return [Ended(r.site or "", JobState(r.state), _moment(r.ten_minutes), r.number) for r in rows]


def _ended(shelf: Shelf, since: datetime, site: str | None) -> sa.Select[tuple[object, ...]]:
    table = shelf.jobs
    # the first 15 letters of a time are its ten minutes, in every database
    ten_minutes = sa.func.substr(sa.cast(table.c.state_since, sa.String(32)), 1, 15).label("ten_minutes")
    conditions = [table.c.state.in_([s.value for s in FINAL]), table.c.state_since >= since]
    conditions += shelf.since(table, since)
    if site is not None:
        conditions.append(table.c.site == site)
    return sa.select(table.c.site, table.c.state, ten_minutes).where(*conditions)


def _moment(ten_minutes: str) -> datetime:
    return datetime.strptime(f"{ten_minutes}0", "%Y-%m-%d %H:%M").replace(tzinfo=UTC)


def tallies(living_jobs: Sequence[Living], ended_jobs: Sequence[Ended]) -> Iterator[tuple[str, JobState, int]]:
    """Give all counts alike, as (site, state, number)."""
    yield from ((one.site, one.state, one.number) for one in living_jobs)
    yield from ((one.site, one.state, one.number) for one in ended_jobs)


@dataclass(frozen=True)
class Silent:
    """Jobs of one site whose pilots say nothing."""

    site: str
    number: int
    last_word: datetime  # the oldest


def silent(connection: Connection, before: datetime) -> list[Silent]:
    """Count jobs with a pilot that was last heard before a moment."""
    oldest = sa.func.min(_jobs.c.modified_at, type_=schema.UTC6()).label("oldest")
    statement = (
        sa.select(_jobs.c.site, sa.func.count().label("number"), oldest)
        .where(_jobs.c.state.in_([s.value for s in WITH_PILOT]), _jobs.c.modified_at < before)
        .group_by(_jobs.c.site)
    )
    return [Silent(r.site or "", r.number, r.oldest) for r in connection.execute(statement)]


@dataclass(frozen=True)
class MissingInput:
    """Jobs that wait for files of one dataset."""

    dataset: str
    jobs: int
    oldest_job: int


def missing_inputs(connection: Connection, limit: int = 20) -> list[MissingInput]:
    """Tell which datasets waiting jobs wait for, the most wanted first."""
    file = schema.files
    number = sa.func.count(sa.distinct(file.c.job_id)).label("jobs")
    statement = (
        sa.select(file.c.dataset, number, sa.func.min(file.c.job_id).label("oldest_job"))
        .join(_jobs, _jobs.c.job_id == file.c.job_id)
        .where(_jobs.c.state == JobState.WAITING.value, file.c.type == "input", file.c.status == "missing")
        .group_by(file.c.dataset)
        .order_by(number.desc())
        .limit(limit)
    )
    return [MissingInput(r.dataset, r.jobs, r.oldest_job) for r in connection.execute(statement)]


@dataclass(frozen=True)
class ErrorCount:
    """The same error with the same words at the same site."""

    family: ErrorFamily
    code: int
    diagnostic: str
    site: str
    number: int
    last_at: datetime
    last_job: int


@dataclass(frozen=True)
class Errors:
    """Errors of a stretch of time; partial when there are more than were looked at."""

    counts: tuple[ErrorCount, ...]
    partial: bool


@dataclass(frozen=True, kw_only=True)
class ErrorFilter:
    """Which errors; empty means any."""

    since: datetime
    family: ErrorFamily | None = None
    code: int | None = None
    site: str = ""


def errors(connection: Connection, chosen: ErrorFilter, *, limit: int = ERROR_LIMIT) -> Errors:
    """Count errors by family, code, words and site, looking at the newest `limit` of them."""
    told = together([_newest(shelf, chosen, limit + 1) for shelf in shelves()]).subquery()
    key = (told.c.family, told.c.code, told.c.diagnostic, told.c.site)
    last = sa.func.max(told.c.at, type_=schema.UTC6()).label("last_at")
    counted = sa.select(*key, sa.func.count().label("number"), last, sa.func.max(told.c.job_id).label("last_job"))
    rows = list(connection.execute(counted.group_by(*key)))
    return Errors(tuple(_error(r) for r in rows), partial=sum(r.number for r in rows) > limit)


def _newest(shelf: Shelf, chosen: ErrorFilter, limit: int) -> sa.Select[tuple[object, ...]]:
    """Give the newest errors with the place where they happened: the queue of the attempt, or else of the job."""
    error, job, attempt = shelf.errors, shelf.jobs, shelf.attempts
    conditions = [error.c.at >= chosen.since, *shelf.since(error, chosen.since)]
    if chosen.family is not None:
        conditions.append(error.c.family == chosen.family.value)
    if chosen.code is not None:
        conditions.append(error.c.code == chosen.code)
    newest = sa.select(error).where(*conditions).order_by(error.c.at.desc()).limit(limit).subquery()
    site = sa.func.coalesce(attempt.c.queue, job.c.site, "")
    tried = sa.and_(shelf.same_job(newest, attempt), attempt.c.number == newest.c.attempt)
    columns = (newest.c.family, newest.c.code, newest.c.diagnostic, newest.c.at, newest.c.job_id, site.label("site"))
    places = newest.join(job, shelf.same_job(newest, job)).outerjoin(attempt, tried)
    statement = sa.select(*columns).select_from(places)
    return statement.where(site == chosen.site) if chosen.site else statement


def _error(row: sa.Row[tuple[object, ...]]) -> ErrorCount:
    values = dict(row._mapping)
    return ErrorCount(**(values | {"family": ErrorFamily(values["family"])}))


# --- pilots ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PilotHour:
    """Calls of pilots in one hour."""

    hour: datetime
    requests: int
    jobs: int
    updates: int


def pilot_hours(connection: Connection, queue: str, since: datetime) -> list[PilotHour]:
    """Give the calls of a queue's pilots by hour, oldest first."""
    columns = (_activity.c.hour, _activity.c.requests, _activity.c.jobs, _activity.c.updates)
    match = sa.and_(_activity.c.queue == queue, _activity.c.hour > since - timedelta(hours=1))
    rows = connection.execute(sa.select(*columns).where(match).order_by(_activity.c.hour))
    return [PilotHour(**r._mapping) for r in rows]


@dataclass(frozen=True)
class Node:
    """What one machine did lately."""

    node: str
    running: int
    finished: int
    failed: int
    lost: int
    last_claim: datetime


def nodes(connection: Connection, queue: str, since: datetime, limit: int = 200) -> list[Node]:
    """Tell how the attempts of a queue ended, machine by machine, those with most failures first."""

    tried = together([_tried(shelf, queue, since) for shelf in shelves()]).subquery()

    def number(outcome: str | None) -> sa.ColumnElement[int]:
        match = tried.c.outcome == outcome if outcome else tried.c.ended_at.is_(None)
        return sa.func.sum(sa.case((match, 1), else_=0)).label(outcome or "running")

    failed, lost = number("failed"), number("lost")
    last = sa.func.max(tried.c.claimed_at, type_=schema.UTC6()).label("last_claim")
    statement = (
        sa.select(tried.c.node, number(None), number("finished"), failed, lost, last)
        .group_by(tried.c.node)
        .order_by(sa.desc(failed + lost), tried.c.node)
        .limit(limit)
    )
    return [
        Node(r.node, int(r.running), int(r.finished), int(r.failed), int(r.lost), r.last_claim)
        for r in connection.execute(statement)
    ]


def _tried(shelf: Shelf, queue: str, since: datetime) -> sa.Select[tuple[object, ...]]:
    table = shelf.attempts
    lately = table.c.ended_at >= since
    recent = lately if shelf is ARCHIVE else sa.or_(table.c.ended_at.is_(None), lately)
    columns = (table.c.node, table.c.outcome, table.c.ended_at, table.c.claimed_at)
    return sa.select(*columns).where(table.c.queue == queue, recent, *shelf.since(table, since))


# --- the server's own work ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WorkKind:
    """Open background work of one kind."""

    kind: str
    number: int
    held: int
    late: int  # nobody has it though it was due before the moment asked about
    retried: int
    max_tries: int
    oldest: datetime


def work_kinds(connection: Connection, late_before: datetime) -> list[WorkKind]:
    """Count open work by kind."""
    free = _work.c.owner.is_(None)

    def number(name: str, condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
        return sa.func.sum(sa.case((condition, 1), else_=0)).label(name)

    statement = sa.select(
        _work.c.kind,
        sa.func.count().label("number"),
        number("held", ~free),
        number("late", _work.c.due_at < late_before),
        number("retried", _work.c.tries > 0),
        sa.func.max(_work.c.tries).label("max_tries"),
        sa.func.min(_work.c.created_at, type_=schema.UTC6()).label("oldest"),
    ).group_by(_work.c.kind)
    return [
        WorkKind(r.kind, r.number, int(r.held), int(r.late), int(r.retried), r.max_tries, r.oldest)
        for r in connection.execute(statement.order_by(_work.c.kind))
    ]


@dataclass(frozen=True)
class Trouble:
    """A piece of work that failed so far."""

    kind: str
    key: str
    tries: int
    due_at: datetime
    created_at: datetime
    last_error: str


def failing_work(connection: Connection, limit: int = 50) -> list[Trouble]:
    """Give the work that was tried in vain most often."""
    columns = (_work.c.kind, _work.c.key, _work.c.tries, _work.c.due_at, _work.c.created_at, _work.c.last_error)
    statement = sa.select(*columns).where(_work.c.last_error.is_not(None)).order_by(_work.c.tries.desc()).limit(limit)
    return [Trouble(**row._mapping) for row in connection.execute(statement)]


@dataclass(frozen=True)
class DutyState:
    """A periodic duty: who does it, when it was done, with what result."""

    name: str
    owner: str | None
    lease_until: datetime | None
    next_run_at: datetime
    last_run_at: datetime | None
    last_result: str | None


def duty_states(connection: Connection) -> Sequence[DutyState]:
    """Give all duties."""
    return [DutyState(**r._mapping) for r in connection.execute(sa.select(schema.duties).order_by("name"))]
