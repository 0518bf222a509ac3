"""Jobs that wait at a queue that is off or far too full are sent elsewhere, a few at a time. On both databases."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from factories import Grid, analysis_job, production_job

from pandaserver.dataservice import setupper
from pandaserver.dataservice.rebrokering import Mover, MovingRules, crowds
from pandaserver.model.choice import BrokerRules, Load, Snapshot
from pandaserver.model.grid import Queue, QueueStatus, Topology
from pandaserver.taskbuffer import schema, topology

OFF = QueueStatus.OFFLINE


def switch(grid: Grid, queue: str, status: QueueStatus) -> None:
    table = schema.queues
    grid.buffer.run(lambda c: c.execute(sa.update(table).where(table.c.name == queue).values(status=status.value)))
    topology._remembered.forget()
    grid.clock.forward(2)  # loads are counted anew


def mover(grid: Grid, **rules: Any) -> Mover:
    return Mover(grid.server.rooms.data, MovingRules(**rules))


def at(grid: Grid, ids: list[int]) -> dict[str | None, list[int]]:
    found: dict[str | None, list[int]] = {}
    for job_id in ids:
        told = grid.describe(job_id)
        found.setdefault(told["computingSite"] if told["jobStatus"] != "defined" else None, []).append(job_id)
    return found


def waiting_at_bnl(grid: Grid, number: int, **more: Any) -> list[int]:
    """Jobs that went to BNL since UTA was off."""
    switch(grid, "UTA", OFF)
    ids = grid.submit(*(production_job(n, **more) for n in range(number)))
    grid.work()
    assert at(grid, ids) == {"BNL": ids}
    switch(grid, "UTA", QueueStatus.ONLINE)
    return ids


def test_jobs_leave_a_queue_that_goes_offline(grid: Grid) -> None:
    ids = waiting_at_bnl(grid, 3)
    switch(grid, "BNL", OFF)
    assert mover(grid).run_once() == 3
    assert at(grid, ids) == {None: ids}
    grid.work()
    assert at(grid, ids) == {"UTA": ids}
    assert "BNL is offline, brokered anew" in grid.buffer.read(
        lambda c: list(c.execute(sa.select(schema.job_history.c.reason)).scalars())
    )
    assert mover(grid).run_once() == 0


def test_jobs_with_a_pilot_pinned_ones_and_those_that_fit_nowhere_else_stay(grid: Grid) -> None:
    ids = waiting_at_bnl(grid, 2)
    (pinned,) = grid.submit(production_job(7, computingSite="BNL"))
    (large,) = grid.submit(production_job(8, minRamCount=3000))
    grid.work()
    with_pilot = grid.get_job("BNL")["PandaID"]
    switch(grid, "BNL", OFF)
    assert mover(grid).run_once() == 1
    grid.work()
    (moved,) = set(ids) - {with_pilot}
    assert at(grid, [*ids, pinned, large]) == {"BNL": [with_pilot, pinned, large], "UTA": [moved]}
    assert grid.state(with_pilot) == "sent"


def test_a_round_is_bounded_and_the_next_goes_on_where_it_stopped(grid: Grid) -> None:
    stuck = grid.submit(*(production_job(n, minRamCount=3000) for n in range(3)))
    ids = waiting_at_bnl(grid, 3)
    more = grid.submit(*(production_job(n, minRamCount=3000) for n in range(2)))
    grid.work()
    switch(grid, "BNL", OFF)
    moving = mover(grid, most=2)
    rounds = [moving.run_once() for _ in range(4)]
    grid.work()
    assert rounds == [0, 2, 1, 0], "the youngest first, and those that cannot go are not looked at again and again"
    assert at(grid, [*stuck, *ids, *more]) == {"BNL": [*stuck, *more], "UTA": ids}


def test_an_assigned_job_leaves_too_and_its_input_goes_elsewhere(grid: Grid) -> None:
    switch(grid, "UTA", OFF)
    grid.register("mc.test.evnt", "UTA_DISK", "a.root")
    (job_id,) = grid.submit(analysis_job("a.root"))
    setupper.set_up(grid.server.rooms.data, [job_id])  # and no transfer yet
    assert grid.state(job_id) == "assigned"
    switch(grid, "UTA", QueueStatus.ONLINE)
    switch(grid, "BNL", OFF)
    assert mover(grid).run_once() == 1
    grid.work()
    assert (grid.state(job_id), grid.describe(job_id)["computingSite"]) == ("activated", "UTA")
    assert grid.describe(job_id)["dispatchDBlock"] is None


def test_jobs_leave_an_overshot_queue_when_they_have_waited_long(grid: Grid) -> None:
    ids = waiting_at_bnl(grid, 12)
    assert mover(grid, overshoot_after_s=3600).run_once() == 0, "they have not waited yet"
    grid.clock.forward(3601)
    assert mover(grid, overshoot_ratio=None).run_once() == 0
    moved = mover(grid, overshoot_after_s=3600).run_once()
    grid.work()
    assert 4 <= moved <= 9
    assert {queue: len(found) for queue, found in at(grid, ids).items()} == {"BNL": 12 - moved, "UTA": moved}
    grid.clock.forward(2)
    assert mover(grid, overshoot_after_s=3600).run_once() == 0, "BNL is not overshot any more"


def test_the_duty_is_there_and_does_it(grid: Grid) -> None:
    ids = waiting_at_bnl(grid, 1)
    switch(grid, "BNL", OFF)
    grid.watch(301)
    assert at(grid, ids) == {"UTA": ids}


# --- which queues


def place(name: str, status: QueueStatus = QueueStatus.ONLINE) -> Queue:
    return Queue(name=name, site=name, cloud="US", tier=2, status=status, endpoint=name)


def found(loads: dict[str, Load], *queues: Queue, pilots: dict[str, int] | None = None) -> list[tuple[str, int]]:
    grid = Topology(queues={q.name: q for q in queues}, endpoints={})
    snapshot = Snapshot(topology=grid, loads=loads, pilots=pilots or {}, rules=BrokerRules())
    return [(crowd.queue, crowd.number) for crowd in crowds(snapshot, MovingRules())]


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        ({"A": Load(100, 10), "B": Load(0, 10)}, [("A", 67)]),
        ({"A": Load(33, 10), "B": Load(0, 10)}, []),
        ({"A": Load(100, 10), "B": Load(50, 10)}, []),
        ({"A": Load(100, 10), "B": Load(100, 10)}, []),
        ({"A": Load(100, 10)}, [("A", 67)]),
        ({"gone": Load(100, 0)}, []),
    ],
)
def test_overshot_is_what_waits_too_much_while_others_do_not(
    loads: dict[str, Load], expected: list[tuple[str, int]]
) -> None:
    assert found(loads, place("A"), place("B")) == expected


def test_queues_without_pilots_or_closed_ones_are_no_better_place() -> None:
    loads = {"A": Load(100, 10)}
    assert found(loads, place("A")) == []
    assert found(loads, place("A"), place("B", QueueStatus.BROKEROFF)) == []
    assert found(loads, place("A"), place("B"), pilots={"A": 1}) == []
    assert found(loads, place("A"), place("B"), pilots={"B": 1}) == [("A", 67)]


def test_offline_queues_come_first() -> None:
    loads = {"A": Load(100, 10), "B": Load(5, 3), "C": Load(0, 4)}
    queues = (place("A"), place("B", OFF), place("C", OFF), place("D"))
    assert found(loads, *queues) == [("B", 5), ("A", 67)]
