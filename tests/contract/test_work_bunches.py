"""Work in bunches: what is due of one kind is done together, and one bad piece is nobody else's trouble."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from factories import Clock

from pandaserver.background.pace import Measure
from pandaserver.background.pool import Bunch, Handler, WorkPool
from pandaserver.taskbuffer import work
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.work import NewWork, WorkItem

LEASE_S = 60.0
MANY = Measure(at_once=100)


def ask(buffer: TaskBuffer, *keys: str, kind: str = "k", delay_s: float = 0) -> None:
    new = [NewWork(kind=kind, key=key, payload={}) for key in keys]
    buffer.run(lambda c: work.add(c, new, now=buffer.now(), delay_s=delay_s))


def pending(buffer: TaskBuffer) -> dict[str, int]:
    return buffer.read(work.pending)


def forward(buffer: TaskBuffer, seconds: float) -> None:
    assert isinstance(buffer.clock, Clock)
    buffer.clock.forward(seconds)


def claim(buffer: TaskBuffer, limit: int = 100, **told: Any) -> list[WorkItem]:
    return buffer.run(lambda c: work.claim(c, "me", limit, now=buffer.now(), lease_s=LEASE_S, **told))


class Doer:
    """Does bunches; those with one of the bad keys fail."""

    def __init__(self, *bad: str) -> None:
        self.bad = set(bad)
        self.tried, self.done, self.given_up = list[list[str]](), list[str](), list[str]()

    def run(self, bunch: Bunch) -> None:
        keys = [item.key for item in bunch]
        self.tried.append(keys)
        if self.bad & set(keys):
            raise RuntimeError(f"cannot do {sorted(self.bad & set(keys))}")
        self.done += keys

    def give_up(self, item: WorkItem, error: str) -> None:
        self.given_up.append(item.key)


def pool(buffer: TaskBuffer, measure: Measure = MANY, threads: int = 2, **kinds: Callable[[Bunch], None]) -> WorkPool:
    handlers = {kind: Handler(run, measure=measure) for kind, run in kinds.items()}
    return WorkPool(buffer, handlers, threads=threads, lease_s=LEASE_S, give_up_after_s=86400)


# --- the queue, for many


def test_work_is_claimed_by_kind(buffer: TaskBuffer) -> None:
    ask(buffer, "a", "b", kind="one")
    ask(buffer, "a", kind="other")
    assert [item.kind for item in claim(buffer, kind="other")] == ["other"]
    assert claim(buffer, kind="other") == claim(buffer, kind="nothing") == []
    assert [item.key for item in claim(buffer, kind="one")] == ["a", "b"]


def test_the_next_moment_of_each_kind(buffer: TaskBuffer) -> None:
    ask(buffer, "later", "latest", kind="one", delay_s=100)
    ask(buffer, "soon", kind="one", delay_s=10)
    ask(buffer, "now", kind="other")
    due = buffer.read(lambda c: work.due(c, ["other", "one", "nothing"]))
    assert set(due) == {"one", "other"}
    assert timedelta(seconds=9) < due["one"] - buffer.now() < timedelta(seconds=10)
    assert due["other"] <= buffer.now()


def test_many_done_together_but_for_those_asked_for_again(buffer: TaskBuffer) -> None:
    keys = [str(n) for n in range(10)]
    ask(buffer, *keys)
    ask(buffer, *keys[5:])  # so there are versions
    items = claim(buffer)
    ask(buffer, "3", "7")
    ask(buffer, "8", delay_s=50)
    buffer.run(lambda c: work.done(c, items, now=buffer.now()))
    assert pending(buffer) == {"k": 3}
    again = claim(buffer)
    assert [item.key for item in again] == ["3", "7"]
    forward(buffer, 50)
    assert [item.key for item in claim(buffer)] == ["8"]
    buffer.run(lambda c: work.done(c, again, now=buffer.now()))
    assert pending(buffer) == {"k": 1}


def test_nothing_done_is_no_trouble(buffer: TaskBuffer) -> None:
    ask(buffer, "a")
    buffer.run(lambda c: work.done(c, [], now=buffer.now()))
    assert pending(buffer) == {"k": 1}


# --- the pool


def test_what_is_due_is_done_together_by_kind(buffer: TaskBuffer) -> None:
    one, other = Doer(), Doer()
    ask(buffer, "a", "b", "c", kind="one")
    ask(buffer, "x", "y", kind="other")
    ask(buffer, "later", kind="one", delay_s=50)
    assert pool(buffer, one=one.run, other=other.run).run_all() == 5
    assert (one.tried, other.tried) == ([["a", "b", "c"]], [["x", "y"]])
    assert pending(buffer) == {"one": 1}


def test_a_bunch_has_a_largest_size(buffer: TaskBuffer) -> None:
    doer = Doer()
    ask(buffer, *(f"{n:03}" for n in range(25)))
    pool(buffer, Measure(at_once=10), k=doer.run).run_all()
    assert [len(keys) for keys in doer.tried] == [10, 10, 5]
    assert sorted(doer.done) == [f"{n:03}" for n in range(25)]


def test_one_bad_piece_fails_alone(buffer: TaskBuffer) -> None:
    doer = Doer("05")
    ask(buffer, *(f"{n:02}" for n in range(16)))
    pool(buffer, k=doer.run).run_all()
    assert sorted(doer.done) == [f"{n:02}" for n in range(16) if n != 5]
    assert doer.tried[-1] != ["05"] and ["05"] in doer.tried
    assert len(doer.tried) == 1 + 2 * 4, "it is found by halves"
    assert pending(buffer) == {"k": 1}
    forward(buffer, 1)
    doer.bad.clear()
    assert pool(buffer, k=doer.run).run_all() == 1
    assert pending(buffer) == {}


def test_each_bad_piece_has_its_own_count_of_tries(buffer: TaskBuffer) -> None:
    doer = Doer("a", "c")
    ask(buffer, "a", "b")
    one = pool(buffer, k=doer.run)
    one.run_all()
    forward(buffer, 1.5)
    ask(buffer, "c", "d")
    one.run_all()
    tries = {item.key: item.tries for item in claim(forwarded(buffer, 10))}
    assert tries == {"a": 2, "c": 1}
    assert sorted(doer.done) == ["b", "d"]


def forwarded(buffer: TaskBuffer, seconds: float) -> TaskBuffer:
    forward(buffer, seconds)
    return buffer


def test_what_failed_before_is_kept_apart_from_what_is_new(buffer: TaskBuffer) -> None:
    doer = Doer("bad", "worse")
    ask(buffer, "bad", "worse")
    one = pool(buffer, k=doer.run)
    one.run_all()
    doer.tried.clear()
    forward(buffer, 1)
    ask(buffer, "new", "newer")
    one.run_all()
    assert ["new", "newer"] in doer.tried
    assert doer.done == ["new", "newer"]


def test_a_bunch_of_which_nothing_can_be_done_is_lost_for_nobody(buffer: TaskBuffer) -> None:
    keys = [f"{n}" for n in range(7)]
    doer = Doer(*keys)
    ask(buffer, *keys)
    one = pool(buffer, k=doer.run)
    assert one.run_all() == 7
    assert pending(buffer) == {"k": 7}
    doer.bad.clear()
    doer.tried.clear()
    forward(buffer, 1)
    assert one.run_all() == 7
    assert len(doer.tried) == 1, "when the trouble is over, they are done together again"
    assert pending(buffer) == {}


def test_pieces_of_a_bunch_are_given_up_one_by_one(buffer: TaskBuffer) -> None:
    doer = Doer("a", "b")
    handlers = {"k": Handler(doer.run, doer.give_up, MANY)}
    one = WorkPool(buffer, handlers, threads=1, lease_s=LEASE_S, give_up_after_s=100)
    ask(buffer, "a")
    one.run_all()
    forward(buffer, 101)
    ask(buffer, "b")
    one.run_all()
    assert doer.given_up == ["a"]
    assert pending(buffer) == {"k": 1}


def test_a_bunch_that_cannot_be_noted_as_done_is_done_again(buffer: TaskBuffer, monkeypatch: Any) -> None:
    doer, done, calls = Doer(), work.done, list[int]()

    def fail_once(connection: Any, items: Bunch, **told: Any) -> None:
        calls.append(len(items))
        if len(calls) == 1:
            raise RuntimeError("on purpose")
        done(connection, items, **told)

    monkeypatch.setattr(work, "done", fail_once)
    ask(buffer, "a", "b", "c", "d")
    pool(buffer, k=doer.run).run_all()
    assert calls == [4, 2, 2]
    assert pending(buffer) == {}


def test_the_bunch_of_a_killed_pool_comes_back_whole(buffer: TaskBuffer) -> None:
    class Killed(BaseException):
        pass

    def die(bunch: Bunch) -> None:
        raise Killed

    ask(buffer, "a", "b", "c")
    with suppress(Killed):
        pool(buffer, k=die).run_all()
    doer = Doer()
    other = pool(buffer, k=doer.run)
    assert other.run_all() == 0, "the dead one's lease is not over"
    forward(buffer, LEASE_S + 1)
    assert other.run_all() == 3
    assert doer.tried == [["a", "b", "c"]]


def test_two_pools_never_do_the_same(buffer: TaskBuffer) -> None:
    keys = [f"{n:03}" for n in range(200)]
    ask(buffer, *keys)
    doers = [Doer() for _ in range(4)]
    pools = [pool(buffer, Measure(at_once=7), k=doer.run) for doer in doers]
    threads = [threading.Thread(target=one.run_all) for one in pools]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for one in pools:  # what was locked by the others at the wrong moment
        one.run_all()
    assert sorted(key for doer in doers for key in doer.done) == keys
    assert pending(buffer) == {}


# --- the threads


@contextmanager
def started(one: WorkPool) -> Iterator[None]:
    one.start()
    try:
        yield
    finally:
        one.stop()
        for thread in threading.enumerate():
            if thread.name.startswith("work"):
                thread.join(20)


def test_a_flood_of_one_kind_holds_up_no_other(buffer: TaskBuffer) -> None:
    buffer = TaskBuffer(buffer.database)  # real time: the threads look at it all the while
    release, begun, quick = threading.Event(), threading.Semaphore(0), threading.Event()

    def slow(bunch: Bunch) -> None:
        begun.release()
        assert release.wait(30)

    with started(pool(buffer, Measure(), flood=slow, quick=lambda bunch: quick.set())):
        try:
            ask(buffer, *map(str, range(50)), kind="flood")
            assert begun.acquire(timeout=20) and begun.acquire(timeout=20), "all threads of its kind are busy"
            ask(buffer, "a", kind="quick")
            assert quick.wait(20)
        finally:
            release.set()
            buffer.run(lambda c: c.execute(work._work.delete()))


def test_a_single_piece_is_done_at_once_and_those_after_it_together(buffer: TaskBuffer) -> None:
    """The pause is an hour: what is done at all is done without waiting for it to end."""
    buffer = TaskBuffer(buffer.database)
    doer, first = Doer(), threading.Event()

    def run(bunch: Bunch) -> None:
        doer.run(bunch)
        first.set()

    one = pool(buffer, Measure(at_once=10, pause_s=3600), k=run)
    with started(one):
        ask(buffer, "first")
        assert first.wait(20)
        ask(buffer, "second", "third")
    assert doer.done == ["first"]
    one.run_all()
    assert doer.tried == [["first"], ["second", "third"]]


def test_more_than_a_bunch_is_done_without_pause(buffer: TaskBuffer) -> None:
    buffer = TaskBuffer(buffer.database)
    doer, all_done = Doer(), threading.Event()

    def run(bunch: Bunch) -> None:
        doer.run(bunch)
        if len(doer.done) >= 20:
            all_done.set()

    ask(buffer, *(f"{n:02}" for n in range(25)))
    with started(pool(buffer, Measure(at_once=10, pause_s=3600), k=run)):
        assert all_done.wait(20)
    assert sorted(map(len, doer.tried))[-2:] == [10, 10]


def test_leases_of_a_long_bunch_are_renewed(buffer: TaskBuffer) -> None:
    buffer = TaskBuffer(buffer.database)
    release, begun = threading.Event(), threading.Event()

    def slow(bunch: Bunch) -> None:
        begun.set()
        assert release.wait(30)

    handlers = {"k": Handler(slow, measure=MANY)}
    one = WorkPool(buffer, handlers, threads=1, lease_s=0.6, give_up_after_s=100)
    ask(buffer, "a", "b", "c")
    with started(one):
        try:
            assert begun.wait(20)
            before = buffer.read(work.next_due)
            look = threading.Event()
            for _ in range(200):
                after = buffer.read(work.next_due)
                if before is not None and after is not None and after > before:
                    break
                look.wait(0.05)
            assert before is not None and after is not None and after > before
        finally:
            release.set()
    assert pending(buffer) == {}
