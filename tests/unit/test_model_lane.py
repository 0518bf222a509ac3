"""Lanes: which jobs are alike to a pilot, and which lanes a request may look into."""

from __future__ import annotations

from dataclasses import replace

import factories
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandaserver.model.attempt import ClaimRequest
from pandaserver.model.lane import LaneKey, floor_of, lane_key, may_fit

SIZES = st.integers(0, 2**31 - 1)
KEY = LaneKey(
    queue="BNL", owner="/CN=Alice", label="user", vo="atlas", working_group="higgs",
    cores=8, memory_mb=2048, disk_mb=1024, wall_time_s=3584,
)  # fmt: skip
ASK = ClaimRequest(queue="BNL")


@pytest.mark.parametrize(
    ("value", "floor"), [(0, 0), (1, 1), (7, 7), (8, 8), (9, 8), (1000, 896), (2000, 1792), (2047, 1792), (2048, 2048)]
)
def test_the_class_of_a_size(value: int, floor: int) -> None:
    assert floor_of(value) == floor


@given(SIZES, SIZES)
def test_a_class_is_at_most_a_quarter_wide_and_classes_are_in_order(one: int, other: int) -> None:
    assert floor_of(one) <= one <= floor_of(one) * 1.25
    assert floor_of(floor_of(one)) == floor_of(one)
    if one <= other:
        assert floor_of(one) <= floor_of(other)


def test_there_are_few_classes() -> None:
    assert len({floor_of(mb) for mb in range(1, 1_000_000)}) < 4 * 20


def test_the_lane_of_a_job() -> None:
    job = replace(
        factories.JOB, owner="/CN=Alice", label="user", vo="atlas", working_group="higgs", cores=8, memory_mb=2500,
        disk_mb=1100, wall_time_s=3600, site="UTA",
    )  # fmt: skip
    assert lane_key(job, "BNL") == replace(KEY, memory_mb=2048)
    assert lane_key(replace(job, cores=0), "BNL").cores == 1, "a job that does not say needs one"
    assert lane_key(job, "BNL") == lane_key(replace(job, memory_mb=2048, job_id=2, priority=7), "BNL")


@pytest.mark.parametrize(
    "apart",
    [
        {"owner": "/CN=Bob"}, {"label": "panda"}, {"vo": "cms"}, {"working_group": ""}, {"cores": 1},
        {"memory_mb": 4096}, {"disk_mb": 1}, {"wall_time_s": 1},
    ],
)  # fmt: skip
def test_what_a_pilot_may_ask_for_is_in_the_key(apart: dict[str, object]) -> None:
    job = replace(factories.JOB, cores=8, working_group="higgs", memory_mb=2048, disk_mb=1024, wall_time_s=3584)
    assert lane_key(replace(job, **apart), "BNL") != lane_key(job, "BNL")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "fits"),
    [
        ({}, True),
        ({"queue": "UTA"}, False),
        ({"labels": ("user", "panda")}, True),
        ({"labels": ("managed",)}, False),
        ({"labels": ()}, False),
        ({"cores": 8}, True),
        ({"cores": 7}, False),
        ({"memory_mb": 2048}, True),
        ({"memory_mb": 2047}, False),
        ({"disk_mb": 1023}, False),
        ({"remaining_s": 3583}, False),
        ({"remaining_s": 3584}, True),
        ({"vo": "atlas"}, True),
        ({"vo": "cms"}, False),
        ({"owner": "/CN=Alice"}, True),
        ({"owner": "/CN=alice"}, False),
        ({"working_group": "higgs"}, True),
        ({"working_group": "higg"}, False),
    ],
)
def test_which_lanes_may_fit(asked: dict[str, object], fits: bool) -> None:
    assert may_fit(KEY, replace(ASK, **asked)) is fits  # type: ignore[arg-type]


@given(memory=SIZES, disk=SIZES, wall=SIZES, limits=st.tuples(SIZES, SIZES, SIZES), cores=st.integers(0, 64))
def test_no_job_that_fits_lies_in_a_lane_that_does_not(
    memory: int, disk: int, wall: int, limits: tuple[int, int, int], cores: int
) -> None:
    job = replace(factories.JOB, memory_mb=memory, disk_mb=disk, wall_time_s=wall, cores=cores)
    request = ClaimRequest(queue="BNL", memory_mb=limits[0], disk_mb=limits[1], remaining_s=limits[2], cores=8)
    sizes = zip((memory, disk, wall), limits, strict=True)
    if cores <= 8 and all(limit == 0 or size <= limit for size, limit in sizes):
        assert may_fit(lane_key(job, "BNL"), request)
