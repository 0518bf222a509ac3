"""Parked requests: who is woken when, and who is not. Without database and web; threads stand for requests."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from pandaserver.jobdispatcher import parking
from pandaserver.jobdispatcher.parking import LotFull, ParkingLot, Wait

LONG = 20.0


def eventually(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


class World:
    """Queues with jobs, of kinds that not everybody takes; counts how often the jobs are looked at and tried for."""

    def __init__(self, most: int = 100) -> None:
        self.time = 1000.0
        self.jobs: dict[str, dict[int, str]] = {}
        self.activated: Counter[str] = Counter()
        self.looks: list[list[str]] = []
        self.second_looks: list[list[str]] = []
        self.tries: list[str] = []
        self.lock = threading.Lock()
        self.lot = ParkingLot(self, most, clock=lambda: self.time)
        self.pool = ThreadPoolExecutor(200)

    def activations(self, queues: Any) -> dict[str, int]:
        self.looks.append(sorted(queues))
        return {queue: self.activated[queue] for queue in queues}

    def with_jobs(self, queues: Any) -> list[str]:
        self.second_looks.append(sorted(queues))
        return [queue for queue in queues if self.jobs.get(queue)]

    def activate(self, *jobs: int, queue: str = "A", kind: str = "any") -> None:
        with self.lock:
            self.jobs.setdefault(queue, {}).update(dict.fromkeys(jobs, kind))
            self.activated[queue] += len(jobs)

    def claim(self, queue: str, kind: str, name: str) -> list[int]:
        with self.lock:
            self.tries.append(name)
            for job, its_kind in self.jobs.get(queue, {}).items():
                if its_kind in ("any", kind):
                    del self.jobs[queue][job]
                    return [job]
        return []

    def ask(self, name: str, queue: str = "A", *, kind: str = "any", **wait: Any) -> Future[Any]:
        """Ask in a thread, and see to it that the request has been parked before the next one comes."""
        parked = self.lot.parked
        wish = Wait(**({"seconds": LONG} | wait))
        future = self.pool.submit(self.lot.wait_for, queue, lambda: self.claim(queue, kind, name), wish)
        eventually(lambda: future.done() or self.lot.parked > parked or wait.get("key"))
        if not future.done():
            eventually(lambda: future.done() or self.asleep() >= self.lot.parked)
            self.look_first()
        return future

    def look_first(self) -> None:
        """Have the watcher see those queues in which somebody has begun to wait, before anything happens."""
        if any(room.waiters and room.activations is None for room in self.lot._rooms.values()):
            self.look(later=0)
            self.looks.clear()
            self.second_looks.clear()

    def asleep(self) -> int:
        return sum(w.asleep for room in self.lot._rooms.values() for w in room.waiters)

    def look(self, *, later: float = 0.1) -> None:
        """Have the watcher look; whoever is woken tries before this returns."""
        self.time += later
        self.lot.look()
        eventually(lambda: self.asleep() == self.lot.parked)

    def done(self, *futures: Future[Any]) -> list[Any]:
        return [future.result(5) if future.done() else None for future in futures]


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.lot.stop()
    made.pool.shutdown()


def test_who_finds_a_job_at_once_is_not_parked(world: World):
    world.activate(1)
    assert world.ask("a").result(5) == [1]
    assert (world.lot.parked, world.looks) == (0, [])


def test_who_does_not_want_to_wait_is_not_parked(world: World):
    assert world.ask("a", seconds=0).result(5) == []
    assert world.tries == ["a"]


def test_a_parked_request_gets_the_next_job(world: World):
    asked = world.ask("a")
    assert not asked.done() and world.lot.parked == 1
    world.activate(7)
    world.look()
    assert asked.result(5) == [7]
    assert world.lot.parked == 0 and world.tries == ["a", "a"]


def test_nobody_is_woken_without_news(world: World):
    asked = world.ask("a")
    for _ in range(5):
        world.look()
    assert not asked.done() and world.tries == ["a"]


def test_as_many_are_woken_as_there_are_jobs_the_first_come_first(world: World):
    asked = [world.ask(str(n)) for n in range(10)]
    world.activate(1, 2, 3)
    world.look()
    assert sorted(job for jobs in world.done(*asked[:3]) for job in jobs) == [1, 2, 3]
    assert world.done(*asked[3:]) == [None] * 7
    assert len(world.tries) == 13


def test_more_jobs_than_waiters_wake_everybody_once(world: World):
    asked = [world.ask(str(n)) for n in range(3)]
    world.activate(*range(50))
    world.look()
    assert sorted(job for jobs in world.done(*asked) for job in jobs) == [0, 1, 2]
    assert len(world.tries) == 6


def test_jobs_of_another_queue_wake_nobody(world: World):
    asked = world.ask("a", "A")
    world.activate(1, queue="B")
    world.look()
    assert not asked.done() and world.looks[-1] == ["A"]


def test_only_queues_that_somebody_waits_for_are_looked_at(world: World):
    world.lot.look()
    assert world.looks == []
    world.ask("a", "A")
    world.ask("b", "B")
    world.look()
    assert world.looks == [["A", "B"]]
    world.activate(1)
    world.look()
    world.look()
    assert world.looks[-1] == ["B"]


def test_a_job_that_is_not_for_the_first_is_for_another(world: World):
    """Ten wait for other kinds of jobs, the last one for this."""
    others = [world.ask(str(n), kind="small") for n in range(10)]
    wanted = world.ask("last", kind="large")
    world.activate(1, kind="large")
    for _ in range(11):
        world.look()
    assert wanted.result(5) == [1]
    assert world.done(*others) == [None] * 10
    assert len(world.tries) == 11 + 11, "each tried once more, and no more than once"


def test_a_job_for_nobody_costs_each_one_try_and_the_tries_are_spread(world: World):
    asked = [world.ask(str(n), kind="small") for n in range(60)]
    world.activate(1, kind="large")
    world.look()
    assert len(world.tries) == 61
    for _ in range(200):
        world.look()
    assert len(world.tries) == 120 and world.done(*asked) == [None] * 60


def test_a_stream_of_jobs_for_nobody_costs_little(world: World):
    """Fifty wait; in each of 100 looks (10 s) there is another job that none of them takes."""
    for n in range(50):
        world.ask(str(n), kind="small")
    for job in range(100):
        world.activate(job, kind="large")
        world.look()
    tries = len(world.tries) - 50
    assert tries <= 100 + parking._MOST_EXTRA_TRIES + 100 * parking._EXTRA_TRIES


def test_whether_old_jobs_wait_is_asked_only_while_it_matters(world: World):
    """Activations are counted, which costs little however many jobs wait; to see the jobs costs more."""
    world.ask("a", kind="small")
    world.activate(1, kind="large")
    for _ in range(100):
        world.look()
    assert len(world.looks) == 100 and len(world.second_looks) <= 3
    world.activate(2)
    world.look()
    assert world.lot.parked == 0


def test_a_job_that_comes_while_somebody_tries_is_not_missed(world: World):
    """Between a vain try and its falling asleep a job is activated and seen."""
    first = world.ask("first", kind="small")
    begun, go_on = threading.Event(), threading.Event()

    def attempt() -> list[int]:
        found = world.claim("A", "large", "slow")
        if not begun.is_set():
            begun.set()
            go_on.wait(5)
        return found

    slow = world.pool.submit(world.lot.wait_for, "A", attempt, Wait(LONG))
    begun.wait(5)
    world.activate(1, kind="large")
    world.lot.look()
    go_on.set()
    assert slow.result(5) == [1]
    assert not first.done()


def test_waiting_ends_with_nothing_and_without_another_try(world: World):
    asked = world.ask("a", seconds=0.02)
    assert asked.result(5) == []
    assert world.tries == ["a"] and world.lot.parked == 0


def test_at_the_end_there_is_a_last_try_where_jobs_are_ready(world: World):
    """What the watcher could not see as new, such as a share that is free again."""
    world.activate(1, kind="large")
    asked = world.ask("a", kind="small", seconds=0.3)
    world.look()
    with world.lock:
        world.jobs["A"] = {1: "small"}
    assert asked.result(5) == [1]


def test_the_lot_has_an_end(world: World):
    small = World(most=2)
    small.ask("a"), small.ask("b", "B")
    with pytest.raises(LotFull):
        small.ask("c", "C").result(5)
    small.activate(1, queue="D")
    assert small.ask("d", "D").result(5) == [1], "a job that is there needs no place"
    small.activate(2)
    small.look()
    assert not small.ask("e").done()
    small.lot.stop()
    small.pool.shutdown()


def test_a_request_that_comes_again_takes_its_own_place():
    world = World(most=1)
    old = world.ask("old", key="pilot 1")
    new = world.ask("new", key="pilot 1")
    assert old.result(5) == [] and not new.done()
    eventually(lambda: world.asleep() == world.lot.parked == 1)
    world.activate(1)
    world.look()
    assert new.result(5) == [1] and world.tries == ["old", "new", "new"]
    world.lot.stop()
    world.pool.shutdown()


def test_requests_without_key_and_of_other_keys_stay(world: World):
    asked = [world.ask("a"), world.ask("b"), world.ask("c", key="1"), world.ask("d", key="2")]
    assert world.done(*asked) == [None] * 4


def test_who_has_gone_gets_nothing_and_the_next_one_does(world: World):
    gone = world.ask("gone", still_there=lambda: False)
    there = world.ask("there")
    world.activate(1)
    world.look()
    assert gone.result(5) == [] and not there.done()
    world.look()
    assert there.result(5) == [1]
    assert world.tries == ["gone", "there", "there"]


def test_an_error_in_a_try_is_for_the_one_who_tried_and_frees_the_place(world: World):
    calls: list[int] = []

    def attempt() -> list[int]:
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("the database is away")
        return []

    bad = world.pool.submit(world.lot.wait_for, "A", attempt, Wait(LONG))
    eventually(lambda: world.asleep() == 1)
    good = world.ask("good")
    world.activate(1)
    world.look()
    with pytest.raises(RuntimeError):
        bad.result(5)
    world.look()
    assert good.result(5) == [1] and world.lot.parked == 0


def test_stop_sends_all_away_and_takes_nobody(world: World):
    asked = [world.ask(str(n), queue) for n in range(5) for queue in "AB"]
    world.lot.stop()
    assert [future.result(5) for future in asked] == [[]] * 10
    with pytest.raises(LotFull):
        world.ask("late").result(5)
    assert len(world.tries) == 11


def test_the_thread_looks_only_while_somebody_waits(world: World):
    world.lot.start()
    world.lot.look_soon()
    time.sleep(0.15)
    assert world.looks == []
    asked = world.ask("a")
    eventually(lambda: world.looks)
    world.activate(1)
    assert asked.result(5) == [1]
    count = len(world.looks)
    time.sleep(0.25)
    assert len(world.looks) <= count + 1


def test_the_thread_survives_a_database_that_is_away(world: World, monkeypatch: pytest.MonkeyPatch, caplog: Any):
    monkeypatch.setattr(parking, "_TROUBLE_S", 0.01)
    look = world.activations
    answers: list[Any] = [RuntimeError("away")] * 2

    def activations(queues: Any) -> Any:
        if answers:
            raise answers.pop()
        return look(queues)

    asked = world.ask("a")
    monkeypatch.setattr(world, "activations", activations)
    world.lot.start()
    world.activate(1)
    assert asked.result(5) == [1]
    assert caplog.text.count("trying again") == 2


def test_local_news_are_seen_before_the_next_look(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parking, "LOOK_S", 30.0)
    world.lot.start()
    asked = world.ask("a")
    time.sleep(0.05)
    world.activate(1)
    world.lot.look_soon()
    assert asked.result(5) == [1]


def test_many_waiters_and_jobs_from_many_threads_lose_nothing():
    """200 requests and 200 jobs, in small portions: everybody gets one, each job goes to one."""
    world = World(most=1000)
    world.lot._clock = time.monotonic
    world.lot.start()
    asked = [
        world.pool.submit(world.lot.wait_for, "A", lambda n=n: world.claim("A", "any", str(n)), Wait(LONG))
        for n in range(200)
    ]
    for first in range(0, 200, 7):
        world.activate(*range(first, min(first + 7, 200)))
        time.sleep(0.005)
    got = sorted(job for future in asked for job in future.result(15))
    assert got == list(range(200))
    world.lot.stop()
    world.pool.shutdown()
