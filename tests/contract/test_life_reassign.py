"""Jobs that are sent elsewhere forget the place they were meant for."""

from __future__ import annotations

from dataclasses import replace

import factories as f
from factories import Grid

from pandaserver.jobdispatcher.watcher import reassign
from pandaserver.model.file import FileType
from pandaserver.model.grid import QueueStatus
from pandaserver.taskbuffer import catalogue, datasets, files, topology


def close_queue(grid: Grid, name: str) -> None:
    known = grid.buffer.read(topology.load)
    queue = replace(known.queues[name], status=QueueStatus.OFFLINE)
    grid.buffer.run(lambda c: topology.save(c, replace(known, queues=known.queues | {name: queue})))


def places(grid: Grid, job_id: int) -> set[tuple[str, str]]:
    told = grid.describe(job_id)["Files"]
    return {(x["type"], x["destinationSE"]) for x in told if x["type"] != "input"}


def test_outputs_end_at_the_new_site_not_at_the_first(grid: Grid) -> None:
    grid.register("mc.test.evnt", "UTA_DISK", "evnt.1")
    (job_id,) = grid.submit(f.analysis_job("evnt.1"))
    grid.work()
    first = grid.describe(job_id)["computingSite"]
    assert places(grid, job_id) == {("output", f"{first}_DISK"), ("log", f"{first}_DISK")}
    blocks = {x.block for x in of_job(grid, job_id) if x.type is not FileType.INPUT}
    close_queue(grid, first)
    (one,) = grid.buffer.read(lambda c: files.load_jobs(c, [job_id]))
    grid.buffer.run(lambda c: reassign(c, one, "the queue is closed", grid.clock()))
    grid.work()
    second = grid.describe(job_id)["computingSite"]
    assert {first, second} == {"BNL", "UTA"}
    assert places(grid, job_id) == {("output", f"{second}_DISK"), ("log", f"{second}_DISK")}
    assert blocks.isdisjoint({x.block for x in of_job(grid, job_id)})
    for block in blocks:
        found = grid.buffer.read(lambda c, b=block: datasets.load(c, b))
        assert found is not None and found.status == "completed", "nothing will come into the old part any more"


def of_job(grid: Grid, job_id: int) -> tuple[files.File, ...]:
    return grid.buffer.read(lambda c: files.of_jobs(c, [job_id]))[job_id]


def test_where_the_user_wants_outputs_stays_so(grid: Grid) -> None:
    job = f.analysis_job(destinationSE="BNL")
    (job_id,) = grid.submit(job | {"computingSite": "UTA"})
    grid.work()
    assert places(grid, job_id) == {("output", "BNL_DISK"), ("log", "BNL_DISK")}


def test_a_job_whose_outputs_travel_can_be_killed(grid: Grid) -> None:
    (job_id,) = grid.submit(f.production_job(computingSite="UTA"), who="prodman")
    grid.work()
    grid.run_job(grid.get_job("UTA"))
    while grid.state(job_id) != "transferring":
        assert grid.server.pool.run_all(limit=1)
    assert grid.call("prodman", "killJobs", ids=[job_id]) == [True]
    assert grid.state(job_id) == "cancelled"
    grid.work()
    assert grid.state(job_id) == "cancelled"
    assert grid.buffer.read(lambda c: catalogue.contents(c, "mc.test.evnt")) == []


def test_rounds_that_led_nowhere_are_not_piled_up(grid: Grid) -> None:
    close_queue(grid, "UTA")
    (job_id,) = grid.submit(f.analysis_job(computingSite="UTA"))
    for _ in range(3):
        grid.work()
        grid.clock.forward(61)
    told = grid.call("alice", "getBrokerageReasons", job_id=job_id)
    assert sorted(r["site"] for r in told) == ["BNL", "UTA"]
