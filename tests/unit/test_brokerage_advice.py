"""What would help a job that no queue takes: the cheapest change, or what to wait for."""

from __future__ import annotations

from typing import Any

import pytest
from factories import queue

from pandaserver.brokerage.advice import advise, changed
from pandaserver.brokerage.criteria import refusal
from pandaserver.model.choice import Access, Advice, BrokerRules, Snapshot, Wish
from pandaserver.model.grid import Queue, QueueStatus, Topology

OFF = QueueStatus.OFFLINE


def advice(wish: Wish, *queues: Queue, rules: BrokerRules | None = None) -> Advice | None:
    grid = Topology(queues={q.name: q for q in queues}, endpoints={})
    return advise(wish, Snapshot(topology=grid, rules=rules or BrokerRules()))


CASES: list[tuple[Wish, list[Queue], str]] = [
    (
        Wish(memory_mb=4000),
        [queue("A", memory_mb=1000), queue("B", memory_mb=2000)],
        "ask for 2000 MB of memory instead of 4000; then B can take the job",
    ),
    (Wish(releases=("9", "8")), [queue("A", releases=("8",))], "leave out the release 9; then A can take the job"),
    (Wish(cores=8), [queue("A", cores=4)], "ask for 4 cores instead of 8; then A can take the job"),
    (
        Wish(input_mb=300),
        [queue("A", max_input_mb=100)],
        "give it at most 100 MB of input instead of 300: split it over several jobs; then A can take the job",
    ),
    (
        Wish(platform="arm"),
        [queue("A", platforms=("x86", "old"))],
        "build for the platform x86; then A can take the job",
    ),
    (
        Wish(memory_mb=4000, cores=8),
        [queue("A", memory_mb=2000, cores=1), queue("B", memory_mb=3000, cores=4)],
        "ask for 3000 MB of memory instead of 4000 and ask for 4 cores instead of 8; then B can take the job",
    ),
    (
        Wish(site="A", memory_mb=4000),
        [queue("A", memory_mb=100), queue("B")],
        "do not ask for the queue A; then B can take the job",
    ),
    (
        Wish(site="A", cloud="DE"),
        [queue("A", vos=("atlas",)), queue("B", cloud="US")],
        "do not ask for the queue A and do not ask for the cloud DE; then B can take the job",
    ),
    (
        Wish(without=frozenset({"A", "B"})),
        [queue("A", status=OFF), queue("B")],
        "do not exclude B; then B can take the job",
    ),
    (
        Wish(only=frozenset({"Z"})),
        [queue("A")],
        "do not ask for the sites Z only; then A can take the job",
    ),
    (Wish(), [queue("A", status=OFF)], "wait for A: the queue is offline"),
    (
        Wish(memory_mb=4000),
        [queue("A", status=OFF), queue("B", memory_mb=2000)],
        "ask for 2000 MB of memory instead of 4000; then B can take the job. Or wait for A: the queue is offline",
    ),
    (
        Wish(memory_mb=4000),
        [queue("A", memory_mb=2000, status=OFF)],
        "ask for 2000 MB of memory instead of 4000, and wait for A: the queue is offline",
    ),
]


@pytest.mark.parametrize(("wish", "queues", "text"), CASES, ids=[text for *_, text in CASES])
def test_the_cheapest_change_is_told(wish: Wish, queues: list[Queue], text: str) -> None:
    found = advice(wish, *queues)
    assert found is not None and found.text == text
    by_name = {one.name: one for one in queues}
    after = refusal(
        changed(wish, found.changes), by_name[found.queue], Snapshot(topology=Topology(queues={}, endpoints={}))
    )
    assert after is None or after.passing


def test_nothing_is_said_where_nothing_would_help_or_nothing_is_needed() -> None:
    assert advice(Wish(), queue("A")) is None
    assert advice(Wish()) is None
    assert advice(Wish(vo="cms"), queue("A", vos=("atlas",))) is None
    kept = BrokerRules(deny=(Access("*", "/CN=m"),))
    assert advice(Wish(owner="/CN=m"), queue("A"), rules=kept) is None


def test_the_wish_is_changed_in_what_was_said_only() -> None:
    wish = Wish(memory_mb=4000, cores=2, owner="/CN=a")
    told: Any = advice(wish, queue("A", memory_mb=1000, cores=2))
    assert changed(wish, told.changes) == Wish(memory_mb=1000, cores=2, owner="/CN=a")
    assert changed(wish, ()) is wish
