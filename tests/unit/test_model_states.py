"""The table of transitions: closed, with ends that are ends, and a clock in every state that is none."""

from __future__ import annotations

import dataclasses
from itertools import product

import pytest
from factories import JOB

from pandaserver.model.codes import DispatcherError, ErrorFamily, TaskBufferError
from pandaserver.model.job import Job
from pandaserver.model.states import AFTER_PILOT, FINAL, QUEUED, TRANSITIONS, WITH_PILOT, JobState, allowed
from pandaserver.model.timeouts import TIMEOUTS, TimeoutAction, timeout_of

GROUPS = (QUEUED, WITH_PILOT, AFTER_PILOT, FINAL)
NOT_FINAL = sorted(set(JobState) - FINAL)
LABELS = {"production": ("managed", "test", "regional", "ptest", "rc_test"), "analysis": ("user", "panda", "", "other")}


def make_job(**more: object) -> Job:
    return dataclasses.replace(JOB, **more)  # type: ignore[arg-type]


def test_every_state_is_in_the_table_and_in_one_group() -> None:
    assert set(TRANSITIONS) == set(JobState)
    assert set().union(*TRANSITIONS.values()) <= set(JobState)
    assert sorted(state for group in GROUPS for state in group) == sorted(JobState)


def test_every_state_can_be_reached_from_defined() -> None:
    reached, new = set(), {JobState.DEFINED}
    while new:
        reached |= new
        new = set().union(*(TRANSITIONS[state] for state in new)) - reached
    assert reached == set(JobState)


@pytest.mark.parametrize("state", NOT_FINAL)
def test_every_live_state_leads_to_every_bad_end(state: JobState) -> None:
    assert TRANSITIONS[state] >= {JobState.FAILED, JobState.CANCELLED, JobState.CLOSED}


@pytest.mark.parametrize("state", sorted(FINAL))
def test_final_states_are_final(state: JobState) -> None:
    assert TRANSITIONS[state] == frozenset()


def test_staying_is_no_transition() -> None:
    assert not [state for state in JobState if allowed(state, state)]


def test_success_comes_only_after_the_pilot() -> None:
    assert {state for state in JobState if allowed(state, JobState.FINISHED)} == AFTER_PILOT


def test_only_activated_jobs_are_sent() -> None:
    assert [state for state in JobState if allowed(state, JobState.SENT)] == [JobState.ACTIVATED]


@pytest.mark.parametrize(("state", "kind"), [*product(NOT_FINAL, LABELS)])
def test_every_live_state_has_exactly_one_clock(state: JobState, kind: str) -> None:
    for label in LABELS[kind]:
        rules = [rule for rule in TIMEOUTS if rule.covers(make_job(state=state, label=label))]
        assert len(rules) == 1, f"{state} {label!r}: {rules}"
        assert rules[0].after_s > 0
        assert timeout_of(make_job(state=state, label=label)) == rules[0]


@pytest.mark.parametrize("state", sorted(FINAL))
def test_ended_jobs_have_no_clock(state: JobState) -> None:
    assert timeout_of(make_job(state=state)) is None


def test_what_a_clock_does_is_allowed_in_its_state() -> None:
    leads_to = {
        TimeoutAction.FAIL: {JobState.FAILED},
        TimeoutAction.CLOSE: {JobState.CLOSED},
        TimeoutAction.RETRY: {JobState.ACTIVATED, JobState.FAILED},
        TimeoutAction.REASSIGN: {JobState.DEFINED},
    }
    for rule in TIMEOUTS:
        assert leads_to[rule.action] - {rule.state} <= TRANSITIONS[rule.state], rule


def test_clocks_of_jobs_with_a_pilot_start_at_its_last_word() -> None:
    assert {rule.state for rule in TIMEOUTS if rule.heartbeat} == WITH_PILOT


def test_codes_of_the_clocks_are_those_that_operators_know() -> None:
    codes = {rule.state: (rule.family, rule.code) for rule in TIMEOUTS}
    assert codes[JobState.SENT] == (ErrorFamily.DISPATCHER, DispatcherError.SENT_TIMEOUT) == ("jobDispatcher", 102)
    assert codes[JobState.RUNNING] == (ErrorFamily.DISPATCHER, DispatcherError.HEARTBEAT) == ("jobDispatcher", 100)
    assert codes[JobState.WAITING] == (ErrorFamily.TASKBUFFER, TaskBufferError.EXPIRED) == ("taskBuffer", 102)
