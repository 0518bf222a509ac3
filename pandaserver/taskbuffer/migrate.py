"""Brings a database to the schema of this version, in two phases, and tells which servers may work on it.

A revision of phase `pre` only adds: servers of the version before go on working. One of phase `post` takes away what
only they needed, and is for the time when none of them runs any more. So servers can be replaced one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from pandaserver.errors import ConfigError
from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.database import Database

_MIGRATIONS = Path(__file__).with_name("migrations")
_LOCK_S = 60  # how long a second upgrade waits for the first


class Phase(StrEnum):
    """When a revision may be applied."""

    PRE = "pre"  # before the new servers start, while old ones run
    POST = "post"  # after the last old server has ended


@dataclass(frozen=True)
class Step:
    """One revision of the schema."""

    revision: str
    phase: Phase
    words: str


@dataclass(frozen=True)
class Standing:
    """How a database stands to this version of the server."""

    revision: str | None  # None: an empty database
    newest: str
    pending: tuple[Step, ...]
    newer: bool = False  # it has a revision that this version does not know
    too_new: str | None = None  # it lost what this version needs with that revision

    @property
    def obstacle(self) -> str:
        """Say why this version cannot work on the database, and what to do; empty where it can."""
        has = f"the database has schema {self.revision or '(none)'}"
        if self.too_new:
            return (
                f"{has}, on which only servers that know {self.too_new} can work, and this one knows up to "
                f"{self.newest}: install a newer version"
            )
        needed = [step.revision for step in self.pending if step.phase is Phase.PRE]
        return f"{has}, this server needs {needed[-1]}: run panda-server db upgrade" if needed else ""

    @property
    def words(self) -> str:
        """Describe it for people."""
        if self.obstacle:
            return "this version cannot work on it: " + self.obstacle
        if self.newer:
            return "a newer version has been here; this one can still work on it"
        if self.pending:
            return "this version can work on it; to be done when no older server runs: panda-server db upgrade"
        return "up to date"


def standing(database: Database) -> Standing:
    """Look at what a database has, and what this version would do to it.

    Raises:
        ConfigError: the database cannot be reached.
    """
    found, steps = current_revision(database), _steps(_MIGRATIONS)
    known = [step.revision for step in steps]
    newest = known[-1]
    if found is None or found in known:
        done = known.index(found) + 1 if found else 0
        return Standing(found, newest, steps[done:])
    floor = _floor(database)
    return Standing(found, newest, (), newer=True, too_new=floor if floor and floor not in known else None)


def newest_revision() -> str:
    """Name the last revision that this version of the server knows."""
    return _steps(_MIGRATIONS)[-1].revision


def current_revision(database: Database) -> str | None:
    """Name the revision of a database; None for an empty one.

    Raises:
        ConfigError: the database cannot be reached.
    """
    try:
        return database.read(revision_of)
    except DBAPIError as error:
        url = database.writer.url.render_as_string()  # hides the password
        text = f"the database {url} cannot be used: {error.orig}; is it running, and [database] write right?"
        raise ConfigError(text, field="database", value=url) from error


def revision_of(connection: Connection) -> str | None:
    """Name the revision of the database that a connection leads to; None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def has(connection: Connection, revision: str) -> bool:
    """Say whether a revision has been applied, and nothing that this version does not know."""
    known = [step.revision for step in _steps(_MIGRATIONS)]
    found = revision_of(connection)
    return found in known and known.index(found) >= known.index(revision)


def upgrade(database: Database, revision: str | None = None, *, phase: Phase | None = None) -> None:
    """Bring the tables up to date, or make them; with phase `pre` only as far as older servers go on working.

    One that was interrupted can be run again.

    Raises:
        ConfigError: the database has a newer schema than this version knows.
    """
    now = standing(database)
    if now.newer:
        text = f"the database has schema {now.revision}, newer than what this version knows ({now.newest}): not touched"
        raise ConfigError(text, field="database", value=now.revision)
    target = revision or _last_of(now.pending, phase)
    if target is not None:
        with _alone(database) as connection:
            config = _alembic()
            config.attributes["connection"] = connection
            command.upgrade(config, target)


def _last_of(pending: tuple[Step, ...], phase: Phase | None) -> str | None:
    """Give the revision to go to: the last one, or the last before the first of phase `post`."""
    target = None
    for step in pending:
        if phase is Phase.PRE and step.phase is Phase.POST:
            break
        target = step.revision
    return target


def check_current(database: Database) -> None:
    """Refuse a database that this version cannot work on.

    Raises:
        ConfigError: saying which revision it has and what to do.
    """
    now = standing(database)
    if now.obstacle:
        raise ConfigError(now.obstacle, field="database", value=now.revision)


def _floor(database: Database) -> str | None:
    """Give the revision that servers must know to work here, None where that was never said."""

    def read(connection: Connection) -> str | None:
        if not sa.inspect(connection).has_table(schema.schema_floor.name):
            return None
        return connection.execute(sa.select(schema.schema_floor.c.revision)).scalar_one_or_none()

    return database.read(read)


@cache
def _steps(directory: Path) -> tuple[Step, ...]:
    """Read all revisions of this version, the first one first."""
    scripts = list(ScriptDirectory.from_config(_alembic(directory)).walk_revisions())[::-1]
    return tuple(Step(s.revision, Phase(s.module.phase), s.doc) for s in scripts)


def _alembic(directory: Path | None = None) -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", str(directory or _MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


@contextmanager
def _alone(database: Database) -> Iterator[Connection]:
    """Open a transaction in which nobody else upgrades."""
    with database.writer.connect() as connection:
        if connection.dialect.name == "sqlite":
            with _unchecked(connection), connection.begin():
                yield connection
                _check_references(connection)
        else:
            with _named_lock(connection), connection.begin():
                yield connection


@contextmanager
def _unchecked(connection: Connection) -> Iterator[None]:
    """Switch foreign keys off: SQLite changes many a thing by making a table anew, and dropping the old one with them
    on would delete all that refers to it."""
    driver = connection.connection.cursor()
    driver.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys=ON")
        driver.close()


def _check_references(connection: Connection) -> None:
    lost = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if lost is not None:
        raise ConfigError(f"the migration would leave rows of {lost[0]} without their {lost[2]}: not done")


@contextmanager
def _named_lock(connection: Connection) -> Iterator[None]:
    """Hold a lock that outlives the commits which MariaDB does around every change of a table."""
    with connection.begin():
        name = f"panda {connection.exec_driver_sql('SELECT DATABASE()').scalar_one()}"[:64]
        if not connection.execute(sa.select(sa.func.get_lock(name, _LOCK_S))).scalar_one():
            raise ConfigError("the database is being upgraded by somebody else: look at panda-server db status")
    try:
        yield
    finally:
        if not connection.invalidated:
            connection.rollback()
            with connection.begin():
                connection.execute(sa.select(sa.func.release_lock(name)))
