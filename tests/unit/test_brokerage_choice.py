"""The brokerage's choices, queue by queue: who is refused and why, who wins and by how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from factories import queue

from pandaserver.brokerage.choice import SHOWN, choose_all
from pandaserver.brokerage.criteria import QUESTIONS, refusal, refusals
from pandaserver.brokerage.rules import broker_rules
from pandaserver.config import BrokerageSection
from pandaserver.model.choice import (
    BYTES_PER_MB,
    Access,
    BrokerRules,
    Choice,
    Load,
    Request,
    Snapshot,
    Wish,
    read_site_wishes,
    write_site_wishes,
)
from pandaserver.model.grid import Queue, QueueStatus, Topology

ANY = Wish()
BY_NAME = BrokerRules(spread=0, silent_jobs=0)
MALLORY = "/DC=org/CN=Mallory"


def asks(**wishes: Any) -> Wish:
    return Wish(**wishes)


def grid_of(*queues: Queue, **more: Any) -> Snapshot:
    return Snapshot(topology=Topology(queues={q.name: q for q in queues}, endpoints={}), **({"rules": BY_NAME} | more))


def pick(wish: Wish, *queues: Queue, at: Mapping[str, int] | None = None, files: int = 0, **more: Any) -> Choice:
    held = at or {}
    names = tuple(("s", f"f{n}") for n in range(files or bool(held)))
    size = max(held.values(), default=0)
    request = Request(
        job_id=1, wish=wish, inputs=names, input_bytes=size, bytes_at=held, files_at=dict.fromkeys(held, 1)
    )
    (choice,) = choose_all([request], grid_of(*queues, **more))
    return choice


def said(choice: Choice) -> dict[str, str]:
    return {name: one.reason for one in choice.rejected for name in one.queues}


FULL = {"free_mb": {"A_DISK": 1200}, "loads": {"A": Load(queued=1)}}
DENY = {"rules": replace(BY_NAME, deny=(Access("A*", "/DC=org/CN=Mal*"),))}
ALLOW = {"rules": replace(BY_NAME, allow=(Access("A", "/DC=org/CN=Alice"),))}
REFUSED: list[tuple[Wish, dict[str, Any], dict[str, Any], str, str]] = [
    (asks(site="B"), {}, {}, "asked for", "the job asks for B"),
    (asks(only=frozenset({"B", "C"})), {}, {}, "wanted sites", "the job asks for B, C"),
    (asks(without=frozenset({"A"})), {}, {}, "excluded sites", "the job excludes A"),
    (asks(cloud="DE"), {}, {}, "cloud", "the job asks for cloud DE, the queue is in US"),
    (asks(vo="cms"), {"vos": ("atlas",)}, {}, "vo", "VO cms is not served, only atlas"),
    (asks(vo=""), {"vos": ("atlas",)}, {}, "vo", "VO (none) is not served, only atlas"),
    (asks(owner=MALLORY), {}, DENY, "user", "the installation does not let this user's jobs run there"),
    (asks(owner=MALLORY), {}, ALLOW, "user", "the queue is kept for other users"),
    (asks(releases=("13", "14")), {"releases": ("13",)}, {}, "release", "release 14 is not installed, only 13"),
    (asks(releases=("9",)), {"releases": tuple("abcdef")}, {}, "release", "release 9 is not installed, only 6 others"),
    (asks(platform="arm"), {"platforms": ("x86",)}, {}, "platform", "platform arm is not there, only x86"),
    (asks(memory_mb=2001), {"memory_mb": 2000}, {}, "memory", "2001 MB of memory asked, 2000 there"),
    (asks(disk_mb=11), {"max_work_dir_mb": 10}, {}, "scratch", "11 MB of disk asked, 10 there"),
    (asks(cores=8), {"cores": 4}, {}, "cores", "8 cores asked, 4 there"),
    (asks(wall_time_s=61), {"max_wall_time_s": 60}, {}, "wall time", "61 s of wall time asked, 60 there"),
    (asks(input_mb=9), {"max_input_mb": 8}, {}, "input size", "9 MB of input, 8 MB taken at most"),
    (ANY, {}, FULL, "storage", "1200 MB free at A_DISK, where 1 jobs will write; 1000 MB shall be left"),
    (ANY, {"status": QueueStatus.OFFLINE}, {}, "status", "the queue is offline"),
    (ANY, {"status": QueueStatus.BROKEROFF}, {}, "status", "the queue is brokeroff"),
    (ANY, {"status": QueueStatus.TEST}, {}, "status", "the queue is test"),
]


@pytest.mark.parametrize(("wish", "there", "around", "criterion", "why"), REFUSED, ids=[one[-1] for one in REFUSED])
def test_refusals_say_what_was_asked_and_what_is_there(
    wish: Wish, there: dict[str, Any], around: dict[str, Any], criterion: str, why: str
) -> None:
    choice = pick(wish, queue("A", **there), **around)
    assert choice.queue is None and not choice.candidates
    (rejected,) = choice.rejected
    assert (rejected.queues, rejected.criterion, rejected.reason) == (("A",), criterion, why)


def test_every_question_is_tried_by_a_refusal_above() -> None:
    heard = {
        question
        for wish, there, around, *_ in REFUSED
        for question in QUESTIONS
        if question(wish, queue("A", **there), grid_of(**around))
    }
    assert heard == set(QUESTIONS)


TAKEN: list[tuple[Wish, dict[str, Any], dict[str, Any]]] = [
    (asks(site="A", cloud="DE"), {}, {}),
    (asks(only=frozenset({"SITE"})), {"site": "SITE"}, {}),
    (asks(without=frozenset({"B"})), {}, {}),
    (asks(cloud="US"), {}, {}),
    (asks(vo="atlas"), {"vos": ("cms", "atlas")}, {}),
    (asks(owner="/DC=org/CN=Alice"), {}, DENY),
    (asks(owner="/DC=org/CN=Alice"), {}, ALLOW),
    (asks(owner=MALLORY), {}, {"rules": replace(BY_NAME, allow=(Access("B", "/CN=x"),))}),
    (asks(releases=("13", "14")), {"releases": ("13", "14")}, {}),
    (asks(releases=("99",), platform="any"), {}, {}),
    (asks(memory_mb=2000), {"memory_mb": 2000}, {}),
    (asks(memory_mb=10**6, disk_mb=10**6, wall_time_s=10**6, input_mb=10**6), {"memory_mb": 0}, {}),
    (asks(input_mb=8), {"max_input_mb": 8}, {}),
    (ANY, {}, {"free_mb": {"A_DISK": 1250}, "loads": {"A": Load(running=1)}}),
    (asks(label="test"), {"status": QueueStatus.TEST}, {}),
]


@pytest.mark.parametrize(("wish", "there", "around"), TAKEN)
def test_limits_may_be_reached_and_zero_is_no_limit(wish: Wish, there: dict[str, Any], around: dict[str, Any]) -> None:
    assert refusal(wish, queue("A", **there), grid_of(**around)) is None
    assert pick(wish, queue("A", **there), **around).queue == "A"


def test_all_that_stands_against_a_queue_can_be_had() -> None:
    narrow = queue("A", memory_mb=1, cores=1, status=QueueStatus.OFFLINE)
    found = refusals(asks(memory_mb=2, cores=2), narrow, grid_of())
    assert [(one.criterion, one.value, one.limit, one.passing) for one in found] == [
        ("memory", 2, 1, False),
        ("cores", 2, 1, False),
        ("status", "user", "offline", True),
    ]


def test_only_what_may_pass_is_worth_waiting_for() -> None:
    off = queue("A", status=QueueStatus.OFFLINE)
    assert pick(ANY, off).may_pass
    assert pick(ANY, queue("A"), **FULL).may_pass
    assert not pick(asks(cores=64), off).may_pass, "it would not fit when the queue is open either"
    assert not pick(ANY).may_pass, "no queue at all"
    assert pick(asks(memory_mb=9), off, queue("B", memory_mb=8)).may_pass


def test_queues_of_which_the_same_is_said_stand_together() -> None:
    queues = [queue(name, memory_mb=limit) for name, limit in (("A", 1), ("B", 2), ("C", 1), ("D", 4))]
    choice = pick(asks(memory_mb=3), *queues)
    assert choice.queue == "D"
    assert [(one.queues, one.value, one.limit) for one in choice.rejected] == [(("A", "C"), 3, 1), (("B",), 3, 2)]


def test_the_less_loaded_queue_wins() -> None:
    loads = {"A": Load(queued=10, running=1), "B": Load(queued=2, running=1)}
    choice = pick(ANY, queue("A"), queue("B"), loads=loads)
    assert choice.queue == "B"
    assert [(one.queue, one.weight) for one in choice.candidates] == [("B", 1.5), ("A", 5.5)]
    assert choice.candidates[0].reason == "2 queued, 1 running, 0 input files there"


def test_bytes_win_among_the_finalists() -> None:
    loads = {"B": Load(queued=1)}
    choice = pick(ANY, queue("A"), queue("B"), loads=loads, at={"B_DISK": 3 * BYTES_PER_MB})
    assert choice.queue == "B"
    assert choice.candidates[0].reason == "1 queued, 0 running, 1 input files there (3 MB)"
    assert pick(ANY, queue("A"), queue("B"), loads=loads, at={"B_DISK": 3, "A_DISK": 3}).queue == "A"


def test_one_large_file_counts_more_than_many_small_ones() -> None:
    request = Request(
        job_id=1, wish=ANY, inputs=(("s", "f"),), input_bytes=103,
        bytes_at={"A_DISK": 3, "B_DISK": 100}, files_at={"A_DISK": 3, "B_DISK": 1},
    )  # fmt: skip
    assert choose_all([request], grid_of(queue("A"), queue("B")))[0].queue == "B"


def test_data_does_not_win_against_a_queue_much_less_loaded() -> None:
    assert pick(ANY, queue("A"), queue("B"), loads={"B": Load(queued=2)}, at={"B_DISK": 3}).queue == "A"


def test_data_outside_the_finalists_does_not_count() -> None:
    names = [f"Q{n}" for n in range(3)]
    loads = {name: Load(queued=10 + n) for n, name in enumerate(names)}
    assert pick(ANY, *map(queue, names), loads=loads, at={"Q2_DISK": 9}).queue == "Q0"
    more = replace(BY_NAME, finalists=3)
    assert pick(ANY, *map(queue, names), loads=loads, at={"Q2_DISK": 9}, rules=more).queue == "Q2"


def test_data_decides_who_is_a_finalist_among_equals_however_many_they_are() -> None:
    names = [f"Q{n:02}" for n in range(2 * SHOWN)]
    choice = pick(ANY, *map(queue, names), at={f"{names[-1]}_DISK": 9})
    assert choice.queue == names[-1]
    assert len(choice.candidates) == SHOWN and choice.more == SHOWN


def test_what_waits_on_the_way_makes_a_queue_heavier() -> None:
    there, rules = {"C_DISK": 5 * BYTES_PER_MB}, replace(BY_NAME, backlog_mb=100)
    busy = {("C_DISK", "A_DISK"): 100.0}
    choice = pick(ANY, queue("A"), queue("B"), at=there, rules=rules, backlog_mb=busy)
    assert choice.queue == "B" and choice.candidates[1].weight == 2
    here = {"A_DISK": 5 * BYTES_PER_MB, "C_DISK": 5 * BYTES_PER_MB}
    assert pick(ANY, queue("A"), queue("B"), at=here, rules=rules, backlog_mb=busy).queue == "A", "nothing has to move"
    other = there | {"D_DISK": 5 * BYTES_PER_MB}
    assert pick(ANY, queue("A"), queue("B"), at=other, rules=rules, backlog_mb=busy).queue == "A", "another way is free"


@pytest.mark.parametrize(("files", "size_mb", "better"), [(4, 500, "T2"), (5, 1, "T1"), (1, 501, "T1")])
def test_much_input_prefers_the_tier1(files: int, size_mb: int, better: str) -> None:
    loads = {"T1": Load(queued=3), "T2": Load(queued=2)}
    wish, at = asks(input_mb=size_mb), {"ELSEWHERE": size_mb * BYTES_PER_MB}
    assert pick(wish, queue("T1", tier=1), queue("T2"), loads=loads, at=at, files=files).queue == better


@pytest.mark.parametrize(
    ("production", "priority", "files", "only"),
    [(True, 950, 1, True), (True, 949, 1, False), (True, 0, 20, True), (False, 2000, 30, False)],
)
def test_urgent_or_large_production_goes_to_a_tier1(production: bool, priority: int, files: int, only: bool) -> None:
    loads = {"T1": Load(queued=500)}
    inputs = tuple(("s", f"f{n}") for n in range(files))
    request = Request(job_id=1, wish=asks(production=production), priority=priority, inputs=inputs)
    (choice,) = choose_all([request], grid_of(queue("T1", tier=1), queue("T2"), loads=loads))
    assert choice.queue == ("T1" if only else "T2")
    assert [one.criterion for one in choice.rejected] == ["tier"] * only
    (choice,) = choose_all([request], grid_of(queue("T2")))
    assert choice.queue == "T2", "better there than nowhere"


def test_weights_fall_with_running_and_grow_with_queued_jobs() -> None:
    assert Load().weight == 1
    assert Load(queued=9).weight == 10
    assert Load(queued=9, running=9).weight == 1


def test_a_pinned_job_goes_where_it_was_pinned_however_loaded() -> None:
    choice = pick(asks(site="B"), queue("A"), queue("B"), loads={"B": Load(queued=10_000)}, at={"A_DISK": 50})
    assert choice.queue == "B"
    assert said(choice) == {"A": "the job asks for B"}


def test_a_queue_where_the_job_failed_is_taken_only_when_no_other_can() -> None:
    best, other, loads = queue("A"), queue("B", memory_mb=2000), {"B": Load(queued=1000)}
    choice = pick(asks(avoid=frozenset({"A", "gone"})), best, other, loads=loads)
    assert choice.queue == "B"
    assert said(choice) == {"A": "failed there before"}
    assert pick(asks(memory_mb=3000, avoid=frozenset({"A"})), best, other, loads=loads).queue == "A"
    assert pick(asks(avoid=frozenset({"A", "B"})), best, other, loads=loads).queue == "A"


def test_a_refusal_says_more_than_that_the_job_failed_there() -> None:
    choice = pick(asks(memory_mb=3000, avoid=frozenset({"A"})), queue("A", memory_mb=1), queue("B"))
    assert said(choice) == {"A": "3000 MB of memory asked, 1 there"}


def test_queues_without_pilots_are_taken_only_when_no_other_can() -> None:
    loads = {"B": Load(queued=1000)}
    choice = pick(ANY, queue("A"), queue("B"), loads=loads, pilots={"B": 1, "A": 0})
    assert choice.queue == "B"
    assert said(choice) == {"A": "no pilot was seen in the last 3 hours"}
    assert pick(ANY, queue("A"), queue("B"), loads=loads).queue == "A", "nobody has pilots"
    without = replace(BY_NAME, pilots_within_s=None)
    assert pick(ANY, queue("A"), queue("B"), loads=loads, pilots={"B": 1}, rules=without).queue == "A"


def test_a_few_jobs_go_to_queues_without_pilots_to_wake_their_schedulers() -> None:
    rules = replace(BY_NAME, silent_jobs=3)

    def chosen(waiting: int) -> str | None:
        loads = {"A": Load(queued=waiting), "B": Load(queued=1000)}
        return pick(ANY, queue("A"), queue("B"), loads=loads, pilots={"B": 1}, rules=rules).queue

    assert [chosen(waiting) for waiting in range(5)] == ["A", "A", "A", "B", "B"]


def many(number: int, **more: Any) -> list[Request]:
    return [Request(job_id=n, wish=ANY, **more) for n in range(1, number + 1)]


def test_choices_count_as_load_for_the_next() -> None:
    found = [choice.queue for choice in choose_all(many(4), grid_of(queue("A"), queue("B")))]
    assert found == ["A", "B", "A", "B"]


def test_jobs_that_read_the_same_go_together_up_to_a_number() -> None:
    rules = replace(BY_NAME, bunch_jobs=3)
    choices = choose_all(many(6, inputs=(("s", "same"),)), grid_of(queue("A"), queue("B"), rules=rules))
    assert [choice.queue for choice in choices] == ["A", "A", "A", "B", "B", "B"]
    other = [Request(job_id=n, wish=ANY, inputs=(("s", f"{n}"),)) for n in range(4)]
    assert [c.queue for c in choose_all(other, grid_of(queue("A"), queue("B"), rules=rules))] == ["A", "B", "A", "B"]


def test_equal_queues_get_jobs_by_lot_and_the_same_lot_again() -> None:
    names = [f"Q{n:02}" for n in range(40)]
    drawn = grid_of(*map(queue, names), rules=BrokerRules(seed="a"))

    def found(snapshot: Snapshot) -> list[str | None]:
        return [choice.queue for choice in choose_all(many(40), snapshot)]

    assert found(drawn) == found(drawn)
    assert len(set(found(drawn))) == 40, "each choice makes its queue heavier"
    assert found(drawn) != sorted(names)
    assert found(drawn) != found(replace(drawn, rules=BrokerRules(seed="b")))


def test_lots_are_drawn_among_near_equals_only() -> None:
    loads = {"A": Load(queued=99), "B": Load(queued=104), "C": Load(queued=150)}
    drawn = grid_of(queue("A"), queue("B"), queue("C"), loads=loads, rules=BrokerRules())
    requests = [Request(job_id=n, wish=ANY) for n in range(200)]
    first = {choose_all([one], drawn)[0].queue for one in requests}
    assert first == {"A", "B"}


def test_owners_are_told_apart_where_the_configuration_names_some() -> None:
    rules = broker_rules(BrokerageSection(spread=0, deny=("A /CN=Mallory X",)))
    requests = [Request(job_id=n, wish=Wish(owner=o)) for n, o in enumerate(("/CN=Alice", "/CN=Mallory X"))]
    choices = choose_all(requests, grid_of(queue("A"), rules=rules))
    assert [choice.queue for choice in choices] == ["A", None]


def test_site_wishes_are_written_and_read_back() -> None:
    assert write_site_wishes(["A", "B"], ["C"]) == "A,B,!C"
    assert read_site_wishes("A,B,!C") == ({"A", "B"}, {"C"})
    assert read_site_wishes("") == read_site_wishes(write_site_wishes([], [])) == (frozenset(), frozenset())
