"""A database with jobs in every state comes from each earlier revision to this one: the same tables, the same data."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import factories as f
import pytest
import sqlalchemy as sa
from alembic.ddl.impl import DefaultImpl
from migration import recorded
from migration.test_schema_versions import described

from pandaserver.errors import ConfigError
from pandaserver.model.states import FINAL, JobState
from pandaserver.taskbuffer import jobs, migrate, records, schema
from pandaserver.taskbuffer.archiving import ArchivePolicy, Archiver
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Database
from pandaserver.userinterface import manage

EARLIER = [step.revision for step in migrate._steps(migrate._MIGRATIONS)][:-1]
NEWEST = migrate.newest_revision()
NEXT, AFTER_NEXT = (f"{int(NEWEST) + more:04}" for more in (1, 2))  # of versions to come


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url)
    yield made
    made.close()


@pytest.fixture
def old(database: Database, revision: str) -> dict[str, list[tuple[Any, ...]]]:
    """Everything in a database of an earlier revision."""
    migrate.upgrade(database, revision)
    tables = recorded.Tables(database.writer)
    database.run(lambda c: recorded.write(c, tables, recorded.rows()))
    return database.read(lambda c: recorded.all_rows(c, tables))


def test_there_is_something_to_come_from() -> None:
    assert EARLIER[0] == "0001" and len(EARLIER) >= 2


@pytest.mark.parametrize("revision", EARLIER)
def test_the_tables_are_those_of_a_new_database(database: Database, old: Any) -> None:
    migrate.upgrade(database)
    upgraded = described(database)
    with database.writer.begin() as connection:
        schema.metadata.drop_all(connection)
        schema.metadata.create_all(connection)
    assert upgraded == described(database)


@pytest.mark.parametrize("revision", EARLIER)
def test_every_row_is_still_there(database: Database, old: dict[str, Any], revision: str) -> None:
    tables = recorded.Tables(database.writer)
    migrate.upgrade(database)
    now = database.read(lambda c: recorded.all_rows(c, tables))
    changed = {name: rows for name, rows in now.items() if rows != old[name]}
    assert changed == ({"schema_floor": [("0002",)]} if revision == "0002" else {})


@pytest.mark.parametrize("revision", EARLIER)
def test_the_data_is_usable(database: Database, old: Any) -> None:
    migrate.upgrade(database)
    buffer = TaskBuffer(database, f.Clock())
    ids = recorded.ids()
    loaded = buffer.read(lambda c: jobs.load(c, ids.values()))
    assert {job.state.value: job_id for job_id, job in loaded.items()} == ids
    told = manage.describe(buffer, list(ids.values()))
    assert all(one is not None and len(one.one.files) == 2 and one.details.metadata for one in told)
    record = buffer.read(lambda c: records.of_job(c, ids["failed"]))
    assert record is not None and record.job.created_at == datetime(2026, 3, 5, 12, tzinfo=UTC)
    assert [len(part) for part in (record.history, record.attempts, record.errors, record.retries, record.rounds)] == [
        6, 1, 1, 1, 1
    ]  # fmt: skip
    f.move(buffer, ids["running"], JobState.HOLDING)
    f.move(buffer, ids["defined"], JobState.ACTIVATED, site="BNL")
    assert manage.kill(buffer, [ids["waiting"], ids["closed"]], dn=recorded.ALICE, operator=False) == [True, False]


@pytest.mark.parametrize("revision", EARLIER)
def test_what_has_ended_goes_into_the_archive_and_is_told_as_before(database: Database, old: Any) -> None:
    migrate.upgrade(database)
    buffer = TaskBuffer(database, f.Clock())
    ids = list(recorded.ids().values())
    before = manage.describe(buffer, ids)
    assert Archiver(buffer, ArchivePolicy(86400, 2)).run_once() == len(FINAL)
    assert manage.describe(buffer, ids) == before


# --- interrupted


class Interrupted(RuntimeError):
    """The upgrade ends here: somebody pressed Ctrl-C, or the machine went down."""


def interrupt(monkeypatch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Let the n-th change of a table be the last."""
    done: list[str] = []
    execute = DefaultImpl._exec

    def execute_or_stop(self: DefaultImpl, construct: Any, *more: Any, **told: Any) -> Any:
        if len(done) == number:
            raise Interrupted(str(construct))
        done.append(str(construct))
        return execute(self, construct, *more, **told)

    monkeypatch.setattr(DefaultImpl, "_exec", execute_or_stop)
    return done


@pytest.mark.parametrize("number", [0, 1, 7, 30, 64, 71, 79, 84, 10**6])
def test_an_upgrade_that_was_interrupted_can_be_run_again(
    database: Database, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with monkeypatch.context() as patched:
        done = interrupt(patched, number)
        try:
            migrate.upgrade(database)
        except Interrupted:
            assert migrate.current_revision(database) != migrate.newest_revision()
        else:
            assert len(done) < number and len(done) > 80, "the numbers above are still spread over all of it"
    if number and number < 100 and database.writer.dialect.name == "sqlite":
        assert migrate.current_revision(database) is None, "on SQLite nothing is done by halves"
    migrate.upgrade(database)
    migrate.check_current(database)
    finished = described(database)
    with database.writer.begin() as connection:
        schema.metadata.drop_all(connection)
        schema.metadata.create_all(connection)
    assert finished == described(database)


@pytest.mark.parametrize("number", [1, 9, 20, 22])
def test_also_with_data(database: Database, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    migrate.upgrade(database, "0001")
    tables = recorded.Tables(database.writer)
    database.run(lambda c: recorded.write(c, tables, recorded.rows()))
    before = database.read(lambda c: recorded.all_rows(c, tables))
    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        interrupt(patched, number)
        migrate.upgrade(database)
    assert database.read(lambda c: recorded.all_rows(c, tables)) == before
    migrate.upgrade(database)
    assert database.read(lambda c: recorded.all_rows(c, tables)) == before
    migrate.check_current(database)


def test_two_upgrades_at_the_same_time_are_one(database: Database, database_url: str) -> None:
    assert migrate.current_revision(database) is None  # an SQLite file is made by one
    gate, failed = threading.Barrier(3), list[BaseException]()

    def go() -> None:
        mine = Database(database_url)
        gate.wait(10)
        try:
            migrate.upgrade(mine)
        except BaseException as error:  # noqa: BLE001 - shown below
            failed.append(error)
        mine.close()

    threads = [threading.Thread(target=go) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert failed == []
    migrate.check_current(database)


# --- tables that are made anew


REVISION = '''"""{words}."""
import sqlalchemy as sa
from alembic import op

revision, down_revision, phase = "{revision}", "{before}", "{phase}"


def upgrade():
{body}
'''


def add_revision(directory: Path, revision: str, phase: str, *body: str) -> None:
    """Write the revision that follows the last one."""
    before = sorted(path.name[:4] for path in (directory / "versions").glob("0*.py"))[-1]
    lines = "\n".join(f"    {line}" for line in body)
    text = REVISION.format(words=f"Revision {revision}", revision=revision, before=before, phase=phase, body=lines)
    (directory / "versions" / f"{revision}_more.py").write_text(text)
    migrate._steps.cache_clear()


@pytest.fixture
def versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The migrations of a server of another version: a copy, to be changed before it is used."""
    directory = tmp_path / "migrations"
    (directory / "versions").mkdir(parents=True)
    for path in migrate._MIGRATIONS.rglob("*"):
        if path.suffix in (".py", ".mako"):
            (directory / path.relative_to(migrate._MIGRATIONS)).write_bytes(path.read_bytes())
    monkeypatch.setattr(migrate, "_MIGRATIONS", directory)
    return directory


def test_a_table_made_anew_keeps_what_refers_to_it(database: Database, versions: Path) -> None:
    """SQLite changes a column by making the table anew and dropping the old one, which must not empty others."""
    add_revision(
        versions, NEXT, "post", 'with op.batch_alter_table("jobs", recreate="auto") as batch:',
        '    batch.alter_column("name", type_=sa.String(300), existing_type=sa.String(255), existing_nullable=False,'
        ' existing_server_default="")',
    )  # fmt: skip
    migrate.upgrade(database, "0001")
    tables = recorded.Tables(database.writer)
    database.run(lambda c: recorded.write(c, tables, recorded.rows()))
    before = database.read(lambda c: recorded.all_rows(c, tables))
    migrate.upgrade(database)
    assert migrate.current_revision(database) == NEXT
    assert database.read(lambda c: recorded.all_rows(c, tables)) == before
    buffer = TaskBuffer(database, f.Clock())
    buffer.run(lambda c: c.execute(sa.delete(schema.jobs).where(schema.jobs.c.job_id == 1)))
    left = buffer.read(lambda c: c.execute(sa.select(schema.job_details.c.job_id)).scalars().all())
    assert 1 not in left and len(left) == len(recorded.WAYS) - 1, "what refers to it still goes with it"


def test_an_upgrade_that_would_leave_orphans_is_not_done(database: Database, versions: Path) -> None:
    if database.writer.dialect.name != "sqlite":
        return  # MariaDB looks at every statement itself
    add_revision(versions, NEXT, "post", 'op.execute("DELETE FROM jobs WHERE job_id < 3")')
    migrate.upgrade(database, NEWEST)
    tables = recorded.Tables(database.writer)
    database.run(lambda c: recorded.write(c, tables, recorded.rows()))
    before = database.read(lambda c: recorded.all_rows(c, tables))
    with pytest.raises(ConfigError, match="without their jobs"):
        migrate.upgrade(database)
    assert database.read(lambda c: recorded.all_rows(c, tables)) == before
    assert migrate.current_revision(database) == NEWEST


def test_who_reads_while_a_table_changes_reads_again(database: Database) -> None:
    migrate.upgrade(database)
    tries = []

    def read(connection: sa.Connection) -> int:
        connection.execute(sa.select(schema.users)).all()  # the moment begins
        if not tries and connection.dialect.name != "sqlite":  # where nobody can change a table meanwhile
            with database.writer.begin() as other:
                other.exec_driver_sql("ALTER TABLE jobs ADD COLUMN new INTEGER NOT NULL DEFAULT 0, ALGORITHM=COPY")
        tries.append("once")
        return int(connection.execute(sa.select(sa.func.count()).select_from(schema.jobs)).scalar_one())

    assert database.read(read) == 0
    assert len(tries) == (1 if database.writer.dialect.name == "sqlite" else 2)
