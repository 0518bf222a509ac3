"""Inputs on their way: brought once for all who wait, cancelled when nobody does, and forgotten some time later."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import factories as f
import pytest
import sqlalchemy as sa
from factories import Grid

from pandaserver.dataservice.ddm import moving
from pandaserver.dataservice.ddm.protocol import ProgressState
from pandaserver.errors import DDMError, DDMFatal
from pandaserver.jobdispatcher.watcher import reassign
from pandaserver.taskbuffer import datasets, files, schema, work

INPUTS = "mc.test.evnt"
KEPT_S = 3 * 86400


def blocks(grid: Grid, *job_ids: int) -> list[str]:
    """The dispatch datasets of jobs."""
    found = grid.buffer.read(lambda c: files.load_jobs(c, job_ids))
    return sorted({one.job.dispatch_dataset for one in found if one.job.dispatch_dataset})


def only(grid: Grid, *kinds: str) -> None:
    """Do what is due of some kinds, follow-ups of these kinds included."""
    handlers = grid.server.pool._handlers
    grid.server.pool._handlers = {kind: handler for kind, handler in handlers.items() if kind in kinds}
    grid.work()
    grid.server.pool._handlers = handlers


def assigned(grid: Grid, *lfns: str) -> int:
    """A job that waits for files of the other site; nothing is copied yet."""
    (job_id,) = grid.submit(f.analysis_job(*lfns, computingSite="UTA"))
    only(grid, "setup", "dispatch")
    assert grid.state(job_id) == "assigned"
    return job_id


def state_of(grid: Grid, block: str) -> ProgressState:
    pair = (block, "UTA_DISK")
    return grid.server.rooms.data.ddm.progress([pair])[pair].state


def copied(grid: Grid) -> int:
    """How many files were copied, by what the links say they carried."""
    table = schema.ddm_link_hours
    return int(grid.buffer.read(lambda c: c.execute(sa.select(sa.func.sum(table.c.files))).scalar_one()) or 0)


def queued(grid: Grid) -> list[str]:
    table = schema.ddm_transfers
    statement = sa.select(table.c.lfn).where(table.c.state == "queued").order_by(table.c.lfn)
    return grid.buffer.read(lambda c: list(c.execute(statement).scalars()))


def send_elsewhere(grid: Grid, job_id: int) -> None:
    (one,) = grid.buffer.read(lambda c: files.load_jobs(c, [job_id]))
    grid.buffer.run(lambda c: reassign(c, one, "on purpose", grid.clock()))


def refuse(error: Exception) -> Any:
    def raise_it(*_: object) -> None:
        raise error

    return raise_it


# --- once for all


def test_a_file_that_two_rounds_want_is_brought_once(grid: Grid) -> None:
    grid.register(INPUTS, "BNL_DISK", "evnt.1", "evnt.2", "evnt.3")
    ids = [assigned(grid, "evnt.1", "evnt.2"), assigned(grid, "evnt.2", "evnt.3"), assigned(grid, "evnt.2")]
    assert len(blocks(grid, *ids)) == 3
    grid.work()
    assert [grid.state(i) for i in ids] == ["activated"] * 3
    assert copied(grid) == 3


def test_a_file_that_is_wanted_while_it_is_copied_is_not_copied_again(
    grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid.register(INPUTS, "BNL_DISK", "evnt.1")
    ids, copies, copy = [assigned(grid, "evnt.1")], list[str](), moving.copy

    def copy_slowly(source: Any, target: Any, wanted: Any, **told: Any) -> None:
        copies.append(wanted.lfn)
        if len(ids) == 1:
            ids.append(0)
            ids[1] = assigned(grid, "evnt.1")
            grid.work()  # others look for copies to make
            assert grid.state(ids[1]) == "assigned"
        copy(source, target, wanted, **told)

    monkeypatch.setattr(moving, "copy", copy_slowly)
    grid.work()
    grid.watch(10)
    assert [grid.state(i) for i in ids] == ["activated"] * 2
    assert (copies, copied(grid)) == (["evnt.1"], 1)


def test_what_was_brought_for_others_needs_no_dispatch_dataset(grid: Grid) -> None:
    grid.register(INPUTS, "BNL_DISK", "evnt.1")
    assigned(grid, "evnt.1")
    grid.work()
    (second,) = grid.submit(f.analysis_job("evnt.1", computingSite="UTA"))
    grid.work()
    assert grid.history(second) == ["defined", "activated"]
    assert (blocks(grid, second), copied(grid)) == ([], 1)


# --- cancelled


@pytest.mark.parametrize("how", ["reassigned", "killed"])
def test_transfers_for_nobody_are_cancelled(grid: Grid, how: str) -> None:
    grid.register(INPUTS, "BNL_DISK", "evnt.1", "evnt.2")
    job_id = assigned(grid, "evnt.1", "evnt.2")
    (block,) = blocks(grid, job_id)
    assert (state_of(grid, block), queued(grid)) == (ProgressState.REPLICATING, ["evnt.1", "evnt.2"])
    if how == "killed":
        grid.call("alice", "killJobs", ids=[job_id])
    else:
        send_elsewhere(grid, job_id)
    only(grid, "release")
    assert (state_of(grid, block), queued(grid)) == (ProgressState.GONE, [])
    grid.work()
    if how == "reassigned":
        assert grid.state(job_id) == "activated"
        assert blocks(grid, job_id) != [block]


def test_what_another_job_of_the_bunch_waits_for_goes_on(grid: Grid) -> None:
    grid.register(INPUTS, "BNL_DISK", "evnt.1")
    one, other = grid.submit(*(f.analysis_job("evnt.1", computingSite="UTA") for _ in range(2)))
    only(grid, "setup", "dispatch")
    (block,) = blocks(grid, one, other)
    grid.call("alice", "killJobs", ids=[one])
    only(grid, "release")
    assert (state_of(grid, block), queued(grid)) == (ProgressState.REPLICATING, ["evnt.1"])
    grid.work()
    assert grid.state(other) == "activated"


def test_nothing_is_asked_for_when_the_job_is_gone_already(grid: Grid) -> None:
    grid.register(INPUTS, "BNL_DISK", "evnt.1")
    (job_id,) = grid.submit(f.analysis_job("evnt.1", computingSite="UTA"))
    only(grid, "setup")
    (block,) = blocks(grid, job_id)
    grid.call("alice", "killJobs", ids=[job_id])
    grid.work()
    assert (grid.server.rooms.data.ddm.contents(block), queued(grid), copied(grid)) == ([], [], 0)


def test_what_was_asked_for_in_the_very_moment_is_cancelled(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    grid.register(INPUTS, "BNL_DISK", "evnt.1")
    (job_id,) = grid.submit(f.analysis_job("evnt.1", computingSite="UTA"))
    only(grid, "setup")
    (block,) = blocks(grid, job_id)
    ddm = grid.server.rooms.data.ddm
    request = ddm.request

    def request_too_late(names: Iterable[str], endpoint: str) -> None:
        grid.call("alice", "killJobs", ids=[job_id])
        only(grid, "release")
        request(names, endpoint)

    monkeypatch.setattr(ddm, "request", request_too_late)
    only(grid, "dispatch")
    assert (state_of(grid, block), queued(grid)) == (ProgressState.GONE, [])


# --- forgotten


def test_a_dispatch_dataset_is_deleted_when_its_jobs_have_ended(grid: Grid) -> None:
    grid.register(INPUTS, "BNL_DISK", "evnt.1")
    job_id = assigned(grid, "evnt.1")
    grid.work()
    (block,) = blocks(grid, job_id)
    grid.watch(KEPT_S + 600)
    assert grid.buffer.read(lambda c: datasets.load(c, block)) is not None, "its job has not ended"
    grid.run_job(grid.get_job("UTA"))
    grid.work()
    assert grid.state(job_id) == "finished"
    grid.watch(600)
    assert grid.buffer.read(lambda c: datasets.load(c, block)) is None
    ddm = grid.server.rooms.data.ddm
    assert (ddm.contents(block), state_of(grid, block)) == ([], ProgressState.GONE)
    copies = {r.endpoint for r in ddm.replicas([("mc", "evnt.1")])["mc", "evnt.1"]}
    assert "BNL_DISK" in copies, "what is in a dataset of users stays"
    answer = grid.client("ddm").post("/server/panda/datasetCompleted", json={"dataset": block, "site": "UTA_DISK"})
    assert answer.status_code == 404


def test_it_is_kept_for_a_while(grid: Grid) -> None:
    grid.register(INPUTS, "BNL_DISK", "evnt.1")
    job_id = assigned(grid, "evnt.1")
    (block,) = blocks(grid, job_id)
    grid.call("alice", "killJobs", ids=[job_id])
    grid.work()
    grid.watch(KEPT_S - 1000)
    assert grid.buffer.read(lambda c: datasets.load(c, block)) is not None
    grid.watch(2000)
    assert grid.buffer.read(lambda c: datasets.load(c, block)) is None


def test_a_crash_while_forgetting_does_no_harm(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    grid.register(INPUTS, "BNL_DISK", "evnt.1")
    job_id = assigned(grid, "evnt.1")
    (block,) = blocks(grid, job_id)
    grid.call("alice", "killJobs", ids=[job_id])
    grid.work()
    with monkeypatch.context() as patch:
        patch.setattr(datasets, "remove", refuse(RuntimeError("killed")))
        grid.watch(KEPT_S + 600)
    assert grid.buffer.read(lambda c: datasets.load(c, block)) is not None
    grid.watch(600)
    assert grid.buffer.read(lambda c: datasets.load(c, block)) is None


# --- what cannot be brought


def failed(grid: Grid, job_id: int) -> tuple[str, int, str]:
    told = grid.describe(job_id)
    return told["jobStatus"], told["ddmErrorCode"], told["ddmErrorDiag"]


def test_inputs_that_the_ddm_will_never_bring_fail_the_job(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    grid.register(INPUTS, "BNL_DISK", "evnt.1")
    ids = grid.submit(*(f.analysis_job("evnt.1", computingSite="UTA") for _ in range(2)))
    monkeypatch.setattr(grid.server.rooms.data.ddm, "request", refuse(DDMFatal("UTA_DISK is closed")))
    grid.work()
    assert {failed(grid, i) for i in ids} == {("failed", 100, "inputs cannot be brought: UTA_DISK is closed")}
    assert grid.buffer.read(work.pending) == {}


def test_a_ddm_that_is_away_is_waited_for_a_day_long(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    grid.register(INPUTS, "BNL_DISK", "evnt.1")
    (job_id,) = grid.submit(f.analysis_job("evnt.1", computingSite="UTA"))
    monkeypatch.setattr(grid.server.rooms.data.ddm, "attach", refuse(DDMError("nobody answers")))
    grid.work()
    for _ in range(3):
        assert grid.state(job_id) == "assigned"
        grid.clock.forward(10 * 3600)
        grid.work()
    assert failed(grid, job_id) == ("failed", 100, "inputs cannot be brought: nobody answers")


def test_a_ddm_that_comes_back_is_asked_again(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    grid.register(INPUTS, "BNL_DISK", "evnt.1")
    (job_id,) = grid.submit(f.analysis_job("evnt.1", computingSite="UTA"))
    with monkeypatch.context() as patch:
        patch.setattr(grid.server.rooms.data.ddm, "replicas", refuse(DDMError("nobody answers")))
        grid.work()
        assert grid.state(job_id) == "defined"
    grid.watch(10)
    assert grid.state(job_id) == "activated"


def test_jobs_that_cannot_be_set_up_for_a_day_have_failed(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = grid.submit(*(f.analysis_job("evnt.1", computingSite="UTA") for _ in range(3)))
    monkeypatch.setattr(grid.server.rooms.data.ddm, "replicas", refuse(DDMError("nobody answers")))
    for _ in range(4):
        grid.work()
        grid.clock.forward(10 * 3600)
    assert {failed(grid, i) for i in ids} == {("failed", 100, "the job cannot be set up: nobody answers")}


def test_a_name_that_the_ddm_refuses_fails_its_job_alone(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    grid.register(INPUTS, "UTA_DISK", "evnt.1")
    ids = grid.submit(*(f.analysis_job("evnt.bad" if n == 4 else "evnt.1", computingSite="UTA") for n in range(7)))
    ddm = grid.server.rooms.data.ddm
    replicas = ddm.replicas

    def replicas_of_good(names: Iterable[tuple[str, str]]) -> Any:
        wanted = list(names)
        if ("mc", "evnt.bad") in wanted:
            raise DDMFatal("evnt.bad is no good name")
        return replicas(wanted)

    monkeypatch.setattr(ddm, "replicas", replicas_of_good)
    grid.work()
    assert [grid.state(i) for i in ids] == ["failed" if n == 4 else "activated" for n in range(7)]
    assert failed(grid, ids[4]) == ("failed", 100, "the job cannot be set up: evnt.bad is no good name")


def test_a_job_that_waited_in_vain_says_for_what(grid: Grid) -> None:
    grid.register(INPUTS, "UTA_DISK", "evnt.there")
    names = [f"evnt.{n}" for n in range(7)]
    (job_id,) = grid.submit(f.analysis_job("evnt.there", *names, computingSite="UTA"))
    grid.work()
    grid.watch(86400 + 60)
    told = grid.describe(job_id)
    assert (told["jobStatus"], told["taskBufferErrorCode"]) == ("closed", 102)
    said = ", ".join(f"mc:{name}" for name in names[:5])
    assert told["taskBufferErrorDiag"].endswith(f"missing: {said} and 2 more")
