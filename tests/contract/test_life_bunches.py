"""Many jobs set up and many outputs added together: cheap, and each job ends as it would have ended alone."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import factories as f
import pytest
import sqlalchemy as sa
from factories import Grid

from pandaserver.dataservice import adder, setupper
from pandaserver.dataservice.service import ask_add, ask_setup
from pandaserver.errors import DDMError
from pandaserver.jobdispatcher.watcher import reassign
from pandaserver.model.file import FileStatus
from pandaserver.model.grid import QueueStatus
from pandaserver.taskbuffer import datasets, files, reasons, schema, statements, topology, work
from pandaserver.taskbuffer.database import Database

EVENTS, LOGS = "mc.test.evnt", "mc.test.evnt.log"


class Killed(BaseException):
    """What no `except Exception` sees: as after kill -9, nothing more is done."""


def produce(grid: Grid, number: int, queue: str = "BNL") -> list[dict[str, Any]]:
    """Have so many jobs at a queue with pilots, in the order of their ids."""
    grid.submit(*(f.production_job(n, computingSite=queue) for n in range(number)), who="prodman")
    grid.work()
    return sorted((grid.get_job(queue) for _ in range(number)), key=lambda job: job["PandaID"])


def store(grid: Grid, job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Store all outputs of a job; give what its pilot would report."""
    scopes = [*filter(None, job["scopeOut"].split(",")), job["scopeLog"]]
    names = zip(scopes, job["outFiles"].split(","), strict=True)
    return {lfn: grid.store(job["ddmEndPointOut"].split(",")[0], scope, lfn, lfn.encode()) for scope, lfn in names}


def finish(grid: Grid, job: dict[str, Any], facts: dict[str, dict[str, Any]] | None = None) -> None:
    told = store(grid, job) if facts is None else facts
    grid.update(job, "finished", xml=json.dumps(told))


def output(job: dict[str, Any]) -> str:
    return next(lfn for lfn in job["outFiles"].split(",") if lfn != job["logFile"])


def contents(grid: Grid, dataset: str) -> list[str]:
    return [lfn for _, lfn in grid.server.rooms.data.ddm.contents(dataset)]


def states(grid: Grid, jobs: Iterable[dict[str, Any]]) -> list[str]:
    return [grid.state(job["PandaID"]) for job in jobs]


def pending(grid: Grid) -> dict[str, int]:
    return grid.buffer.read(work.pending)


def check_ended_once(grid: Grid, jobs: Iterable[dict[str, Any]]) -> None:
    for job in jobs:
        states = grid.history(job["PandaID"])
        assert states[-1] == "finished"
        assert max(Counter(states).values()) == 1, states
    assert sorted(contents(grid, EVENTS)) == sorted(output(job) for job in jobs)
    assert sorted(contents(grid, LOGS)) == sorted(job["logFile"] for job in jobs)


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch, grid: Grid) -> Iterator[list[str]]:
    """Collect all statements that are sent to the database."""
    sent = list[str]()
    execute, database = statements._execute, grid.buffer.database

    def executing(connection: Any, sql: str, *args: Any, **told: Any) -> Any:
        sent.append(sql)
        return execute(connection, sql, *args, **told)

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        sent.append(statement)

    for engine in {database.reader, database.writer}:
        sa.event.listen(engine, "before_cursor_execute", note)
    with monkeypatch.context() as patch:
        patch.setattr(statements, "_execute", executing)
        yield sent
    for engine in {database.reader, database.writer}:
        sa.event.remove(engine, "before_cursor_execute", note)


# --- what it costs


def test_as_many_statements_for_thirty_jobs_as_for_three(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology._remembered, "_for_s", 3600.0)  # or a slow machine reads the grid in between
    topology._remembered.forget()
    numbers = dict[str, list[int]]()
    produce(grid, 2)  # so that there is nothing left that is done once only
    for size in (3, 30):
        grid.clock.forward(60)
        grid.submit(*(f.production_job(n, computingSite="BNL") for n in range(size)), who="prodman")
        with counted(monkeypatch, grid) as set_up:
            grid.work()
        jobs = [grid.get_job("BNL") for _ in range(size + 2 * (size == 3))]
        for job in jobs[:size]:
            finish(grid, job)
        with counted(monkeypatch, grid) as added:
            grid.work()
        assert set(states(grid, jobs[:size])) == {"finished"}
        for what, sent in (("set up", set_up), ("added", added)):
            numbers.setdefault(what, []).append(len(sent))
    assert numbers["set up"][0] == numbers["set up"][1] < 35, numbers
    assert numbers["added"][0] == numbers["added"][1] < 50, numbers


def test_datasets_are_to_be_closed_once_for_all_jobs(grid: Grid) -> None:
    for job in produce(grid, 6):
        finish(grid, job)
    grid.server.pool.run_all(limit=6)
    assert pending(grid) == {"close": 2}
    grid.work()
    loaded = grid.buffer.read(lambda c: files.of_jobs(c, range(1, 7)))
    blocks = {file.block or "" for some in loaded.values() for file in some}
    assert {d.status for d in grid.buffer.read(lambda c: datasets.load_many(c, blocks))} == {"completed"}


# --- outputs


def test_each_job_of_a_bunch_ends_as_it_would_alone(grid: Grid) -> None:
    jobs = produce(grid, 8)
    good, refused, late, failed, killed, strange, twice, bare = jobs
    for job in (good, twice):
        finish(grid, job)
    wrong = store(grid, refused)
    wrong[output(refused)]["adler32"] = "deadbeef"
    finish(grid, refused, wrong)
    finish(grid, late)
    (path,) = (grid.root / "BNL_DISK").rglob(output(late))
    path.rename(path.with_suffix(".late"))
    grid.update(failed, "failed", pilotErrorCode=1305, xml=json.dumps({k: v for k, v in store(grid, failed).items()
                                                                       if k == failed["logFile"]}))  # fmt: skip
    grid.call("prodman", "killJobs", ids=[killed["PandaID"]])
    grid.update(killed, "failed", pilotErrorCode=1144)
    finish(grid, strange, store(grid, strange) | {"strange.root": wrong[output(refused)]})
    finish(grid, bare, {output(bare): store(grid, bare)[output(bare)]})
    grid.buffer.run(lambda c: ask_add(c, [(twice["PandaID"], 99), (10**6, 1)], grid.clock()))  # of nobody
    grid.work()
    assert grid.state(good["PandaID"]) == grid.state(twice["PandaID"]) == grid.state(bare["PandaID"]) == "finished"
    assert [grid.describe(j["PandaID"])["ddmErrorDiag"].rpartition("has ")[2] for j in (refused,)] == [
        f"adler32 {store(grid, refused)[output(refused)]['adler32']}, deadbeef was announced"
    ]
    assert grid.state(refused["PandaID"]) == grid.state(strange["PandaID"]) == "failed"
    assert "strange.root" in grid.describe(strange["PandaID"])["ddmErrorDiag"]
    assert grid.state(late["PandaID"]) == "holding"
    assert grid.history(failed["PandaID"])[-1] in ("failed", "activated")
    assert grid.state(killed["PandaID"]) == "cancelled"
    assert pending(grid) == {"add": 1, "sweep": 4}
    path.with_suffix(".late").rename(path)
    grid.watch(2)
    assert grid.state(late["PandaID"]) == "finished"
    assert sorted(contents(grid, EVENTS)) == sorted(output(job) for job in (good, twice, bare, late))
    assert failed["logFile"] in contents(grid, LOGS)
    log = next(x for x in grid.buffer.read(lambda c: files.of_jobs(c, [bare["PandaID"]]))[bare["PandaID"]]
               if x.lfn == bare["logFile"])  # fmt: skip
    assert log.status is FileStatus.FAILED, "it was never stored"


def test_outputs_that_travel_and_outputs_that_stay(grid: Grid) -> None:
    jobs = [*produce(grid, 3, "BNL"), *produce(grid, 3, "UTA")]
    for job in jobs:
        finish(grid, job)
    grid.server.pool.run_all(limit=6)
    assert states(grid, jobs) == ["finished"] * 3 + ["transferring"] * 3
    assert contents(grid, EVENTS) == sorted(output(job) for job in jobs[:3])
    grid.work()
    check_ended_once(grid, jobs)
    for job in jobs[3:]:
        copies = grid.server.rooms.data.ddm.replicas([("mc", output(job))])["mc", output(job)]
        assert [r.endpoint for r in copies] == ["BNL_DISK", "UTA_DISK"]
    assert pending(grid) == {}


def test_jobs_that_wait_for_several_of_a_bunch_are_woken_once(grid: Grid) -> None:
    jobs = produce(grid, 4)
    lfns = [output(job) for job in jobs]
    wanted = (lfns[:2], lfns[2:3], [lfns[3], "never.made"])
    both, third, never = grid.submit(*(f.analysis_job(*some, computingSite="BNL") for some in wanted))
    grid.work()
    assert [grid.state(i) for i in (both, third, never)] == ["waiting"] * 3
    for job in jobs:
        finish(grid, job)
    grid.work()
    for job_id in (both, third):
        assert grid.history(job_id) == ["defined", "waiting", "defined", "activated"]
    assert grid.history(never) == ["defined", "waiting"]


def break_register(grid: Grid, monkeypatch: pytest.MonkeyPatch, broken: Callable[[Sequence[str]], bool]) -> list[int]:
    """Let the DDM be out of order for some registrations; give the sizes of all that were asked for."""
    ddm, sizes = grid.server.rooms.data.ddm, list[int]()
    register = ddm.register

    def registering(placed: Any) -> None:
        lfns = sorted({r.lfn for some in placed.values() for r in some})
        sizes.append(len(lfns))
        if broken(lfns):
            raise DDMError("the DDM is out of order")
        register(placed)

    monkeypatch.setattr(ddm, "register", registering)
    return sizes


def test_a_bunch_that_fails_as_a_whole_is_done_in_parts(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = produce(grid, 8)
    for job in jobs:
        finish(grid, job)
    sizes = break_register(grid, monkeypatch, lambda lfns: len(lfns) > 4)
    grid.work()
    assert sizes == [16, 8, 4, 4, 8, 4, 4]
    check_ended_once(grid, jobs)


def test_a_ddm_that_is_down_for_all_is_asked_again_for_all(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = produce(grid, 5)
    for job in jobs:
        finish(grid, job)
    down = [True]
    sizes = break_register(grid, monkeypatch, lambda lfns: down[0])
    grid.work()
    assert set(states(grid, jobs)) == {"holding"}
    assert pending(grid) == {"add": 5}
    down.clear()
    down.append(False)
    sizes.clear()
    grid.watch(2)
    assert sizes == [10]
    check_ended_once(grid, jobs)


@pytest.mark.parametrize("before", [False, True], ids=["after", "before"])
def test_a_server_killed_at_any_commit_of_a_bunch(grid: Grid, before: bool) -> None:
    """Kill it at its first commit, at its second of the next bunch, and so on, until one lives through it all."""
    for number in range(1, 40):
        jobs = produce(grid, 3, "UTA")
        for job in jobs:
            finish(grid, job)
        kill_at(grid.buffer.database, number, before=before)
        killed = True
        with suppress(Killed):
            grid.work()
            killed = False
        grid.restart()
        grid.clock.forward(61)
        grid.work()
        for job in jobs:
            assert grid.history(job["PandaID"])[-3:] == ["holding", "transferring", "finished"]
        assert pending(grid) == {}
        if not killed:
            assert number > 10
            return
    raise AssertionError("too many transactions for three jobs")


def kill_at(database: Database, number: int, *, before: bool) -> None:
    run, seen = database.run, list[int]()

    def die(_: object = None) -> Any:
        raise Killed

    def dying_run(transaction: Any) -> Any:
        seen.append(1)
        if len(seen) == number and before:
            return run(lambda c: die(transaction(c)))
        result = run(transaction)
        return die() if len(seen) == number else result

    database.run = dying_run  # type: ignore[method-assign]


# --- at the same moment


def in_threads(*acts: Callable[[], object]) -> None:
    gate, errors = threading.Barrier(len(acts)), list[BaseException]()

    def run(act: Callable[[], object]) -> None:
        try:
            gate.wait(20)
            act()
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if errors:
        raise errors[0]


def test_the_same_outputs_added_by_several_at_the_same_moment(grid: Grid) -> None:
    jobs = produce(grid, 12)
    for job in jobs:
        finish(grid, job)
    service, asked = grid.server.rooms.data, [(job["PandaID"], 1) for job in jobs]
    in_threads(*(lambda part=asked[n : n + 8]: adder.add(service, part) for n in (0, 2, 4)))  # type: ignore[misc]
    grid.work()
    check_ended_once(grid, jobs)
    assert pending(grid) == {}


def test_bunches_set_up_at_the_same_moment(grid: Grid) -> None:
    ids = [grid.submit(*(f.production_job(n) for n in range(30)), who="prodman") for _ in range(4)]
    service = grid.server.rooms.data
    in_threads(*(lambda some=some: setupper.set_up(service, some) for some in [*ids, ids[0] + ids[3]]))  # type: ignore[misc]
    grid.work()
    for some in ids:
        for job_id in some:
            assert grid.history(job_id) == ["defined", "activated"]
    assert sorted(f.ready_ids(grid.buffer)) == sorted(job_id for some in ids for job_id in some)
    loaded = grid.buffer.read(lambda c: files.of_jobs(c, range(1, 121)))
    parts = Counter((x.block, x.dataset, x.endpoint) for some in loaded.values() for x in some)
    assert len({block for block, _, _ in parts}) == len(parts), "a part belongs to one dataset and goes to one place"
    assert all(x.guid and x.block for some in loaded.values() for x in some)


# --- set-up


def test_jobs_of_a_bunch_go_different_ways(grid: Grid) -> None:
    grid.register("mc.in", "BNL_DISK", "in.bnl")
    grid.register("mc.in", "UTA_DISK", "in.uta")
    known = grid.buffer.read(topology.load)
    off = replace(known.queues["UTA"], name="OFF", status=QueueStatus.OFFLINE)
    grid.buffer.run(lambda c: topology.save(c, replace(known, queues=known.queues | {"OFF": off})))
    told = [
        {"computingSite": "BNL"},
        {"computingSite": "UTA"},
        {"computingSite": "OFF"},
        {"minRamCount": 10**6},
        {},
    ]
    reading = [f.analysis_job(*lfns, computingSite="BNL") for lfns in (["in.bnl"], ["in.uta"], ["nothing"])]
    ids = grid.submit(*(f.analysis_job(**more) for more in told), *reading, f.analysis_job(computingSite="BNL"))
    at_bnl, at_uta, off_line, nowhere, anywhere, here, there, missing, dead = ids
    grid.call("alice", "killJobs", ids=[dead])
    grid.server.pool.run_all(limit=1)
    states = {job_id: grid.state(job_id) for job_id in ids}
    assert states == {
        at_bnl: "activated", at_uta: "activated", off_line: "defined", nowhere: "failed", anywhere: "activated",
        here: "activated", there: "assigned", missing: "waiting", dead: states[dead],
    }  # fmt: skip
    assert grid.history(dead)[-1] in ("closed", "cancelled")
    said = {job_id: grid.buffer.read(lambda c, i=job_id: reasons.of_job(c, i)) for job_id in ids}  # type: ignore[misc]
    chosen = {job_id: [r.queue for r in some if r.queue] for job_id, some in said.items()}
    assert chosen[at_bnl] == chosen[here] == chosen[there] == ["BNL"]
    assert chosen[at_uta] == ["UTA"]
    words = {len(one.reasons) for i in (at_bnl, at_uta, off_line, nowhere, anywhere) for one in said[i]}
    assert words == {3}, "a word of every queue"
    assert chosen[off_line] == chosen[nowhere] == said[missing] == said[dead] == []
    grid.work()
    assert grid.history(there) == ["defined", "assigned", "activated"]
    (row,) = rows(grid, schema.work)
    assert (row.kind, row.payload) == ("setup", {"job_ids": [off_line]})


def rows(grid: Grid, table: sa.Table) -> list[Any]:
    return grid.buffer.read(lambda c: list(c.execute(sa.select(table))))


def test_a_large_bunch_is_set_up_in_several_transactions(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setupper, "TOGETHER", 7)
    ids = grid.submit(*(f.production_job(n) for n in range(20)), who="prodman")
    grid.work()
    assert {grid.state(i) for i in ids} == {"activated"}
    names = {row.name for row in rows(grid, schema.datasets) if row.type == "sub"}
    assert len(names) == 3 * 2 * 2, "three rounds, two queues, output and log"


def test_bunches_that_differ_are_never_taken_for_one(grid: Grid) -> None:
    for ids in ([1, 2, 5], [1, 3, 5], [1, 2, 5]):
        grid.buffer.run(lambda c, some=ids: ask_setup(c, some, grid.clock()))  # type: ignore[misc]
    assert sorted(row.payload["job_ids"] for row in rows(grid, schema.work)) == [[1, 2, 5], [1, 3, 5]]


def open_only(grid: Grid, name: str) -> None:
    known = grid.buffer.read(topology.load)
    states = {q: QueueStatus.ONLINE if q == name else QueueStatus.OFFLINE for q in known.queues}
    queues = {q: replace(queue, status=states[q]) for q, queue in known.queues.items()}
    grid.buffer.run(lambda c: topology.save(c, replace(known, queues=queues)))


def test_a_round_that_was_overtaken_does_nothing(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a set-up sleeps, another one sends the job to its queue, from where it is called back."""
    open_only(grid, "BNL")
    grid.submit(f.analysis_job(), f.analysis_job(computingSite="BNL"))
    name_parts = setupper._name_parts

    def name_parts_slowly(*args: Any) -> Any:
        named = name_parts(*args)
        monkeypatch.undo()
        setupper.set_up(grid.server.rooms.data, [1, 2])
        open_only(grid, "UTA")
        (one,) = grid.buffer.read(lambda c: files.load_jobs(c, [1]))
        grid.buffer.run(lambda c: reassign(c, one, "the queue is closed", grid.clock()))
        return named

    monkeypatch.setattr(setupper, "_name_parts", name_parts_slowly)
    grid.work()
    assert grid.history(1) == ["defined", "activated", "defined", "activated"]
    assert grid.describe(1)["computingSite"] == "UTA"
    assert grid.history(2) == ["defined", "activated"]
    chosen = [r.queue for r in grid.buffer.read(lambda c: reasons.of_job(c, 1)) if r.queue]
    assert chosen == ["BNL", "UTA"]
    assert {x.endpoint for x in grid.buffer.read(lambda c: files.of_jobs(c, [1]))[1]} == {"UTA_DISK"}
