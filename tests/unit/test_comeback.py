"""When pilots come back that found no place to wait."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from pandaserver.jobdispatcher.comeback import COME_AGAIN_PER_S, LONGEST_S, SHORTEST_S, Comebacks


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def comebacks(clock: Clock, share: float = 1.0) -> Comebacks:
    """Those that tell everybody the same share of the mean."""
    return Comebacks(clock=clock, spread=lambda _low, _high: share)


def test_a_few_come_back_soon() -> None:
    made = comebacks(Clock())
    assert [made.promise() for _ in range(5)] == [round(SHORTEST_S)] * 5


def test_the_more_there_are_the_later_they_come() -> None:
    made = comebacks(Clock())
    told = [made.promise() for _ in range(200)]
    assert told == sorted(told)
    assert told[-1] == round(199 / COME_AGAIN_PER_S)


def test_no_crowd_is_sent_away_for_ever() -> None:
    made = comebacks(Clock())
    assert max(made.promise() for _ in range(5000)) == LONGEST_S


def test_those_whose_time_has_come_do_not_count_any_more() -> None:
    clock = Clock()
    made = comebacks(clock)
    for _ in range(200):
        made.promise()
    clock.now += LONGEST_S
    assert made.promise() == round(SHORTEST_S)


@given(st.integers(0, 2**32))
def test_they_do_not_come_together(seed: int) -> None:
    made = Comebacks(clock=Clock(), spread=random.Random(seed).uniform)
    told = [made.promise() for _ in range(20)]
    assert all(SHORTEST_S / 2 <= seconds <= SHORTEST_S * 1.5 for seconds in told)
    assert len(set(told)) > 1


def test_a_crowd_that_obeys_asks_at_a_steady_rate() -> None:
    clock, number = Clock(), 240
    made = Comebacks(clock=clock, spread=random.Random(1).uniform)
    due = [clock.now + made.promise() for _ in range(number)]
    start, asked = clock.now + 200, 0
    while clock.now < start + 200:
        clock.now = min(due)
        due.remove(clock.now)
        due.append(clock.now + made.promise())
        asked += clock.now >= start
    assert asked / 200 < 1.5 * COME_AGAIN_PER_S
