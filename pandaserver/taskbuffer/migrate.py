"""Brings a database to the schema of this version, and refuses to work on another."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError

from pandaserver.errors import ConfigError
from pandaserver.taskbuffer.database import Database

_MIGRATIONS = Path(__file__).with_name("migrations")


def _alembic() -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def newest_revision() -> str:
    """Name the revision that this version of the server works on."""
    return ScriptDirectory.from_config(_alembic()).get_current_head() or ""


def current_revision(database: Database) -> str | None:
    """Name the revision of a database; None for an empty one.

    Raises:
        ConfigError: the database cannot be reached.
    """
    try:
        with database.writer.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    except DBAPIError as error:
        url = database.writer.url.render_as_string()  # hides the password
        text = f"the database {url} cannot be used: {error.orig}; is it running, and [database] write right?"
        raise ConfigError(text, field="database", value=url) from error


def upgrade(database: Database, revision: str = "head") -> None:
    """Bring the tables up to date, or make them."""
    config = _alembic()
    with database.writer.connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def check_current(database: Database) -> None:
    """Refuse a database of another version.

    Raises:
        ConfigError: saying which revision it has and what to do.
    """
    found, wanted = current_revision(database), newest_revision()
    if found != wanted:
        text = f"the database has schema {found or '(none)'}, this server needs {wanted}: run panda-server db upgrade"
        raise ConfigError(text, field="database", value=found)
