"""What the monitor shows does not depend on where jobs are: nothing changes when they move into the archive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from integration.test_monitor_world import ALICE, HOSTILE, NOW, World, populate

from pandamonitor.app import create_app
from pandamonitor.settings import Settings
from pandaserver.model.codes import ErrorFamily
from pandaserver.model.states import FINAL, JobState
from pandaserver.taskbuffer import archive, schema
from pandaserver.taskbuffer import monitoring as reading
from pandaserver.taskbuffer import monitoring_activity as happening
from pandaserver.taskbuffer.database import Connection, Database

S = JobState
DAY, LATELY, YEAR = NOW - timedelta(hours=24), NOW - timedelta(hours=2), NOW - timedelta(days=365)


@pytest.fixture
def world(prepared_url: str, tmp_path: Path) -> Iterator[World]:
    database = Database(prepared_url)
    yield populate(database, tmp_path)
    database.close()


def ended(world: World) -> list[int]:
    statement = sa.select(schema.jobs.c.job_id).where(schema.jobs.c.state.in_([s.value for s in FINAL]))
    return world.database.read(lambda c: sorted(c.execute(statement).scalars()))


def put_away(world: World, every: int) -> None:
    """Archive every so-manieth of the jobs that have ended."""
    chosen = ended(world)[::every]
    assert world.run(lambda c: archive.move(c, chosen)) == len(chosen) > 5


FILTERS = (
    reading.JobFilter(),
    reading.JobFilter(states=(S.FAILED, S.RUNNING)),
    reading.JobFilter(states=(S.RUNNING, S.WAITING)),
    reading.JobFilter(sites=("UTA",)),
    reading.JobFilter(sites=("", "BNL")),
    reading.JobFilter(owners=("Bob Baker",)),
    reading.JobFilter(owners=(ALICE, "Carol Cern")),
    reading.JobFilter(labels=("managed",)),
    reading.JobFilter(task_id=42),
    reading.JobFilter(definition_id=7),
    reading.JobFilter(name="<script>"),
    reading.JobFilter(name="it"),
    reading.JobFilter(dataset=HOSTILE),
    reading.JobFilter(dataset="user.alice.events"),
    reading.JobFilter(dataset="user.alice.fit"),
    reading.JobFilter(error=(ErrorFamily.PAYLOAD, 65)),
    reading.JobFilter(error=(ErrorFamily.PILOT, 1305)),
    reading.JobFilter(states=(S.FINISHED,), sites=("BNL",), owners=("Alice Adams",), labels=("user",)),
)


def answers(world: World, connection: Connection) -> dict[str, Any]:
    """Ask all that is asked about jobs that may have ended."""
    found: dict[str, Any] = {}
    for chosen in (replace(one, since=since) for one in FILTERS for since in (None, LATELY, DAY, YEAR)):
        groups = reading.count_jobs(connection, chosen).groups
        found[f"count {chosen}"] = sorted(map(repr, groups))
        found[f"list {chosen}"] = reading.list_jobs(connection, chosen, limit=500)
    for sort in (sign + name for name in reading.SORTS for sign in ("", "-")):
        whole = reading.JobFilter(since=DAY)
        found[f"screen {sort}"] = reading.list_jobs(connection, whole, sort=sort, limit=7, offset=5)
    for since in (LATELY, DAY, YEAR):
        found[f"ended {since}"] = sorted(map(repr, happening.ended(connection, since)))
        found[f"ended UTA {since}"] = sorted(map(repr, happening.ended(connection, since, site="UTA")))
        for more in ({}, {"site": "UTA"}, {"family": ErrorFamily.PILOT}, {"code": 65}):
            chosen_errors = happening.ErrorFilter(since=since, **more)  # type: ignore[arg-type]
            found[f"errors {chosen_errors}"] = sorted(map(repr, happening.errors(connection, chosen_errors).counts))
        found[f"nodes {since}"] = [happening.nodes(connection, queue, since) for queue in ("BNL", "UTA", "LYON")]
    for files in ([("user.alice", "events.root")], [("user.alice", "hist.root")], [("x", "hist.root")], []):
        found[f"relatives {files}"] = [reading.makers(connection, files), reading.users(connection, files)]
    found["maker"] = [reading.makers_by_name(connection, lfn) for lfn in ("events.root", "job.log.tgz", "none")]
    names = ("Alice Adams", ALICE, "Mallory <b>", "nobody")
    found["known"] = [reading.user_named(connection, name) for name in names]
    ids = range(1001, world.next_id + 1)
    found["jobs"] = reading.load_jobs(connection, ids)
    found["their errors"] = {job_id: list(of) for job_id, of in reading.errors_of(connection, list(ids)).items()}
    return found


@pytest.mark.parametrize("every", [1, 2])
def test_every_question_has_the_same_answer(world: World, every: int) -> None:
    before = world.database.read(lambda c: answers(world, c))
    assert sum(map(bool, before.values())) > 0.7 * len(before), "most questions have something to find"
    put_away(world, every)
    after = world.database.read(lambda c: answers(world, c))
    assert {key: value for key, value in after.items() if value != before[key]} == {}


PAGES = (
    "/", "/jobs", "/jobs?state=failed&state=running&sort=-changed&size=25", "/jobs?hours=8760&size=500", "/sites",
    "/sites/BNL", "/datasets", "/datasets/user.alice.fit", "/errors", "/errors?error=pilot:1305&hours=72",
    "/errors?site=UTA&hours=1", "/search?q=fit", "/jobs?dataset=user.alice.fit&hours=168", "/jobs?owner=Bob+Baker",
)  # fmt: skip


def test_every_page_shows_the_same(world: World, prepared_url: str) -> None:
    pages = [*PAGES, *(f"/jobs/{job_id}" for job_id in world.named.values())]
    ask = create_app(Settings(database=prepared_url, cache_s=0.0), lambda: NOW).test_client()

    def shown() -> dict[str, Any]:
        found = {}
        for page in pages:
            answer = ask.get(page, query_string={"format": "json"} if "?" not in page else None)
            told = ask.get(f"{page}&format=json").json["data"] if "?" in page else answer.json["data"]
            found[page] = {name: value for name, value in told.items() if name != "archived"}
        return found

    before = shown()
    put_away(world, 1)
    after = shown()
    assert {page: told for page, told in after.items() if told != before[page]} == {}
    failed = f"/jobs/{world.named['failed']}"
    assert ask.get(f"{failed}?format=json").json["data"]["archived"] is True
    assert "in the archive" in ask.get(failed).text
    assert "in the archive" not in ask.get(f"/jobs/{world.named['running']}").text


def test_the_search_goes_to_archived_jobs(world: World, prepared_url: str) -> None:
    put_away(world, 1)
    ask = create_app(Settings(database=prepared_url, cache_s=0.0), lambda: NOW).test_client()
    places = {
        str(world.named["failed"]): f"/jobs/{world.named['failed']}",
        "hist.root": f"/jobs/{world.named['finished']}",
        "Mallory <b>": "/jobs?hours=8760&owner=Mallory+%3Cb%3E",
    }
    for wanted, place in places.items():
        answer = ask.get("/search", query_string={"q": wanted})
        assert answer.status_code in (302, 303) and answer.headers["Location"].endswith(place)


def test_the_log_of_an_archived_job_can_be_read(world: World, prepared_url: str) -> None:
    put_away(world, 1)
    ask = create_app(Settings(database=prepared_url, cache_s=0.0), lambda: NOW).test_client()
    assert "payload.stdout" in ask.get(f"/jobs/{world.named['finished']}/log").text


def test_a_count_that_is_too_large_is_partial_over_both(world: World) -> None:
    put_away(world, 2)
    counted = world.database.read(lambda c: reading.count_jobs(c, reading.JobFilter(), limit=10))
    assert (counted.partial, counted.total) == (True, 11)
    found = world.database.read(lambda c: happening.errors(c, happening.ErrorFilter(since=DAY), limit=2))
    assert found.partial


# --- cheap


def explained(database: Database, statement: sa.Select[Any] | sa.CompoundSelect[Any]) -> list[dict[str, Any]]:
    text = str(statement.compile(database.reader, compile_kwargs={"literal_binds": True}))
    return [dict(row) for row in database.read(lambda c: c.exec_driver_sql(f"EXPLAIN PARTITIONS {text}").mappings())]


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """All statements that SQLAlchemy runs, as long as the test lasts."""
    seen: list[Any] = []
    execute = sa.Connection.execute

    def noted(self: sa.Connection, statement: Any, *more: Any, **told: Any) -> Any:
        seen.append(statement)
        return execute(self, statement, *more, **told)

    monkeypatch.setattr(sa.Connection, "execute", noted)
    yield seen


ASKED = {
    "jobs of a window": lambda c: reading.list_jobs(c, reading.JobFilter(since=LATELY)),
    "jobs of a user": lambda c: reading.list_jobs(c, reading.JobFilter(since=YEAR, owners=("Bob Baker",))),
    "jobs of a task": lambda c: reading.list_jobs(c, reading.JobFilter(since=YEAR, task_id=42)),
    "jobs of a dataset": lambda c: reading.list_jobs(c, reading.JobFilter(since=YEAR, dataset="user.alice.fit")),
    "ended": lambda c: happening.ended(c, LATELY),
    "errors": lambda c: happening.errors(c, happening.ErrorFilter(since=LATELY)),
    "nodes": lambda c: happening.nodes(c, "BNL", LATELY),
    "makers": lambda c: reading.makers(c, [("user.alice", "events.root")]),
    "maker of a name": lambda c: reading.makers_by_name(c, "events.root"),
}


@pytest.mark.mysql
@pytest.mark.parametrize("asked", ASKED)
def test_no_question_reads_the_archive_from_end_to_end(mariadb: Any, statements: list[Any], asked: str) -> None:
    """With 20,000 jobs in it, each is answered by an index there, or by the month."""
    url = mariadb.new_database()
    try:
        database = Database(url)
        many(database, 20_000)
        statements.clear()
        database.read(ASKED[asked])
        (statement,) = [one for one in statements if "archived_" in str(one)][:1]
        rows = explained(database, statement)
        touched = [row for row in rows if str(row["table"]).startswith("archived_")]
        assert touched and all(row["type"] != "ALL" for row in touched), rows
        assert all(int(row["rows"]) < 5000 for row in touched), rows
        database.close()
    finally:
        mariadb.drop_database(url)


def many(database: Database, number: int) -> None:
    """Fill the archive with jobs of a year, one every half hour or so."""
    schema.metadata.create_all(database.writer)
    job, file = schema.archived["jobs"], schema.archived["files"]
    step = timedelta(days=365) / number

    def write(connection: Connection) -> None:
        moments = [NOW - timedelta(days=3) - step * n for n in range(number)]
        common = {"created_at": NOW, "modified_at": NOW, "state": "finished", "transformation": "x"}
        rows = [
            {
                "job_id": n, "month": archive.month_of(moment), "state_since": moment, "ended_at": moment,
                "owner": f"/CN={n % 500}", "site": f"S{n % 50}", "task_id": n // 10, "input_dataset": f"in.{n // 5}",
                "output_dataset": f"out.{n // 5}",
            }
            | common
            for n, moment in enumerate(moments, start=1)
        ]  # fmt: skip
        connection.execute(sa.insert(job), rows)
        names = [
            {
                "job_id": row["job_id"], "month": row["month"], "file_id": row["job_id"], "type": "output",
                "lfn": f"f{row['job_id']}", "scope": "s", "dataset": row["output_dataset"], "status": "ready",
            }
            for row in rows
        ]  # fmt: skip
        connection.execute(sa.insert(file), names)
        for table in ("jobs", "files"):
            connection.exec_driver_sql(f"ANALYZE TABLE archived_{table}")

    database.run(write)
