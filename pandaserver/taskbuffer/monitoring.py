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
from pandaserver.taskbuffer import jobs, schema
from pandaserver.taskbuffer.database import Database

T = TypeVar("T")

Snapshot = Connection  # what reading functions work on, for those who may not know sqlalchemy

COUNT_LIMIT = 200_000  # rows looked at for one count; more is told as partial
_STATEMENT_LIMIT_S = 20  # a page never keeps the database busy for longer

_jobs = schema.jobs
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
    columns = (_jobs.c.state, _jobs.c.site, _jobs.c.label, _jobs.c.owner_name)
    one = sa.select(*columns).where(*_conditions(chosen)).limit(limit + 1).subquery()
    rows = connection.execute(sa.select(*one.c, sa.func.count().label("number")).group_by(*one.c))
    groups = tuple(JobGroup(JobState(r.state), r.site or "", r.label, r.owner_name, r.number) for r in rows)
    return JobCount(groups, partial=sum(g.number for g in groups) > limit)


SORTS: dict[str, Any] = {
    "id": _jobs.c.job_id,
    "state": _jobs.c.state,
    "changed": _jobs.c.state_since,
    "created": _jobs.c.created_at,
    "priority": _jobs.c.priority,
    "attempt": _jobs.c.attempt,
    "site": _jobs.c.site,
    "owner": _jobs.c.owner_name,
    "name": _jobs.c.name,
    "task": _jobs.c.task_id,
}


def list_jobs(
    connection: Connection, chosen: JobFilter, *, sort: str = "-id", limit: int = 100, offset: int = 0
) -> list[Job]:
    """Load one screen of jobs; `sort` is a name of SORTS, with a minus for descending."""
    column = SORTS[sort.removeprefix("-")]
    down = sort.startswith("-")
    order = (column.desc(), _jobs.c.job_id.desc()) if down else (column, _jobs.c.job_id)
    statement = sa.select(_jobs.c.job_id).where(*_conditions(chosen)).order_by(*order).limit(limit).offset(offset)
    ids = list(connection.execute(statement).scalars())
    loaded = jobs.load(connection, ids)
    return [loaded[job_id] for job_id in ids]


def _conditions(chosen: JobFilter) -> list[sa.ColumnElement[bool]]:
    found = [_recent(chosen.states, chosen.since)] if chosen.since else []
    if chosen.states:
        found.append(_jobs.c.state.in_([s.value for s in chosen.states]))
    if chosen.sites:
        found.append(sa.func.coalesce(_jobs.c.site, "").in_(chosen.sites) if "" in chosen.sites else _at(chosen.sites))
    if chosen.owners:
        found.append(sa.or_(_jobs.c.owner_name.in_(chosen.owners), _jobs.c.owner.in_(chosen.owners)))
    if chosen.labels:
        found.append(_jobs.c.label.in_(chosen.labels))
    numbers = ((_jobs.c.task_id, chosen.task_id), (_jobs.c.definition_id, chosen.definition_id))
    found += [column == number for column, number in numbers if number is not None]
    if chosen.name:
        found.append(_jobs.c.name.contains(chosen.name, autoescape=True))
    return found + _by_other_tables(chosen)


def _at(sites: Sequence[str]) -> sa.ColumnElement[bool]:
    return _jobs.c.site.in_(sites)


def _recent(states: Sequence[JobState], since: datetime) -> sa.ColumnElement[bool]:
    """Keep the living and those that ended lately; both sides can use the index on state and time."""
    wanted = states or tuple(JobState)
    living = [s.value for s in wanted if s not in FINAL]
    ended = [s.value for s in wanted if s in FINAL]
    lately = sa.and_(_jobs.c.state.in_(ended), _jobs.c.state_since >= since)
    if not living:
        return lately
    return sa.or_(_jobs.c.state.in_(living), lately) if ended else _jobs.c.state.in_(living)


def _by_other_tables(chosen: JobFilter) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = []
    if chosen.dataset:
        file = schema.files
        named = sa.or_(file.c.dataset == chosen.dataset, file.c.block == chosen.dataset)
        own = sa.or_(
            _jobs.c.input_dataset == chosen.dataset,
            _jobs.c.output_dataset == chosen.dataset,
            _jobs.c.job_id.in_(sa.select(file.c.job_id).where(named)),
        )
        found.append(own)
    if chosen.error:
        error, (family, code) = schema.job_errors, chosen.error
        match = [error.c.family == family.value, error.c.code == code]
        match += [error.c.at >= chosen.since] if chosen.since else []
        found.append(_jobs.c.job_id.in_(sa.select(error.c.job_id).where(*match)))
    return found


def user_named(connection: Connection, name: str) -> bool:
    """Say whether a DN, or a short name among the living and the recent, owns a job."""
    match = sa.or_(_jobs.c.owner == name, _jobs.c.owner_name == name)
    return connection.execute(sa.select(_jobs.c.job_id).where(match).limit(1)).first() is not None


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
    match = sa.and_(schema.files.c.lfn == lfn, schema.files.c.type.in_(_MADE))
    rows = connection.execute(_with_jobs().where(match).order_by(_jobs.c.job_id.desc()).limit(limit))
    return [Relative(r.lfn, r.job_id, JobState(r.state), r.name) for r in rows]


def _with_jobs() -> sa.Select[tuple[str, str, int, str, str]]:
    file = schema.files
    columns = (file.c.lfn, file.c.scope, _jobs.c.job_id, _jobs.c.state, _jobs.c.name)
    return sa.select(*columns).join(_jobs, _jobs.c.job_id == file.c.job_id)


def _relatives(
    connection: Connection, names: Sequence[tuple[str, str]], types: Sequence[str], *, limit: int
) -> list[Relative]:
    file = schema.files
    wanted = set(names[:500])
    match = sa.and_(file.c.lfn.in_(sorted({lfn for _, lfn in wanted})), file.c.type.in_(types))
    rows = connection.execute(_with_jobs().where(match).order_by(_jobs.c.job_id).limit(limit)) if wanted else ()
    return [Relative(r.lfn, r.job_id, JobState(r.state), r.name) for r in rows if (r.scope, r.lfn) in wanted]
