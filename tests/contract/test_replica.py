"""A replica that lags, or stands still: people look at it, and nothing is decided by it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import factories as f
import pytest
import sqlalchemy as sa
from factories import Grid

from pandaserver.taskbuffer import records, schema
from pandaserver.taskbuffer.database import Connection, Database

SERVER_CODE = Path(__file__).resolve().parents[2] / "pandaserver"


@dataclass(frozen=True)
class Lagging:
    """A grid, and a second database that knows what the first knew at the last call of `catch_up`."""

    grid: Grid
    replica: Database

    def catch_up(self) -> None:
        tables = schema.metadata.sorted_tables

        def read(connection: Connection) -> dict[str, list[dict[str, Any]]]:
            return {t.name: [dict(row._mapping) for row in connection.execute(sa.select(t))] for t in tables}

        rows = self.grid.buffer.read(read)

        def write(connection: Connection) -> None:
            f.empty(connection)
            for table in tables:
                if rows[table.name]:
                    connection.execute(sa.insert(table), rows[table.name])

        self.replica.run(write)


@pytest.fixture
def replica_url(prepared_url: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Another database with all tables and no rows."""
    if prepared_url.startswith("sqlite"):
        shutil.copyfile(request.getfixturevalue("sqlite_pattern"), tmp_path / "replica.db")
        yield f"sqlite:///{tmp_path / 'replica.db'}"
        return
    server: Any = request.getfixturevalue("mariadb")
    url = server.new_database()
    f.prepare(url)
    yield url
    server.drop_database(url)


@pytest.fixture
def lagging(
    tmp_path: Path, pki: f.Pki, prepared_url: str, replica_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lagging]:
    both = f"write = {{database}}\nread = {replica_url}"
    monkeypatch.setattr(f, "SERVER", f.SERVER.replace("write = {database}", both))
    made = Lagging(f.make_grid(tmp_path / "grid", pki, prepared_url), Database(replica_url))
    assert made.grid.buffer.has_replica
    yield made
    made.replica.close()
    made.grid.close()


# --- nothing is decided by it


def work_off(grid: Grid) -> None:
    """Let good pilots do all that there is."""
    for _ in range(4):
        grid.watch(120)
        for queue in ("BNL", "UTA"):
            while (job := grid.get_job(queue))["StatusCode"] == 0:
                grid.run_job(job)
                grid.work()


def live(grid: Grid) -> list[list[str]]:
    """Let a small community live; give the ways of all jobs."""
    ids = grid.submit(f.production_job(1, computingSite="UTA"), f.production_job(2, maxAttempt=3), who="prodman")
    reading = f.analysis_job(f"evnt.{ids[0]:05d}._00001.root", computingSite="UTA")
    for _ in range(2):
        again = grid.submit(reading, clientKey="key")
    ids += again
    grid.work()
    first = grid.get_job("UTA", requestId="aaaa")
    assert grid.get_job("UTA", requestId="aaaa")["PandaID"] == first["PandaID"] == ids[0]
    grid.run_job(first)
    grid.work()
    grid.run_job(grid.get_job("BNL"), outcome="failed", pilotErrorCode=1201)
    grid.work()
    lost = next(job for job in map(grid.get_job, ("BNL", "UTA")) if job["StatusCode"] == 0)
    grid.watch(3 * 3600)
    assert grid.update(lost, "running")["command"] == "tobekilled"
    ids += grid.submit(f.analysis_job("never.made"))
    grid.work()
    assert grid.call("alice", "killJobs", ids=ids[-1:]) == [True]
    work_off(grid)
    grid.watch(4 * 86400)
    return [ways(grid, job_id) for job_id in ids]


def ways(grid: Grid, job_id: int) -> list[str]:
    record = grid.buffer.read(lambda c: records.of_job(c, job_id))
    assert record is not None
    return [change.to_state.value for change in record.history]


def test_a_replica_that_knows_nothing_changes_nothing(
    lagging: Lagging, tmp_path: Path, pki: f.Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same life on a server without a replica, and on one whose replica has stood still from the beginning."""
    found = live(lagging.grid)
    monkeypatch.undo()
    alone = f.make_grid(tmp_path / "alone", pki, f"sqlite:///{tmp_path / 'alone.db'}")
    assert not alone.buffer.has_replica
    assert live(alone) == found
    assert {way[-1] for way in found} == {"finished", "cancelled"}
    alone.close()


def test_a_replica_that_stands_still_in_the_middle_changes_nothing(lagging: Lagging) -> None:
    grid = lagging.grid
    ids = grid.submit(*(f.production_job(n) for n in range(3)), who="prodman")
    grid.work()
    job = grid.get_job()
    lagging.catch_up()
    grid.run_job(job)
    grid.work()
    assert grid.call("prodman", "killJobs", ids=ids) == [False, True, True], "as things are, not as they were"
    assert grid.get_job()["StatusCode"] == 20
    assert grid.update(job, "running")["StatusCode"] == 30
    assert [ways(grid, job_id)[-1] for job_id in ids] == ["finished", "cancelled", "cancelled"]


def test_who_may_read_from_a_replica_is_known() -> None:
    """Each of these is for people, or a guess that may be wrong; whoever adds one has thought of the lag."""
    calls = {
        (path.relative_to(SERVER_CODE).as_posix(), what)
        for path in SERVER_CODE.rglob("*.py")
        for what in re.findall(r"\bbuffer\.read_replica\((.+)\)$", path.read_text(), re.M)
    }
    assert calls == {
        ("userinterface/manage.py", "lambda c: read(c, job_ids)"),  # status; what is missing there is asked here
        ("externalinterface/information.py", "jobs.count_by_queue_and_state"),  # statistics
        ("dataservice/loads.py", "jobs.count_by_queue_and_state"),  # how full queues are, a guess at any time
        ("dataservice/loads.py", "lambda c: _look_around(c, rules, begun)"),  # and what else the brokerage looks at
        ("userinterface/preflight.py", "lambda c: activity.since(c, start)"),  # what a job may expect, a guess too
        ("userinterface/why.py", "lambda c: records.of_job(c, job_id)"),  # what is missing there is asked here
    }


# --- people see what it has


def test_status_is_what_the_replica_knows(lagging: Lagging) -> None:
    grid = lagging.grid
    (job_id,) = grid.submit(f.production_job(), who="prodman")
    grid.work()
    job = grid.get_job()
    grid.update(job, "running")
    lagging.catch_up()
    grid.run_job(job)
    grid.work()
    assert ways(grid, job_id)[-1] == "finished"
    assert grid.state(job_id) == "running"
    assert grid.call(None, "getJobStatisticsPerSite")["BNL"] == {"running": 1}
    lagging.catch_up()
    assert grid.state(job_id) == "finished"
    assert grid.call(None, "getJobStatisticsPerSite")["BNL"] == {"finished": 1}


def test_a_job_is_known_as_soon_as_it_is_accepted(lagging: Lagging) -> None:
    grid = lagging.grid
    (old,) = grid.submit(f.production_job(), who="prodman")
    grid.work()
    lagging.catch_up()
    (new,) = grid.submit(f.production_job(2), who="prodman")
    found = grid.call(None, "getJobStatus", ids=[new, 999, old])
    assert [one and (one["PandaID"], one["jobStatus"]) for one in found] == [(new, "defined"), None, (old, "activated")]
    assert grid.call(None, "getRetries", job_id=new) == []
    grid.work()
    assert grid.call(None, "getBrokerageReasons", job_id=new) != []
    answer = grid.client(None).post("/server/panda/getRetries", json={"job_id": 999})
    assert answer.status_code == 404


def test_a_job_that_moved_into_the_archive_is_never_unknown(lagging: Lagging) -> None:
    grid = lagging.grid
    (job_id,) = grid.submit(f.analysis_job("nothing.root"))
    lagging.catch_up()
    grid.call("alice", "killJobs", ids=[job_id])
    grid.watch(4 * 86400)
    assert grid.buffer.read(lambda c: set(c.execute(sa.select(schema.jobs.c.job_id)).scalars())) == set()
    assert grid.state(job_id) == "defined", "as it was"
    assert grid.call("alice", "killJobs", ids=[job_id]) == [False]
    lagging.catch_up()
    assert grid.state(job_id) == "cancelled"


def test_a_replica_that_is_away_is_done_without(
    lagging: Lagging, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    grid, tries = lagging.grid, list[int]()

    def gone(*_: Any, **__: Any) -> Any:
        tries.append(1)
        raise sa.exc.OperationalError("SELECT", None, Exception("the replica is away"))

    with monkeypatch.context() as patched:
        patched.setattr(grid.buffer.database.replica, "connect", gone)
        (job_id,) = grid.submit(f.production_job(computingSite="BNL"), who="prodman")
        grid.work()
        grid.update(grid.get_job(), "running")
        assert grid.state(job_id) == "running", "asked where things are written"
        assert tries == [1] and "the replica is away" in caplog.text, "it is left alone for a while"
    lagging.catch_up()
    grid.call("prodman", "killJobs", ids=[job_id])
    monkeypatch.setattr(grid.buffer.database, "_replica_rests_until", 0.0)
    assert grid.describe(job_id)["commandToPilot"] is None, "when it is back it is asked again"


def test_a_replica_that_has_not_got_the_new_tables_yet_is_done_without(lagging: Lagging) -> None:
    """An upgrade of the tables comes to a replica like everything else: later."""
    grid = lagging.grid
    with lagging.replica.writer.begin() as connection:
        connection.exec_driver_sql("DROP TABLE archived_jobs")
    (job_id,) = grid.submit(f.production_job(), who="prodman")
    assert grid.state(job_id) == "defined"


def test_a_mistake_is_a_mistake_on_both(lagging: Lagging) -> None:
    with pytest.raises(sa.exc.DBAPIError):
        lagging.grid.buffer.read_replica(lambda c: c.exec_driver_sql("SELECT nothing FROM nowhere"))
