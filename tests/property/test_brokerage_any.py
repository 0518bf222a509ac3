"""The brokerage over any jobs, queues and loads: what must be true of every choice."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from factories import JOB
from hypothesis import event, given
from hypothesis import strategies as st

from pandaserver.brokerage.choice import FINALISTS, MUCH_WORSE, Load, choose
from pandaserver.brokerage.filters import refusal
from pandaserver.model.grid import Queue, QueueStatus
from pandaserver.model.job import Job

NAMES = [f"Q{n}" for n in range(6)]
RELEASES = ["13", "14", "15"]

job_wishes = st.fixed_dictionaries(
    {
        "label": st.sampled_from(["user", "managed", "test"]),
        "cloud": st.sampled_from(["", "", "US", "DE"]),
        "vo": st.sampled_from(["", "atlas", "cms"]),
        "release": st.lists(st.sampled_from(RELEASES), max_size=2).map("\n".join),
        "platform": st.sampled_from(["", "x86", "arm"]),
        "memory_mb": st.integers(0, 4000),
        "disk_mb": st.integers(0, 40),
        "cores": st.integers(1, 8),
        "wall_time_s": st.integers(0, 100),
    }
)


@st.composite
def any_job(draw: st.DrawFn) -> Job:
    site = draw(st.sampled_from([None, None, None, *NAMES]))
    return dataclasses.replace(JOB, **draw(job_wishes), site=site, pinned=site is not None)


def any_queue(name: str) -> st.SearchStrategy[Queue]:
    some = st.lists(st.sampled_from(RELEASES), max_size=3, unique=True).map(tuple)
    return st.builds(
        Queue,
        name=st.just(name),
        site=st.just(name),
        cloud=st.sampled_from(["US", "DE"]),
        tier=st.sampled_from([1, 2]),
        status=st.sampled_from([QueueStatus.ONLINE] * 4 + list(QueueStatus)),
        endpoint=st.just(f"{name}_DISK"),
        memory_mb=st.sampled_from([0, 2000, 4000]),
        cores=st.sampled_from([1, 8, 8]),
        max_wall_time_s=st.sampled_from([0, 50]),
        max_work_dir_mb=st.sampled_from([0, 20]),
        releases=some,
        platforms=st.sampled_from([(), ("x86",), ("x86", "arm")]),
        vos=st.sampled_from([(), ("atlas",), ("cms", "")]),
    )


queues = st.lists(st.sampled_from(NAMES), unique=True).flatmap(lambda names: st.tuples(*map(any_queue, names)))
loads = st.dictionaries(st.sampled_from(NAMES), st.builds(Load, queued=st.integers(0, 50), running=st.integers(0, 50)))
places = st.dictionaries(st.sampled_from([f"{name}_DISK" for name in NAMES]), st.integers(0, 10))


@given(any_job(), queues, loads, places)
def test_every_choice_is_sound(
    job: Job, given_queues: tuple[Queue, ...], load: Mapping[str, Load], at: Mapping[str, int]
) -> None:
    grid = {q.name: q for q in given_queues}
    choice = choose(job, grid, load, at)
    said = {v.queue: v for v in choice.verdicts}
    fit = {name for name, q in grid.items() if refusal(job, q) is None}
    event(f"{len(fit)} of {len(grid)} queues can take the job")

    assert sorted(v.queue for v in choice.verdicts) == sorted(grid), "one verdict for every queue"
    assert {name for name, v in said.items() if v.verdict != "rejected"} == fit
    assert all(v.reason for v in choice.verdicts)
    assert all((v.weight is None) == (v.verdict == "rejected") for v in choice.verdicts)
    assert [v.queue for v in choice.verdicts if v.verdict == "chosen"] == ([choice.queue] if fit else [])
    assert (choice.queue is None) == (not fit)
    if job.pinned:
        assert choice.queue in (None, job.site)
    if choice.queue is None:
        opened = [dataclasses.replace(q, status=QueueStatus.ONLINE) for q in given_queues]
        assert choice.may_pass == any(refusal(job, q) is None for q in opened)


@given(any_job(), queues, loads, places, st.randoms())
def test_the_choice_does_not_depend_on_the_order_of_queues(
    job: Job, given_queues: tuple[Queue, ...], load: Mapping[str, Load], at: Mapping[str, int], random: object
) -> None:
    shuffled = list(given_queues)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first = choose(job, {q.name: q for q in given_queues}, load, at)
    second = choose(job, {q.name: q for q in shuffled}, load, at)
    assert first.queue == second.queue
    assert set(first.verdicts) == set(second.verdicts)


@given(any_job(), queues, loads, places)
def test_the_winner_is_not_much_worse_and_has_most_data_among_the_finalists(
    job: Job, given_queues: tuple[Queue, ...], load: Mapping[str, Load], at: Mapping[str, int]
) -> None:
    choice = choose(job, {q.name: q for q in given_queues}, load, at)
    weights = {v.queue: v.weight for v in choice.verdicts if v.weight is not None}
    if choice.queue is None:
        return
    best = min(weights.values())
    assert weights[choice.queue] <= MUCH_WORSE * best
    local = at.get(f"{choice.queue}_DISK", 0)
    lighter = sorted(weights, key=lambda name: (weights[name], -at.get(f"{name}_DISK", 0), name))[:FINALISTS]
    rivals = [at.get(f"{name}_DISK", 0) for name in lighter if weights[name] <= MUCH_WORSE * best]
    assert choice.queue in lighter
    assert local == max(rivals)
