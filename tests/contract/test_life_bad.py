"""Jobs that end badly, and why: each says which code, whose, and what was wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import factories as f
import pytest
from factories import Grid

from pandaserver.jobdispatcher import watcher
from pandaserver.model.dataset import DatasetStatus
from pandaserver.model.states import FINAL, JobState
from pandaserver.model.timeouts import TIMEOUTS, Timeout, TimeoutAction
from pandaserver.taskbuffer import attempts, datasets, files, jobs, work

S = JobState


def produce(grid: Grid, queue: str = "BNL", **more: Any) -> tuple[int, dict[str, Any]]:
    (job_id,) = grid.submit(f.production_job(computingSite=queue, **more), who="prodman")
    grid.work()
    return job_id, grid.get_job(queue)


def files_in(grid: Grid, dataset: str) -> list[str]:
    return [lfn for _, lfn in grid.server.rooms.data.ddm.contents(dataset)]


def check_failed(grid: Grid, job_id: int, family: str, code: int, text: str, state: str = "failed") -> None:
    told = grid.describe(job_id)
    assert told["jobStatus"] == state, told
    assert told[f"{family}ErrorCode"] == code, told
    assert text in told[f"{family}ErrorDiag"]
    assert job_id not in f.ready_ids(grid.buffer)


# --- what pilots report


def stored(grid: Grid, job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Store the outputs and the log of a job, as a good pilot does; give what it would report."""
    scopes = [*filter(None, job["scopeOut"].split(",")), job["scopeLog"]]
    endpoint = job["ddmEndPointOut"].split(",")[0]
    names = zip(scopes, job["outFiles"].split(","), strict=True)
    return {lfn: grid.store(endpoint, scope, lfn, b"bytes") for scope, lfn in names}


def without_output(facts: dict[str, Any], lfn: str) -> None:
    del facts[lfn]


def with_strange_file(facts: dict[str, Any], lfn: str) -> None:
    facts["strange.root"] = facts[lfn]


def with_other_size(facts: dict[str, Any], lfn: str) -> None:
    facts[lfn]["fsize"] += 1


def with_other_checksum(facts: dict[str, Any], lfn: str) -> None:
    facts[lfn]["adler32"] = "deadbeef"


def with_unknown_endpoint(facts: dict[str, Any], lfn: str) -> None:
    facts[lfn]["endpoint"] = "NOWHERE"


@pytest.mark.parametrize(
    ("spoil", "code", "text"),
    [
        (without_output, 200, "the pilot reported success without evnt."),
        (with_strange_file, 200, "the pilot stored strange.root, which is no output of the job"),
        (with_other_size, 205, "has 5 bytes, 6 were announced"),
        (with_other_checksum, 205, "deadbeef was announced"),
        (with_unknown_endpoint, 206, "there is no endpoint NOWHERE"),
    ],
)
def test_outputs_that_are_not_what_was_reported(grid: Grid, spoil: Callable[..., None], code: int, text: str) -> None:
    job_id, job = produce(grid)
    facts = stored(grid, job)
    spoil(facts, next(lfn for lfn in facts if lfn != job["logFile"]))
    grid.update(job, "running")
    grid.update(job, "finished", xml=json.dumps(facts))
    grid.work()
    check_failed(grid, job_id, "ddm", code, text)
    assert files_in(grid, "mc.test.evnt") == []
    assert grid.buffer.read(work.pending) == {"sweep": 1}


def test_a_file_that_is_not_there_yet_is_looked_for_again(grid: Grid) -> None:
    job_id, job = produce(grid)
    facts = stored(grid, job)
    lfn = next(lfn for lfn in facts if lfn != job["logFile"])
    storage = grid.root / "BNL_DISK"
    (path,) = storage.rglob(lfn)
    path.rename(path.with_suffix(".late"))
    grid.update(job, "finished", xml=json.dumps(facts))
    grid.work()
    assert grid.state(job_id) == "holding"
    path.with_suffix(".late").rename(path)
    grid.watch(2)
    assert grid.state(job_id) == "finished"


def test_a_file_that_never_comes_fails_the_job_after_a_day(grid: Grid) -> None:
    job_id, job = produce(grid)
    facts = stored(grid, job)
    for path in (grid.root / "BNL_DISK").rglob("evnt*"):
        path.unlink()
    grid.update(job, "finished", xml=json.dumps(facts))
    for _ in range(4):
        grid.work()
        grid.clock.forward(40_000)
    check_failed(grid, job_id, "ddm", 200, "outputs could not be registered: cannot read evnt.")


def test_a_failed_payload_keeps_its_log(grid: Grid) -> None:
    job_id, job = produce(grid, "UTA")
    grid.run_job(
        job, outcome="failed", exeErrorCode=65, exeErrorDiag="it crashed", pilotErrorCode=1305, transExitCode=65
    )
    grid.work()
    told = grid.describe(job_id)
    assert (told["jobStatus"], told["exeErrorCode"], told["exeErrorDiag"]) == ("failed", 65, "it crashed")
    assert told["pilotErrorCode"] == 1305
    assert files_in(grid, "mc.test.evnt") == []
    assert files_in(grid, "mc.test.evnt.log") == [job["logFile"]]
    status = {x["lfn"]: x["status"] for x in told["Files"]}
    assert status == {job["logFile"]: "ready", job["outFiles"].split(",")[0]: "failed"}


def test_a_failed_payload_without_any_file_ends_too(grid: Grid) -> None:
    job_id, job = produce(grid)
    grid.update(job, "failed", pilotErrorCode=1150)
    grid.work()
    check_failed(grid, job_id, "pilot", 1150, "")
    assert {x["status"] for x in grid.describe(job_id)["Files"]} == {"failed"}


# --- nowhere to run


def test_a_job_that_no_queue_can_take_says_why_for_each(grid: Grid) -> None:
    (job_id,) = grid.submit(f.production_job(minRamCount=3000, AtlasRelease="14.1.0", coreCount=2), who="prodman")
    grid.work()
    check_failed(grid, job_id, "brokerage", 100, "BNL: 2 cores asked, 1 there; UTA: release 14.1.0 is not installed")
    said = {r["site"]: r["reason"] for r in grid.call(None, "getBrokerageReasons", job_id=job_id)}
    assert said == {"BNL": "2 cores asked, 1 there", "UTA": "release 14.1.0 is not installed, only 13.0.40"}


# --- killed


def killed(grid: Grid, *job_ids: int, who: str = "alice") -> list[bool]:
    return list(grid.call(who, "killJobs", ids=list(job_ids)))


def to_waiting(grid: Grid) -> int:
    (job_id,) = grid.submit(f.analysis_job("nothing.yet"))
    grid.work()
    return job_id


def to_assigned(grid: Grid) -> int:
    grid.register("mc.test.evnt", "BNL_DISK", "evnt.1")
    (job_id,) = grid.submit(f.analysis_job("evnt.1", computingSite="UTA"))
    grid.server.pool.run_all(limit=1)
    return job_id


def to_activated(grid: Grid) -> int:
    (job_id,) = grid.submit(f.analysis_job(computingSite="UTA"))
    grid.work()
    return job_id


def to_defined(grid: Grid) -> int:
    return grid.submit(f.analysis_job(computingSite="UTA"))[0]


@pytest.mark.parametrize("prepare", [to_defined, to_waiting, to_assigned, to_activated])
def test_killed_before_a_pilot_has_it(grid: Grid, prepare: Callable[[Grid], int]) -> None:
    job_id = prepare(grid)
    before = grid.history(job_id)
    assert before[-1] == prepare.__name__.removeprefix("to_")
    assert killed(grid, job_id) == [True]
    grid.work()
    check_failed(grid, job_id, "taskBuffer", 100, f"killed by {grid.pki.dn('alice')}", state="cancelled")
    assert grid.history(job_id) == [*before, "cancelled"], "whatever was still on its way changes nothing"
    assert grid.get_job("UTA")["StatusCode"] == 20
    assert killed(grid, job_id) == [False], "it has ended"
    assert {x["status"] for x in grid.describe(job_id)["Files"] if x["type"] != "input"} == {"failed"}


@pytest.mark.parametrize("words", [(), ("starting",), ("starting", "running")])
def test_killed_with_a_pilot(grid: Grid, words: tuple[str, ...]) -> None:
    job_id = to_activated(grid)
    job = grid.get_job("UTA")
    for word in words:
        assert grid.update(job, word)["command"] == "NULL"
    assert killed(grid, job_id) == [True]
    assert killed(grid, job_id) == [True], "saying it again does no harm"
    assert grid.state(job_id) == (words or ("sent",))[-1]
    assert grid.update(job, "running") == {"StatusCode": 0, "command": "tobekilled"}
    grid.run_job(job, outcome="failed", pilotErrorCode=1144)
    grid.work()
    check_failed(grid, job_id, "pilot", 1144, "", state="cancelled")
    assert files_in(grid, "user.alice.hist.log") == [job["logFile"]]


def test_killed_with_a_pilot_that_says_no_more(grid: Grid) -> None:
    job_id = to_activated(grid)
    grid.update(grid.get_job("UTA"), "running")
    killed(grid, job_id)
    grid.watch(2 * 3600 + 60)
    check_failed(grid, job_id, "jobDispatcher", 100, "no word from the pilot", state="cancelled")


def test_killed_too_late(grid: Grid) -> None:
    job_id = to_activated(grid)
    grid.run_job(grid.get_job("UTA"))
    assert grid.state(job_id) == "holding"
    assert killed(grid, job_id) == [True]
    grid.work()
    assert grid.state(job_id) == "finished", "its outputs are there"
    assert killed(grid, job_id) == [False]


def test_only_the_owner_and_operators_kill(grid: Grid) -> None:
    mine, other = to_activated(grid), grid.submit(f.analysis_job(), who="bob")[0]
    answer = grid.client("alice").post("/server/panda/killJobs", json={"ids": [mine, other]})
    assert answer.status_code == 403
    grid.work()
    assert [grid.state(i) for i in (mine, other)] == ["activated"] * 2, "none was killed"
    assert killed(grid, mine, other, 999, who="prodman") == [True, True, False]


# --- downstream


def chain(grid: Grid, **more: Any) -> list[int]:
    """Three jobs of one submission, each of which reads what the one before makes."""

    def link(number: int, *inputs: dict[str, str]) -> dict[str, Any]:
        output = {"type": "output", "lfn": f"chain.{number}", "dataset": "mc.test.chain"}
        return f.production_job(computingSite="BNL", destinationDBlock="mc.test.chain", Files=[*inputs, output]) | more

    needs = [{"type": "input", "lfn": f"chain.{n}", "dataset": "mc.test.chain"} for n in (1, 2)]
    ids = grid.submit(link(1), link(2, needs[0]), link(3, needs[1]), who="prodman")
    grid.work()
    assert [grid.state(i) for i in ids] == ["activated", "waiting", "waiting"]
    return ids


def end_by_pilot(grid: Grid, _job_id: int) -> None:
    grid.run_job(grid.get_job("BNL"), outcome="failed")


def end_by_kill(grid: Grid, job_id: int) -> None:
    killed(grid, job_id, who="prodman")


def end_by_silence(grid: Grid, _job_id: int) -> None:
    for _ in range(2):
        grid.update(grid.get_job("BNL"), "running")
        grid.watch(2 * 3600 + 60)


@pytest.mark.parametrize("end", [end_by_pilot, end_by_kill, end_by_silence])
def test_what_waits_for_an_output_that_will_not_be_fails_with_it(grid: Grid, end: Callable[[Grid, int], None]) -> None:
    first, *rest = chain(grid)
    (stranger,) = grid.submit(f.analysis_job("chain.1", dataset="mc.test.chain"))
    grid.work()
    end(grid, first)
    grid.work()
    assert S(grid.state(first)) in FINAL - {S.FINISHED}
    for job_id in rest:
        check_failed(grid, job_id, "taskBuffer", 100, "upstream job failed")
    assert grid.state(stranger) == "waiting", "another may still make that file"


def test_what_waits_goes_on_while_the_job_before_it_is_tried_again(grid: Grid) -> None:
    first, second, third = chain(grid, maxAttempt=3)
    grid.update(grid.get_job("BNL"), "running")
    grid.watch(2 * 3600 + 60)
    assert [grid.state(i) for i in (first, second, third)] == ["activated", "waiting", "waiting"]
    for job_id in (first, second, third):
        job = grid.get_job("BNL")
        assert job["PandaID"] == job_id
        grid.run_job(job)
        grid.work()
    assert [grid.state(i) for i in (first, second, third)] == ["finished"] * 3


# --- silence


def outcomes(grid: Grid, job_id: int) -> list[str | None]:
    return [a.outcome for a in grid.buffer.read(lambda c: attempts.of_jobs(c, [job_id]))]


def errors(grid: Grid, job_id: int) -> list[tuple[int, str, int]]:
    found = grid.buffer.read(lambda c: jobs.errors_of(c, [job_id])).get(job_id, [])
    return [(e.attempt, e.error.family.value, e.error.code) for e in found]


@pytest.mark.parametrize(
    ("words", "after_s", "code"),
    [((), 1800, 102), (("starting",), 7200, 100), (("starting", "running"), 7200, 100)],
)
def test_silent_pilots_are_lost_and_the_job_is_tried_again_then_fails(
    grid: Grid, words: tuple[str, ...], after_s: int, code: int
) -> None:
    (job_id,) = grid.submit(f.analysis_job(computingSite="UTA"))
    grid.work()
    for number in (1, 2):
        job = grid.get_job("UTA")
        assert job["attemptNr"] == number
        for word in words:
            grid.update(job, word)
        state = grid.state(job_id)
        grid.watch(after_s - 60)
        assert grid.state(job_id) == state
        grid.watch(120)
        assert grid.state(job_id) == ("activated" if number == 1 else "failed")
        assert grid.update(job, "running") == {"StatusCode": 30, "command": "tobekilled"} | stale(grid, job)
    assert outcomes(grid, job_id) == ["lost", "lost"]
    assert errors(grid, job_id) == [(1, "jobDispatcher", code), (2, "jobDispatcher", code)]
    check_failed(grid, job_id, "jobDispatcher", code, f"no word from the pilot for more than {after_s} s")


def stale(grid: Grid, job: dict[str, Any]) -> dict[str, Any]:
    """Whatever else the answer to a stale word says."""
    answer = grid.update(job, "running")
    return {key: value for key, value in answer.items() if key not in ("StatusCode", "command")}


def test_the_second_attempt_is_not_disturbed_by_the_first(grid: Grid) -> None:
    (job_id,) = grid.submit(f.analysis_job(computingSite="UTA"))
    grid.work()
    first = grid.get_job("UTA")
    grid.update(first, "running")
    grid.watch(2 * 3600 + 60)
    second = grid.get_job("UTA")
    grid.update(second, "running")
    assert grid.run_job(first)["StatusCode"] == 30
    assert grid.run_job(first, outcome="failed")["StatusCode"] == 30
    assert grid.state(job_id) == "running"
    grid.run_job(second)
    grid.work()
    assert grid.state(job_id) == "finished"
    assert outcomes(grid, job_id) == ["lost", "finished"]


def test_a_pilot_that_speaks_is_never_lost(grid: Grid) -> None:
    (job_id,) = grid.submit(f.analysis_job(computingSite="UTA"))
    grid.work()
    job = grid.get_job("UTA")
    for _ in range(10):
        grid.watch(1700)
        assert grid.update(job, "running")["StatusCode"] == 0
    assert grid.history(job_id)[-1] == "running"


# --- the table of clocks

PATHS: dict[JobState, tuple[JobState, ...]] = {
    S.DEFINED: (),
    S.WAITING: (S.WAITING,),
    S.ASSIGNED: (S.ASSIGNED,),
    S.ACTIVATED: (S.ACTIVATED,),
    S.THROTTLED: (S.ACTIVATED, S.THROTTLED),
    S.HOLDING: (S.HOLDING,),
    S.TRANSFERRING: (S.HOLDING, S.TRANSFERRING),
    S.MERGING: (S.HOLDING, S.MERGING),
}
ENDS = {
    TimeoutAction.REASSIGN: S.DEFINED,
    TimeoutAction.CLOSE: S.CLOSED,
    TimeoutAction.FAIL: S.FAILED,
    TimeoutAction.RETRY: S.ACTIVATED,
}


def label_of(rule: Timeout) -> str:
    return "user" if rule.subject == "analysis" else "managed"


def lead_to(grid: Grid, rule: Timeout, label: str) -> int:
    """Bring a job into the state of a rule, without asking for any background work."""
    (job_id,) = grid.submit(f.analysis_job(computingSite="UTA", prodSourceLabel=label))
    with_pilot = {S.SENT: [], S.STARTING: ["starting"], S.RUNNING: ["starting", "running"]}
    after_pilot = rule.state in (S.HOLDING, S.TRANSFERRING, S.MERGING)
    grid.buffer.run(lambda c: work.done(c, drop(c, grid), now=grid.buffer.now()))
    if rule.state in with_pilot or after_pilot:
        f.move(grid.buffer, job_id, S.ACTIVATED, site="UTA")
        job = grid.get_job("UTA")
        for word in with_pilot.get(rule.state, []):
            grid.update(job, word)
    f.move(grid.buffer, job_id, *PATHS.get(rule.state, ()), site="UTA")
    return job_id


def drop(connection: Any, grid: Grid) -> list[work.WorkItem]:
    return work.claim(connection, "nobody", 100, now=grid.buffer.now(), lease_s=1)


@pytest.mark.parametrize("rule", TIMEOUTS, ids=lambda r: f"{r.state}-{r.subject}")
def test_every_clock_runs_out_and_does_what_the_table_says(grid: Grid, rule: Timeout) -> None:
    job_id = lead_to(grid, rule, label_of(rule))
    before = grid.history(job_id)
    assert before[-1] == rule.state
    grid.clock.forward(rule.after_s - 60)
    grid.server.duties.run_due()
    assert grid.history(job_id) == before
    grid.clock.forward(120)
    grid.server.duties.run_due()
    end = ENDS[rule.action]
    assert grid.state(job_id) == end
    if rule.state is S.DEFINED:
        assert grid.buffer.read(work.pending) == {"setup": 1}
        return
    assert grid.history(job_id) == [*before, end]
    if rule.action is TimeoutAction.REASSIGN:
        assert errors(grid, job_id) == []
        assert grid.buffer.read(work.pending)["setup"] == 1
    else:
        assert errors(grid, job_id) == [(int(rule.heartbeat or "sent" in before), rule.family.value, rule.code)]


@pytest.mark.parametrize("state", [S.ACTIVATED, S.HOLDING])
def test_many_jobs_of_one_kind_do_not_hide_those_of_the_other(
    grid: Grid, monkeypatch: pytest.MonkeyPatch, state: JobState
) -> None:
    short, long = sorted((r for r in TIMEOUTS if r.state is state), key=lambda r: r.after_s)
    monkeypatch.setattr(watcher, "_AT_ONCE", 2)
    patient = [lead_to(grid, long, label_of(long)) for _ in range(3)]
    late = lead_to(grid, short, label_of(short))
    grid.clock.forward(short.after_s + 60)
    grid.server.duties.run_due()
    assert {grid.state(i) for i in patient} == {state}
    assert grid.state(late) == ENDS[short.action]


def test_a_reassigned_job_is_brokered_again_and_goes_to_the_front(grid: Grid) -> None:
    ids = grid.submit(*(f.production_job(n) for n in (1, 2)), who="prodman")
    grid.work()
    grid.watch(2 * 86400 + 60)
    for job_id in ids:
        assert grid.history(job_id) == ["defined", "activated", "defined", "activated"]
        assert grid.describe(job_id)["currentPriority"] == 100
    job = grid.get_job("BNL")
    grid.run_job(job)
    grid.work()
    assert grid.state(job["PandaID"]) == "finished"


def test_a_job_whose_data_does_not_come_is_reassigned_with_a_new_dispatch_dataset(grid: Grid) -> None:
    grid.register("mc.test.evnt", "BNL_DISK", "evnt.1")
    (job_id,) = grid.submit(f.analysis_job("evnt.1", computingSite="UTA"))
    (good,) = (grid.root / "BNL_DISK").rglob("evnt.1")
    content = good.read_bytes()
    good.write_bytes(b"damaged")
    grid.work()
    assert grid.state(job_id) == "assigned"
    first = inputs_block(grid, job_id)
    good.write_bytes(content)
    grid.clock.forward(12 * 3600 + 60)
    grid.server.duties.run_due()
    grid.work()
    assert grid.history(job_id)[:3] == ["defined", "assigned", "defined"]
    assert grid.state(job_id) == "activated"
    assert inputs_block(grid, job_id) != first or grid.history(job_id)[-2:] == ["defined", "activated"]


def inputs_block(grid: Grid, job_id: int) -> str | None:
    return grid.buffer.read(lambda c: files.of_jobs(c, [job_id]))[job_id][0].block


def test_a_transfer_that_never_ends_fails_the_job(grid: Grid) -> None:
    job_id, job = produce(grid, "UTA")
    grid.run_job(job)
    while grid.state(job_id) == "holding":
        assert grid.server.pool.run_all(limit=1)
    assert grid.state(job_id) == "transferring"
    for path in (grid.root / "UTA_DISK").rglob("evnt*"):
        path.unlink()
    grid.work()
    assert grid.state(job_id) == "transferring"
    grid.watch(2 * 86400 + 60)
    check_failed(grid, job_id, "jobDispatcher", 104, "still transferring for more than 172800 s")
    blocks = {file.block for file in grid.buffer.read(lambda c: files.of_jobs(c, [job_id]))[job_id] if file.block}
    for block in blocks:
        found = grid.buffer.read(lambda c, block=block: datasets.load(c, block))  # type: ignore[misc]
        assert found is not None
        assert found.status is DatasetStatus.COMPLETED
