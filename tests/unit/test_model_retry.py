"""What follows a failed attempt, as data: which rule fits, which decides, and what becomes of the job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from factories import JOB, queue
from hypothesis import given
from hypothesis import strategies as st

from pandaserver.model.codes import DispatcherError, ErrorFamily, JobError
from pandaserver.model.grid import Queue, QueueStatus
from pandaserver.model.job import KILL_COMMAND, Job
from pandaserver.model.retry import RULES, NextTry, RetryAction, RetryDecision, RetryRule, decide, next_log_name

A, F = RetryAction, ErrorFamily
QUEUES = {"BNL": queue("BNL", memory_mb=2000, max_wall_time_s=1000), "UTA": queue("UTA", memory_mb=5000)}
STAGE_IN = JobError(F.PILOT, 1099, "cannot copy evnt.1: Connection timed out")
PAYLOAD = JobError(F.PAYLOAD, 65, "it crashed")


def job(**more: Any) -> Job:
    return replace(JOB, **({"site": "BNL", "vo": "atlas"} | more))


def rule(action: RetryAction = A.RETRY, **more: Any) -> RetryRule:
    return RetryRule(**({"name": "mine", "action": action} | more))


def decided(
    *rules: RetryRule, error: JobError = STAGE_IN, queues: Mapping[str, Queue] = QUEUES, **more: Any
) -> list[RetryDecision]:
    return decide(rules, job(**more), [error], queues)


def followed(*rules: RetryRule, **more: Any) -> NextTry:
    (decision,) = decided(*rules, **more)
    assert decision.following is not None, decision.reason
    return decision.following


def refused(*rules: RetryRule, **more: Any) -> str:
    (decision,) = decided(*rules, **more)
    assert decision.following is None
    return decision.reason


# --- which rule fits


@pytest.mark.parametrize(
    ("scope", "fits"),
    [
        ({}, True),
        ({"family": F.PILOT}, True),
        ({"family": F.PAYLOAD}, False),
        ({"codes": (1, 1099)}, True),
        ({"codes": (1098,)}, False),
        ({"pattern": "timed out$"}, True),
        ({"pattern": "^timed out"}, False),
        ({"labels": ("user", "panda")}, True),
        ({"labels": ("managed",)}, False),
        ({"queues": ("BNL",)}, True),
        ({"queues": ("UTA",)}, False),
        ({"vos": ("atlas",)}, True),
        ({"vos": ("cms",)}, False),
        ({"wished": True}, False),
        ({"family": F.PILOT, "codes": (1099,), "pattern": "copy", "labels": ("user",), "vos": ("atlas",)}, True),
        ({"family": F.PILOT, "codes": (1099,), "pattern": "copy", "labels": ("user",), "vos": ("cms",)}, False),
    ],
    ids=str,
)
def test_all_that_a_rule_says_must_be_so(scope: dict[str, Any], fits: bool) -> None:
    assert rule(**scope).fits(job(), STAGE_IN) is fits


@pytest.mark.parametrize(
    ("family", "code", "codes", "wished", "fits"),
    [
        (F.PILOT, -1099, (1099,), False, True),
        (F.PILOT, -1099, (1099,), True, True),
        (F.PILOT, -1099, (), True, True),
        (F.PILOT, 1099, (), True, False),
        (F.PILOT, -1099, (1098,), True, False),
        (F.PAYLOAD, -11, (11,), False, False),
        (F.PAYLOAD, -11, (-11,), False, True),
        (F.PAYLOAD, -11, (), True, False),
    ],
)
def test_a_negative_code_of_a_pilot_is_a_wish(
    family: ErrorFamily, code: int, codes: tuple[int, ...], wished: bool, fits: bool
) -> None:
    assert rule(codes=codes, wished=wished).fits(job(), JobError(family, code, "")) is fits


def test_any_error_of_the_attempt_may_fit() -> None:
    (decision,) = decide([rule(family=F.PILOT)], job(), [PAYLOAD, STAGE_IN], QUEUES)
    assert decision.reason.startswith("pilot 1099: ")


def test_a_failure_without_any_code_fits_rules_that_fit_everything() -> None:
    (decision,) = decide([rule(codes=(1,)), rule(pattern="."), rule()], job(), [], QUEUES)
    assert decision.rule == rule() and decision.following is not None
    assert decide(RULES, job(), [], QUEUES) == []


# --- which rule decides


def test_the_first_that_fits_decides() -> None:
    first, second = rule(codes=(1099,), name="first"), rule(A.NO_RETRY, name="second")
    assert [d.rule for d in decided(rule(codes=(1,)), first, second)] == [first]


def test_what_nobody_knows_is_not_tried_again() -> None:
    assert decided(rule(codes=(1,))) == []
    assert decided() == []


def test_passive_rules_say_what_they_would_do_and_let_others_decide() -> None:
    passive = [rule(A.ELSEWHERE, passive=True, name="a"), rule(A.MORE_MEMORY, passive=True, name="b")]
    noted = decided(*passive, rule(A.RETRY), passive[0])
    assert [(d.rule.name, d.following is not None) for d in noted] == [("a", False), ("b", False), ("mine", True)]
    assert [d.reason for d in noted[:2]] == [
        "pilot 1099: tried elsewhere than at BNL",
        "pilot 1099: tried elsewhere than at BNL with 3000 MB of memory, not 2000",
    ]
    assert [d.following for d in decided(*passive)] == [None, None]


@pytest.mark.parametrize(
    ("of_job", "of_rule", "failed", "again"),
    [
        (0, 0, 0, True),
        (0, 0, 1, False),
        (1, 0, 0, False),
        (3, 0, 1, True),
        (3, 0, 2, False),
        (0, 3, 1, True),
        (5, 3, 2, False),
        (1, 2, 0, True),
    ],
)
def test_attempts_are_limited_by_the_job_or_the_rule(of_job: int, of_rule: int, failed: int, again: bool) -> None:
    (decision,) = decided(rule(max_attempts=of_rule), max_attempt=of_job, failed_attempts=failed)
    assert (decision.following is not None) is again
    assert ("was the last" in decision.reason) is not again


@pytest.mark.parametrize("action", A)
def test_who_shall_die_is_not_tried_again(action: RetryAction) -> None:
    reason = refused(rule(action, max_attempts=99), command=KILL_COMMAND)
    assert ("killed as asked" in reason) is (action is not A.NO_RETRY)


def test_a_rule_may_forbid() -> None:
    assert refused(rule(A.NO_RETRY), rule()) == "pilot 1099: not tried again"


# --- what becomes of the job


def test_again_means_the_same_queue() -> None:
    assert followed(rule()) == NextTry(job(), rebroker=False, words="tried again at BNL")


def test_elsewhere_asks_the_brokerage() -> None:
    assert followed(rule(A.ELSEWHERE)) == NextTry(job(), rebroker=True, words="tried elsewhere than at BNL")
    pinned = followed(rule(A.ELSEWHERE), pinned=True)
    assert pinned.rebroker and pinned.words == "tried again at BNL, which the user asked for"


@pytest.mark.parametrize(
    ("has", "factor", "asks", "rebroker"),
    [
        (1000, 1.5, 1500, False),
        (1001, 1.5, 1502, False),
        (0, 1.5, 3000, True),  # not said: it had what the queue gives
        (1500, 2.0, 3000, True),
        (4000, 1.5, 5000, True),  # no queue has more
    ],
)
def test_more_memory(has: int, factor: float, asks: int, rebroker: bool) -> None:
    following = followed(rule(A.MORE_MEMORY, factor=factor), memory_mb=has)
    assert following.job == job(memory_mb=asks)
    assert following.rebroker is rebroker
    assert f"{asks} MB of memory, not {has or 2000}" in following.words


def test_more_wall_time_where_the_largest_queue_has_no_limit() -> None:
    following = followed(rule(A.MORE_WALL_TIME, factor=10.0), wall_time_s=900)
    assert following.job == job(wall_time_s=9000)
    assert following.rebroker and "9000 s of wall time, not 900" in following.words
    stays = followed(rule(A.MORE_WALL_TIME), wall_time_s=900, site="UTA")
    assert not stays.rebroker and stays.job.wall_time_s == 1350


def test_a_pinned_job_grows_to_what_its_queue_has() -> None:
    following = followed(rule(A.MORE_MEMORY, factor=9.0), memory_mb=500, pinned=True)
    assert following.job.memory_mb == 2000 and not following.rebroker
    assert refused(rule(A.MORE_MEMORY), memory_mb=2000, pinned=True).endswith(
        "no queue has more than 2000 MB of memory"
    )


@pytest.mark.parametrize(
    ("large", "reason"),
    [
        ({"status": QueueStatus.OFFLINE}, "no queue has more than 2000 MB of memory"),
        ({"status": QueueStatus.TEST}, "no queue has more than 2000 MB of memory"),
        ({"vos": ("cms",)}, "no queue has more than 2000 MB of memory"),
        ({"memory_mb": 2000}, "no queue has more than 2000 MB of memory"),
    ],
    ids=str,
)
def test_queues_that_cannot_take_the_job_do_not_count(large: dict[str, Any], reason: str) -> None:
    queues = {"BNL": QUEUES["BNL"], "UTA": replace(QUEUES["UTA"], **large)}
    assert refused(rule(A.MORE_MEMORY), queues=queues, memory_mb=2000).endswith(reason)


def test_nothing_grows_where_nothing_is_known() -> None:
    assert refused(rule(A.MORE_MEMORY), queues={}).endswith("nobody says how many MB of memory it had")
    assert refused(rule(A.MORE_MEMORY), queues={"BNL": queue("BNL")}).endswith(
        "nobody says how many MB of memory it had"
    )


RETRY_RULES = st.builds(
    RetryRule,
    name=st.sampled_from("abc"),
    action=st.sampled_from(A),
    codes=st.sampled_from([(), (1099,), (1,)]),
    factor=st.sampled_from([1.1, 2.0]),
    max_attempts=st.integers(0, 3),
    passive=st.booleans(),
)


@given(
    rules=st.lists(RETRY_RULES, max_size=5),
    memory_mb=st.integers(0, 9000),
    failed=st.integers(0, 3),
    command=st.sampled_from([None, KILL_COMMAND]),
)
def test_at_most_one_rule_is_carried_out_and_it_is_the_last(
    rules: list[RetryRule], memory_mb: int, failed: int, command: str | None
) -> None:
    told = decided(*rules, memory_mb=memory_mb, failed_attempts=failed, command=command)
    assert all(d.following is None and d.rule.passive for d in told[:-1])
    if told and told[-1].following is not None:
        assert not told[-1].rule.passive and command is None
        assert failed + 1 < (told[-1].rule.max_attempts or 2)
        assert told[-1].following.job.memory_mb in (memory_mb, *range(memory_mb + 1, 5001))


# --- the built-in rules


@pytest.mark.parametrize(
    ("family", "code", "label", "action"),
    [
        (F.DISPATCHER, DispatcherError.HEARTBEAT, "managed", A.RETRY),
        (F.DISPATCHER, DispatcherError.SENT_TIMEOUT, "user", A.RETRY),
        (F.DISPATCHER, DispatcherError.HOLDING, "user", None),
        (F.PILOT, 1201, "managed", A.RETRY),
        (F.PILOT, 1212, "managed", A.MORE_MEMORY),
        (F.PILOT, 1213, "user", A.MORE_WALL_TIME),
        (F.PILOT, 1099, "user", A.ELSEWHERE),
        (F.PILOT, -1099, "user", A.ELSEWHERE),
        (F.PILOT, -1150, "user", A.RETRY),
        (F.PILOT, -1150, "panda", A.RETRY),
        (F.PILOT, -1150, "managed", None),
        (F.PILOT, 1150, "user", None),
        (F.PILOT, 1305, "user", None),
        (F.PILOT, 1144, "user", None),
        (F.PAYLOAD, 1099, "user", None),
        (F.DDM, 200, "user", None),
    ],
)
def test_the_built_in_rules(family: ErrorFamily, code: int, label: str, action: RetryAction | None) -> None:
    told = decided(*RULES, error=JobError(family, code, ""), label=label, wall_time_s=100)
    assert [d.rule.action for d in told] == ([] if action is None else [action])


def test_the_built_in_rules_have_names_of_their_own_and_act() -> None:
    assert len({r.name for r in RULES}) == len(RULES)
    assert not any(r.passive for r in RULES)
    codes = [(r.family, code) for r in RULES for code in r.codes]
    assert len(set(codes)) == len(codes), "no code is in two rules"


# --- names of logs


@pytest.mark.parametrize(
    ("lfn", "attempt", "renamed", "expected"),
    [
        ("job.1.log.tgz", 2, False, "job.1.log.tgz.2"),
        ("job.1.log.tgz.2", 3, True, "job.1.log.tgz.3"),
        ("job.1.log.tgz.9", 10, True, "job.1.log.tgz.10"),
        ("job.log.00017", 2, False, "job.log.00017.2"),
        ("x" * 255, 12, False, "x" * 252 + ".12"),
    ],
)
def test_the_log_of_another_attempt_has_another_name(lfn: str, attempt: int, renamed: bool, expected: str) -> None:
    assert next_log_name(lfn, attempt, renamed=renamed) == expected
