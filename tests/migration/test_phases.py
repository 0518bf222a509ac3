"""Servers are replaced one by one: which may work on a database, and that old and new ones work side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import factories as f
import pytest
import sqlalchemy as sa
from migration import recorded
from migration.test_upgrades import AFTER_NEXT, NEWEST, NEXT, add_revision, versions  # noqa: F401 - a fixture

from pandaserver.command import main
from pandaserver.errors import ConfigError
from pandaserver.model.job import KILL_COMMAND
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import files, jobs, migrate, schema
from pandaserver.taskbuffer.archiving import ArchivePolicy, Archiver
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection, Database
from pandaserver.taskbuffer.migrate import Phase
from pandaserver.userinterface import manage

PRE, POST = Phase.PRE, Phase.POST
STEPS = [(step.revision, step.phase) for step in migrate._steps(migrate._MIGRATIONS)]
NEEDED = [revision for revision, phase in STEPS if phase is PRE][-1]  # by the server of today


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url)
    yield made
    made.close()


def pending(database: Database) -> list[tuple[str, Phase]]:
    return [(step.revision, step.phase) for step in migrate.standing(database).pending]


def remove_after(versions: Path, revision: str) -> None:  # noqa: F811
    """Make it the migrations of an older server."""
    for path in (versions / "versions").glob("0*.py"):
        if path.name[:4] > revision:
            path.unlink()
    migrate._steps.cache_clear()


# --- the revisions themselves


def test_every_revision_says_its_phase_and_what_it_does() -> None:
    steps = migrate._steps(migrate._MIGRATIONS)
    assert [(step.revision, step.phase) for step in steps[:3]] == [("0001", PRE), ("0002", PRE), ("0003", POST)]
    assert all(len(step.words) > 10 and step.words.endswith(".") for step in steps)


def test_a_revision_without_a_phase_is_a_mistake(versions: Path) -> None:  # noqa: F811
    path = versions / "versions" / "0002_archive_tables.py"
    path.write_text(path.read_text().replace('phase = "pre"', ""))
    with pytest.raises(AttributeError, match="phase"):
        migrate.newest_revision()


def test_pre_revisions_only_add() -> None:
    """Of tables that older servers know, nothing is dropped or renamed before they have ended."""
    for step in migrate._steps(migrate._MIGRATIONS):
        (path,) = (migrate._MIGRATIONS / "versions").glob(f"{step.revision}_*.py")
        takes_away = [
            word for word in ("drop_", "rename_", "alter_column", "DROP ", "DELETE") if word in path.read_text()
        ]
        assert not takes_away or step.phase is POST, path.name


# --- as far as older servers go on


def test_the_first_phase_stops_where_the_second_begins(database: Database) -> None:
    migrate.upgrade(database, phase=PRE)
    assert migrate.current_revision(database) == "0002"
    assert pending(database) == STEPS[2:] and STEPS[2] == ("0003", POST)
    migrate.upgrade(database, phase=PRE)
    assert migrate.current_revision(database) == "0002", "again changes nothing"
    migrate.upgrade(database)
    assert (migrate.current_revision(database), pending(database)) == (NEWEST, [])


def test_further_revisions_wait_for_the_last_old_server(database: Database, versions: Path) -> None:  # noqa: F811
    add_revision(versions, NEXT, "pre", 'op.add_column("users", sa.Column("mail", sa.String(64)))')
    add_revision(versions, AFTER_NEXT, "post", f"op.execute(\"UPDATE schema_floor SET revision = '{NEXT}'\")")
    migrate.upgrade(database, phase=PRE)
    found = migrate.standing(database)
    assert (found.revision, pending(database)) == ("0002", [*STEPS[2:], (NEXT, PRE), (AFTER_NEXT, POST)])
    assert f"has schema 0002, this server needs {NEXT}: run panda-server db upgrade" in found.obstacle
    with pytest.raises(ConfigError, match=f"needs {NEXT}"):
        migrate.check_current(database)
    migrate.upgrade(database)
    migrate.check_current(database)
    assert migrate.standing(database).words == "up to date"


# --- which servers may work


def test_a_server_starts_while_something_is_to_be_taken_away(
    database: Database, versions: Path  # noqa: F811
) -> None:  # fmt: skip
    add_revision(versions, NEXT, "post", 'op.execute("DELETE FROM schema_floor")')
    migrate.upgrade(database, phase=PRE)
    migrate.upgrade(database, NEWEST)
    found = migrate.standing(database)
    assert (found.obstacle, found.newer) == ("", False)
    assert "when no older server runs" in found.words


@pytest.mark.parametrize("revision", [None, "0001"])
def test_a_server_does_not_start_without_what_it_needs(database: Database, revision: str | None) -> None:
    if revision:
        migrate.upgrade(database, revision)
    with pytest.raises(ConfigError) as refused:
        migrate.check_current(database)
    assert refused.value.message == (
        f"the database has schema {revision or '(none)'}, this server needs {NEEDED}: run panda-server db upgrade"
    )


def test_an_old_server_starts_again_during_an_upgrade(
    database: Database, versions: Path  # noqa: F811
) -> None:  # fmt: skip
    migrate.upgrade(database, phase=PRE)
    remove_after(versions, "0001")
    found = migrate.standing(database)
    assert (found.newest, found.newer, found.obstacle) == ("0001", True, "")
    assert "can still work" in found.words
    migrate.check_current(database)


def test_an_old_server_is_refused_when_what_it_needs_is_gone(
    database: Database, versions: Path  # noqa: F811
) -> None:  # fmt: skip
    migrate.upgrade(database)
    remove_after(versions, "0001")
    with pytest.raises(ConfigError) as refused:
        migrate.check_current(database)
    text = f"has schema {NEWEST}, on which only servers that know 0002 can work, and this one knows up to 0001: install"
    assert text in refused.value.message


def test_a_server_of_today_on_databases_of_tomorrow(
    database: Database, versions: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    """What the next version will do to a database decides whether this one may go on."""
    of_today = versions.with_name("today")
    of_today.mkdir()
    for path in versions.rglob("*"):
        (of_today / path.relative_to(versions)).mkdir() if path.is_dir() else (
            of_today / path.relative_to(versions)
        ).write_bytes(path.read_bytes())
    add_revision(versions, NEXT, "pre", 'op.add_column("users", sa.Column("mail", sa.String(64)))')
    add_revision(versions, AFTER_NEXT, "post", f"op.execute(\"UPDATE schema_floor SET revision = '{NEXT}'\")")
    for revision, allowed in ((NEXT, True), (AFTER_NEXT, False)):
        monkeypatch.setattr(migrate, "_MIGRATIONS", versions)
        migrate.upgrade(database, revision)
        monkeypatch.setattr(migrate, "_MIGRATIONS", of_today)
        assert (migrate.standing(database).obstacle == "") is allowed
        with pytest.raises(ConfigError, match="newer than what this version knows"):
            migrate.upgrade(database)
        assert migrate.current_revision(database) == revision


def test_a_revision_nobody_knows_and_no_word_about_it(database: Database) -> None:
    migrate.upgrade(database)
    with database.writer.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        connection.execute(sa.text("DROP TABLE schema_floor"))
    assert migrate.standing(database).newer and not migrate.standing(database).obstacle


# --- old and new side by side


class OldServer:
    """Does what servers of the first revision do, knowing of tables and columns only what there was then."""

    def __init__(self, database: Database, tables: recorded.Tables) -> None:
        self.database, self.tables = database, tables

    def submit(self, job_id: int) -> None:
        self.database.run(lambda c: recorded.write(c, self.tables, recorded.one(job_id, "defined")))

    def move(self, job_id: int, before: str, after: str, **more: Any) -> None:
        job, history = self.tables["jobs"], self.tables["job_history"]
        now = recorded.WHEN + timedelta(hours=1)

        def work(connection: Connection) -> None:
            found = connection.execute(sa.select(job).where(job.c.job_id == job_id).with_for_update()).one()
            assert found.state == before
            told = {"state": after, "state_since": now, "modified_at": now} | more
            connection.execute(sa.update(job).where(job.c.job_id == job_id).values(told))
            row = {"job_id": job_id, "at": now, "from_state": before, "to_state": after, "attempt": 0, "reason": "old"}
            connection.execute(sa.insert(history), row)

        self.database.run(work)

    def state(self, job_id: int) -> str | None:
        job = self.tables["jobs"]
        statement = sa.select(job).where(job.c.job_id == job_id)  # all columns that it knows
        row = self.database.read(lambda c: c.execute(statement).one_or_none())
        return row.state if row else None

    def claim(self, job_id: int) -> None:
        ready, attempt = self.tables["ready"], self.tables["attempts"]
        row = recorded.one(job_id, "sent")["attempts"][0]
        self.database.run(lambda c: c.execute(sa.delete(ready).where(ready.c.job_id == job_id)))
        self.database.run(lambda c: recorded.write(c, self.tables, {attempt.name: [row]}))
        self.move(job_id, "activated", "sent", attempt=1)


@pytest.fixture(params=["0003"])
def side_by_side(request: pytest.FixtureRequest, database: Database) -> tuple[OldServer, TaskBuffer]:
    """A database in the middle of an upgrade, with a server from before and one from after."""
    migrate.upgrade(database, request.param)
    tables = recorded.Tables(database.writer)
    old = OldServer(database, tables)
    database.run(lambda c: recorded.write(c, tables, recorded.rows(first=100)))
    migrate.upgrade(database, phase=PRE)
    return old, TaskBuffer(database, f.Clock())


def test_each_works_on_the_jobs_of_the_other(side_by_side: tuple[OldServer, TaskBuffer]) -> None:
    old, new = side_by_side
    old.submit(1)
    f.accept(new, f.new_job(), first_id=2)
    for job_id in (1, 2):
        f.move(new, job_id, JobState.WAITING)
        old.move(job_id, "waiting", "defined")
        f.move(new, job_id, JobState.ACTIVATED, site="BNL")
        old.claim(job_id)
        f.move(new, job_id, JobState.RUNNING)
        old.move(job_id, "running", "holding")
        f.move(new, job_id, JobState.FAILED)
        assert old.state(job_id) == "failed"
        assert [row.to_state for row in new.read(lambda c, i=job_id: jobs.history_of(c, i))] == [
            "defined", "waiting", "defined", "activated", "sent", "running", "holding", "failed"
        ]  # fmt: skip
    told = manage.describe(new, [1, 2])
    assert [len(one.attempts) for one in told if one is not None] == [1, 1]


def test_what_an_old_server_ends_a_new_one_describes(side_by_side: tuple[OldServer, TaskBuffer]) -> None:
    old, new = side_by_side
    number = 100 + recorded.ids()["waiting"]
    old.move(number, "waiting", "closed", ended_at=recorded.WHEN)
    assert new.read(lambda c: jobs.load(c, [number]))[number].state is JobState.CLOSED
    new.run(lambda c: jobs.set_command(c, [100 + recorded.ids()["running"]], KILL_COMMAND))
    job = old.tables["jobs"]
    statement = sa.select(job.c.command).where(job.c.job_id == 100 + recorded.ids()["running"])
    assert old.database.read(lambda c: c.execute(statement).scalar_one()) == KILL_COMMAND


@pytest.mark.parametrize("side_by_side", ["0001"], indirect=True)
def test_nothing_leaves_the_tables_that_old_servers_know(side_by_side: tuple[OldServer, TaskBuffer]) -> None:
    """A job that moved would be gone for them: it has to wait until none of them runs."""
    old, new = side_by_side
    numbers = [100 + recorded.ids()[state] for state in recorded.FINAL]
    archiver = Archiver(new, ArchivePolicy(0, 100))
    assert archiver.run_once() == 0
    assert [old.state(number) for number in numbers] == list(recorded.FINAL)
    migrate.upgrade(new.database)
    assert archiver.run_once() == len(numbers), "the same process goes on when the upgrade is complete"
    assert [old.state(number) for number in numbers] == [None] * len(numbers)
    told = manage.describe(new, numbers)
    assert [one.one.job.state.value for one in told if one is not None] == list(recorded.FINAL)


def test_an_old_server_deletes_what_it_may(side_by_side: tuple[OldServer, TaskBuffer]) -> None:
    old, new = side_by_side
    old.submit(1)
    job = old.tables["jobs"]
    old.database.run(lambda c: c.execute(sa.delete(job).where(job.c.job_id == 1)))
    assert new.read(lambda c: files.of_jobs(c, [1])) == {} and manage.describe(new, [1]) == [None]


def test_a_server_of_today_beside_one_of_tomorrow(
    database: Database, versions: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    """The next version adds a column to jobs; this one goes on, and leaves the archive to those who know the column."""
    today = migrate._steps(migrate._MIGRATIONS)
    column = 'sa.Column("colour", sa.String(16), nullable=False, server_default="red")'
    tables = ("jobs", "archived_jobs")
    add_revision(versions, NEXT, "pre", *(f'op.add_column("{table}", {column})' for table in tables))
    migrate.upgrade(database, NEWEST)
    buffer = TaskBuffer(database, f.Clock())
    for number in (1, 2):
        f.accept(buffer, f.new_job(), first_id=number)
        f.move(buffer, number, JobState.CLOSED)
    archiver = Archiver(buffer, ArchivePolicy(0, 1))
    assert archiver.run_once() == 2
    migrate.upgrade(database, phase=PRE)
    assert migrate.current_revision(database) == NEXT
    monkeypatch.setattr(migrate, "_steps", lambda _directory: today)
    migrate.check_current(database)
    f.accept(buffer, f.new_job(), first_id=3)
    f.move(buffer, 3, JobState.CLOSED)
    assert archiver.run_once() == 0, "it would leave the colour behind"
    assert [one is not None for one in manage.describe(buffer, [1, 2, 3])] == [True] * 3
    assert manage.kill(buffer, [1, 3], dn="/CN=alice", operator=False) == [False, False]
    colours = sa.text("SELECT colour FROM jobs UNION ALL SELECT colour FROM archived_jobs")
    assert database.read(lambda c: list(c.execute(colours).scalars())) == ["red"] * 3


# --- what an operator sees


@pytest.fixture
def config(tmp_path: Path, pki: f.Pki, database_url: str) -> Path:
    return f.write_config(tmp_path / "server", pki, database_url)


def run(capsys: pytest.CaptureFixture[str], config: Path, *words: str) -> tuple[int, str, str]:
    code = main(["db", *words, "--config", str(config)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_an_upgrade_in_two_phases_by_the_command(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    code, text, _ = run(capsys, config, "status", "--json")
    told = json.loads(text)
    assert (code, told["revision"], told["usable"]) == (0, None, False)
    assert [step["phase"] for step in told["pending"][:3]] == ["pre", "pre", "post"]
    assert run(capsys, config, "check")[0] == 1
    code, text, _ = run(capsys, config, "upgrade", "--phase", "pre")
    assert code == 0 and "schema 0002" in text and "pending: 0003 (post) Jobs move to the archive" in text
    assert run(capsys, config, "check")[0] == 1, "some of what is pending is needed"
    code, text, _ = run(capsys, config, "upgrade", "--json")
    told = json.loads(text)
    assert (code, told["revision"], told["pending"], told["message"]) == (0, told["newest"], [], "up to date")
    assert run(capsys, config, "status") == run(capsys, config, "check")


@pytest.mark.parametrize("action", ["status", "check"])
def test_a_phase_belongs_to_upgrade(capsys: pytest.CaptureFixture[str], config: Path, action: str) -> None:
    code, _, said = run(capsys, config, action, "--phase", "pre")
    assert code == 1 and "--phase belongs to upgrade" in said


def test_help_says_how_servers_are_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["db", "--help"])
    text = capsys.readouterr().out
    assert text.index("db upgrade --phase pre") < text.index("restart one server after the other")


@pytest.mark.parametrize("complete", [True, False])
def test_the_server_starts_on_what_it_may(
    tmp_path: Path, pki: f.Pki, database: Database, database_url: str, versions: Path, complete: bool  # noqa: F811
) -> None:  # fmt: skip
    if not complete:
        add_revision(versions, NEXT, "post", 'op.execute("DELETE FROM schema_floor")')
    migrate.upgrade(database, NEWEST)
    grid = f.make_grid(tmp_path / "grid", pki, database_url)
    (job_id,) = grid.submit(f.analysis_job("nothing.root"))
    grid.call("alice", "killJobs", ids=[job_id])
    grid.watch(4 * 86400)
    assert grid.state(job_id) == "cancelled"
    kept = grid.buffer.read(lambda c: list(c.execute(sa.select(schema.archived["jobs"].c.job_id)).scalars()))
    assert kept == [job_id]
    grid.close()
