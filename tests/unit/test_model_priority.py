"""Priorities: what jobs start with, and that nobody lifts himself above others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandaserver.model.job import PRODUCTION_LABELS, NewJob
from pandaserver.model.priority import PriorityRules, starting_priority

USER = NewJob(transformation="run.py", label="user")
BUILD = replace(USER, label="panda")
WANTED = st.integers(-1_000_000, 1_000_000)  # what the wire lets through
AHEAD = st.integers(0, 10_000_000)
LABELS = st.sampled_from(["user", "panda", "software", "ddm", ""])
QUOTA = PriorityRules(daily_cpu_s=86400)


@pytest.mark.parametrize("label", sorted(PRODUCTION_LABELS))
@given(wanted=WANTED, ahead=AHEAD, used=st.floats(0, 1e18))
def test_production_has_the_priority_it_asks_for(label: str, wanted: int, ahead: int, used: float) -> None:
    job = replace(USER, label=label, assigned_priority=wanted)
    assert starting_priority(job, ahead, cpu_used_s=used, rules=QUOTA) == wanted


@pytest.mark.parametrize(("ahead", "priority"), [(0, 1000), (4, 1000), (5, 999), (10, 998), (100_000, -19_000)])
def test_five_jobs_cost_a_point(ahead: int, priority: int) -> None:
    assert starting_priority(USER, ahead) == priority


@pytest.mark.parametrize(
    ("used_s", "lost"),
    [(0, 0), (86399, 0), (86400, 100), (86400 * 1.234, 123), (86400 * 2, 200), (86400 * 12.5, 1250)],
)
def test_above_the_quota_cpu_time_costs_points(used_s: float, lost: int) -> None:
    assert starting_priority(USER, 7, cpu_used_s=used_s, rules=QUOTA) == 999 - lost
    assert starting_priority(USER, 7, cpu_used_s=used_s) == 999, "no quota, no loss"


def test_build_jobs_go_first_and_not_all_of_them() -> None:
    assert starting_priority(BUILD, 0) == 2000
    assert starting_priority(BUILD, 10) == 2000 - 100 - 2
    for ahead in (100, 101, 100_000):
        assert starting_priority(BUILD, ahead) == starting_priority(USER, ahead)


@pytest.mark.parametrize(
    ("wanted", "most", "priority"),
    [(0, 0, 1000), (500, 0, 1000), (-500, 0, 500), (500, 100, 1100), (50, 100, 1050), (-1, 100, 999)],
)
def test_users_lower_their_jobs_and_lift_them_as_far_as_allowed(wanted: int, most: int, priority: int) -> None:
    job = replace(USER, assigned_priority=wanted)
    assert starting_priority(job, 0, rules=PriorityRules(raise_max=most)) == priority


@given(LABELS, WANTED, AHEAD, AHEAD, st.integers(0, 1000))
def test_nobody_is_above_an_ordinary_job_by_more_than_is_allowed(
    label: str, wanted: int, ahead: int, more: int, most: int
) -> None:
    rules = PriorityRules(raise_max=most)
    mine = starting_priority(replace(USER, label=label, assigned_priority=wanted), ahead, rules=rules)
    lift = 1000 if label == "panda" and ahead < 100 else 0
    assert mine <= 1000 - ahead // 5 + most + lift
    assert starting_priority(replace(USER, label=label, assigned_priority=wanted), ahead + more, rules=rules) <= mine


@given(LABELS, WANTED, st.integers(0, 2**40), st.floats(0, 1e300), st.integers(1, 10**9))
def test_every_priority_fits_the_tables_negated_and_lifted_too(
    label: str, wanted: int, ahead: int, used: float, quota: int
) -> None:
    rules = PriorityRules(raise_max=10**9, daily_cpu_s=quota)
    job = replace(USER, label=label, assigned_priority=wanted)
    assert -(2**31) + 1 < starting_priority(job, ahead, cpu_used_s=used, rules=rules) < 2**31 - 1 - 40
