from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedulers.config import QueueConfig
from schedulers.engine import policies_for
from schedulers.policy import (
    BackOff,
    Decision,
    FillActivated,
    MaxPending,
    MaxRunning,
    MinPending,
    PerCycle,
    QueueFacts,
    QueueStatus,
    Step,
    Unknown,
    decide,
    share,
)

ONLINE = QueueFacts("online", activated=10, pending=3, running=2)
small = st.integers(0, 200)
queues = st.builds(
    QueueConfig,
    name=st.just("Q"),
    weight=st.floats(0, 5),
    min_pending=st.integers(0, 20),
    max_pending=small,
    max_running=small,
    per_cycle=small,
    test_pilots=st.integers(0, 10),
)


@st.composite
def facts_of_a_queue(draw: st.DrawFn) -> QueueFacts:
    running = draw(small)
    return QueueFacts(
        draw(st.sampled_from(["online", "brokeroff", "test", "offline", "maintenance", ""])),
        activated=draw(st.integers(0, 100_000)),
        pending=draw(small),
        running=running,
        starting=draw(st.integers(0, running)),
        unproven=draw(st.integers(0, running)),
        pause_left_s=draw(st.sampled_from([0.0, 0.0, 0.5, 100.0])),
        probing=draw(st.booleans()),
    )


@pytest.mark.parametrize(
    ("policy", "n", "changes", "expected"),
    [
        (FillActivated(), 0, {}, 7),
        (FillActivated(2), 0, {}, 17),
        (FillActivated(0.5), 0, {"activated": 1, "pending": 0}, 1),
        (FillActivated(0.1), 0, {"activated": 30, "pending": 0}, 3),
        (FillActivated(0), 0, {}, 0),
        (FillActivated(), 0, {"activated": 2}, 0),
        (FillActivated(), 0, {"starting": 2}, 5),
        (FillActivated(), 9, {}, 9),
        (MinPending(5), 0, {}, 2),
        (MinPending(5), 4, {}, 4),
        (MinPending(5), 0, {"starting": 2}, 0),
        (QueueStatus(), 7, {}, 7),
        (QueueStatus(), 7, {"status": "offline"}, 0),
        (QueueStatus(), 7, {"status": "something new"}, 0),
        (QueueStatus(), 9, {"status": "brokeroff"}, 7),
        (QueueStatus(), 2, {"status": "brokeroff"}, 2),
        (QueueStatus(), 5, {"status": "brokeroff", "activated": 0}, 0),
        (QueueStatus(8), 100, {"status": "test"}, 3),
        (QueueStatus(8), 0, {"status": "test", "activated": 0}, 3),
        (QueueStatus(5), 100, {"status": "test"}, 0),
        (BackOff(), 7, {}, 7),
        (BackOff(), 7, {"pause_left_s": 0.1, "probing": True}, 0),
        (BackOff(), 7, {"pending": 0, "probing": True}, 1),
        (BackOff(), 7, {"pending": 1, "probing": True}, 0),
        (BackOff(), 7, {"pending": 0, "probing": True, "unproven": 1}, 0),
        (BackOff(), 0, {"pending": 0, "probing": True}, 0),
        (MaxPending(5), 7, {}, 2),
        (MaxPending(3), 7, {}, 0),
        (MaxPending(1), 7, {}, 0),
        (MaxRunning(8), 7, {}, 3),
        (MaxRunning(1), 7, {}, 0),
        (PerCycle(4), 7, {}, 4),
        (PerCycle(4), 2, {}, 2),
    ],
)
def test_each_policy_does_its_one_thing(policy, n, changes, expected):
    assert policy(n, replace(ONLINE, **changes))[0] == expected


@pytest.mark.parametrize(
    ("policy", "changes", "words"),
    [
        (FillActivated(1.5), {}, "10 activated x 1.5, 3 pilots on their way"),
        (QueueStatus(), {"status": "offline"}, "queue is offline"),
        (BackOff(), {"pause_left_s": 61.2}, "pause for 62 s"),
        (MaxPending(3), {}, "at most 3 pending, 3 are"),
        (MaxRunning(4), {}, "at most 4 running, 5 run or wait"),
        (PerCycle(4), {}, "at most 4 in one cycle"),
    ],
)
def test_reasons_carry_the_numbers(policy, changes, words):
    assert words in policy(7, replace(ONLINE, **changes))[1]


def test_a_decision_keeps_every_step_and_names_the_one_that_had_the_last_say():
    decision = decide(policies_for(QueueConfig("Q", max_pending=5)), ONLINE)
    assert decision.n == 2
    assert [(step.policy, step.n) for step in decision.steps] == [
        ("FillActivated", 7),
        ("MinPending", 7),
        ("QueueStatus", 7),
        ("BackOff", 7),
        ("MaxPending", 2),
        ("MaxRunning", 2),
        ("PerCycle", 2),
    ]
    assert decision.reason == "at most 5 pending, 3 are"


def test_a_decision_that_nothing_changed_explains_itself_too():
    decision = decide((FillActivated(), QueueStatus()), replace(ONLINE, activated=0))
    assert (decision.n, decision.reason) == (0, "0 activated x 1, 3 pilots on their way")
    assert decide((), ONLINE).reason == ""


def test_unknown_is_never_zero_jobs_but_sends_nothing_even_where_a_minimum_is_wanted():
    decision = decide((MinPending(5),), Unknown("the server is silent"))
    assert decision == Decision(0, (Step("Unknown", 0, "the server is silent"),))


@given(queue=queues, facts=facts_of_a_queue())
def test_never_negative_and_never_over_a_cap(queue, facts):
    n = decide(policies_for(queue), facts).n
    assert n >= 0
    assert n <= queue.per_cycle
    if n:
        assert facts.pending + n <= queue.max_pending
        assert facts.alive + n <= queue.max_running


@given(queue=queues, facts=facts_of_a_queue())
def test_closed_and_paused_queues_get_nothing(queue, facts):
    if facts.status in ("offline", "maintenance", "") or facts.pause_left_s:
        assert decide(policies_for(queue), facts).n == 0


@given(queue=queues, facts=facts_of_a_queue())
def test_a_draining_queue_gets_no_more_than_its_jobs_need(queue, facts):
    n = decide(policies_for(queue), replace(facts, status="brokeroff")).n
    assert n <= max(0, facts.activated - facts.on_their_way)


@given(queue=queues, facts=facts_of_a_queue(), more=st.integers(1, 50))
def test_more_jobs_never_mean_fewer_pilots(queue, facts, more):
    chain = policies_for(queue)
    assert decide(chain, replace(facts, activated=facts.activated + more)).n >= decide(chain, facts).n


@given(queue=queues, facts=facts_of_a_queue(), more=st.integers(1, 50))
def test_more_pilots_waiting_never_mean_more_pilots_sent(queue, facts, more):
    chain = policies_for(queue)
    assert decide(chain, replace(facts, pending=facts.pending + more)).n <= decide(chain, facts).n


@given(queue=queues, facts=facts_of_a_queue())
def test_sending_satisfies_the_wish(queue, facts):
    """What was sent counts in the next cycle: with no other change the same jobs are not served twice."""
    chain = policies_for(replace(queue, per_cycle=10**6, min_pending=0))
    facts = replace(facts, probing=False)
    n = decide(chain, facts).n
    assert decide(chain, replace(facts, pending=facts.pending + n)).n == 0


@given(
    wanted=st.dictionaries(st.text("ABCDEF", min_size=1, max_size=2), st.integers(0, 40), max_size=8),
    alive=st.dictionaries(st.text("ABCDEF", min_size=1, max_size=2), st.integers(0, 40), max_size=8),
    limit=st.integers(0, 150),
)
def test_the_global_cap_holds_and_wastes_no_room(wanted, alive, limit):
    shared = share({queue: Decision(n, ()) for queue, n in wanted.items()}, alive=alive, limit=limit)
    granted = {queue: decision.n for queue, decision in shared.items()}
    assert all(0 <= granted[queue] <= wanted[queue] for queue in wanted)
    room = max(0, limit - sum(alive.values()))
    assert sum(granted.values()) == min(room, sum(wanted.values()))


def test_scarce_room_goes_to_the_queues_with_the_fewest_pilots():
    decisions = {"BIG": Decision(50, ()), "SMALL": Decision(50, ()), "IDLE": Decision(0, ())}
    shared = share(decisions, alive={"BIG": 10, "SMALL": 2, "FOREIGN": 3}, limit=25)
    assert {queue: decision.n for queue, decision in shared.items()} == {"BIG": 1, "SMALL": 9, "IDLE": 0}
    assert shared["BIG"].reason == "at most 25 pilots in all, 15 are"
