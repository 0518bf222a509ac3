"""The brokerage's choices, queue by queue: who is refused and why, who wins and by how much."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
from factories import JOB, queue

from pandaserver.brokerage.choice import FINALISTS, MANY_INPUTS, Choice, Load, choose, weight
from pandaserver.brokerage.filters import QUESTIONS, refusal
from pandaserver.model.grid import Queue, QueueStatus
from pandaserver.model.job import Job

ANY = dataclasses.replace(JOB, site=None)


def asks(**wishes: object) -> Job:
    return dataclasses.replace(ANY, **wishes)  # type: ignore[arg-type]


def pick(
    job: Job, *queues: Queue, loads: Mapping[str, Load] | None = None, at: Mapping[str, int] | None = None
) -> Choice:
    return choose(job, {q.name: q for q in queues}, loads or {}, at or {})


REFUSED = [
    (asks(pinned=True, site="B"), {}, "asks for B"),
    (asks(cloud="DE"), {}, "cloud DE"),
    (asks(vo="cms"), {"vos": ("atlas",)}, "VO cms is not served"),
    (asks(vo=""), {"vos": ("atlas",)}, r"VO \(none\)"),
    (asks(release="13\n14"), {"releases": ("13",)}, "release 14 is not installed"),
    (asks(platform="arm"), {"platforms": ("x86",)}, "platform arm"),
    (asks(memory_mb=2001), {"memory_mb": 2000}, "2001 MB of memory asked, 2000 MB there"),
    (asks(disk_mb=11), {"max_work_dir_mb": 10}, "11 MB of disk asked, 10 MB there"),
    (asks(cores=8), {"cores": 4}, "8 cores asked, 4 there"),
    (asks(wall_time_s=61), {"max_wall_time_s": 60}, "61 s of wall time asked, 60 s there"),
    (ANY, {"status": QueueStatus.OFFLINE}, "the queue is offline"),
    (ANY, {"status": QueueStatus.TEST}, "the queue is test"),
]


@pytest.mark.parametrize(("job", "there", "why"), REFUSED, ids=[why for _, _, why in REFUSED])
def test_refusals_say_what_was_asked_and_what_is_there(job: Job, there: dict[str, object], why: str) -> None:
    choice = pick(job, queue("A", **there))
    assert choice.queue is None
    (verdict,) = choice.verdicts
    assert (verdict.queue, verdict.verdict, verdict.weight) == ("A", "rejected", None)
    assert why.replace("\\", "") in verdict.reason


def test_every_question_is_tried_by_a_refusal_above() -> None:
    heard = {question for job, there, _ in REFUSED for question in QUESTIONS if question(job, queue("A", **there))}
    assert heard == set(QUESTIONS)


TAKEN = [
    (asks(pinned=True, site="A", cloud="DE"), {}),
    (asks(cloud="US"), {}),
    (asks(vo="atlas"), {"vos": ("cms", "atlas")}),
    (asks(release=" 13 \n\n14"), {"releases": ("13", "14")}),
    (asks(release="99", platform="any"), {}),
    (asks(memory_mb=2000), {"memory_mb": 2000}),
    (asks(memory_mb=10**6, disk_mb=10**6, wall_time_s=10**6), {"memory_mb": 0}),
    (asks(label="test"), {"status": QueueStatus.TEST}),
]


@pytest.mark.parametrize(("job", "there"), TAKEN)
def test_limits_may_be_reached_and_zero_is_no_limit(job: Job, there: dict[str, object]) -> None:
    assert refusal(job, queue("A", **there)) is None
    assert pick(job, queue("A", **there)).queue == "A"


def test_only_a_closed_queue_is_worth_waiting_for() -> None:
    off = queue("A", status=QueueStatus.OFFLINE)
    assert pick(ANY, off).may_pass
    assert not pick(asks(cores=64), off).may_pass, "it would not fit when the queue is open either"
    assert not pick(ANY).may_pass, "no queue at all"
    assert pick(asks(memory_mb=9), off, queue("B", memory_mb=8)).may_pass


def test_the_less_loaded_queue_wins() -> None:
    loads = {"A": Load(queued=10, running=1), "B": Load(queued=2, running=1)}
    choice = pick(ANY, queue("A"), queue("B"), loads=loads)
    assert choice.queue == "B"
    assert [(v.queue, v.verdict, v.weight) for v in choice.verdicts] == [("B", "chosen", 1.5), ("A", "possible", 5.5)]
    assert choice.verdicts[0].reason == "2 queued, 1 running, 0 input files there"


def test_data_wins_among_the_finalists() -> None:
    loads = {"B": Load(queued=1)}
    assert pick(ANY, queue("A"), queue("B"), loads=loads, at={"B_DISK": 3}).queue == "B"
    assert pick(ANY, queue("A"), queue("B"), loads=loads, at={"B_DISK": 3, "A_DISK": 3}).queue == "A"


def test_data_does_not_win_against_a_queue_much_less_loaded() -> None:
    assert pick(ANY, queue("A"), queue("B"), loads={"B": Load(queued=2)}, at={"B_DISK": 3}).queue == "A"


def test_data_outside_the_finalists_does_not_count() -> None:
    names = [f"Q{n}" for n in range(FINALISTS + 1)]
    loads = {name: Load(queued=10 + n) for n, name in enumerate(names)}
    choice = pick(ANY, *map(queue, names), loads=loads, at={f"{names[-1]}_DISK": 9})
    assert choice.queue == "Q0"


def test_data_decides_who_is_a_finalist_among_equals() -> None:
    names = [f"Q{n}" for n in range(FINALISTS + 3)]
    assert pick(ANY, *map(queue, names), at={f"{names[-1]}_DISK": 9}).queue == names[-1]


def test_many_inputs_prefer_the_tier1() -> None:
    t1, t2 = queue("T1", tier=1), queue("T2")
    for inputs, factor in ((MANY_INPUTS, 1), (MANY_INPUTS + 1, 2)):
        assert weight(t1, Load(queued=5), inputs=inputs) == weight(t2, Load(queued=5), inputs=inputs) / factor


def test_weights_fall_with_running_and_grow_with_queued_jobs() -> None:
    one = queue("A")
    assert weight(one, Load(), inputs=0) == 1
    assert weight(one, Load(queued=9), inputs=0) == 10
    assert weight(one, Load(queued=9, running=9), inputs=0) == 1


def test_a_pinned_job_goes_where_it_was_pinned_however_loaded() -> None:
    job = asks(pinned=True, site="B")
    choice = pick(job, queue("A"), queue("B"), loads={"B": Load(queued=10_000)}, at={"A_DISK": 50})
    assert choice.queue == "B"
    assert {v.queue: v.verdict for v in choice.verdicts} == {"A": "rejected", "B": "chosen"}


def test_a_queue_where_the_job_failed_is_taken_only_when_no_other_can() -> None:
    best, other = queue("A"), queue("B", memory_mb=2000)
    loads = {"B": Load(queued=1000)}
    choice = choose(ANY, {"A": best, "B": other}, loads, {}, avoid={"A", "gone"})
    assert choice.queue == "B"
    assert {v.queue: v.reason for v in choice.verdicts if v.verdict == "rejected"} == {"A": "failed there before"}
    large = asks(memory_mb=3000)
    assert choose(large, {"A": best, "B": other}, loads, {}, avoid={"A"}) == pick(large, best, other, loads=loads)
    assert choose(ANY, {"A": best, "B": other}, loads, {}, avoid={"A", "B"}).queue == "A"


def test_a_refusal_says_more_than_that_the_job_failed_there() -> None:
    choice = choose(asks(memory_mb=3000), {"A": queue("A", memory_mb=1), "B": queue("B")}, {}, {}, avoid=["A"])
    assert [v.reason for v in choice.verdicts if v.queue == "A"] == ["3000 MB of memory asked, 1 MB there"]
