"""Jobs: accepting, loading, and the one function that changes a state."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from pandaserver.errors import InvalidTransition
from pandaserver.model.codes import DIAGNOSTIC_LENGTH, ErrorFamily, JobError
from pandaserver.model.job import PRODUCTION_LABELS, InState, Job, NewJob, PlacedJob
from pandaserver.model.states import FINAL, JobState, allowed
from pandaserver.taskbuffer import lanes, schema
from pandaserver.taskbuffer.statements import Prepared, Upsert, values

T = TypeVar("T")

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
    _INSERT.many(connection, [_new_row(a, now) for a in accepted])
    details = [{"job_id": a.job_id, "parameters": a.job.parameters, "attributes": a.job.attributes} for a in accepted]
    _INSERT_DETAILS.many(connection, details)
    first = [_history(a.job_id, None, JobState.DEFINED, now, reason="submitted") for a in accepted]
    _INSERT_HISTORY.many(connection, first)


_INSERT = Prepared(sa.insert(_jobs))
_INSERT_DETAILS = Prepared(sa.insert(schema.job_details))
_INSERT_HISTORY = Prepared(sa.insert(schema.job_history))
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
    wanted = sorted(set(job_ids))
    statement = _LOCK if lock else _LOAD
    return {row[0]: job_of(row) for part in in_parts(wanted) for row in statement.rows(connection, ids=part)}


_LOAD = Prepared(sa.select(_jobs).where(_jobs.c.job_id.in_(values("ids"))).order_by(_jobs.c.job_id))
_LOCK = Prepared(sa.select(_jobs).where(_jobs.c.job_id.in_(values("ids"))).order_by(_jobs.c.job_id).with_for_update())


def lock(connection: Connection, known: Iterable[Job]) -> dict[int, Job]:
    """Lock jobs that were loaded before; give them by id as they are now, and read again only what has changed."""
    before = {job.job_id: job for job in known}
    same, changed = dict[int, Job](), list[int]()
    for part in in_parts(sorted(before)):
        for row in _LOCK_MARKS.rows(connection, ids=part):
            job = before[row[0]]
            if all(getattr(job, name) == now for name, now in zip(_MARKS, row, strict=True)):
                same[job.job_id] = job
            else:
                changed.append(job.job_id)
    found = same | (load(connection, changed, lock=True) if changed else {})
    return {job_id: found[job_id] for job_id in sorted(found)}


_MARKS = ("job_id", "state", "attempt", "priority", "command", "modified_at")  # one at least changes with any other
_LOCK_MARKS = Prepared(
    sa.select(*(_jobs.c[name] for name in _MARKS))
    .where(_jobs.c.job_id.in_(values("ids")))
    .order_by(_jobs.c.job_id)
    .with_for_update()
)


def lock_placed(connection: Connection, job_ids: Iterable[int]) -> dict[int, PlacedJob]:
    """Load with lock what matters when pilots speak of jobs; unknown ids are left out."""
    parts = in_parts(sorted(set(job_ids)))
    rows = [row for part in parts for row in _LOCK_PLACED.rows(connection, ids=part)]
    return {row[0]: PlacedJob(row[0], JobState(row[1]), *row[2:]) for row in rows}


_LOCK_PLACED = Prepared(
    sa.select(*(_jobs.c[field.name] for field in fields(PlacedJob)))
    .where(_jobs.c.job_id.in_(values("ids")))
    .order_by(_jobs.c.job_id)
    .with_for_update()
)


def load_in_state(
    connection: Connection,
    state: JobState,
    before: datetime,
    *,
    limit: int,
    production: bool | None = None,
    unless_work: str | None = None,
) -> list[Job]:
    """Load jobs that have been in a state since before a moment, oldest first; of one kind only where told.

    Args:
        unless_work: leave out those for whose attempt there still is work of this kind.
    """
    conditions = [_jobs.c.state == state.value, _jobs.c.state_since < before]
    if unless_work is not None:
        key = sa.cast(_jobs.c.job_id, sa.String(20)) + "." + sa.cast(_jobs.c.attempt, sa.String(20))
        conditions.append(~sa.exists().where(schema.work.c.kind == unless_work, schema.work.c.key == key))
    if production is not None:
        kind = _jobs.c.label.in_(sorted(PRODUCTION_LABELS))
        conditions.append(kind if production else sa.not_(kind))
    statement = sa.select(_jobs).where(*conditions).order_by(_jobs.c.state_since).limit(limit)
    return [job_of(row) for row in connection.execute(statement)]


def with_dispatch_dataset(connection: Connection, dataset: str) -> list[int]:
    """Find the jobs that wait for a dispatch dataset."""
    statement = sa.select(_jobs.c.job_id).where(
        _jobs.c.dispatch_dataset == dataset, _jobs.c.state == JobState.ASSIGNED.value
    )
    return list(connection.execute(statement).scalars())


def dispatch_datasets_in_use(connection: Connection, names: Iterable[str]) -> set[str]:
    """Tell which dispatch datasets belong to a job that has not ended."""
    return {row[0] for row in _IN_USE.rows(connection, names=sorted(set(names)), ended=sorted(s.value for s in FINAL))}


_IN_USE = Prepared(
    sa.select(_jobs.c.dispatch_dataset)
    .distinct()
    .where(_jobs.c.dispatch_dataset.in_(values("names")), _jobs.c.state.not_in(values("ended")))
)


def change_state(
    connection: Connection, changed: Sequence[Job], new: JobState, *, now: datetime, reason: str, **columns: Any
) -> None:
    """Move jobs to `new`, with other columns where given, and write their history: the only place that does.

    The jobs must have been loaded with `lock` in this transaction.

    Raises:
        InvalidTransition: the table of transitions forbids it for one of them; nothing is changed.
    """
    change_states(connection, [(job, reason) for job in changed], new, now=now, **columns)


def change_states(
    connection: Connection,
    changed: Sequence[tuple[InState, str]],
    new: JobState,
    *,
    now: datetime,
    count_attempt: bool = False,
    **columns: Any,
) -> None:
    """Do what `change_state` does, with a reason of its own for each job; `count_attempt` begins another attempt."""
    for job, _ in changed:
        if not allowed(job.state, new):
            text = f"job {job.job_id} is {job.state} and may not become {new}"
            raise InvalidTransition(text, field="jobStatus", value=new)
    if not changed:
        return
    ended = {"ended_at": now} if new in FINAL else {}
    given: dict[str, Any] = {"state": new.value, "state_since": now, "modified_at": now} | ended | columns
    _set(connection, [job.job_id for job, _ in changed], given, count_attempt=count_attempt)
    rows = [_history(j.job_id, j.state, new, now, attempt=j.attempt, reason=reason) for j, reason in changed]
    _INSERT_HISTORY.many(connection, rows)
    _keep_lanes(connection, [job for job, _ in changed], new, now, columns)


def _set(
    connection: Connection, job_ids: Sequence[int], columns: Mapping[str, Any], *, count_attempt: bool = False
) -> None:
    """Give jobs the same values."""
    statement = _update_of(tuple(sorted(columns)), count_attempt)
    for part in in_parts(sorted(job_ids)):
        statement.run(connection, ids=part, **{f"new_{name}": value for name, value in columns.items()})


@cache
def _update_of(names: tuple[str, ...], count_attempt: bool) -> Prepared:
    given: dict[str, Any] = {name: sa.bindparam(f"new_{name}", type_=_jobs.c[name].type) for name in names}
    if count_attempt:
        given["attempt"] = _jobs.c.attempt + 1
    return Prepared(sa.update(_jobs).where(_jobs.c.job_id.in_(values("ids"))).values(given))


def _keep_lanes(
    connection: Connection, changed: Sequence[InState], new: JobState, now: datetime, columns: Mapping[str, Any]
) -> None:
    """Let the lanes of activated jobs follow, in the same transaction."""
    leaving = [job.job_id for job in changed if job.state is JobState.ACTIVATED]
    if leaving:
        lanes.leave(connection, leaving)
    if new is JobState.ACTIVATED:
        known = {name: columns[name] for name in ("site", "priority") if name in columns}
        whole = [job for job in changed if isinstance(job, Job)]
        if len(whole) < len(changed):
            raise TypeError("to be activated, a job must have been loaded whole")
        lanes.enter(connection, [replace(job, **known) for job in whole] if known else whole, now)


def raise_priority(connection: Connection, raised: Sequence[Job], by: int, *, now: datetime) -> None:
    """Add to the priority of jobs, loaded with lock; those that are activated move forward in their lanes."""
    statement = sa.update(_jobs).where(_jobs.c.job_id.in_([job.job_id for job in raised]))
    connection.execute(statement.values(priority=_jobs.c.priority + by))
    waiting = [replace(job, priority=job.priority + by) for job in raised if job.state is JobState.ACTIVATED]
    if waiting:
        lanes.leave(connection, [job.job_id for job in waiting])
        lanes.enter(connection, waiting, now)


def touch(connection: Connection, job_ids: Sequence[int], now: datetime) -> None:
    """Note that a pilot spoke of these jobs."""
    _set(connection, job_ids, {"modified_at": now})


def restart_clock(connection: Connection, job_ids: Sequence[int], now: datetime) -> None:
    """Let the time in their state begin anew for jobs that stay where they are."""
    _set(connection, job_ids, {"state_since": now, "modified_at": now})


def set_command(connection: Connection, job_ids: Sequence[int], command: str) -> None:
    """Leave a command that the pilot gets with its next heartbeat."""
    _set(connection, job_ids, {"command": command})


def add_errors(connection: Connection, job: InState, errors: Sequence[JobError], now: datetime) -> None:
    """Record what went wrong with the current attempt."""
    _INSERT_ERRORS.many(connection, [_error_row(job, e, now) for e in errors])


_INSERT_ERRORS = Prepared(sa.insert(schema.job_errors))


def _error_row(job: InState, error: JobError, now: datetime) -> dict[str, Any]:
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
        found[row.job_id].append(error_of(row))
    return found


def error_of(row: Row[Any]) -> RecordedError:
    """Make an error of a row with the columns of the table."""
    return RecordedError(row.job_id, row.attempt, row.at, JobError(ErrorFamily(row.family), row.code, row.diagnostic))


def history_of(connection: Connection, job_id: int) -> list[HistoryRow]:
    """Give all changes of state of a job, oldest first."""
    table = schema.job_history
    rows = connection.execute(sa.select(table).where(table.c.job_id == job_id).order_by(table.c.history_id))
    return [change_of(row) for row in rows]


def change_of(row: Row[Any]) -> HistoryRow:
    """Make a change of state of a row with the columns of the table."""
    before = JobState(row.from_state) if row.from_state else None
    return HistoryRow(row.job_id, row.at, before, JobState(row.to_state), row.attempt, row.reason)


def details_of(connection: Connection, job_ids: Iterable[int]) -> dict[int, Details]:
    """Give the long texts of jobs."""
    rows = [row for part in in_parts(list(job_ids)) for row in _DETAILS.rows(connection, ids=part)]
    return {job_id: texts_of(texts) for job_id, *texts in rows}


def texts_of(row: Sequence[Any]) -> Details:
    """Make the long texts of a row that has all columns of the table but the job's id, in the order of the class."""
    parameters, metadata, attributes, extract, tail = row
    return Details(parameters, metadata or "", dict(attributes), extract or "", tail or "")


_DETAIL_COLUMNS = ("job_id", "parameters", "metadata", "attributes", "log_extract", "stdout_tail")
_DETAILS = Prepared(
    sa.select(*(schema.job_details.c[name] for name in _DETAIL_COLUMNS)).where(
        schema.job_details.c.job_id.in_(values("ids"))
    )
)


def orders_of(connection: Connection, job_ids: Sequence[int]) -> dict[int, tuple[str, dict[str, object]]]:
    """Give what pilots need of the long texts: the parameters and the attributes."""
    rows = _ORDERS.rows(connection, ids=job_ids)
    return {job_id: (parameters, dict(attributes)) for job_id, parameters, attributes in rows}


_ORDERS = Prepared(
    sa.select(*(schema.job_details.c[name] for name in ("job_id", "parameters", "attributes"))).where(
        schema.job_details.c.job_id.in_(values("ids"))
    )
)


def save_details(connection: Connection, texts: Mapping[int, Mapping[str, str]]) -> None:
    """Replace some of the long texts of jobs, by id: metadata, log_extract, stdout_tail; the others stay."""
    rows = [_details_row(job_id, told) for job_id, told in sorted(texts.items()) if told]
    _SAVE_DETAILS.many(connection, rows)


_TEXTS = ("metadata", "log_extract", "stdout_tail")
# The rows are there: an "insert" of many is how MariaDB changes many rows, each in its own way, with one statement.
_SAVE_DETAILS = Upsert(
    schema.job_details,
    lambda new: {name: sa.func.coalesce(new[name], schema.job_details.c[name]) for name in _TEXTS},
)


def _details_row(job_id: int, told: Mapping[str, str]) -> dict[str, Any]:
    return {"job_id": job_id, "parameters": "", "attributes": {}} | {name: told.get(name) for name in _TEXTS}


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


_COLUMNS = tuple(column.name for column in _jobs.c)


def job_of(row: Sequence[Any]) -> Job:
    """Make a job of a row that has all columns of the table, in their order."""
    told = dict(zip(_COLUMNS, row, strict=True))
    told["state"] = JobState(told["state"])
    return Job(**told)


AT_ONCE = 1000  # ids, or rows, in one statement


def in_parts(ids: Sequence[T]) -> list[Sequence[T]]:
    """Cut a list of ids into parts that one statement takes."""
    return [ids[start : start + AT_ONCE] for start in range(0, len(ids), AT_ONCE)]
