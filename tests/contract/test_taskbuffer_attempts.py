"""Claims and the words of pilots: one job, one pilot, once; stale words change nothing."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any

import factories as f
import pytest
import sqlalchemy as sa

from pandaserver.errors import Conflict, InvalidTransition, NotFound, PandaError, StaleAttempt
from pandaserver.jobdispatcher.claims import Claim
from pandaserver.jobdispatcher.dispatcher import Dispatcher
from pandaserver.jobdispatcher.policy import DispatchPolicy, labels_for
from pandaserver.model.attempt import Attempt, ClaimRequest, PilotReport
from pandaserver.model.codes import ErrorFamily, JobError
from pandaserver.model.grid import Topology
from pandaserver.model.job import KILL_COMMAND, Job
from pandaserver.model.states import WITH_PILOT, JobState
from pandaserver.taskbuffer import attempts, jobs, schema, topology, work
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection

S = JobState
LEASE_S, SENT_LEASE_S = 7200, 1800


@pytest.fixture
def dispatcher(buffer: TaskBuffer) -> Dispatcher:
    grid = Topology(queues={name: f.queue(name) for name in ("A", "B")}, endpoints={})
    buffer.run(lambda c: topology.save(c, grid))
    return Dispatcher(buffer, DispatchPolicy(LEASE_S, SENT_LEASE_S))


def activate(buffer: TaskBuffer, job_id: int, *, priority: int = 0, site: str = "A", **wishes: Any) -> None:
    f.accept(buffer, f.new_job(**wishes), first_id=job_id, priority=priority)
    f.move(buffer, job_id, S.ACTIVATED, site=site)


def get(dispatcher: Dispatcher, **told: Any) -> Claim | None:
    return dispatcher.get_jobs([ClaimRequest(**({"queue": "A", "pilot": "/CN=pilot"} | told))])[0]


def got(dispatcher: Dispatcher, **told: Any) -> Claim:
    claim = get(dispatcher, **told)
    assert claim is not None
    return claim


def told(dispatcher: Dispatcher, *reports: PilotReport) -> list[str | None]:
    """Say words of which none may be refused; else raise the first refusal."""
    answers = dispatcher.update_jobs(reports)
    for answer in answers:
        if isinstance(answer, PandaError):
            raise answer
    return answers  # type: ignore[return-value]


def lose(connection: Connection, job: Job, now: datetime) -> None:
    attempts.end(connection, [attempts.Word(job, {"outcome": attempts.LOST})], now=now)


def word(claim: Claim, state: str, **more: Any) -> PilotReport:
    told = {"job_id": claim.job.job_id, "attempt": claim.job.attempt, "token": claim.token, "pilot": "/CN=pilot"}
    return PilotReport(**(told | {"state": state} | more))


def say(dispatcher: Dispatcher, claim: Claim, state: str, **more: Any) -> str | None:
    return told(dispatcher, word(claim, state, **more))[0]


def tries(buffer: TaskBuffer, job_id: int = 1) -> list[Attempt]:
    return buffer.read(lambda c: attempts.of_jobs(c, [job_id]))


# --- claims


def test_jobs_are_given_by_priority_then_age(buffer: TaskBuffer, dispatcher: Dispatcher) -> None:
    for job_id, priority in ((1, 0), (2, 500), (3, -3), (4, 500), (5, 2**31 - 1)):
        activate(buffer, job_id, priority=priority)
    given = [got(dispatcher).job.job_id for _ in range(5)]
    assert given == [5, 2, 4, 1, 3]
    assert get(dispatcher) is None


def test_a_claim_has_all_that_the_pilot_needs(buffer: TaskBuffer, dispatcher: Dispatcher) -> None:
    activate(buffer, 7, parameters="--do it", attributes={"homepackage": "x"})
    claim = got(dispatcher, node="wn1", pilot_id="p", scheduler_id="s")
    assert (claim.job.job_id, claim.job.state, claim.job.attempt) == (7, S.SENT, 1)
    assert (claim.parameters, claim.attributes, claim.queue.name, claim.lease_s) == (
        "--do it",
        {"homepackage": "x"},
        "A",
        LEASE_S,
    )
    (attempt,) = tries(buffer, 7)
    assert (attempt.number, attempt.queue, attempt.pilot, attempt.node) == (1, "A", "/CN=pilot", "wn1")
    assert (attempt.lease_until - attempt.claimed_at).total_seconds() == SENT_LEASE_S
    assert (attempt.ended_at, attempt.outcome) == (None, None)
    assert dataclasses.replace(f.load_job(buffer, 7)) == claim.job or f.load_job(buffer, 7).state is S.SENT


@pytest.mark.parametrize(
    ("asked", "fits"),
    [
        ({}, {1, 2, 3, 4, 5}),
        ({"labels": ("user", "panda")}, {1, 2}),
        ({"labels": ("managed",)}, {3, 4, 5}),
        ({"labels": ()}, set()),
        ({"memory_mb": 1000}, {1, 2, 4, 5}),
        ({"memory_mb": 999}, {1, 4, 5}),
        ({"disk_mb": 50}, {1, 2, 3, 5}),
        ({"remaining_s": 3600}, {1, 2, 3, 4}),
        ({"memory_mb": 5000, "disk_mb": 5000, "remaining_s": 86400, "labels": ("user", "managed")}, {1, 3, 4, 5}),
        ({"queue": "B"}, set()),
    ],
)
def test_pilots_get_only_what_fits(
    buffer: TaskBuffer, dispatcher: Dispatcher, asked: dict[str, Any], fits: set[int]
) -> None:
    activate(buffer, 1, label="user")
    activate(buffer, 2, label="panda", memory_mb=1000)
    activate(buffer, 3, label="managed", memory_mb=2000)
    activate(buffer, 4, label="managed", disk_mb=100)
    activate(buffer, 5, label="managed", wall_time_s=7200)
    given = set()
    while (claim := get(dispatcher, **asked)) is not None:
        given.add(claim.job.job_id)
    assert given == fits


def test_a_job_that_does_not_fit_does_not_hold_up_those_behind_it(buffer: TaskBuffer, dispatcher: Dispatcher) -> None:
    activate(buffer, 1, priority=9, memory_mb=9000)
    activate(buffer, 2, memory_mb=100)
    assert got(dispatcher, memory_mb=500).job.job_id == 2


@pytest.mark.parametrize(
    ("asked", "labels"),
    [("", None), ("any", None), ("user", ("user", "panda")), ("managed", ("managed", "test")), ("rc", ("rc",))],
)
def test_labels_that_pilots_ask_for(asked: str, labels: tuple[str, ...] | None) -> None:
    assert labels_for(asked) == labels


def test_a_queue_that_is_not_there(dispatcher: Dispatcher) -> None:
    with pytest.raises(NotFound, match="no queue C; known are A, B"):
        get(dispatcher, queue="C")
    with pytest.raises(NotFound):
        get(dispatcher, queue="a")


def test_a_request_repeated_gets_its_job_again(buffer: TaskBuffer, dispatcher: Dispatcher) -> None:
    for job_id in (1, 2, 3):
        activate(buffer, job_id)
    first = got(dispatcher, request_id="r1")
    again = got(dispatcher, request_id="r1")
    assert (again.job.job_id, again.job.attempt, again.token) == (first.job.job_id, 1, first.token)
    assert len(tries(buffer)) == 1
    assert got(dispatcher, request_id="r2").job.job_id == 2
    assert got(dispatcher, request_id="r1", pilot="/CN=other").job.job_id == 3, "ids of other pilots do not count"


def test_a_request_whose_job_has_ended_gets_another(buffer: TaskBuffer, dispatcher: Dispatcher) -> None:
    activate(buffer, 1)
    first = got(dispatcher, request_id="r1")
    say(dispatcher, first, "failed")
    assert get(dispatcher, request_id="r1") is None
    activate(buffer, 2)
    assert got(dispatcher, request_id="r1").job.job_id == 2


def test_requests_without_an_id_are_never_the_same(buffer: TaskBuffer, dispatcher: Dispatcher) -> None:
    activate(buffer, 1)
    activate(buffer, 2)
    assert [got(dispatcher).job.job_id, got(dispatcher).job.job_id] == [1, 2]


def test_many_requests_in_one_transaction(buffer: TaskBuffer, dispatcher: Dispatcher) -> None:
    for job_id in (1, 2, 3):
        activate(buffer, job_id)
    requests = [ClaimRequest(queue="A", request_id=str(n)) for n in range(5)]
    given = dispatcher.get_jobs(requests)
    assert [claim and claim.job.job_id for claim in given] == [1, 2, 3, None, None]


# --- words


def test_the_words_of_a_good_pilot(buffer: TaskBuffer, dispatcher: Dispatcher) -> None:
    activate(buffer, 1)
    claim = got(dispatcher)
    assert say(dispatcher, claim, "starting") is None
    assert say(dispatcher, claim, "running", cpu_time_s=1.5, max_rss_kb=2, usage={"a": 1}, node="wn2") is None
    running = f.load_job(buffer, 1)
    assert (running.state, running.started_at is not None) == (S.RUNNING, True)
    say(dispatcher, claim, "finished", timing="1|2", exit_code="0", metadata="m", log_extract="l", stdout_tail="o")
    ended = f.load_job(buffer, 1)
    assert (ended.state, ended.ended_at is not None) == (S.HOLDING, True)
    (attempt,) = tries(buffer)
    assert (attempt.outcome, attempt.exit_code, attempt.timing, attempt.node) == ("finished", "0", "1|2", "wn2")
    assert (attempt.cpu_time_s, attempt.max_rss_kb, attempt.usage) == (1.5, 2, {"a": 1}), (
        "what was not said again stays"
    )
    details = buffer.read(lambda c: jobs.details_of(c, [1]))[1]
    assert (details.metadata, details.log_extract, details.stdout_tail) == ("m", "l", "o")
    assert buffer.read(work.pending) == {"add": 1}


def test_heartbeats_renew_the_lease(buffer: TaskBuffer, dispatcher: Dispatcher) -> None:
    activate(buffer, 1)
    claim = got(dispatcher)
    for state in ("starting", "starting", "running", "running"):
        before = f.load_job(buffer, 1).modified_at
        assert isinstance(buffer.clock, f.Clock)
        buffer.clock.forward(600)
        say(dispatcher, claim, state)
        left = tries(buffer)[0].lease_until - buffer.now()
        assert LEASE_S - 1 < left.total_seconds() < LEASE_S
        assert f.load_job(buffer, 1).modified_at > before
    with pytest.raises(InvalidTransition, match="running and may not become starting"):
        say(dispatcher, claim, "starting")
    assert f.load_job(buffer, 1).state is S.RUNNING
    assert [row.to_state for row in buffer.read(lambda c: jobs.history_of(c, 1))][-2:] == [S.STARTING, S.RUNNING]


def test_errors_come_with_the_last_word(buffer: TaskBuffer, dispatcher: Dispatcher) -> None:
    activate(buffer, 1)
    claim = got(dispatcher)
    said = (JobError(ErrorFamily.PILOT, 1144, "killed"), JobError(ErrorFamily.PAYLOAD, 1, "exit"))
    say(dispatcher, claim, "failed", errors=said)
    say(dispatcher, claim, "failed", errors=said)
    found = buffer.read(lambda c: jobs.errors_of(c, [1]))[1]
    assert tuple(e.error for e in found) == said, "once, however often it is said"
    assert {e.attempt for e in found} == {1}


def test_the_last_word_may_be_repeated(buffer: TaskBuffer, dispatcher: Dispatcher) -> None:
    activate(buffer, 1)
    claim = got(dispatcher)
    say(dispatcher, claim, "finished", metadata="first")
    rows = snapshot(buffer)
    for _ in range(3):
        assert say(dispatcher, claim, "finished", metadata="second") is None
    assert snapshot(buffer) == rows


def snapshot(buffer: TaskBuffer) -> list[list[Any]]:
    """Everything that a word of a pilot could change."""
    tables = (
        schema.jobs, schema.job_history, schema.job_details, schema.job_errors, schema.attempts, schema.ready,
        schema.files, schema.work,
    )  # fmt: skip
    return [buffer.read(lambda c, t=t: list(c.execute(sa.select(t)))) for t in tables]  # type: ignore[misc]


def lost_and_taken_again(buffer: TaskBuffer, dispatcher: Dispatcher) -> tuple[Claim, Claim]:
    activate(buffer, 1)
    first = got(dispatcher)
    buffer.run(lambda c: lose(c, f.load_job(buffer, 1), buffer.now()))
    f.move(buffer, 1, S.ACTIVATED)
    return first, got(dispatcher, pilot="/CN=other")


@pytest.mark.parametrize("state", ["starting", "running", "finished", "failed"])
def test_a_pilot_of_an_older_attempt_changes_nothing(buffer: TaskBuffer, dispatcher: Dispatcher, state: str) -> None:
    first, second = lost_and_taken_again(buffer, dispatcher)
    assert (first.job.attempt, second.job.attempt) == (1, 2)
    assert first.token != second.token
    rows = snapshot(buffer)
    stolen = word(first, state, metadata="stale", attempt=2), word(first, state, token=second.token, attempt=1)
    for report in (word(first, state, metadata="stale", errors=(JobError(ErrorFamily.PILOT, 1, ""),)), *stolen):
        with pytest.raises(StaleAttempt, match="attempt 2: this attempt is over"):
            told(dispatcher, report)
    assert snapshot(buffer) == rows
    assert say(dispatcher, second, state) is None


@pytest.mark.parametrize("token", ["0" * 64, "", "x", "é", "\N{SNAKE}" * 64])
def test_a_wrong_token_changes_nothing(buffer: TaskBuffer, dispatcher: Dispatcher, token: str) -> None:
    activate(buffer, 1)
    claim = got(dispatcher)
    rows = snapshot(buffer)
    with pytest.raises(StaleAttempt):
        say(dispatcher, claim, "running", token=token)
    assert snapshot(buffer) == rows


def test_the_token_of_another_job_is_no_token(buffer: TaskBuffer, dispatcher: Dispatcher) -> None:
    activate(buffer, 1)
    activate(buffer, 2)
    one, two = got(dispatcher), got(dispatcher)
    with pytest.raises(StaleAttempt):
        say(dispatcher, one, "running", token=two.token)


@pytest.mark.parametrize("state", sorted(set(JobState) - WITH_PILOT - {S.HOLDING}))
def test_heartbeats_of_a_job_that_is_not_with_its_pilot_change_nothing(
    buffer: TaskBuffer, dispatcher: Dispatcher, state: JobState
) -> None:
    activate(buffer, 1)
    claim = got(dispatcher)
    ways = {
        S.FINISHED: (S.HOLDING, S.FINISHED),
        S.TRANSFERRING: (S.HOLDING, S.TRANSFERRING),
        S.MERGING: (S.HOLDING, S.MERGING),
        S.DEFINED: (S.ACTIVATED, S.DEFINED),
        S.WAITING: (S.ACTIVATED, S.DEFINED, S.WAITING),
        S.ASSIGNED: (S.ACTIVATED, S.DEFINED, S.ASSIGNED),
        S.THROTTLED: (S.ACTIVATED, S.THROTTLED),
    }
    f.move(buffer, 1, *ways.get(state, (state,)))
    rows = snapshot(buffer)
    for said in ("starting", "running", "finished", "failed"):
        with pytest.raises(StaleAttempt, match=f"job 1 is {state}"):
            say(dispatcher, claim, said, metadata="late")
    assert snapshot(buffer) == rows


@pytest.mark.parametrize("after", [S.ACTIVATED, S.FAILED])
@pytest.mark.parametrize("word", ["finished", "failed"])
def test_a_last_word_of_a_lost_attempt_is_refused(
    buffer: TaskBuffer, dispatcher: Dispatcher, after: JobState, word: str
) -> None:
    activate(buffer, 1)
    claim = got(dispatcher)
    buffer.run(lambda c: lose(c, f.load_job(buffer, 1), buffer.now()))
    f.move(buffer, 1, after)
    rows = snapshot(buffer)
    with pytest.raises(StaleAttempt, match=f"job 1 is {after} in attempt 1"):
        say(dispatcher, claim, word)
    assert snapshot(buffer) == rows


@pytest.mark.parametrize(("first", "second"), [("finished", "failed"), ("failed", "finished")])
def test_a_last_word_cannot_be_taken_back(buffer: TaskBuffer, dispatcher: Dispatcher, first: str, second: str) -> None:
    activate(buffer, 1)
    claim = got(dispatcher)
    say(dispatcher, claim, first)
    rows = snapshot(buffer)
    with pytest.raises(Conflict, match=f"was reported {first}; it cannot become {second}"):
        say(dispatcher, claim, second)
    assert snapshot(buffer) == rows
    assert say(dispatcher, claim, first) is None


def test_a_job_never_given_away_listens_to_nobody(buffer: TaskBuffer, dispatcher: Dispatcher) -> None:
    activate(buffer, 1)
    with pytest.raises(StaleAttempt):
        told(dispatcher, PilotReport(job_id=1, attempt=None, token=None, pilot="", state="running"))
    with pytest.raises(NotFound, match="no job 2"):
        told(dispatcher, PilotReport(job_id=2, attempt=None, token=None, pilot="", state="running"))


def test_an_old_pilot_without_a_token_is_known_by_its_attempt(buffer: TaskBuffer, dispatcher: Dispatcher) -> None:
    first, second = lost_and_taken_again(buffer, dispatcher)
    assert say(dispatcher, second, "running", token=None) is None
    with pytest.raises(StaleAttempt):
        say(dispatcher, first, "running", token=None)


def test_a_stale_word_among_many_does_no_harm_to_the_others(buffer: TaskBuffer, dispatcher: Dispatcher) -> None:
    for job_id in (1, 2, 3):
        activate(buffer, job_id)
    one, two, three = (got(dispatcher) for _ in range(3))
    strange = PilotReport(job_id=9, attempt=1, token=None, pilot="", state="running")
    words = [word(one, "running"), word(two, "running", attempt=9), strange, word(three, "finished")]
    answers = dispatcher.update_jobs(words)
    assert [type(answer) for answer in answers] == [type(None), StaleAttempt, NotFound, type(None)]
    assert [f.load_job(buffer, job_id).state for job_id in (1, 2, 3)] == [S.RUNNING, S.SENT, S.HOLDING]


def test_several_words_of_one_job_are_taken_in_their_order(buffer: TaskBuffer, dispatcher: Dispatcher) -> None:
    activate(buffer, 1)
    claim = got(dispatcher)
    states = ["starting", "running", "running", "finished", "finished", "failed", "running"]
    answers = dispatcher.update_jobs([word(claim, state) for state in states])
    assert [type(answer) for answer in answers] == [*[type(None)] * 5, Conflict, StaleAttempt]
    history = [row.to_state for row in buffer.read(lambda c: jobs.history_of(c, 1))][-4:]
    assert history == [S.SENT, S.STARTING, S.RUNNING, S.HOLDING]


def test_the_command_to_stop_reaches_the_pilot_with_each_word(buffer: TaskBuffer, dispatcher: Dispatcher) -> None:
    activate(buffer, 1)
    claim = got(dispatcher)
    assert say(dispatcher, claim, "running") is None
    buffer.run(lambda c: jobs.set_command(c, [1], KILL_COMMAND))
    assert [say(dispatcher, claim, "running") for _ in range(2)] == [KILL_COMMAND] * 2
    say(dispatcher, claim, "failed")


def test_silence_is_lost_only_after_the_lease(buffer: TaskBuffer, dispatcher: Dispatcher) -> None:
    activate(buffer, 1)
    claim = got(dispatcher)
    say(dispatcher, claim, "running")
    now = buffer.now()

    def lost(**moments: Any) -> list[int]:
        told = {"silent_since": now, "lease_over": tries(buffer)[0].lease_until, "limit": 9} | moments
        return buffer.read(lambda c: attempts.lost(c, S.RUNNING, **told))

    over = tries(buffer)[0].lease_until.replace(year=2100)
    assert lost(lease_over=over) == [1]
    assert lost() == [], "the lease is not over"
    assert lost(lease_over=over, silent_since=f.load_job(buffer, 1).modified_at) == [], "it spoke at that moment"
    say(dispatcher, claim, "finished")
    assert lost(lease_over=over) == []
