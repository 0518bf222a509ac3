"""Transactions that run again when the database asks for it, and many callers at the same moment, on both databases."""

from __future__ import annotations

import contextlib
import multiprocessing
import sqlite3
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import factories as f
import pymysql
import pytest
import sqlalchemy as sa

from pandaserver.dataservice.ddm import carrying, local, storage
from pandaserver.dataservice.ddm.lanes import CALLBACK, LINK
from pandaserver.jobdispatcher.claims import Claim, Claims
from pandaserver.jobdispatcher.dispatcher import Dispatcher
from pandaserver.jobdispatcher.policy import DispatchPolicy
from pandaserver.jobdispatcher.tokens import TOKEN_SECRET
from pandaserver.model.attempt import ClaimRequest
from pandaserver.model.file import Replica
from pandaserver.model.grid import Endpoint, Topology
from pandaserver.model.job import NewJob
from pandaserver.model.share import Shares
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import attempts, counters, schema, topology, transfers, work
from pandaserver.taskbuffer import database as database_module
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import ATTEMPTS, Connection, Database
from pandaserver.taskbuffer.work import NewWork
from pandaserver.userinterface.submit import User, submit

TABLE = schema.counters


def in_threads(*acts: Callable[[], Any]) -> list[Any]:
    """Run all at the same moment; the error of any comes out here."""
    gate, results = threading.Barrier(len(acts)), [None] * len(acts)
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            gate.wait(10)
            results[index] = acts[index]()
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]
    return results


@pytest.fixture
def mariadb_buffer(used_database: Any) -> Iterator[TaskBuffer]:
    made = TaskBuffer(Database(used_database.take()))
    yield made
    made.database.close()
    used_database.give_back()


def set_counter(buffer: TaskBuffer, **values: int) -> None:
    rows = [{"name": name, "value": value} for name, value in values.items()]
    buffer.run(lambda c: c.execute(sa.insert(TABLE), rows))


def counter(buffer: TaskBuffer, name: str) -> int:
    return buffer.read(lambda c: int(c.execute(sa.select(TABLE.c.value).where(TABLE.c.name == name)).scalar_one()))


def add(connection: Connection, name: str) -> None:
    connection.execute(sa.update(TABLE).where(TABLE.c.name == name).values(value=TABLE.c.value + 1))


# --- run again


@pytest.mark.mysql
def test_a_real_deadlock_runs_the_loser_again(mariadb_buffer: TaskBuffer) -> None:
    set_counter(mariadb_buffer, a=0, b=0)
    tries: Counter[str] = Counter()
    met = threading.Barrier(2)

    def cross(first: str, second: str) -> Callable[[], None]:
        def go(connection: Connection) -> None:
            tries[first] += 1
            add(connection, first)
            if tries[first] == 1:
                met.wait(10)
            add(connection, second)

        return lambda: mariadb_buffer.run(go)

    in_threads(cross("a", "b"), cross("b", "a"))
    assert sorted(tries.values()) == [1, 2], "one was the loser and ran twice"
    assert (counter(mariadb_buffer, "a"), counter(mariadb_buffer, "b")) == (2, 2)


@pytest.mark.mysql
def test_a_lock_wait_that_takes_too_long_runs_all_again(mariadb_buffer: TaskBuffer) -> None:
    set_counter(mariadb_buffer, before=0, a=0)
    tries = []
    with mariadb_buffer.database.writer.connect() as holder:
        blocking = holder.begin()
        add(holder, "a")

        def go(connection: Connection) -> None:
            tries.append(1)
            connection.exec_driver_sql("SET SESSION innodb_lock_wait_timeout = 1")
            add(connection, "before")
            if len(tries) == 2:
                blocking.rollback()
            add(connection, "a")

        mariadb_buffer.run(go)
    assert len(tries) == 2
    assert (counter(mariadb_buffer, "before"), counter(mariadb_buffer, "a")) == (1, 1), "the first try left nothing"


def test_a_locked_sqlite_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'panda.db'}"
    buffer = TaskBuffer(Database(url))
    schema.metadata.create_all(buffer.database.writer)
    set_counter(buffer, a=0)
    with buffer.database.writer.connect() as connection:  # the only one in the pool, from now on impatient
        connection.exec_driver_sql("PRAGMA busy_timeout = 1")
    blocker = sqlite3.connect(tmp_path / "panda.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    waits = []

    def wait(_seconds: float) -> None:
        waits.append(1)
        if len(waits) == 2:
            blocker.execute("ROLLBACK")

    monkeypatch.setattr(database_module.time, "sleep", wait)
    buffer.run(lambda c: add(c, "a"))
    assert (len(waits), counter(buffer, "a")) == (2, 1)
    blocker.close()
    buffer.database.close()


def fail_at_commit(buffer: TaskBuffer, monkeypatch: pytest.MonkeyPatch, error: Exception, times: int) -> list[int]:
    """Let the driver fail at COMMIT so many times."""
    dialect = buffer.database.writer.dialect
    commit, seen = dialect.do_commit, list[int]()

    def do_commit(connection: Any) -> None:
        seen.append(1)
        if len(seen) <= times:
            raise error
        commit(connection)

    monkeypatch.setattr(dialect, "do_commit", do_commit)
    monkeypatch.setattr(database_module.time, "sleep", lambda _: None)
    return seen


@pytest.mark.mysql
@pytest.mark.parametrize("code", [1213, 1205])
def test_a_deadlock_at_commit_runs_all_again(
    mariadb_buffer: TaskBuffer, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    set_counter(mariadb_buffer, a=0)
    seen = fail_at_commit(mariadb_buffer, monkeypatch, pymysql.err.OperationalError(code, "try again"), 3)
    mariadb_buffer.run(lambda c: add(c, "a"))
    assert (len(seen), counter(mariadb_buffer, "a")) == (4, 1)


@pytest.mark.mysql
def test_there_is_an_end_to_running_again(mariadb_buffer: TaskBuffer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = fail_at_commit(mariadb_buffer, monkeypatch, pymysql.err.OperationalError(1213, "deadlock"), 10**9)
    with pytest.raises(sa.exc.OperationalError, match="1213"):
        mariadb_buffer.run(lambda c: c.execute(sa.text("SELECT 1")))
    assert len(seen) == ATTEMPTS


@pytest.mark.mysql
@pytest.mark.parametrize("statement", ["SELECT nothing", "SELEC 1", "SELECT * FROM nowhere"])
def test_other_errors_are_not_tried_again(mariadb_buffer: TaskBuffer, statement: str) -> None:
    tries = []

    def go(connection: Connection) -> None:
        tries.append(1)
        connection.exec_driver_sql(statement)

    with pytest.raises(sa.exc.DBAPIError):
        mariadb_buffer.run(go)
    assert len(tries) == 1


@pytest.mark.parametrize("error", [ValueError("mine"), RuntimeError("database is locked"), KeyError(1213)])
def test_errors_of_the_work_itself_are_not_tried_again_and_leave_nothing(buffer: TaskBuffer, error: Exception) -> None:
    set_counter(buffer, a=0)
    tries = []

    def go(connection: Connection) -> None:
        tries.append(1)
        add(connection, "a")
        raise error

    with pytest.raises(type(error)):
        buffer.run(go)
    assert (len(tries), counter(buffer, "a")) == (1, 0)


def test_duplicates_are_errors_and_not_tried_again(buffer: TaskBuffer) -> None:
    set_counter(buffer, a=0)
    with pytest.raises(sa.exc.IntegrityError):
        set_counter(buffer, b=0, a=0)
    with pytest.raises(sa.exc.NoResultFound):
        counter(buffer, "b")


@pytest.mark.mysql
def test_a_connection_that_the_database_closed_is_replaced(mariadb_buffer: TaskBuffer) -> None:
    set_counter(mariadb_buffer, a=0)
    tries = []

    def go(connection: Connection) -> None:
        tries.append(1)
        add(connection, "a")
        if len(tries) == 1:
            own = connection.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one()
            with mariadb_buffer.database.reader.connect() as other:
                other.exec_driver_sql(f"KILL {own}")
        add(connection, "a")

    mariadb_buffer.run(go)
    assert (len(tries), counter(mariadb_buffer, "a")) == (2, 2)


# --- many at once


def prepare_jobs(buffer: TaskBuffer, number: int) -> None:
    grid = Topology(queues={name: f.queue(name) for name in ("A", "B")}, endpoints={})
    buffer.run(lambda c: topology.save(c, grid))
    f.accept(buffer, *(f.new_job() for _ in range(number)))
    for job_id in range(1, number + 1):
        f.move(buffer, job_id, JobState.ACTIVATED, site="A")


def take_all(dispatcher: Dispatcher, name: str, misses: int = 20) -> list[int]:
    """Ask for jobs until there has been none for a while."""
    taken: list[int] = []
    while misses:
        claim = dispatcher.get_jobs([ClaimRequest(queue="A", pilot=name, node=name)])[0]
        if claim is None:
            misses -= 1
        else:
            taken.append(claim.job.job_id)
    return taken


def take_all_in_process(url: str, name: str, results: Any) -> None:
    buffer = TaskBuffer(Database(url))
    results.put((name, take_all(Dispatcher(buffer, DispatchPolicy()), name)))
    buffer.database.close()


def check_claims(buffer: TaskBuffer, taken: dict[str, list[int]], number: int) -> None:
    assert sorted(job_id for some in taken.values() for job_id in some) == list(range(1, number + 1))
    recorded = buffer.read(lambda c: attempts.of_jobs(c, list(range(1, number + 1))))
    assert [(a.job_id, a.number) for a in recorded] == [(job_id, 1) for job_id in range(1, number + 1)]
    by_name = {name: sorted(a.job_id for a in recorded if a.node == name) for name in taken}
    assert by_name == {name: sorted(ids) for name, ids in taken.items()}
    assert f.ready_ids(buffer) == []


def test_threads_never_get_the_same_job_and_leave_none(buffer: TaskBuffer) -> None:
    prepare_jobs(buffer, 40)
    buffer = TaskBuffer(buffer.database)
    dispatcher = Dispatcher(buffer, DispatchPolicy())
    names = [f"t{n}" for n in range(6)]
    taken = in_threads(*(lambda name=name: take_all(dispatcher, name) for name in names))  # type: ignore[misc]
    check_claims(buffer, dict(zip(names, taken, strict=True)), 40)


def test_processes_never_get_the_same_job_and_leave_none(buffer: TaskBuffer) -> None:
    prepare_jobs(buffer, 40)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    url = buffer.database.writer.url.render_as_string(hide_password=False)
    processes = [context.Process(target=take_all_in_process, args=(url, f"p{n}", results)) for n in range(2)]
    for process in processes:
        process.start()
    taken = dict(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
    results.close()
    results.join_thread()
    check_claims(buffer, taken, 40)


@pytest.mark.mysql
def test_a_job_being_taken_is_stepped_over_not_waited_for(mariadb_buffer: TaskBuffer) -> None:
    prepare_jobs(mariadb_buffer, 3)
    mariadb_buffer.run(lambda c: counters.secret(c, TOKEN_SECRET))
    claims, request = Claims(mariadb_buffer.now, DispatchPolicy(), Shares()), [ClaimRequest(queue="A")]

    def claim(connection: Connection) -> int:
        (given,) = claims.answer(connection, request)
        assert isinstance(given, Claim)
        return given.job.job_id

    with mariadb_buffer.database.writer.connect() as slow:
        taking = slow.begin()
        first = claim(slow)
        second = mariadb_buffer.run(claim)
        taking.rollback()
    third = mariadb_buffer.run(claim)
    assert (first, second, third) == (1, 2, 1), "what was not taken after all comes next"


@pytest.mark.mysql
def test_pilots_do_not_wait_for_each_other_at_the_shared_secret(mariadb_buffer: TaskBuffer) -> None:
    prepare_jobs(mariadb_buffer, 2)
    dispatcher = Dispatcher(mariadb_buffer, DispatchPolicy())
    elsewhere = Claims(mariadb_buffer.now, DispatchPolicy(), Shares())
    requests = [ClaimRequest(queue="A")], [ClaimRequest(queue="B")]
    dispatcher.get_jobs(requests[1])
    with mariadb_buffer.database.writer.connect() as slow:
        taking = slow.begin()
        assert elsewhere.answer(slow, requests[1]) == [None]  # and does not commit yet
        gone = threading.Event()
        asking = threading.Thread(target=lambda: (dispatcher.get_jobs(requests[0]), gone.set()))
        asking.start()
        waited = gone.wait(5)
        taking.rollback()
        asking.join(60)
    assert waited, "a pilot of another queue had to wait"


@pytest.mark.parametrize("threads", [5])
def test_work_is_never_claimed_twice(buffer: TaskBuffer, threads: int) -> None:
    new = [NewWork(kind="k", key=str(n), payload={}) for n in range(60)]
    buffer.run(lambda c: work.add(c, new, now=buffer.now()))
    now = buffer.now()

    def take(owner: str) -> list[int]:
        taken, misses = list[int](), 10
        while misses:
            items = buffer.run(lambda c: work.claim(c, owner, 4, now=now, lease_s=60))
            taken += [item.work_id for item in items]
            misses -= not items
        return taken

    taken = in_threads(*(lambda n=n: take(str(n)) for n in range(threads)))  # type: ignore[misc]
    assert Counter(Counter(i for some in taken for i in some).values()) == {1: 60}


# --- races that a test has to stage


def test_two_equal_submissions_at_the_same_moment_are_one(buffer: TaskBuffer) -> None:
    buffer = TaskBuffer(buffer.database)
    user, new = User("/CN=alice", "alice"), [NewJob(transformation="run.py")]
    acts = [lambda: submit(buffer, user, new, client_key="k")] * 6
    answers = in_threads(*acts)
    assert len({answer[0].job_id for answer in answers}) == 1
    assert buffer.read(lambda c: c.execute(sa.select(sa.func.count()).select_from(schema.jobs)).scalar_one()) == 1


def test_the_last_two_copies_of_a_dataset_at_the_same_moment_call_back(
    buffer: TaskBuffer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoints = {name: Endpoint(name=name, site=name, url=f"file://{tmp_path}/{name}") for name in "AB"}
    buffer.run(lambda c: topology.save(c, Topology(queues={}, endpoints=endpoints)))
    ddm = local.LocalDDM(buffer)
    for lfn in ("one", "two"):
        path = storage.file_path(endpoints["A"], "s", lfn)
        path.parent.mkdir(parents=True)
        path.write_text(lfn)
        facts = {"guid": "g", "size_bytes": 3, "adler32": f"{zlib.adler32(lfn.encode()):08x}"}
        ddm.register({"d": [Replica(scope="s", lfn=lfn, endpoint="A", **facts)]})  # type: ignore[arg-type]
    ddm.request(["d"], "B")
    monkeypatch.setattr(carrying, "_FILES_AT_ONCE", 1)
    copies = buffer.run(lambda c: work.claim(c, "me", 9, now=buffer.now(), lease_s=60))
    assert [item.kind for item in copies] == [LINK] * 2
    count, both_counting = transfers.any_queued, threading.Barrier(2)

    def count_together(*args: Any) -> Any:
        """Look for what is left only when the other has made its copy too, if it can get that far."""
        with contextlib.suppress(threading.BrokenBarrierError):
            both_counting.wait(0.5)
        return count(*args)

    monkeypatch.setattr(transfers, "any_queued", count_together)
    in_threads(*(lambda item=item: ddm.carrier.run(item) for item in copies))  # type: ignore[misc]
    assert buffer.read(work.pending)[CALLBACK] == 1


def test_the_same_request_twice_at_the_same_moment_gets_one_job(buffer: TaskBuffer) -> None:
    prepare_jobs(buffer, 6)
    dispatcher = Dispatcher(TaskBuffer(buffer.database), DispatchPolicy())
    request = ClaimRequest(queue="A", pilot="/CN=pilot", request_id="r1")
    given = in_threads(*[lambda: dispatcher.get_jobs([request])[0]] * 4)
    assert len({claim.job.job_id for claim in given}) == 1


@pytest.mark.mysql
def test_the_same_request_again_while_it_is_answered_gets_the_same_job(
    mariadb_buffer: TaskBuffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_jobs(mariadb_buffer, 2)
    servers = [Dispatcher(mariadb_buffer, DispatchPolicy()) for _ in range(2)]  # as in two processes
    servers[0].get_jobs([ClaimRequest(queue="B")])  # the shared secret is there
    request = ClaimRequest(queue="A", pilot="/CN=pilot", request_id="r1")
    start, both_starting = attempts.start, threading.Barrier(2)

    def start_together(*args: Any, **told: Any) -> Any:
        with contextlib.suppress(threading.BrokenBarrierError):
            both_starting.wait(0.5)
        return start(*args, **told)

    monkeypatch.setattr(attempts, "start", start_together)
    given = in_threads(*[lambda server=server: server.get_jobs([request])[0] for server in servers])  # type: ignore[misc]
    assert len({claim.job.job_id for claim in given}) == 1
