"""Shares: how they are written, which jobs they cover, and in which order lanes are served."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandaserver.errors import ConfigError
from pandaserver.model.lane import Lane, LaneKey
from pandaserver.model.share import Share, Shares, read_shares

KEY = LaneKey(
    queue="BNL", owner="/CN=Alice", label="user", vo="atlas", working_group="", cores=1, memory_mb=0, disk_mb=0,
    wall_time_s=0,
)  # fmt: skip
numbers = itertools.count(1)


def lane(priority: int = 1000, running: int = 0, **key: object) -> Lane:
    return Lane(lane_id=next(numbers), key=replace(KEY, **key), priority=priority, running=running)  # type: ignore[arg-type]


def heavier(weight: float) -> float:
    """A chance that always lets the heavier share win."""
    return 1 / weight


def served(shares: Shares, *lanes: Lane, more: tuple[Lane, ...] = ()) -> list[Lane]:
    return shares.order(lanes, [*lanes, *more], chance=heavier)


# --- how they are written


def test_a_share_as_it_is_written() -> None:
    shares = read_shares({"a": "60", "b": " 0.5  label=analysis vo=at* ", "c": "1e3 working_group=phys-[ab]*"})
    assert shares.shares == (
        Share(name="a", weight=60.0),
        Share(name="b", weight=0.5, vo="at*", label="analysis"),
        Share(name="c", weight=1000.0, working_group="phys-[ab]*"),
    )
    assert [share.name for share in shares.all] == ["a", "b", "c", "others"]
    assert shares.all[-1].weight == 1
    assert read_shares({}) == Shares()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a", "", "a weight"),
        ("a", "vo=atlas", "a weight"),
        ("a", "much vo=atlas", "a weight"),
        ("a", "0", "a weight"),
        ("a", "-1", "a weight"),
        ("a", "nan", "a weight"),
        ("a", "inf", "a weight"),
        ("a", "1e7", "a weight"),
        ("a", "60 VO=atlas", "'VO=atlas' is none of vo=PATTERN"),
        ("a", "60 atlas", "'atlas' is none of"),
        ("a", "60 vo=", "'vo=' is none of"),
        ("a", "60 vo = atlas", "'vo' is none of"),
        ("a", "60 vo=atlas, label=user =", "'=' is none of"),
        ("a", "60 vo=atlas vo=cms", "vo is there twice"),
        ("others", "60", "is not others"),
        ("a b", "60", "name"),
        ("", "60", "name"),
        ("x" * 65, "60", "name"),
    ],
)
def test_what_is_wrong_with_a_share_is_said(name: str, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_shares({"good": "1", name: text}, "panda_server.cfg [shares]")
    assert f"panda_server.cfg [shares] {name} = {text!r}: " in caught.value.message
    assert said in caught.value.message
    assert (caught.value.field, caught.value.value) == (name, text)


# --- what they cover


@pytest.mark.parametrize(
    ("patterns", "key", "covered"),
    [
        ({}, {}, True),
        ({"vo": "atlas"}, {}, True),
        ({"vo": "cms"}, {}, False),
        ({"vo": "ATLAS"}, {}, False),
        ({"vo": "at?as"}, {}, True),
        ({"vo": ""}, {"vo": ""}, True),
        ({"vo": "*"}, {"vo": ""}, True),
        ({"label": "analysis"}, {}, True),
        ({"label": "analysis"}, {"label": "managed"}, False),
        ({"label": "production"}, {"label": "managed"}, True),
        ({"label": "production"}, {"label": "test"}, True),
        ({"label": "managed"}, {"label": "test"}, False),
        ({"label": "user"}, {"label": "panda"}, False),
        ({"label": "[pu]*"}, {"label": "panda"}, True),
        ({"working_group": "phys-*"}, {"working_group": "phys-higgs"}, True),
        ({"working_group": "phys-*"}, {}, False),
        ({"working_group": "phys-*", "vo": "cms"}, {"working_group": "phys-higgs"}, False),
    ],
)
def test_all_patterns_have_to_match(patterns: dict[str, str], key: dict[str, str], covered: bool) -> None:
    assert Share(name="a", weight=1, **patterns).covers(replace(KEY, **key)) is covered  # type: ignore[arg-type]


def test_a_lane_is_of_the_first_share_that_covers_it() -> None:
    shares = read_shares({"p": "1 vo=atlas label=production", "atlas": "1 vo=atlas"})
    places = [shares.place_of(replace(KEY, **key)) for key in ({"label": "managed"}, {}, {"vo": "cms"})]
    assert places == [0, 1, 2]


# --- the order


HALVES = read_shares({"one": "1 vo=one", "two": "1 vo=two"})


def test_without_shares_priority_decides() -> None:
    low, high, middle = lane(1), lane(3), lane(2)
    assert served(Shares(), low, high, middle) == [high, middle, low]


def test_the_share_with_less_running_goes_first_whatever_the_priorities() -> None:
    busy, idle = lane(9999, running=2, vo="one"), lane(-5, running=1, vo="two")
    assert served(HALVES, busy, idle) == [idle, busy]


def test_cores_count_and_not_jobs() -> None:
    many, large = lane(running=7, vo="one", cores=1), lane(running=1, vo="two", cores=8)
    assert served(HALVES, many, large) == [many, large]


def test_weights_count() -> None:
    shares = read_shares({"one": "3 vo=one", "two": "1 vo=two"})
    assert [one.key.vo for one in served(shares, lane(running=29, vo="one"), lane(running=10, vo="two"))] == [
        "one",
        "two",
    ]
    assert [one.key.vo for one in served(shares, lane(running=31, vo="one"), lane(running=10, vo="two"))] == [
        "two",
        "one",
    ]


@pytest.mark.parametrize("running", [0, 7])
def test_between_equal_shares_chance_decides_by_weight(running: int) -> None:
    shares = read_shares({"light": "10 vo=one", "heavy": "30 vo=two", "also": "60 vo=three"})
    names = ("one", "two", "three")
    weights = dict(zip(names, (1, 3, 6), strict=True))
    lanes = [lane(running=running * weights[name], vo=name) for name in names]
    standing = shares.standing(lanes, chance=random.Random(7).expovariate)
    drawn = Counter(best.key.vo for best in (standing.best(lanes) for _ in range(10_000)) if best)
    for name in names:
        assert drawn[name] == pytest.approx(1000 * weights[name], abs=200), "about four standard deviations"


def test_the_same_chance_gives_the_same_order() -> None:
    lanes = [lane(vo=name) for name in ("one", "two", "three")]
    orders = {
        tuple(one.lane_id for one in HALVES.order(lanes, lanes, chance=random.Random(seed).expovariate))
        for seed in [5] * 10
    }
    assert len(orders) == 1


def test_what_no_share_covers_has_the_weight_one() -> None:
    shares = read_shares({"one": "2 vo=one"})
    others, one = lane(running=3), lane(running=5, vo="one")
    assert served(shares, others, one) == [one, others]
    assert shares.standing([others, one]).running_cores() == {"one": 5, "others": 3}


def test_lanes_in_which_nothing_waits_count_too() -> None:
    waiting, idle = lane(vo="one"), lane(vo="two")
    assert served(HALVES, waiting, idle, more=(lane(running=4, vo="one"),)) == [idle, waiting]


def test_in_analysis_five_running_jobs_are_a_point() -> None:
    alice, bob = lane(1002, running=9), lane(1000, owner="/CN=Bob")
    assert served(Shares(), bob, alice) == [alice, bob]
    alice.running = 10  # as much worth: who runs less goes first
    assert served(Shares(), bob, alice) == [bob, alice]


def test_all_analysis_of_an_owner_counts_whatever_its_lane() -> None:
    alice, bob = lane(1001), lane(1000, owner="/CN=Bob")
    other = lane(1, running=6, vo="cms", cores=8, label="panda")
    assert served(Shares(), alice, bob, more=(other,)) == [bob, alice]


def test_production_does_not_pay_for_what_runs_and_analysis_not_for_production() -> None:
    produced, alice = lane(1000, running=10_000, label="managed"), lane(999)
    assert served(Shares(), alice, produced) == [produced, alice]
    bob = lane(998, owner="/CN=Bob")
    assert served(Shares(), bob, alice, more=(produced,)) == [alice, bob]


def test_between_equals_who_runs_less_then_the_older_lane() -> None:
    lanes = [lane(1000, running=n, owner=f"/CN={n}", label="managed") for n in (1, 0, 0, 2)]
    assert served(Shares(), *reversed(lanes)) == [lanes[1], lanes[2], lanes[0], lanes[3]]


def test_what_is_taken_counts_at_once() -> None:
    one, two = lane(1000, vo="one", cores=4), lane(10, vo="two")
    standing = HALVES.standing([one, two], chance=heavier)
    found = []
    for _ in range(6):
        best = standing.best([one, two])
        assert best is not None
        standing.took(best)
        found.append(best.key.vo)
    assert found == ["one", "two", "two", "two", "two", "one"]
    assert (one.running, two.running) == (2, 4)
    assert standing.running_cores() == {"one": 8, "two": 4, "others": 0}


def test_without_lanes_there_is_no_best() -> None:
    assert Shares().standing([lane()]).best([]) is None
    assert Shares().order([], []) == []


def test_a_lane_that_is_new_is_welcome() -> None:
    old, new = lane(running=1), lane(1001, running=5, owner="/CN=Bob", cores=2)
    standing = Shares().standing([old])
    assert standing.best([old, new]) is new
    standing.took(new)
    assert standing.running_cores() == {"others": 3}


ANY_LANE = st.builds(
    Lane,
    lane_id=st.integers(1, 2**62),
    key=st.builds(
        LaneKey, queue=st.just("BNL"), owner=st.sampled_from(["/CN=a", "/CN=b", "/CN=c"]),
        label=st.sampled_from(["user", "panda", "managed", "test"]), vo=st.sampled_from(["one", "two", "three"]),
        working_group=st.just(""), cores=st.integers(0, 10**6), memory_mb=st.just(0), disk_mb=st.just(0),
        wall_time_s=st.just(0),
    ),
    priority=st.integers(-(2**31), 2**31),
    running=st.integers(0, 10**9),
)  # fmt: skip
ANY_LANES = st.lists(ANY_LANE, min_size=1, max_size=60, unique_by=lambda one: one.lane_id)
ANY_SHARES = st.lists(st.floats(1e-9, 1e6), max_size=3).map(
    lambda weights: Shares(
        tuple(
            Share(name=f"s{n}", weight=w, vo=vo)
            for (n, w), vo in zip(enumerate(weights), ("one", "tw*", "*"), strict=False)
        )
    )
)


@given(ANY_SHARES, ANY_LANES, st.randoms(use_true_random=False), st.data())
def test_the_order_is_total_and_does_not_depend_on_how_lanes_are_told(shares, lanes, chance, data) -> None:
    fitting = data.draw(st.lists(st.sampled_from(lanes), min_size=1, unique_by=lambda one: one.lane_id))
    order = shares.order(fitting, lanes, chance=heavier)
    mixed, told = list(fitting), list(lanes)
    chance.shuffle(mixed)
    chance.shuffle(told)
    assert shares.order(mixed, told, chance=heavier) == order
    assert shares.standing(told, chance=heavier).best(mixed) is order[0]
    assert {one.lane_id for one in order} == {one.lane_id for one in fitting}
    for n, one in enumerate(order):
        assert shares.standing(lanes, chance=heavier).best(order[n:]) is one, "the best of the rest comes next"


@given(ANY_SHARES, ANY_LANES, st.integers(1, 30))
def test_counting_on_is_the_same_as_counting_anew(shares, lanes, times: int) -> None:
    standing = shares.standing(lanes, chance=heavier)
    for _ in range(times):
        best = standing.best(lanes)
        assert best is shares.standing(lanes, chance=heavier).best(lanes)
        standing.took(best)
    assert standing.running_cores() == shares.standing(lanes).running_cores()


def test_two_hundred_lanes_are_looked_through_in_no_time() -> None:
    shares = read_shares({"p": "60 label=production", "h": "20 working_group=phys-*", "a": "19 label=analysis"})
    lanes = [
        lane(1000 - n % 50, n % 7, owner=f"/CN={n % 80}", label=("user", "managed")[n % 2], disk_mb=n)
        for n in range(200)
    ]
    standing, took_ms = shares.standing(lanes), []
    for _ in range(50):
        before = time.thread_time()
        best = standing.best(lanes)
        assert best is not None
        standing.took(best)
        took_ms.append(1000 * (time.thread_time() - before))
    assert min(took_ms) < 0.6, "measured at 0.05 ms; a claim has 5 ms in all"
