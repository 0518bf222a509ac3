"""Limits of payloads: every rule alone, and what holds for all of them."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandapilot.codes import ErrorCode
from pandapilot.jobs import job_from_wire
from pandapilot.limits import GIB, MIB, Limits, Usage, limits_for, violation
from pandapilot.queues import queue_from_wire

PAIRS = [field.name for field in fields(Limits)]
amounts = st.floats(min_value=0, max_value=1e15)
usages = st.builds(Usage, **dict.fromkeys(PAIRS, amounts))
limits = st.builds(Limits, **dict.fromkeys(PAIRS, st.none() | amounts))


def job(**wire):
    return job_from_wire({"PandaID": 1, "attemptNr": 0, "jobToken": "t", **wire})


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("wall_s", ErrorCode.TIME_LIMIT),
        ("cpu_s", ErrorCode.TIME_LIMIT),
        ("memory_bytes", ErrorCode.MEMORY_LIMIT),
        ("directory_bytes", ErrorCode.DIRECTORY_TOO_LARGE),
        ("stdout_bytes", ErrorCode.STDOUT_TOO_LARGE),
        ("idle_s", ErrorCode.LOOPING),
    ],
)
def test_each_limit_has_its_code_and_is_allowed_to_be_reached(name, code):
    allowed = Limits(**{name: 5 * MIB})
    assert violation(Usage(**{name: 5 * MIB}), allowed) is None
    broken = violation(Usage(**{name: 5 * MIB + 1}), allowed)
    assert broken is not None and broken.code is code


def test_every_quantity_is_watched():
    assert {field.name for field in fields(Usage)} == set(PAIRS)
    for name in PAIRS:
        assert violation(Usage(**{name: 1e18}), Limits(**{name: 1.0}))


def test_diagnosis_tells_used_and_allowed():
    broken = violation(Usage(memory_bytes=300 * MIB), Limits(memory_bytes=200 * MIB))
    assert broken.diagnosis == "payload stopped: memory 300.0 of 200.0 MB used"


def test_standard_output_is_limited_to_two_gibibytes_without_being_asked():
    assert violation(Usage(stdout_bytes=2 * GIB), Limits()) is None
    assert violation(Usage(stdout_bytes=2 * GIB + 1), Limits()).code == 1106


@given(usages)
def test_without_limits_nothing_is_broken(usage):
    assert violation(usage, Limits(stdout_bytes=None)) is None


@given(usages, limits)
def test_violation_means_that_something_is_over_its_limit(usage, allowed):
    over = [n for n in PAIRS if getattr(allowed, n) is not None and getattr(usage, n) > getattr(allowed, n)]
    assert (violation(usage, allowed) is not None) == bool(over)


@given(usages, limits, st.sampled_from(PAIRS))
def test_using_less_never_breaks_more(usage, allowed, name):
    if violation(usage, allowed) is None:
        assert violation(replace(usage, **{name: getattr(usage, name) / 2}), allowed) is None


def test_limits_come_from_job_queue_and_pilot():
    queue = queue_from_wire("Q", {"maxrss": 1000, "maxtime": 500, "maxwdir": 100})
    found = limits_for(job(maxWalltime=300, maxCpuCount="250"), queue, remaining_s=400, looping_s=60)
    assert found.wall_s == 300
    assert found.cpu_s == 250
    assert found.memory_bytes == 2000 * MIB
    assert found.directory_bytes == pytest.approx(110 * MIB)
    assert found.idle_s == 60


@pytest.mark.parametrize(
    ("wall", "queue_time", "remaining", "expected"),
    [(0, 0, 50, 50), (10, 20, 50, 10), (0, 20, 50, 20), (90, 80, 50, 50), (90, 80, -3, 0)],
)
def test_wall_time_is_the_shortest_of_all_that_are_given(wall, queue_time, remaining, expected):
    queue = queue_from_wire("Q", {"maxtime": queue_time})
    assert limits_for(job(maxWalltime=wall), queue, remaining_s=remaining, looping_s=0).wall_s == expected


def test_zero_means_no_limit():
    found = limits_for(job(), queue_from_wire("Q", {}), remaining_s=10, looping_s=0)
    assert found == Limits(wall_s=10)
