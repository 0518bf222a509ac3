"""The durable work queue and the leases of duties: nothing is lost, nobody does what another is doing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from factories import Clock

from pandaserver.background.duties import Duty, DutyRoster
from pandaserver.background.pool import Handler, WorkPool, one_by_one
from pandaserver.taskbuffer import duties, work
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.work import NewWork, WorkItem

LEASE_S = 60.0


def ask(buffer: TaskBuffer, *keys: str, kind: str = "k", delay_s: float = 0, **payload: Any) -> None:
    new = [NewWork(kind=kind, key=key, payload=payload) for key in keys]
    buffer.run(lambda c: work.add(c, new, now=buffer.now(), delay_s=delay_s))


def claim(buffer: TaskBuffer, owner: str = "me", limit: int = 10) -> list[WorkItem]:
    return buffer.run(lambda c: work.claim(c, owner, limit, now=buffer.now(), lease_s=LEASE_S))


def done(buffer: TaskBuffer, item: WorkItem) -> None:
    buffer.run(lambda c: work.done(c, [item], now=buffer.now()))


def pending(buffer: TaskBuffer) -> dict[str, int]:
    return buffer.read(work.pending)


def forward(buffer: TaskBuffer, seconds: float) -> None:
    assert isinstance(buffer.clock, Clock)
    buffer.clock.forward(seconds)


# --- the queue


def test_work_asked_for_is_claimed_once_and_gone_when_done(buffer: TaskBuffer) -> None:
    ask(buffer, "a", x=[1, "\N{SNAKE}"])
    (item,) = claim(buffer)
    assert (item.kind, item.key, item.payload, item.tries) == ("k", "a", {"x": [1, "\N{SNAKE}"]}, 0)
    assert claim(buffer, "other") == []
    assert pending(buffer) == {"k": 1}
    done(buffer, item)
    assert pending(buffer) == {}


def test_oldest_first_and_no_more_than_asked(buffer: TaskBuffer) -> None:
    for key in "cab":
        ask(buffer, key)
    assert [item.key for item in claim(buffer, limit=2)] == ["c", "a"]
    assert [item.key for item in claim(buffer, limit=2)] == ["b"]


def test_many_pieces_of_work_in_one_call(buffer: TaskBuffer) -> None:
    ask(buffer, *map(str, range(30)))
    ask(buffer, *map(str, range(20, 50)))
    assert pending(buffer) == {"k": 50}


def test_asking_twice_is_one_piece_of_work(buffer: TaskBuffer) -> None:
    ask(buffer, "a")
    ask(buffer, "a")
    ask(buffer, "a", kind="other")
    assert pending(buffer) == {"k": 1, "other": 1}
    for item in claim(buffer):
        done(buffer, item)
    assert pending(buffer) == {}


def test_work_asked_for_while_it_is_done_runs_once_more(buffer: TaskBuffer) -> None:
    ask(buffer, "a")
    (first,) = claim(buffer)
    ask(buffer, "a")
    ask(buffer, "a")
    assert claim(buffer, "other") == [], "still held"
    done(buffer, first)
    (second,) = claim(buffer)
    assert (second.work_id, second.tries, second.first_tried_at) == (first.work_id, 0, None)
    done(buffer, second)
    assert pending(buffer) == {}


def test_work_asked_for_with_a_delay_waits(buffer: TaskBuffer) -> None:
    ask(buffer, "a", delay_s=30)
    assert claim(buffer) == []
    forward(buffer, 30)
    assert len(claim(buffer)) == 1


def test_work_asked_for_later_while_it_is_done_waits_too(buffer: TaskBuffer) -> None:
    ask(buffer, "a")
    (item,) = claim(buffer)
    ask(buffer, "a", delay_s=30)
    done(buffer, item)
    assert claim(buffer) == []
    forward(buffer, 30)
    assert len(claim(buffer)) == 1


def test_the_soonest_wish_counts(buffer: TaskBuffer) -> None:
    ask(buffer, "a")
    (item,) = claim(buffer)
    ask(buffer, "a", delay_s=30)
    ask(buffer, "a")
    ask(buffer, "a", delay_s=30)
    done(buffer, item)
    assert len(claim(buffer)) == 1


def test_work_asked_for_without_delay_is_not_held_up_by_an_earlier_delay(buffer: TaskBuffer) -> None:
    ask(buffer, "a", delay_s=30)
    ask(buffer, "a")
    assert len(claim(buffer)) == 1


def test_the_work_of_a_killed_holder_comes_back(buffer: TaskBuffer) -> None:
    ask(buffer, "a")
    (first,) = claim(buffer, "killed")
    forward(buffer, LEASE_S - 1)
    assert claim(buffer, "other") == []
    forward(buffer, 2)
    (second,) = claim(buffer, "other")
    assert (second.work_id, second.first_tried_at) == (first.work_id, second.first_tried_at)
    assert second.first_tried_at is not None, "the time for giving up runs on"


def test_renewed_leases_hold_and_only_those_of_the_holder(buffer: TaskBuffer) -> None:
    ask(buffer, "a", "b")
    ids = [item.work_id for item in claim(buffer, "me")]
    forward(buffer, LEASE_S / 2)
    buffer.run(lambda c: work.renew(c, "me", ids[:1], now=buffer.now(), lease_s=LEASE_S))
    buffer.run(lambda c: work.renew(c, "thief", ids[1:], now=buffer.now(), lease_s=LEASE_S))
    buffer.run(lambda c: work.renew(c, "me", [], now=buffer.now(), lease_s=LEASE_S))
    forward(buffer, LEASE_S / 2 + 1)
    assert [item.work_id for item in claim(buffer, "other")] == ids[1:]


def test_postponed_work_keeps_count_and_error(buffer: TaskBuffer) -> None:
    ask(buffer, "a")
    (item,) = claim(buffer)
    buffer.run(lambda c: work.postpone(c, item, now=buffer.now(), delay_s=5, error="\N{SNAKE}" * 9999))
    assert claim(buffer) == []
    forward(buffer, 5)
    (again,) = claim(buffer)
    assert (again.tries, again.work_id) == (1, item.work_id)


def test_the_next_moment_of_work(buffer: TaskBuffer) -> None:
    assert buffer.read(work.next_due) is None
    ask(buffer, "later", delay_s=100)
    ask(buffer, "soon", delay_s=10)
    due = buffer.read(work.next_due)
    assert due is not None
    assert 9 < (due - buffer.now()).total_seconds() <= 10


def test_work_is_asked_for_with_its_cause_or_not_at_all(buffer: TaskBuffer) -> None:
    def fail(connection: Any) -> None:
        work.add(connection, [NewWork(kind="k", key="a", payload={})], now=buffer.now())
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        buffer.run(fail)
    assert pending(buffer) == {}
    assert not buffer.database.news.bell.is_set()
    ask(buffer, "a")
    assert buffer.database.news.bell.is_set()
    assert (buffer.database.news.hear(), buffer.database.news.hear()) == ({"k"}, set())


def test_kinds_and_keys_are_case_sensitive(buffer: TaskBuffer) -> None:
    ask(buffer, "a", "A")
    ask(buffer, "a", kind="K")
    assert pending(buffer) == {"k": 2, "K": 1}


# --- the pool


class Doer:
    """Does work as told: fails so many times first."""

    def __init__(self, failures: int = 0) -> None:
        self.failures, self.seen, self.given_up = failures, list[str](), list[str]()

    def run(self, item: WorkItem) -> None:
        self.seen.append(item.key)
        if len(self.seen) <= self.failures:
            raise RuntimeError(f"failure {len(self.seen)}")

    def give_up(self, item: WorkItem, error: str) -> None:
        self.given_up.append(f"{item.key}: {error}")


def pool(
    buffer: TaskBuffer, run: Callable[[WorkItem], None], give_up: Any = None, give_up_after_s: float = 86400
) -> WorkPool:
    handlers = {"k": Handler(one_by_one(run), give_up)}
    return WorkPool(buffer, handlers, threads=2, lease_s=LEASE_S, give_up_after_s=give_up_after_s)


def test_a_pool_does_all_and_what_comes_of_it(buffer: TaskBuffer) -> None:
    seen = []

    def run(item: WorkItem) -> None:
        seen.append(item.key)
        if len(item.key) < 4:
            ask(buffer, item.key + "x")

    ask(buffer, "a", "b")
    assert pool(buffer, run).run_all() == 8
    assert sorted(seen) == ["a", "ax", "axx", "axxx", "b", "bx", "bxx", "bxxx"]
    assert pending(buffer) == {}


def test_failing_work_is_tried_again_later_and_later(buffer: TaskBuffer) -> None:
    doer = Doer(failures=10)
    ask(buffer, "a")
    one = pool(buffer, doer.run)
    waits = []
    while pending(buffer):
        before = len(doer.seen)
        one.run_all()
        assert len(doer.seen) == before + 1
        due = buffer.read(work.next_due)
        if due is not None:
            waits.append(round((due - buffer.now()).total_seconds()))
            forward(buffer, waits[-1])
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]


def test_work_that_never_succeeds_is_given_up_after_a_day(buffer: TaskBuffer) -> None:
    doer = Doer(failures=10**9)
    ask(buffer, "a")
    one = pool(buffer, doer.run, doer.give_up)
    one.run_all()
    forward(buffer, 86400 - 10)
    one.run_all()
    assert doer.given_up == []
    forward(buffer, 300)
    one.run_all()
    assert doer.given_up == ["a: failure 3"]
    assert pending(buffer) == {}


def test_work_without_a_last_resort_is_tried_for_ever(buffer: TaskBuffer) -> None:
    doer = Doer(failures=10**9)
    ask(buffer, "a")
    one = pool(buffer, doer.run, give_up_after_s=1)
    for _ in range(5):
        one.run_all()
        forward(buffer, 86400)
    assert len(doer.seen) == 5
    assert pending(buffer) == {"k": 1}


def test_a_last_resort_that_fails_is_tried_again(buffer: TaskBuffer) -> None:
    tries = []

    def give_up(item: WorkItem, error: str) -> None:
        tries.append(error)
        if len(tries) == 1:
            raise RuntimeError("not even that")

    ask(buffer, "a")
    one = pool(buffer, Doer(failures=10**9).run, give_up, give_up_after_s=1)
    for _ in range(3):
        one.run_all()
        forward(buffer, 1000)
    assert len(tries) == 2
    assert pending(buffer) == {}


def test_work_of_an_unknown_kind_stays_for_a_server_that_knows_it(buffer: TaskBuffer) -> None:
    ask(buffer, "a", kind="from a newer version")
    pool(buffer, Doer().run).run_all()
    assert pending(buffer) == {"from a newer version": 1}


def test_one_failure_does_not_hold_up_the_rest(buffer: TaskBuffer) -> None:
    seen = []

    def run(item: WorkItem) -> None:
        seen.append(item.key)
        if item.key == "bad":
            raise ValueError("on purpose")

    ask(buffer, "bad", "good", "better")
    pool(buffer, run).run_all()
    assert sorted(seen) == ["bad", "better", "good"]
    assert pending(buffer) == {"k": 1}


def test_a_started_pool_does_work_that_is_asked_for_later_and_stops(buffer: TaskBuffer) -> None:
    buffer = TaskBuffer(buffer.database)  # real time: the threads look at it all the while
    did = threading.Event()
    one = pool(buffer, lambda _: did.set())
    one.start()
    try:
        ask(buffer, "a")
        assert did.wait(10)
        give_up = time.monotonic() + 10
        while pending(buffer) and time.monotonic() < give_up:
            time.sleep(0.01)
        assert pending(buffer) == {}
    finally:
        one.stop()
    for thread in threading.enumerate():
        if thread.name == "work":
            thread.join(10)
            assert not thread.is_alive()


# --- duties


def take(buffer: TaskBuffer, owner: str, name: str = "watch") -> bool:
    return buffer.run(lambda c: duties.take(c, name, owner, now=buffer.now(), lease_s=LEASE_S))


def give_back(buffer: TaskBuffer, owner: str, period_s: float = 10, result: str = "0 done") -> None:
    buffer.run(lambda c: duties.give_back(c, "watch", owner, now=buffer.now(), period_s=period_s, result=result))


def due(buffer: TaskBuffer) -> bool:
    return buffer.read(lambda c: duties.is_due(c, "watch", now=buffer.now()))


def test_a_duty_has_one_holder_at_a_time(buffer: TaskBuffer) -> None:
    assert due(buffer)
    assert take(buffer, "me")
    assert not due(buffer)
    assert not take(buffer, "other")
    assert not take(buffer, "me"), "not even the holder does it twice at once"
    assert take(buffer, "other", "another duty")


def test_a_duty_given_back_is_due_after_its_period(buffer: TaskBuffer) -> None:
    take(buffer, "me")
    give_back(buffer, "me", result="x" * 9999)
    assert not take(buffer, "me")
    forward(buffer, 10)
    assert due(buffer)
    assert take(buffer, "other")


def test_a_killed_holder_loses_the_duty_after_its_lease(buffer: TaskBuffer) -> None:
    take(buffer, "killed")
    forward(buffer, LEASE_S - 1)
    assert not take(buffer, "other")
    forward(buffer, 2)
    assert take(buffer, "other")
    give_back(buffer, "killed")
    assert not take(buffer, "third"), "a late word of the old holder does not free the new one's lease"


def test_two_servers_share_the_duties(buffer: TaskBuffer) -> None:
    ran = []

    def run(name: str) -> Callable[[], int]:
        return lambda: ran.append(name) or 1  # type: ignore[func-returns-value]

    rosters = [DutyRoster(buffer, [Duty("watch", 10, run(name))]) for name in ("one", "two")]
    for _ in range(6):
        for roster in rosters:
            roster.run_due()
        forward(buffer, 5)
    assert len(ran) == 3


def test_a_duty_that_fails_is_due_again_after_its_period(buffer: TaskBuffer) -> None:
    ran = []

    def run() -> int:
        ran.append(1)
        raise ValueError("on purpose")

    roster = DutyRoster(buffer, [Duty("watch", 10, run)])
    assert [roster.run_due(), roster.run_due()] == [1, 0]
    forward(buffer, 11)
    assert roster.run_due() == 1
    assert len(ran) == 2
