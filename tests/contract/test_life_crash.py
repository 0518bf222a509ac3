"""A server killed at any commit, work done twice or in any order: every job ends once and well, all the same."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import factories as f
import pytest
import sqlalchemy as sa
from factories import Grid

from pandaserver.background.pool import Bunch, Handler
from pandaserver.dataservice.ddm.storage.folder import Folder
from pandaserver.model.states import allowed
from pandaserver.taskbuffer import attempts, jobs, schema, work
from pandaserver.taskbuffer.database import Database, Work

T = TypeVar("T")
WORK_LEASE_S = 60


class Killed(BaseException):
    """What no `except Exception` sees: as after kill -9, nothing more is done."""


def kill_at(database: Database, number: int, *, before: bool) -> list[int]:
    """Let the process die at the number-th transaction, just before or just after its COMMIT."""
    run, seen = database.run, list[int]()

    def dying_run(transaction: Work[T]) -> T:
        seen.append(1)
        if len(seen) == number and before:
            return run(lambda c: kill_after(transaction(c)))
        result = run(transaction)
        return kill_after(result) if len(seen) == number else result

    database.run = dying_run  # type: ignore[method-assign]
    return seen


def kill_after(_result: object) -> Any:
    raise Killed


@dataclass
class Life:
    """A production job, and an analysis job that reads its output and a file from elsewhere."""

    grid: Grid
    tag: str
    work: Callable[[], object]
    crashes: int = 0

    def persist(self, act: Callable[[], T]) -> T:
        """Do it again after a crash, as users, pilots and service managers do."""
        while True:
            try:
                return act()
            except Killed:
                self.crashes += 1
                assert self.crashes < 100, "no progress"
                self.grid.restart()
                self.grid.clock.forward(WORK_LEASE_S + 1)

    def live(self) -> list[int]:
        self.persist(lambda: self.grid.register(f"mc.{self.tag}.extra", "BNL_DISK", f"extra.{self.tag}"))
        ids = [
            self.submit(f.production_job(**self.production(), computingSite="UTA"), who="prodman"),
            self.submit(f.analysis_job(**self.analysis(), computingSite="UTA"), who="alice"),
        ]
        for job_id in ids:
            self.persist(self.work)
            assert self.run() == job_id
        self.persist(self.work)
        self.persist(lambda: self.grid.watch(5))
        return ids

    def production(self) -> dict[str, Any]:
        output = {"type": "output", "lfn": f"evnt.{self.tag}", "dataset": f"mc.{self.tag}.evnt"}
        return {"jobName": f"make {self.tag}", "destinationDBlock": f"mc.{self.tag}.evnt", "Files": [output]}

    def analysis(self) -> dict[str, Any]:
        names = (("input", f"evnt.{self.tag}", "evnt"), ("input", f"extra.{self.tag}", "extra"))
        files = [{"type": kind, "lfn": lfn, "dataset": f"mc.{self.tag}.{end}"} for kind, lfn, end in names]
        files.append({"type": "output", "lfn": f"hist.{self.tag}", "dataset": f"mc.{self.tag}.hist"})
        return {"jobName": f"read {self.tag}", "destinationDBlock": f"mc.{self.tag}.hist", "Files": files}

    def submit(self, job: dict[str, Any], who: str) -> int:
        key = f"{who} {self.tag}"
        (job_id,) = self.persist(lambda: self.grid.submit(job, who=who, clientKey=key))
        return job_id

    def run(self) -> int:
        """Be a pilot that repeats each call until it is answered."""
        request = f"{self.tag} {random.random()}"
        job = self.persist(lambda: self.grid.get_job("UTA", requestId=request))
        assert job["StatusCode"] == 0, job
        stored = self.grid.store_all(job, "{lfn}")
        for state, more in (("starting", {}), ("running", {}), ("finished", {"xml": json.dumps(stored)})):
            answer = self.persist(lambda s=state, m=more: self.grid.update(job, s, **m))  # type: ignore[misc]
            assert answer == {"StatusCode": 0, "command": "NULL"}
        return int(job["PandaID"])

    def check(self, ids: list[int]) -> None:
        """Everything happened, and it happened once."""
        grid, tag = self.grid, self.tag
        for job_id in ids:
            history = grid.buffer.read(lambda c, i=job_id: jobs.history_of(c, i))  # type: ignore[misc]
            assert [r.from_state for r in history] == [None, *(r.to_state for r in history[:-1])]
            assert all(allowed(r.from_state, r.to_state) for r in history[1:] if r.from_state)
            states = [r.to_state.value for r in history]
            assert states[-1] == "finished", states
            assert states.count("sent") == states.count("running") == 1, states
            tries = grid.buffer.read(lambda c, i=job_id: attempts.of_jobs(c, [i]))  # type: ignore[misc]
            assert [(a.number, a.outcome) for a in tries] == [(1, "finished")]
        assert grid.buffer.read(lambda c: jobs.errors_of(c, ids)) == {}
        assert self.named(f"make {tag}") == [ids[0]]
        assert self.named(f"read {tag}") == [ids[1]]
        assert f.ready_ids(grid.buffer) == []
        assert grid.buffer.read(work.pending) == {}
        ddm = grid.server.rooms.data.ddm
        where = {"evnt": ["BNL_DISK", "UTA_DISK"], "extra": ["BNL_DISK", "UTA_DISK"], "hist": ["UTA_DISK"]}
        for end, places in where.items():
            assert ddm.contents(f"mc.{tag}.{end}") == [("mc", f"{end}.{tag}")]
            assert [r.endpoint for r in ddm.replicas([("mc", f"{end}.{tag}")])["mc", f"{end}.{tag}"]] == places
            if end != "extra":
                paths = [grid.place(place, "mc", f"{end}.{tag}") for place in places]
                assert {path.read_text() for path in paths} == {f"{end}.{tag}"}
                assert not [x for path in paths for x in path.parent.glob("*.a1-*")], "nothing waits beside its place"
        assert len(ddm.contents(f"mc.{tag}.evnt.log")) == len(ddm.contents(f"mc.{tag}.hist.log")) == 1
        states = grid.buffer.read(lambda c: set(c.execute(sa.select(schema.ddm_transfers.c.state)).scalars()))
        assert states == {"done"}

    def named(self, name: str) -> list[int]:
        table = schema.jobs
        statement = sa.select(table.c.job_id).where(table.c.name == name)
        return self.grid.buffer.read(lambda c: list(c.execute(statement).scalars()))


def live(grid: Grid, tag: str, do_work: Callable[[], object] | None = None) -> Life:
    life = Life(grid, tag, do_work or (lambda: grid.work()))
    life.check(life.live())
    return life


def test_the_life_itself(grid: Grid) -> None:
    assert live(grid, "plain").crashes == 0


LIFE_TRANSACTIONS = range(60, 150)


def kill_at_each(grid: Grid, step: int, *, before: bool) -> int:
    """Live once for every step-th transaction of a life, killed at it; tell how many lives that were."""
    for number in range(1, LIFE_TRANSACTIONS.stop, step):
        kill_at(grid.buffer.database, number, before=before)
        if live(grid, f"k{number}").crashes == 0:
            assert number in LIFE_TRANSACTIONS
            return number // step
        grid.restart()
    raise AssertionError(f"a life has {LIFE_TRANSACTIONS.stop} transactions and more")


ON_EITHER_SIDE = pytest.mark.parametrize("before", [False, True], ids=["after", "before"])


@pytest.mark.recovery
@ON_EITHER_SIDE
def test_a_server_killed_at_some_commits_loses_nothing_and_does_nothing_twice(grid: Grid, before: bool) -> None:
    kill_at_each(grid, 17 if before else 13, before=before)


@pytest.mark.slow
@pytest.mark.recovery
@ON_EITHER_SIDE
def test_a_server_killed_at_any_commit_loses_nothing_and_does_nothing_twice(grid: Grid, before: bool) -> None:
    everywhere = grid.buffer.database.writer.dialect.name == "sqlite"  # the other database has the same commits
    lives = kill_at_each(grid, 1 if everywhere else 4, before=before)
    print(f"killed {'before' if before else 'after'} each of {lives} commits: nothing lost, nothing done twice")


A_SHORT_LIFE = 30  # transactions: enough for all duties once


def test_a_server_killed_again_and_again(grid: Grid) -> None:
    """Every process lives for a few transactions only; still there is progress."""
    restart = grid.restart

    def restart_and_die_again() -> None:
        restart()
        kill_at(grid.buffer.database, A_SHORT_LIFE, before=False)

    grid.restart = restart_and_die_again  # type: ignore[method-assign]
    life = Life(grid, "often", lambda: grid.work())
    kill_at(grid.buffer.database, A_SHORT_LIFE, before=False)
    ids = life.live()
    assert life.crashes >= 3
    restart()
    life.check(ids)


def test_all_work_may_be_done_twice(grid: Grid) -> None:
    kinds = grid.server.pool._handlers

    def twice(handler: Handler) -> Handler:
        def run(bunch: Bunch) -> None:
            for _ in range(2):
                handler.run(bunch)

        return replace(handler, run=run)

    grid.server.pool._handlers = {kind: twice(handler) for kind, handler in kinds.items()}
    live(grid, "twice")


@pytest.mark.parametrize("seed", range(4))
def test_work_may_be_done_in_any_order(grid: Grid, seed: int) -> None:
    dice, pool = random.Random(seed), grid.server.pool

    def do_in_any_order() -> None:
        while bunches := pool._claim(dict.fromkeys(pool._handlers, 100)):
            items = [item for bunch in bunches for item in bunch]
            dice.shuffle(items)
            for item in items:
                pool._do([item])

    live(grid, f"seed{seed}", do_in_any_order)


@pytest.mark.parametrize(
    "kind", ["setup", "dispatch", "activate", "add", "finish", "close", "ddm_link", "ddm_callback"]
)
def test_work_of_each_kind_may_fail_at_first(grid: Grid, kind: str) -> None:
    handlers = dict(grid.server.pool._handlers)
    good, tries = handlers[kind], Counter[str]()

    def run(bunch: Bunch) -> None:
        tries.update(item.key for item in bunch)
        if any(tries[item.key] < 3 for item in bunch):
            raise RuntimeError("on purpose")
        good.run(bunch)

    grid.server.pool._handlers = handlers | {kind: replace(good, run=run)}

    def do_patiently() -> None:
        while grid.work() or grid.buffer.read(work.next_due) is not None:
            grid.clock.forward(2)

    live(grid, f"fails-{kind}", do_patiently)
    assert tries


TOUCHES = ("rename", "remove", "write")  # what changes storage


def kill_at_touch(patch: pytest.MonkeyPatch, number: int, *, before: bool) -> list[str]:
    """Let the process die at the number-th change of storage, just before or just after it."""
    seen = list[str]()

    def dying(name: str) -> Callable[..., Any]:
        act = getattr(Folder, name)

        def do(*args: Any, **told: Any) -> Any:
            seen.append(name)
            if before and len(seen) == number:
                raise Killed
            result = act(*args, **told)
            return kill_after(result) if len(seen) == number else result

        return do

    for name in TOUCHES:
        patch.setattr(Folder, name, dying(name))
    return seen


@pytest.mark.recovery
@ON_EITHER_SIDE
def test_a_server_killed_at_any_touch_of_storage(grid: Grid, before: bool) -> None:
    """A file may have its name and not be in the catalogue yet: whoever takes over finds it there."""
    for number in range(1, 40):
        with pytest.MonkeyPatch.context() as patch:
            seen = kill_at_touch(patch, number, before=before)
            if live(grid, f"touch{number}{before}").crashes == 0:
                assert number > 8, seen
                return
    raise AssertionError("a life touches storage 40 times and more")


@pytest.mark.parametrize("seed", range(3))
def test_callbacks_that_come_late_twice_and_in_any_order(grid: Grid, seed: int) -> None:
    """They are kept back, mixed up, and said again when everything is over."""
    dice, kept = random.Random(seed), list[tuple[str, str]]()
    say = grid.called_back
    grid.called_back = lambda dataset, endpoint: kept.append((dataset, endpoint))  # type: ignore[method-assign]

    def work_and_call_back() -> None:
        grid.work()
        said = dice.sample(kept, len(kept))  # those of before, too
        for dataset, endpoint in said:
            say(dataset, endpoint)
        grid.work()

    live(grid, f"callbacks{seed}", work_and_call_back)
    for dataset, endpoint in kept:
        say(dataset, endpoint)
    grid.work()
    assert kept
    assert grid.buffer.read(work.pending) == {}
