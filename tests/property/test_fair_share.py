"""Fair share in the long run: slots become free, the best lane is served, and nobody starves."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count

from hypothesis import example, given
from hypothesis import strategies as st

from pandaserver.model.job import NewJob
from pandaserver.model.lane import Lane, LaneKey
from pandaserver.model.priority import JOBS_PER_POINT, PriorityRules, starting_priority
from pandaserver.model.share import Share, Shares

KEY = LaneKey(
    queue="BNL", owner="", label="user", vo="", working_group="", cores=1, memory_mb=0, disk_mb=0, wall_time_s=0
)
JOB = NewJob(transformation="run.py")
SEEDS = st.integers(0, 2**32)


@dataclass
class Line:
    """A lane and the priorities of the jobs that wait in it, first job first."""

    lane: Lane
    priorities: Iterator[int]
    waiting: int
    started: list[int] = field(default_factory=list)  # at which claims

    @classmethod
    def of(cls, number: int, jobs: range, *, lift: int = 0, **key: object) -> Line:
        """What a user submits at once, or some of it; `lift` is what ageing or a kind operator added."""
        priorities = (starting_priority(JOB, ahead) + lift for ahead in jobs)
        return cls(lane_of(number, 1000 + lift, **key), priorities, len(jobs)).next()

    def next(self) -> Line:
        self.lane.priority = next(self.priorities, self.lane.priority)
        return self


def lane_of(number: int, priority: int, **key: object) -> Lane:
    return Lane(lane_id=number, key=replace(KEY, **key), priority=priority, running=0)  # type: ignore[arg-type]


@dataclass
class Slots:
    """A queue with so many slots: each claim takes the best job for a free one; jobs end in any order."""

    shares: Shares
    lines: list[Line]
    slots: int
    chance: random.Random
    running: list[Line] = field(default_factory=list)
    claims: int = 0

    def claim(self) -> Line | None:
        """Let a job end if all slots are taken, and start the best one; None if none waits."""
        if len(self.running) == self.slots:
            self.end_any()
        standing = self.shares.standing([line.lane for line in self.lines], chance=self.chance.expovariate)
        best = standing.best([line.lane for line in self.lines if line.waiting])
        if best is None:
            return None
        line = next(line for line in self.lines if line.lane is best)
        standing.took(best)
        line.waiting -= 1
        line.started.append(self.claims)
        line.next()
        self.running.append(line)
        self.claims += 1
        return line

    def end_any(self) -> None:
        self.running.pop(self.chance.randrange(len(self.running))).lane.running -= 1


def most_that_go_before(lifts: list[int], small: int) -> int:
    """How many jobs of big users can be started while one with `small` jobs waits.

    The last of the small user's jobs is worth at least 5 q - (small - 1), where q is its priority and small - 1 the
    most that run before it. A big user is served before it only with a job worth at least as much, whatever runs and
    ends. Since each five jobs that a user submits cost a point, there are few with so much.
    """
    worth = JOBS_PER_POINT * starting_priority(JOB, small - 1) - (small - 1)
    points = 1000 - -(-worth // JOBS_PER_POINT)  # how far below 1000 a priority may be for that
    return sum(JOBS_PER_POINT * (points + lift + 1) for lift in lifts)


def test_the_bound_for_ten_jobs_next_to_a_hundred_thousand() -> None:
    assert most_that_go_before([0], 10) == 15


@given(
    slots=st.integers(1, 60),
    earlier=st.integers(0, 80),
    small=st.integers(1, 20),
    lifts=st.lists(st.sampled_from([0, 0, 0, 3, 40]), min_size=1, max_size=3),
    kinds=st.integers(1, 4),
    seed=SEEDS,
)
@example(slots=20, earlier=0, small=10, lifts=[0], kinds=1, seed=1)
@example(slots=20, earlier=60, small=10, lifts=[0], kinds=3, seed=1)
@example(slots=60, earlier=0, small=10, lifts=[40], kinds=1, seed=1)
def test_a_user_with_a_hundred_thousand_jobs_does_not_starve_one_with_ten(
    slots: int, earlier: int, small: int, lifts: list[int], kinds: int, seed: int
) -> None:
    big = [  # each with jobs of several kinds: it does not help to stand in many lanes
        Line.of(10 * n + kind, range(kind, 100_000, kinds), lift=lift, owner=f"/CN=big {n}", memory_mb=kind)
        for n, lift in enumerate(lifts)
        for kind in range(kinds)
    ]
    queue = Slots(Shares(), big, slots, random.Random(seed))
    for _ in range(earlier):  # the big users have had the queue for themselves
        queue.claim()
    late = Line.of(99, range(small), owner="/CN=small")
    queue.lines.append(late)
    begin, most = queue.claims, small + most_that_go_before(lifts, small)
    while late.waiting:
        assert queue.claims - begin < most
        queue.claim()
    assert queue.claims - begin <= most


@given(slots=st.integers(10, 100), users=st.integers(2, 5), seed=SEEDS)
def test_users_with_as_many_jobs_run_as_many(slots: int, users: int, seed: int) -> None:
    lines = [Line.of(n, range(100_000), owner=f"/CN={n}") for n in range(users)]
    queue = Slots(Shares(), lines, slots, random.Random(seed))
    for _ in range(3 * slots):
        queue.claim()
    queue.end_any()
    queue.claim()
    running = [line.lane.running for line in lines]
    assert max(running) - min(running) <= JOBS_PER_POINT + 1 + 3 * slots // (10 * users), running


@given(st.integers(1, 3), SEEDS)
def test_in_a_queue_with_fewer_slots_than_shares_each_has_its_part_in_time(slots: int, seed: int) -> None:
    shares, lines, weights = weighted([60.0, 20.0, 19.0])
    queue = Slots(shares, lines, slots, random.Random(seed))
    for _ in range(1500):
        queue.claim()
    served = [len(line.started) for line in lines]
    assert all(served), served
    if slots == 1:
        for number, weight in zip(served, weights, strict=True):
            assert abs(number - 15 * weight) < 6 * (15 * weight) ** 0.5 + 10, served


WEIGHTS = st.lists(st.floats(0.5, 100), min_size=1, max_size=4)


def weighted(weights: list[float]) -> tuple[Shares, list[Line], list[float]]:
    """A share for each weight and the others, each with a lane that never ends, of the worst priorities for it."""
    shares = Shares(tuple(Share(name=f"s{n}", weight=w, vo=f"vo{n}") for n, w in enumerate(weights)))
    lines = [
        Line(lane_of(n, 100 * n, vo=f"vo{n}", owner="/CN=one"), (100 * n for _ in count()), 10**9)
        for n in range(len(weights) + 1)
    ]
    return shares, lines, [*weights, 1.0]


@given(WEIGHTS, st.integers(1, 150), st.integers(0, 150), SEEDS)
def test_shares_have_their_weights_at_every_moment_when_all_have_jobs(
    weights: list[float], slots: int, more: int, seed: int
) -> None:
    shares, lines, weights = weighted(weights)
    queue = Slots(shares, lines, slots, random.Random(seed))
    for _ in range(slots + more):
        queue.claim()
        loads = [line.lane.running / weight for line, weight in zip(lines, weights, strict=True)]
        # Whoever was served last was the least loaded then: without that job nobody is above anybody else.
        for line, weight in zip(lines, weights, strict=True):
            assert not line.lane.running or (line.lane.running - 1) / weight <= min(loads) + 1e-9
    total, running = sum(weights), len(queue.running)
    for line, weight in zip(lines, weights, strict=True):
        part = running * weight / total
        assert part - len(weights) < line.lane.running <= part + 1 + 1e-9


@given(WEIGHTS, st.lists(st.integers(1, 16), min_size=5, max_size=5), st.integers(50, 200))
def test_with_many_cores_shares_are_as_near_as_one_job_allows(
    weights: list[float], cores: list[int], jobs: int
) -> None:
    shares, lines, weights = weighted(weights)
    for line, size in zip(lines, cores, strict=False):
        line.lane.key = replace(line.lane.key, cores=size)
    queue = Slots(shares, lines, jobs, random.Random(0))
    for _ in range(jobs):
        queue.claim()
    loads = [line.lane.running * line.lane.key.cores / w for line, w in zip(lines, weights, strict=True)]
    for line, load, weight in zip(lines, loads, weights, strict=True):
        assert not line.lane.running or load - line.lane.key.cores / weight <= min(loads) + 1e-9


@given(WEIGHTS, st.data(), st.integers(1, 60), SEEDS)
def test_what_a_share_does_not_use_the_others_get(
    weights: list[float], data: st.DataObject, slots: int, seed: int
) -> None:
    shares, lines, weights = weighted(weights)
    for line in lines:
        line.waiting = data.draw(st.integers(0, 40))
    all_jobs = sum(line.waiting for line in lines)
    queue = Slots(shares, lines, slots, random.Random(seed))
    started = 0
    while queue.claim():
        started += 1
        assert len(queue.running) == min(slots, started), "no slot is empty while a job waits"
    assert started == all_jobs and not any(line.waiting for line in lines)


@given(
    st.lists(st.integers(-1000, 5000), min_size=1, max_size=30),
    st.sampled_from(["managed", "test"]),
    st.integers(1, 20),
    SEEDS,
)
def test_production_goes_by_priority_whoever_owns_it(priorities: list[int], label: str, slots: int, seed: int) -> None:
    lines = [
        Line(lane_of(n, priority, owner=f"/CN={n % 3}", label=label, disk_mb=n), iter(()), 3)
        for n, priority in enumerate(priorities)
    ]
    queue = Slots(Shares(), lines, slots, random.Random(seed))
    served = [line.lane.priority for line in iter(queue.claim, None) if line]
    assert served == sorted(priorities * 3, reverse=True)


@given(st.integers(1, 5000), st.sampled_from([0, 100]))
def test_a_user_who_asks_for_more_is_served_no_earlier(jobs: int, most: int) -> None:
    rules = PriorityRules(raise_max=most)
    greedy, modest = (
        Counter(starting_priority(replace(JOB, assigned_priority=wish), n, rules=rules) for n in range(jobs))
        for wish in (1_000_000, most)
    )
    assert greedy == modest
