"""Jobs from submission to their good end, through the real web application, on both databases."""

from __future__ import annotations

import dataclasses
from typing import Any

import factories as f
import pytest
from factories import Grid

from pandaserver.dataservice import activator
from pandaserver.model.dataset import DatasetStatus
from pandaserver.model.grid import QueueStatus
from pandaserver.taskbuffer import datasets, files, topology, work

HIST = "user.alice.hist"


def files_in(grid: Grid, dataset: str) -> dict[str, list[str]]:
    """Files of a dataset with the endpoints where they are; nothing for an unknown dataset."""
    ddm = grid.server.rooms.data.ddm
    names = ddm.contents(dataset)
    return {name[1]: [r.endpoint for r in copies] for name, copies in ddm.replicas(names).items()}


def blocks_of(grid: Grid, *job_ids: int) -> set[str]:
    loaded = grid.buffer.read(lambda c: files.of_jobs(c, job_ids))
    return {file.block for some in loaded.values() for file in some if file.block}


def status_of(grid: Grid, dataset: str) -> DatasetStatus:
    found = grid.buffer.read(lambda c: datasets.load(c, dataset))
    assert found is not None
    return found.status


def set_queue(grid: Grid, name: str, status: QueueStatus) -> None:
    def change(connection: Any) -> None:
        known = topology.load(connection)
        queue = dataclasses.replace(known.queues[name], status=status)
        topology.save(connection, dataclasses.replace(known, queues=known.queues | {name: queue}))

    grid.buffer.run(change)


def settled(grid: Grid) -> bool:
    return grid.buffer.read(work.pending) == {}


def test_production_at_the_tier1_is_finished_at_once(grid: Grid) -> None:
    (job_id,) = grid.submit(f.production_job(computingSite="BNL"), who="prodman")
    grid.work()
    job = grid.get_job("BNL")
    assert job["PandaID"] == job_id
    assert grid.run_job(job) == {"StatusCode": 0, "command": "NULL"}
    grid.work()
    assert grid.history(job_id) == ["defined", "activated", "sent", "starting", "running", "holding", "finished"]
    assert files_in(grid, "mc.test.evnt") == {f"evnt.{job_id:05d}._00001.root": ["BNL_DISK"]}
    assert files_in(grid, "mc.test.evnt.log") == {f"job.{job_id:05d}.log.tgz": ["BNL_DISK"]}
    assert settled(grid)


def test_production_elsewhere_is_transferred_to_the_tier1(grid: Grid) -> None:
    (job_id,) = grid.submit(f.production_job(computingSite="UTA"), who="prodman")
    grid.work()
    job = grid.get_job("UTA")
    grid.run_job(job)
    grid.work()
    assert grid.history(job_id)[-3:] == ["holding", "transferring", "finished"]
    assert files_in(grid, "mc.test.evnt") == {f"evnt.{job_id:05d}._00001.root": ["BNL_DISK", "UTA_DISK"]}
    assert settled(grid)
    assert {status_of(grid, block) for block in blocks_of(grid, job_id)} == {DatasetStatus.COMPLETED}


def test_analysis_waits_for_its_data_to_come(grid: Grid) -> None:
    grid.register("mc.test.evnt", "BNL_DISK", "evnt.1", "evnt.2")
    grid.register("mc.test.evnt", "UTA_DISK", "evnt.3")
    (job_id,) = grid.submit(f.analysis_job("evnt.1", "evnt.2", "evnt.3", computingSite="UTA"))
    grid.server.pool.run_all(limit=1)
    assert grid.state(job_id) == "assigned"
    assert grid.get_job("UTA") == {"StatusCode": 20, "errorDialog": "no job for this queue now"}
    grid.work()
    assert grid.history(job_id) == ["defined", "assigned", "activated"]
    job = grid.get_job("UTA")
    assert job["inFiles"] == "evnt.1,evnt.2,evnt.3"
    assert len(set(job["dispatchDblock"].split(","))) == 2, "what was there needs no dispatch dataset"
    grid.run_job(job)
    grid.work()
    assert grid.history(job_id)[-1] == "finished"
    assert files_in(grid, HIST) == {f"hist.{job_id:05d}.json": ["UTA_DISK"]}
    assert status_of(grid, job["dispatchDblock"].split(",")[0]) is DatasetStatus.COMPLETED
    assert settled(grid)


def test_data_decides_where_analysis_goes(grid: Grid) -> None:
    grid.register("mc.test.evnt", "UTA_DISK", "evnt.1")
    (job_id,) = grid.submit(f.analysis_job("evnt.1"))
    grid.work()
    assert grid.history(job_id) == ["defined", "activated"]
    assert grid.describe(job_id)["computingSite"] == "UTA"
    said = {r["site"]: r["verdict"] for r in grid.call("alice", "getBrokerageReasons", job_id=job_id)}
    assert said == {"UTA": "chosen", "BNL": "possible"}


def test_jobs_of_one_bunch_share_a_dispatch_dataset_and_its_files(grid: Grid) -> None:
    grid.register("mc.test.evnt", "BNL_DISK", "evnt.1")
    ids = grid.submit(*(f.analysis_job("evnt.1", computingSite="UTA") for _ in range(3)))
    grid.work()
    assert [grid.state(i) for i in ids] == ["activated"] * 3
    jobs = [grid.get_job("UTA") for _ in ids]
    assert len({job["dispatchDblock"] for job in jobs}) == 1
    for job in jobs:
        grid.run_job(job)
    grid.work()
    assert [grid.state(i) for i in ids] == ["finished"] * 3
    assert len(files_in(grid, HIST)) == 3


def test_more_jobs_than_a_bunch(grid: Grid) -> None:
    ids = grid.submit(*(f.production_job(n) for n in range(45)), who="prodman")
    grid.work()
    assert {grid.state(i) for i in ids} == {"activated"}
    sites = [grid.describe(i)["computingSite"] for i in ids]
    assert 20 <= sites.count("BNL") <= 25, "the load of the bunch itself counts"


def test_a_job_waits_for_the_output_of_another(grid: Grid) -> None:
    """Both are submitted together; the second reads what the first will make."""
    source = f.production_job(
        Files=[{"type": "output", "lfn": "evnt.chain.root", "dataset": "mc.test.evnt"}], computingSite="BNL"
    )
    first, second = grid.submit(source, f.analysis_job("evnt.chain.root"), who="prodman")
    grid.work()
    assert [grid.state(i) for i in (first, second)] == ["activated", "waiting"]
    grid.run_job(grid.get_job("BNL"))
    grid.work()
    assert grid.state(first) == "finished"
    assert grid.history(second) == ["defined", "waiting", "defined", "activated"]
    grid.run_job(grid.get_job(grid.describe(second)["computingSite"]))
    grid.work()
    assert grid.state(second) == "finished"


def test_a_file_that_appears_without_a_word_is_noticed(grid: Grid) -> None:
    (job_id,) = grid.submit(f.analysis_job("evnt.1"))
    grid.work()
    assert grid.state(job_id) == "waiting"
    grid.watch(10)
    assert grid.history(job_id) == ["defined", "waiting"]
    grid.register("mc.test.evnt", "BNL_DISK", "evnt.1")
    grid.watch(10)
    assert grid.history(job_id) == ["defined", "waiting", "defined", "activated"]


def test_a_job_that_lacks_two_files_is_woken_when_both_are_there(grid: Grid) -> None:
    (job_id,) = grid.submit(f.analysis_job("evnt.1", "evnt.2"))
    grid.work()
    grid.register("mc.test.evnt", "BNL_DISK", "evnt.1")
    for _ in range(4):
        grid.watch(10)
    assert grid.history(job_id) == ["defined", "waiting"]
    assert [x["status"] for x in grid.describe(job_id)["Files"] if x["type"] == "input"] == ["unknown", "missing"]
    grid.register("mc.test.evnt", "BNL_DISK", "evnt.2")
    grid.watch(10)
    assert grid.state(job_id) == "activated"


def test_a_queue_that_is_off_gets_its_jobs_when_it_is_on_again(grid: Grid) -> None:
    set_queue(grid, "UTA", QueueStatus.OFFLINE)
    (job_id,) = grid.submit(f.analysis_job(computingSite="UTA"))
    assert grid.work() == 1, "looked at once, and then left alone"
    assert grid.history(job_id) == ["defined"]
    (reason,) = [r for r in grid.call("alice", "getBrokerageReasons", job_id=job_id) if r["site"] == "UTA"]
    assert (reason["verdict"], reason["reason"]) == ("rejected", "the queue is offline")
    for _ in range(3):
        grid.watch(61)
        assert grid.history(job_id) == ["defined"]
    set_queue(grid, "UTA", QueueStatus.ONLINE)
    grid.watch(61)
    assert grid.history(job_id) == ["defined", "activated"]


def test_one_job_of_a_bunch_may_wait_for_its_queue(grid: Grid) -> None:
    set_queue(grid, "UTA", QueueStatus.OFFLINE)
    ids = grid.submit(*(f.analysis_job(computingSite=site) for site in ("BNL", "UTA", "BNL")))
    grid.work()
    assert [grid.state(i) for i in ids] == ["activated", "defined", "activated"]
    set_queue(grid, "UTA", QueueStatus.ONLINE)
    grid.watch(61)
    assert [grid.state(i) for i in ids] == ["activated"] * 3


def test_parts_of_an_output_are_frozen_when_all_files_have_their_fate(grid: Grid) -> None:
    ids = grid.submit(*(f.production_job(n, computingSite="UTA") for n in (1, 2)), who="prodman")
    grid.work()
    blocks = blocks_of(grid, *ids)
    assert len(blocks) == 2, "one for the events, one for the logs, of both jobs"
    grid.run_job(grid.get_job("UTA"))
    grid.work()
    assert {status_of(grid, b) for b in blocks} == {DatasetStatus.RUNNING}
    grid.run_job(grid.get_job("UTA"), outcome="failed")
    grid.work()
    assert [grid.state(i) for i in ids] == ["finished", "failed"]
    assert {status_of(grid, b) for b in blocks} == {DatasetStatus.COMPLETED}
    assert len(files_in(grid, "mc.test.evnt")) == 1
    assert len(files_in(grid, "mc.test.evnt.log")) == 2


def test_the_log_of_a_job_that_failed_at_its_destination_closes_its_part_too(grid: Grid) -> None:
    (job_id,) = grid.submit(f.production_job(computingSite="BNL"), who="prodman")
    grid.work()
    blocks = blocks_of(grid, job_id)
    grid.run_job(grid.get_job("BNL"), outcome="failed")
    grid.work()
    assert {b: status_of(grid, b) for b in blocks} == dict.fromkeys(blocks, DatasetStatus.COMPLETED)


@pytest.mark.parametrize("place", ["UTA", "UTA_DISK"])
def test_outputs_go_where_the_user_wants_them(grid: Grid, place: str) -> None:
    (job_id,) = grid.submit(f.production_job(computingSite="BNL", destinationSE=place), who="prodman")
    grid.work()
    grid.run_job(grid.get_job("BNL"))
    grid.work()
    assert grid.history(job_id)[-2:] == ["transferring", "finished"]
    assert files_in(grid, "mc.test.evnt") == {f"evnt.{job_id:05d}._00001.root": ["BNL_DISK", "UTA_DISK"]}


def test_the_callback_is_only_a_hint(grid: Grid) -> None:
    grid.register("mc.test.evnt", "BNL_DISK", "evnt.1")
    (job_id,) = grid.submit(f.analysis_job("evnt.1", computingSite="UTA"))
    grid.server.pool.run_all(limit=1)
    (block,) = {b for b in blocks_of(grid, job_id) if "_dis" in b}
    dataset = grid.buffer.read(lambda c: datasets.load(c, block))
    assert dataset is not None
    activator.activate(grid.server.rooms.data, dataset)
    assert grid.state(job_id) == "assigned", "nothing has arrived"
    grid.work()
    assert grid.state(job_id) == "activated"
    for _ in range(2):
        grid.called_back(block, "UTA_DISK")
        grid.work()
    assert grid.history(job_id) == ["defined", "assigned", "activated"]
