"""What the monitor reads of jobs: any mix of attributes, counted and listed with a bound on the work, never written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError

from pandaserver.errors import ConfigError, PandaError
from pandaserver.model.codes import ErrorFamily
from pandaserver.model.file import OUTPUTS, FileType
from pandaserver.model.job import Job
from pandaserver.model.states import FINAL, JobState
from pandaserver.taskbuffer import archive, jobs, schema
from pandaserver.taskbuffer.database import Database
from pandaserver.taskbuffer.shelves import ARCHIVE, LIVING, Shelf, shelves, together

T = TypeVar("T")

Snapshot = Connection  # what reading functions work on, for those who may not know sqlalchemy

COUNT_LIMIT = 200_000  # rows looked at for one count; more is told as partial
_STATEMENT_LIMIT_S = 20  # a page never keeps the database busy for longer

_MADE = (*OUTPUTS, FileType.OLD_LOG)


class Unreadable(PandaError):
    """The database does not answer, or not in the way it should."""


class ReadOnlyDatabase:
    """A database that this process cannot write to, whatever it tries."""

    def __init__(self, url: str) -> None:
        try:
            parsed = sa.make_url(url)
            self.shown_url = parsed.render_as_string(hide_password=True)
            self._database = Database(_read_only_file(parsed))
        except (SQLAlchemyError, ImportError) as error:
            raise ConfigError(f"database URL is not acceptable: {error}", field="database") from error
        event.listen(self._database.reader, "connect", _allow_reading_only)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction that cannot write.

        Raises:
            Unreadable: the database is not there, too slow, or of another version.
        """
        try:
            return self._database.read(work)
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error)
            raise Unreadable(f"the database cannot be read: {reason}", field="database") from error

    def close(self) -> None:
        """Close all idle connections."""
        self._database.close()


def _read_only_file(url: sa.URL) -> str:
    """Open an SQLite file in its read-only mode, which also makes no new file where there is none."""
    if url.get_backend_name() == "sqlite" and url.database and not url.database.startswith("file:"):
        return f"sqlite:///file:{quote(str(Path(url.database).absolute()))}?mode=ro&uri=true"
    return url.render_as_string(hide_password=False)


def _allow_reading_only(connection: DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    if type(connection).__module__.startswith("sqlite3"):
        cursor.execute("PRAGMA query_only=ON")
    else:
        cursor.execute("SELECT VERSION()")
        maria = "maria" in str((cursor.fetchone() or [""])[0]).lower()
        limit = f"max_statement_time={_STATEMENT_LIMIT_S}" if maria else f"max_execution_time={_STATEMENT_LIMIT_S}000"
        cursor.execute(f"SET SESSION {limit}")
        cursor.execute("SET SESSION TRANSACTION READ ONLY")
    cursor.close()


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Which jobs; empty means any. `since` leaves out those that ended before, not those that still live."""

    states: tuple[JobState, ...] = ()
    sites: tuple[str, ...] = ()  # the empty name: no site yet
    owners: tuple[str, ...] = ()  # short names or DNs
    labels: tuple[str, ...] = ()
    task_id: int | None = None
    definition_id: int | None = None
    dataset: str = ""  # of an input or output
    name: str = ""  # part of it
    error: tuple[ErrorFamily, int] | None = None
    since: datetime | None = None


@dataclass(frozen=True)
class JobGroup:
    """So many jobs that are alike."""

    state: JobState
    site: str
    label: str
    owner_name: str
    number: int


@dataclass(frozen=True)
class JobCount:
    """All jobs of a filter by what they have in common; partial when there are more than were counted."""

    groups: tuple[JobGroup, ...]
    partial: bool

    @property
    def total(self) -> int:
        """Give the number of jobs counted."""
        return sum(group.number for group in self.groups)


def count_jobs(connection: Connection, chosen: JobFilter, *, limit: int = COUNT_LIMIT) -> JobCount:
    """Count jobs by state, site, label and owner, looking at no more than `limit` of them."""
    looked_at = [
        sa.select(shelf.jobs.c.state, shelf.jobs.c.site, shelf.jobs.c.label, shelf.jobs.c.owner_name)
        .where(*_conditions(shelf, chosen))
        .limit(limit + 1)
        for shelf in _shelves(chosen)
    ]
    one = together(looked_at).limit(limit + 1).subquery()
    rows = connection.execute(sa.select(*one.c, sa.func.count().label("number")).group_by(*one.c))
    groups = tuple(JobGroup(JobState(r.state), r.site or "", r.label, r.owner_name, r.number) for r in rows)
    return JobCount(groups, partial=sum(g.number for g in groups) > limit)


SORTS = {
    "id": "job_id",
    "state": "state",
    "changed": "state_since",
    "created": "created_at",
    "priority": "priority",
    "attempt": "attempt",
    "site": "site",
    "owner": "owner_name",
    "name": "name",
    "task": "task_id",
}  # name of the order -> column


def list_jobs(
    connection: Connection, chosen: JobFilter, *, sort: str = "-id", limit: int = 100, offset: int = 0
) -> list[Job]:
    """Load one screen of jobs; `sort` is a name of SORTS, with a minus for descending."""
    first = [_in_order(shelf, chosen, sort, limit + offset) for shelf in _shelves(chosen)]
    one = together(first).subquery()
    statement = sa.select(one.c.job_id).order_by(*_order(one.c.place, one.c.job_id, sort)).limit(limit).offset(offset)
    ids = list(connection.execute(statement).scalars())
    loaded = load_jobs(connection, ids)
    return [loaded[job_id] for job_id in ids]


def _in_order(shelf: Shelf, chosen: JobFilter, sort: str, limit: int) -> sa.Select[Any]:
    place = shelf.jobs.c[SORTS[sort.removeprefix("-")]]
    statement = sa.select(shelf.jobs.c.job_id, place.label("place")).where(*_conditions(shelf, chosen))
    return statement.order_by(*_order(place, shelf.jobs.c.job_id, sort)).limit(limit)


def _order(place: sa.ColumnElement[Any], job_id: sa.ColumnElement[int], sort: str) -> list[sa.ColumnElement[Any]]:
    return [place.desc(), job_id.desc()] if sort.startswith("-") else [place, job_id]


def load_jobs(connection: Connection, job_ids: Sequence[int]) -> dict[int, Job]:
    """Load jobs by id, living or of the archive; unknown ids are left out."""
    living = jobs.load(connection, job_ids)
    missing = [job_id for job_id in job_ids if job_id not in living]
    return living | archive.find(connection, missing).jobs if missing else living


def errors_of(connection: Connection, job_ids: Sequence[int]) -> dict[int, list[jobs.RecordedError]]:
    """Give the recorded errors of jobs, living or of the archive, oldest first."""
    found = archive.find(connection, job_ids)
    return {**jobs.errors_of(connection, job_ids), **archive.errors_of(connection, found)}


def _shelves(chosen: JobFilter) -> list[Shelf]:
    """Say where jobs of a filter can be: nothing but what has ended is in the archive."""
    return shelves(archive=not chosen.states or any(state in FINAL for state in chosen.states))


def _conditions(shelf: Shelf, chosen: JobFilter) -> list[sa.ColumnElement[bool]]:
    table = shelf.jobs
    found = shelf.since(table, chosen.since)
    if chosen.since:
        found.append(_recent(shelf, chosen.states, chosen.since))
    if chosen.states:
        found.append(table.c.state.in_([s.value for s in chosen.states]))
    if chosen.sites:
        site = sa.func.coalesce(table.c.site, "") if "" in chosen.sites else table.c.site
        found.append(site.in_(chosen.sites))
    if chosen.owners:
        found.append(_owned(shelf, chosen.owners))
    if chosen.labels:
        found.append(table.c.label.in_(chosen.labels))
    numbers = ((table.c.task_id, chosen.task_id), (table.c.definition_id, chosen.definition_id))
    found += [column == number for column, number in numbers if number is not None]
    if chosen.name:
        found.append(table.c.name.contains(chosen.name, autoescape=True))
    return found + _by_other_tables(shelf, chosen)


def _recent(shelf: Shelf, states: Sequence[JobState], since: datetime) -> sa.ColumnElement[bool]:
    """Keep the living and those that ended lately; both sides can use the index on state and time."""
    table = shelf.jobs
    if shelf is ARCHIVE:
        return table.c.state_since >= since
    wanted = states or tuple(JobState)
    living = [s.value for s in wanted if s not in FINAL]
    ended = [s.value for s in wanted if s in FINAL]
    lately = sa.and_(table.c.state.in_(ended), table.c.state_since >= since)
    if not living:
        return lately
    return sa.or_(table.c.state.in_(living), lately) if ended else table.c.state.in_(living)


def _owned(shelf: Shelf, names: Sequence[str]) -> sa.ColumnElement[bool]:
    """Keep the jobs of users, given by DN or short name; in the archive by DN, which has an index there."""
    table = shelf.jobs
    if shelf is LIVING:
        return sa.or_(table.c.owner_name.in_(names), table.c.owner.in_(names))
    user = schema.users
    return table.c.owner.in_(sa.select(user.c.dn).where(sa.or_(user.c.dn.in_(names), user.c.name.in_(names))))


def _by_other_tables(shelf: Shelf, chosen: JobFilter) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = []
    table = shelf.jobs
    if chosen.dataset:
        found.append(table.c.job_id.in_(_with_dataset(shelf, chosen.dataset, chosen.since)))
    if chosen.error:
        error, (family, code) = shelf.errors, chosen.error
        match = [error.c.family == family.value, error.c.code == code, *shelf.since(error, chosen.since)]
        match += [error.c.at >= chosen.since] if chosen.since else []
        found.append(table.c.job_id.in_(sa.select(error.c.job_id).where(*match)))
    return found


def _with_dataset(shelf: Shelf, name: str, since: datetime | None) -> sa.Select[int]:
    """Find the jobs that speak of a dataset, themselves or by a file; each way for itself where it has an index."""
    job, file = shelf.jobs, shelf.files
    said = [job.c.input_dataset == name, job.c.output_dataset == name]
    ways = [(job, way) for way in (said if shelf is ARCHIVE else [sa.or_(*said)])]
    ways += [(file, column == name) for column in (file.c.dataset, file.c.block)]
    found = [sa.select(table.c.job_id).where(way, *shelf.since(table, since)) for table, way in ways]
    return sa.select(sa.union_all(*found).subquery().c.job_id)


def user_named(connection: Connection, name: str) -> bool:
    """Say whether a DN or a short name is of somebody who has submitted, or owns a job that lives."""
    user, table = schema.users, schema.jobs
    known = sa.select(user.c.dn).where(sa.or_(user.c.dn == name, user.c.name == name)).limit(1)
    owns = sa.select(table.c.job_id).where(sa.or_(table.c.owner == name, table.c.owner_name == name)).limit(1)
    return any(connection.execute(statement).first() is not None for statement in (known, owns))


@dataclass(frozen=True)
class Relative:
    """A job that made, or uses, a file."""

    lfn: str
    job_id: int
    state: JobState
    name: str


def makers(connection: Connection, names: Sequence[tuple[str, str]], limit: int = 200) -> list[Relative]:
    """Find the jobs that made files, given as (scope, lfn)."""
    return _relatives(connection, names, _MADE, limit=limit)


def users(connection: Connection, names: Sequence[tuple[str, str]], limit: int = 200) -> list[Relative]:
    """Find the jobs that read files, given as (scope, lfn)."""
    return _relatives(connection, names, ("input",), limit=limit)


def makers_by_name(connection: Connection, lfn: str, limit: int = 10) -> list[Relative]:
    """Find the jobs that made files of a name, in whatever scope, the newest first."""
    found = _with_jobs(lambda file: sa.and_(file.c.lfn == lfn, file.c.type.in_(_MADE)))
    rows = connection.execute(sa.select(found).order_by(found.c.job_id.desc()).limit(limit))
    return [Relative(r.lfn, r.job_id, JobState(r.state), r.name) for r in rows]


def _with_jobs(match: Callable[[sa.Table], sa.ColumnElement[bool]]) -> sa.Subquery:
    """Find files, and what matters of their jobs."""
    found = []
    for shelf in shelves():
        job, file = shelf.jobs, shelf.files
        columns = (file.c.lfn, file.c.scope, job.c.job_id, job.c.state, job.c.name)
        found.append(sa.select(*columns).join(job, shelf.same_job(file, job)).where(match(file)))
    return together(found).subquery()


def _relatives(
    connection: Connection, names: Sequence[tuple[str, str]], types: Sequence[str], *, limit: int
) -> list[Relative]:
    wanted = set(names[:500])
    lfns = sorted({lfn for _, lfn in wanted})
    found = _with_jobs(lambda file: sa.and_(file.c.lfn.in_(lfns), file.c.type.in_(types)))
    rows = connection.execute(sa.select(found).order_by(found.c.job_id).limit(limit)) if wanted else ()
    return [Relative(r.lfn, r.job_id, JobState(r.state), r.name) for r in rows if (r.scope, r.lfn) in wanted]
