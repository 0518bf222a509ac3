"""Outputs wait under names of their attempt until the attempt counts: what is registered is what it has made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import factories as f
import pytest
from factories import Grid

from pandaserver.dataservice.ddm import placing
from pandaserver.dataservice.ddm.local import LocalDDM
from pandaserver.dataservice.staging import SWEEP_AFTER_S
from pandaserver.errors import DDMError, DDMFatal
from pandaserver.model.dataset import DatasetStatus
from pandaserver.model.file import Replica
from pandaserver.taskbuffer import datasets, work

EVENTS = "mc.test.evnt"
LOST_S = 2 * 3600 + 60


def produce(grid: Grid, queue: str = "BNL", **more: Any) -> tuple[int, dict[str, Any]]:
    (job_id,) = grid.submit(f.production_job(computingSite=queue, **more), who="prodman")
    grid.work()
    return job_id, grid.get_job(queue)


def output_of(job: dict[str, Any]) -> str:
    return next(lfn for lfn in job["outFiles"].split(",") if lfn != job["logFile"])


def content(grid: Grid, job: dict[str, Any], endpoint: str = "BNL_DISK") -> str:
    """Read what lies in the place of the job's output."""
    return grid.place(endpoint, job["scopeOut"], output_of(job)).read_text()


def on_disk(grid: Grid, endpoint: str = "BNL_DISK") -> set[str]:
    return {path.name for path in (grid.root / endpoint).rglob("*") if path.is_file()}


def finish(grid: Grid, job: dict[str, Any], stored: dict[str, Any]) -> dict[str, Any]:
    return grid.update(job, "finished", xml=json.dumps(stored))


def bare(job: dict[str, Any]) -> dict[str, Any]:
    """What an old pilot, which does not know of suffixes, makes of a job."""
    return {name: value for name, value in job.items() if name != "outSuffix"}


def registered(grid: Grid, job: dict[str, Any]) -> list[Replica]:
    name = (job["scopeOut"], output_of(job))
    return grid.server.rooms.data.ddm.replicas([name]).get(name, [])


# --- the good end


@pytest.mark.parametrize(("queue", "places"), [("BNL", {"BNL_DISK"}), ("UTA", {"BNL_DISK", "UTA_DISK"})])
def test_what_was_staged_gets_its_place(grid: Grid, queue: str, places: set[str]) -> None:
    job_id, job = produce(grid, queue)
    stored = grid.store_all(job)
    assert all(lfn not in on_disk(grid, f"{queue}_DISK") for lfn in stored), "nothing has its name yet"
    finish(grid, job, stored)
    grid.work()
    assert grid.state(job_id) == "finished"
    assert {r.endpoint for r in registered(grid, job)} == places
    for place in places:
        assert content(grid, job, place) == f"made {output_of(job)}"
        assert on_disk(grid, place) == set(stored), "and nothing is left beside it"
    assert grid.buffer.read(work.pending) == {}, "what went well leaves nothing to be swept"


def test_old_pilots_store_in_the_place_itself(grid: Grid) -> None:
    job_id, job = produce(grid)
    grid.run_job(bare(job))
    grid.work()
    assert grid.state(job_id) == "finished"
    assert content(grid, job) == f"made {output_of(job)}"


def test_every_attempt_has_a_suffix_that_nobody_can_guess(grid: Grid) -> None:
    jobs = [produce(grid)[1] for _ in range(3)]
    grid.update(jobs[0], "running")
    grid.watch(LOST_S)
    jobs.append(grid.get_job("BNL"))
    suffixes = [job["outSuffix"] for job in jobs]
    assert len(set(suffixes)) == 4
    assert [s[:4] for s in suffixes] == [".a1-", ".a1-", ".a1-", ".a2-"]


def test_the_same_question_gets_the_same_suffix(grid: Grid) -> None:
    grid.submit(f.production_job(computingSite="BNL"), who="prodman")
    grid.work()
    first, second = (grid.get_job("BNL", requestId="one") for _ in range(2))
    assert first["outSuffix"] == second["outSuffix"]
    grid.restart()
    assert grid.get_job("BNL", requestId="one")["outSuffix"] == first["outSuffix"]


def test_no_suffix_where_the_ddm_wants_outputs_in_their_place(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalDDM, "stages_outputs", False)
    grid.restart()
    job_id, job = produce(grid)
    assert "outSuffix" not in job
    grid.run_job(job)
    grid.work()
    assert grid.state(job_id) == "finished"


# --- attempts that do not count


def test_the_registered_file_is_that_of_the_attempt_that_counts(grid: Grid) -> None:
    """Both attempts store at the same time; the first, which was lost, goes on storing when all is over."""
    job_id, first = produce(grid)
    grid.update(first, "running")
    grid.watch(LOST_S)
    second = grid.get_job("BNL")
    assert (second["PandaID"], second["attemptNr"]) == (job_id, 2)
    late = grid.store_all(first, "by the first attempt")
    stored = grid.store_all(second, "by the second attempt")
    late = grid.store_all(first, "again by the first attempt")
    grid.update(second, "running")
    assert finish(grid, first, late)["StatusCode"] == 30
    finish(grid, second, stored)
    assert finish(grid, first, late)["StatusCode"] == 30
    grid.work()
    grid.store_all(first, "much too late")
    grid.work()
    assert grid.state(job_id) == "finished"
    assert content(grid, second) == "by the second attempt"
    (replica,) = registered(grid, second)
    assert replica.size_bytes == len("by the second attempt")


def test_what_ended_attempts_left_behind_is_removed_a_day_later(grid: Grid) -> None:
    job_id, first = produce(grid, maxAttempt=2)
    left = grid.store_all(first)
    beside = grid.place("BNL_DISK", first["scopeOut"], output_of(first), first["outSuffix"])
    part = beside.with_name(f".{beside.name}.0123.part")
    part.write_bytes(b"its pilot was killed")
    stranger = beside.with_name("a file of somebody else.part")
    stranger.write_bytes(b"not ours")
    grid.update(first, "running")
    grid.watch(LOST_S)
    grid.run_job(grid.get_job("BNL"))
    grid.work()
    assert grid.state(job_id) == "finished"
    assert {beside.name, part.name} <= on_disk(grid), "its pilot may still be at it"
    grid.watch(SWEEP_AFTER_S)
    made = {output_of(first), stranger.name, *(lfn for _, lfn in grid.server.rooms.data.ddm.contents(f"{EVENTS}.log"))}
    assert on_disk(grid) == made
    assert len(left) == 2
    assert grid.buffer.read(work.pending) == {}


@pytest.mark.parametrize("how", ["failed", "killed", "corrupted"])
def test_whatever_ends_an_attempt_has_its_files_swept(grid: Grid, how: str) -> None:
    job_id, job = produce(grid, maxAttempt=1)
    stored = grid.store_all(job)
    grid.update(job, "running")
    if how == "corrupted":
        grid.place("BNL_DISK", job["scopeOut"], output_of(job), job["outSuffix"]).write_bytes(b"other bytes")
        finish(grid, job, stored)
    else:
        if how == "killed":
            grid.call("prodman", "killJobs", ids=[job_id])
        grid.update(job, "failed", pilotErrorCode=1305, xml=json.dumps({job["logFile"]: stored[job["logFile"]]}))
    grid.work()
    assert grid.state(job_id) == ("cancelled" if how == "killed" else "failed")
    grid.watch(SWEEP_AFTER_S + 1)
    assert on_disk(grid) == (set() if how == "corrupted" else {job["logFile"]})


def test_sweeping_what_cannot_be_removed_is_tried_again(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    _, job = produce(grid, maxAttempt=1)
    grid.store_all(job)
    grid.update(job, "failed", pilotErrorCode=1305)
    grid.work()

    def fail(*_: object) -> None:
        raise OSError("no such storage now")

    monkeypatch.setattr(placing, "discard", fail)
    grid.watch(SWEEP_AFTER_S + 1)
    assert grid.buffer.read(work.pending) == {"sweep": 1}
    monkeypatch.undo()
    grid.watch(10)
    assert (grid.buffer.read(work.pending), on_disk(grid)) == ({}, set())


# --- what stands in the way


def test_a_file_that_does_not_count_gives_way(grid: Grid) -> None:
    """An attempt of an old pilot, or one that was killed in the middle, left its file in the place itself."""
    job_id, job = produce(grid)
    grid.store("BNL_DISK", job["scopeOut"], output_of(job), b"left behind by somebody")
    finish(grid, job, grid.store_all(job))
    grid.work()
    assert grid.state(job_id) == "finished"
    assert content(grid, job) == f"made {output_of(job)}"


def test_a_registered_file_is_never_overwritten(grid: Grid) -> None:
    """Two jobs make a file of one name: the first that is registered keeps it."""
    files = {"Files": [{"type": "output", "lfn": "evnt.one.root", "dataset": EVENTS}]}
    (first_id, first), (second_id, second) = produce(grid, **files), produce(grid, **files)
    finish(grid, first, grid.store_all(first, "first"))
    grid.work()
    finish(grid, second, grid.store_all(second, "second, and longer"))
    grid.work()
    assert [grid.state(i) for i in (first_id, second_id)] == ["finished", "failed"]
    told = grid.describe(second_id)
    assert told["ddmErrorCode"] == 200
    assert "is in the catalogue with 5 bytes" in told["ddmErrorDiag"]
    assert content(grid, first) == "first"


def test_two_jobs_that_place_one_name_at_the_same_moment(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second gets its file into the place and registers it, between the first one's look and its commit."""
    files = {"Files": [{"type": "output", "lfn": "evnt.one.root", "dataset": EVENTS}]}
    (first_id, first), (second_id, second) = produce(grid, **files), produce(grid, **files)
    finish(grid, first, grid.store_all(first, "first"))
    put_in_place, between = placing.put_in_place, list[bool]()

    def put_slowly(place: Any, replica: Replica) -> bool:
        done = put_in_place(place, replica)
        if replica.lfn == "evnt.one.root" and not between:
            between.append(True)
            finish(grid, second, grid.store_all(second, "second, and longer"))
            grid.work()
        return done

    monkeypatch.setattr(placing, "put_in_place", put_slowly)
    grid.work()
    monkeypatch.undo()
    grid.watch(120)
    assert {grid.state(first_id), grid.state(second_id)} == {"finished", "failed"}
    (replica,) = registered(grid, first)
    assert len(content(grid, first)) == replica.size_bytes, "the catalogue tells of the bytes that are there"


def test_corrupted_bytes_are_refused_and_leave_the_place_alone(grid: Grid) -> None:
    job_id, job = produce(grid)
    stored = grid.store_all(job)
    grid.place("BNL_DISK", job["scopeOut"], output_of(job), job["outSuffix"]).write_bytes(b"other bytes")
    finish(grid, job, stored)
    grid.work()
    told = grid.describe(job_id)
    assert (told["jobStatus"], told["ddmErrorCode"]) == ("failed", 205)
    assert registered(grid, job) == []
    assert output_of(job) not in on_disk(grid)


def test_outputs_that_vanish_are_waited_for_and_then_given_up(grid: Grid) -> None:
    job_id, job = produce(grid)
    stored = grid.store_all(job)
    grid.place("BNL_DISK", job["scopeOut"], output_of(job), job["outSuffix"]).unlink()
    finish(grid, job, stored)
    grid.work()
    assert grid.state(job_id) == "holding"
    for _ in range(4):
        grid.clock.forward(8 * 3600)
        grid.work()
    told = grid.describe(job_id)
    assert (told["jobStatus"], told["ddmErrorCode"]) == ("failed", 200)
    assert "outputs could not be registered: cannot read" in told["ddmErrorDiag"]


def test_outputs_that_come_back_are_registered(grid: Grid) -> None:
    job_id, job = produce(grid)
    stored = grid.store_all(job)
    staged = grid.place("BNL_DISK", job["scopeOut"], output_of(job), job["outSuffix"])
    away: Path = staged.rename(staged.with_name("away"))
    finish(grid, job, stored)
    grid.work()
    away.rename(staged)
    grid.watch(2)
    assert grid.state(job_id) == "finished"


# --- who decides


def test_no_clock_ends_a_job_whose_outputs_are_being_worked_on(grid: Grid) -> None:
    (job_id,) = grid.submit(f.analysis_job(computingSite="UTA"))
    grid.work()
    job = grid.get_job("UTA")
    finish(grid, job, grid.store_all(job))
    grid.clock.forward(4 * 3600)  # analysis may be holding for three hours
    grid.server.duties.run_due()
    assert grid.state(job_id) == "holding"
    grid.work()
    assert grid.state(job_id) == "finished"


def test_a_transfer_that_cannot_be_asked_for_has_its_own_code(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id, job = produce(grid, "UTA")

    def refuse(*_: object) -> None:
        raise DDMFatal("the destination is closed", field="endpoint", value="BNL_DISK")

    monkeypatch.setattr(grid.server.rooms.data.ddm, "request", refuse)
    finish(grid, job, grid.store_all(job))
    grid.work()
    told = grid.describe(job_id)
    assert (told["jobStatus"], told["ddmErrorCode"]) == ("failed", 201)
    assert told["ddmErrorDiag"] == "no transfer to BNL_DISK: the destination is closed"


@pytest.mark.parametrize("fatal", [True, False])
def test_outputs_that_arrive_and_cannot_be_put_into_their_dataset(
    grid: Grid, monkeypatch: pytest.MonkeyPatch, fatal: bool
) -> None:
    job_id, job = produce(grid, "UTA")
    finish(grid, job, grid.store_all(job))

    def refuse(*_: object) -> None:
        raise (DDMFatal if fatal else DDMError)("the dataset is closed")

    monkeypatch.setattr(grid.server.rooms.data.ddm, "attach", refuse)
    grid.work()
    if not fatal:
        assert grid.state(job_id) == "transferring"
        for _ in range(4):
            grid.clock.forward(8 * 3600)
            grid.work()
    told = grid.describe(job_id)
    assert (told["jobStatus"], told["ddmErrorCode"]) == ("failed", 200)
    assert "outputs that have arrived cannot be registered: the dataset is closed" in told["ddmErrorDiag"]
    grid.watch(10)
    names = {x["destinationDBlock"] for x in told["Files"]}
    found = grid.buffer.read(lambda c: datasets.load_many(c, names))
    assert all(d.status is DatasetStatus.COMPLETED for d in found if d.name not in (EVENTS, f"{EVENTS}.log"))
