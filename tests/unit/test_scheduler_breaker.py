from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedulers.batch.protocol import BatchState, PilotStatus
from schedulers.breaker import Breaker, BreakerRules, after

START = datetime(2026, 1, 1, tzinfo=UTC)
RULES = BreakerRules(short_pilot_s=20, bad_pilots=3, pause_s=30, pause_max_s=100)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def pilot(state: BatchState, *, began: float | None, ended: float | None) -> PilotStatus:
    return PilotStatus(
        state,
        started_at=None if began is None else at(began),
        ended_at=None if ended is None else at(ended),
    )


BAD = pilot(BatchState.FAILED, began=0, ended=1)


def learn(breaker: Breaker, *statuses: PilotStatus, now: float = 10) -> Breaker:
    for status in statuses:
        breaker = after(breaker, status, rules=RULES, now=at(now))
    return breaker


def test_a_new_breaker_is_closed():
    assert not Breaker().probing
    assert Breaker().pause_left_s(at(0)) == 0


def test_it_opens_after_so_many_in_a_row_and_not_before():
    assert not learn(Breaker(), BAD, BAD).probing
    opened = learn(Breaker(), BAD, BAD, BAD)
    assert opened.probing
    assert opened.pause_left_s(at(10)) == 30
    assert opened.pause_left_s(at(40)) == 0


@pytest.mark.parametrize(
    "good",
    [
        pilot(BatchState.DONE, began=0, ended=1),
        pilot(BatchState.FAILED, began=-50, ended=1),
    ],
)
def test_a_good_one_breaks_the_row(good):
    assert learn(Breaker(), BAD, BAD, good, BAD, BAD) == learn(Breaker(), BAD, BAD)


@pytest.mark.parametrize(
    "neutral",
    [
        pilot(BatchState.REMOVED, began=0, ended=1),
        pilot(BatchState.UNKNOWN, began=None, ended=None),
        pilot(BatchState.PENDING, began=None, ended=None),
        pilot(BatchState.RUNNING, began=9, ended=None),
        pilot(BatchState.RUNNING, began=-500, ended=None),
    ],
)
def test_what_says_nothing_changes_nothing(neutral):
    two = learn(Breaker(), BAD, BAD)
    assert learn(two, neutral) == two


def test_those_that_die_during_the_pause_do_not_prolong_it():
    opened = learn(Breaker(), BAD, BAD, BAD)
    assert learn(opened, *[BAD] * 10).paused_until == opened.paused_until


def test_each_pause_is_twice_the_last_up_to_the_longest():
    breaker, now, pauses = learn(Breaker(), BAD, BAD), 10.0, []
    for _ in range(5):
        breaker = learn(breaker, BAD, now=now)
        pauses.append(breaker.pause_left_s(at(now)))
        now += pauses[-1] + 1
    assert pauses == [30, 60, 100, 100, 100]


def test_one_that_lives_after_the_pause_closes_it():
    opened = learn(Breaker(), BAD, BAD, BAD)
    young = pilot(BatchState.RUNNING, began=41, ended=None)
    assert learn(opened, young, now=45) == opened
    assert learn(opened, young, now=62) == Breaker()


def test_one_from_before_the_trouble_does_not_close_it():
    opened = learn(Breaker(), BAD, BAD, BAD)
    assert learn(opened, pilot(BatchState.RUNNING, began=-500, ended=None), now=62) == opened


@given(st.lists(st.tuples(st.sampled_from(BatchState), st.floats(0, 50), st.floats(0, 200)), max_size=60))
def test_the_pause_never_exceeds_the_longest(history):
    breaker, now = Breaker(), 0.0
    for state, lived_s, later_s in history:
        now += later_s
        breaker = learn(breaker, pilot(state, began=now - lived_s, ended=now), now=now)
        assert 0 <= breaker.pause_left_s(at(now)) <= RULES.pause_max_s
