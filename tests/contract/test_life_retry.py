"""Jobs that fail and are tried again: where, with what, how often; and what is recorded of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import factories as f
import pytest
from factories import Grid

from pandaserver.app import create_app
from pandaserver.dataservice import adder, retrying
from pandaserver.model.codes import ErrorFamily
from pandaserver.model.dataset import DatasetStatus
from pandaserver.model.retry import RULES, RetryAction, RetryRule
from pandaserver.taskbuffer import attempts, datasets, files, jobs, work

SIGNAL, STAGE_IN, MEMORY, TIME = 1201, 1099, 1212, 1213
ELSEWHERE = RetryRule(name="all elsewhere", action=RetryAction.ELSEWHERE, max_attempts=9)


def with_rules(grid: Grid, *rules: RetryRule) -> None:
    """Start the server again with other rules."""
    installation = replace(grid.server.installation, retry_rules=rules)
    grid.close()
    grid.clients.clear()
    grid.server = create_app(installation, grid.clock, callback=grid.called_back)


def submit(grid: Grid, queue: str | None = "BNL", **more: Any) -> int:
    (job_id,) = grid.submit(f.analysis_job(**({"computingSite": queue} if queue else {}), **more))
    grid.work()
    return job_id


def fail(grid: Grid, queue: str, code: int = SIGNAL, **told: Any) -> dict[str, Any]:
    """Let a pilot take the job of a queue and report failure, with its log."""
    job = grid.get_job(queue)
    assert job["StatusCode"] == 0
    grid.run_job(job, outcome="failed", pilotErrorCode=code, pilotErrorDiag=f"failed with {code}", **told)
    grid.work()
    return job


def finish(grid: Grid, queue: str) -> dict[str, Any]:
    job = grid.get_job(queue)
    assert job["StatusCode"] == 0
    grid.run_job(job)
    grid.work()
    return job


def decisions(grid: Grid, job_id: int) -> list[tuple[int, str, str, bool]]:
    return [(d["attempt"], d["site"], d["action"], d["done"]) for d in grid.call(None, "getRetries", job_id=job_id)]


def reasons(grid: Grid, job_id: int) -> list[str]:
    return [d["reason"] for d in grid.call(None, "getRetries", job_id=job_id)]


def outcomes(grid: Grid, job_id: int) -> list[str | None]:
    return [a.outcome for a in grid.buffer.read(lambda c: attempts.of_jobs(c, [job_id]))]


def status_of_files(grid: Grid, job_id: int) -> dict[str, tuple[str, str]]:
    return {x["lfn"]: (x["type"], x["status"]) for x in grid.describe(job_id)["Files"]}


def contents(grid: Grid, dataset: str) -> list[str]:
    return [lfn for _, lfn in grid.server.rooms.data.ddm.contents(dataset)]


# --- again at the same queue


def test_a_failed_attempt_is_followed_by_another(grid: Grid) -> None:
    job_id = submit(grid)
    first = fail(grid, "BNL")
    told = grid.describe(job_id)
    assert (told["jobStatus"], told["computingSite"], told["failedAttempt"]) == ("activated", "BNL", 1)
    assert (told["startTime"], told["endTime"]) == (None, None)
    assert told["pilotErrorCode"] == SIGNAL, "that of the last attempt, until there is another"
    second = finish(grid, "BNL")
    assert (second["PandaID"], second["attemptNr"]) == (job_id, 2)
    told = grid.describe(job_id)
    assert (told["jobStatus"], told["pilotErrorCode"]) == ("finished", 0)
    recorded = grid.buffer.read(lambda c: jobs.errors_of(c, [job_id]))[job_id]
    assert [(e.attempt, e.error.family, e.error.code) for e in recorded] == [(1, ErrorFamily.PILOT, SIGNAL)]
    assert outcomes(grid, job_id) == ["failed", "finished"]
    assert grid.history(job_id)[-7:] == ["holding", "activated", "sent", "starting", "running", "holding", "finished"]
    assert decisions(grid, job_id) == [(1, "BNL", "retry", True)]
    assert reasons(grid, job_id) == [f"pilot {SIGNAL}: tried again at BNL"]
    assert first["outFiles"].split(",")[0] == second["outFiles"].split(",")[0], "outputs keep their names"
    assert contents(grid, "user.alice.hist") == [second["outFiles"].split(",")[0]]
    assert grid.buffer.read(work.pending) == {"sweep": 1}


def test_every_attempt_has_a_log_of_its_own(grid: Grid) -> None:
    job_id = submit(grid, maxAttempt=3)
    first, second = fail(grid, "BNL"), fail(grid, "BNL")
    third = finish(grid, "BNL")
    log = first["logFile"]
    assert [job["logFile"] for job in (first, second, third)] == [log, f"{log}.2", f"{log}.3"]
    assert len({job["logGUID"] for job in (first, second, third)}) == 3
    assert all(job["outFiles"].split(",")[1:] == [job["logFile"]] for job in (first, second, third))
    assert contents(grid, "user.alice.hist.log") == [log, f"{log}.2", f"{log}.3"]
    logs = {lfn: told for lfn, told in status_of_files(grid, job_id).items() if "log" in lfn}
    assert logs == {log: ("oldlog", "ready"), f"{log}.2": ("oldlog", "ready"), f"{log}.3": ("log", "ready")}
    for block in {second["destinationDblock"].split(",")[1], third["destinationDblock"].split(",")[1]}:
        found = grid.buffer.read(lambda c, block=block: datasets.load(c, block))  # type: ignore[misc]
        assert found is not None and found.status is DatasetStatus.COMPLETED


def test_a_log_that_was_not_stored_is_lost_and_the_next_has_another_name(grid: Grid) -> None:
    job_id = submit(grid)
    job = grid.get_job("BNL")
    grid.update(job, "failed", pilotErrorCode=SIGNAL)
    grid.work()
    assert grid.state(job_id) == "activated"
    second = finish(grid, "BNL")
    assert second["logFile"] == f"{job['logFile']}.2"
    assert status_of_files(grid, job_id)[job["logFile"]] == ("oldlog", "failed")


def test_a_damaged_log_does_not_take_the_next_attempt_away(grid: Grid) -> None:
    job_id = submit(grid)
    job = grid.get_job("BNL")
    grid.update(job, "running")
    stored = grid.store("BNL_DISK", job["scopeLog"], job["logFile"]) | {"adler32": "deadbeef"}
    grid.update(job, "failed", pilotErrorCode=SIGNAL, xml=json.dumps({job["logFile"]: stored}))
    grid.work()
    assert grid.describe(job_id)["ddmErrorCode"] == 205
    finish(grid, "BNL")
    assert grid.state(job_id) == "finished"
    assert contents(grid, "user.alice.hist.log") == [f"{job['logFile']}.2"]


def test_outputs_of_a_failed_attempt_are_not_registered(grid: Grid) -> None:
    job_id = submit(grid)
    job = grid.get_job("BNL")
    grid.update(job, "running")
    output = job["outFiles"].split(",")[0]
    names = {output: job["scopeOut"], job["logFile"]: job["scopeLog"]}
    stored = {lfn: grid.store("BNL_DISK", scope, lfn, b"half of it") for lfn, scope in names.items()}
    grid.update(job, "failed", pilotErrorCode=SIGNAL, xml=json.dumps(stored))
    grid.work()
    assert contents(grid, "user.alice.hist") == []
    finish(grid, "BNL")
    assert grid.state(job_id) == "finished"
    assert contents(grid, "user.alice.hist") == [output]


def test_jobs_that_wait_for_the_output_go_on_waiting(grid: Grid) -> None:
    first, second = grid.submit(
        f.analysis_job(computingSite="BNL"),
        f.analysis_job("hist.00001.json", dataset="user.alice.hist", computingSite="BNL"),
    )
    name = grid.describe(first)["Files"][0]["lfn"]
    (third,) = grid.submit(f.analysis_job(name, dataset="user.alice.hist", computingSite="BNL"))
    grid.work()
    fail(grid, "BNL")
    assert [grid.state(i) for i in (second, third)] == ["waiting", "waiting"]
    finish(grid, "BNL")
    assert (grid.state(first), grid.state(third)) == ("finished", "activated")


# --- limits


@pytest.mark.parametrize(("most", "number"), [(0, 2), (1, 1), (3, 3)])
def test_attempts_are_counted(grid: Grid, most: int, number: int) -> None:
    job_id = submit(grid, maxAttempt=most)
    for _ in range(number):
        assert grid.state(job_id) == "activated"
        fail(grid, "BNL")
    assert grid.state(job_id) == "failed"
    assert grid.get_job("BNL")["StatusCode"] == 20
    assert decisions(grid, job_id) == [(n, "BNL", "retry", n < number) for n in range(1, number + 1)]
    assert reasons(grid, job_id)[-1] == f"pilot {SIGNAL}: attempt {number} was the last"
    assert grid.describe(job_id)["failedAttempt"] == number - 1


def test_lost_and_failed_attempts_count_together(grid: Grid) -> None:
    job_id = submit(grid)
    grid.get_job("BNL")
    grid.watch(2000)
    assert grid.state(job_id) == "activated"
    fail(grid, "BNL")
    assert grid.state(job_id) == "failed"
    assert decisions(grid, job_id) == [(1, "BNL", "retry", True), (2, "BNL", "retry", False)]


def test_a_killed_job_is_not_tried_again(grid: Grid) -> None:
    job_id = submit(grid)
    job = grid.get_job("BNL")
    grid.update(job, "running")
    grid.call("alice", "killJobs", ids=[job_id])
    grid.run_job(job, outcome="failed", pilotErrorCode=SIGNAL)
    grid.work()
    assert grid.state(job_id) == "cancelled"
    assert reasons(grid, job_id) == [f"pilot {SIGNAL}: killed as asked"]


@pytest.mark.parametrize(("code", "label", "state"), [(-1150, "user", "activated"), (-1150, "managed", "failed")])
def test_a_negative_code_is_the_wish_of_a_users_pilot(grid: Grid, code: int, label: str, state: str) -> None:
    job_id = submit(grid, prodSourceLabel=label)
    fail(grid, "BNL", code)
    assert grid.state(job_id) == state
    assert grid.describe(job_id)["pilotErrorCode"] == code


@pytest.mark.parametrize("told", [{}, {"pilotErrorCode": 1305, "exeErrorCode": 65}])
def test_what_no_rule_knows_is_not_tried_again(grid: Grid, told: dict[str, Any]) -> None:
    job_id = submit(grid)
    grid.run_job(grid.get_job("BNL"), outcome="failed", **told)
    grid.work()
    assert grid.state(job_id) == "failed"
    assert decisions(grid, job_id) == []


# --- elsewhere


def test_a_job_goes_elsewhere_and_avoids_the_queue_where_it_failed(grid: Grid) -> None:
    job_id = submit(grid, None)
    first = grid.describe(job_id)["computingSite"]
    (other,) = {"BNL", "UTA"} - {first}
    for lfn in range(20):  # whatever the load says
        grid.submit(f.analysis_job(computingSite=other, jobName=f"load-{lfn}", currentPriority=0))
    grid.work()
    old = fail(grid, first, STAGE_IN)
    assert grid.history(job_id)[-3:] == ["holding", "defined", "activated"]
    assert grid.describe(job_id)["computingSite"] == other
    said = [r for r in grid.call(None, "getBrokerageReasons", job_id=job_id) if r["verdict"] == "rejected"]
    assert [(r["site"], r["reason"]) for r in said] == [(first, "failed there before")]
    assert reasons(grid, job_id) == [f"pilot {STAGE_IN}: tried elsewhere than at {first}"]
    while (job := finish(grid, other))["PandaID"] != job_id:
        pass
    assert grid.state(job_id) == "finished"
    assert set(job["fileDestinationSE"].split(",")) == {f"{other}_DISK"}, "not the storage where it failed"
    assert contents(grid, "user.alice.hist.log")[0] == old["logFile"]
    for block in old["destinationDblock"].split(","):
        found = grid.buffer.read(lambda c, block=block: datasets.load(c, block))  # type: ignore[misc]
        assert found is not None and found.status is DatasetStatus.COMPLETED, "nothing more comes into it"


def test_destinations_that_users_name_stay(grid: Grid) -> None:
    job_id = submit(grid, None, destinationSE="BNL")
    fail(grid, grid.describe(job_id)["computingSite"], STAGE_IN)
    assert {x["destinationSE"] for x in grid.describe(job_id)["Files"]} == {"BNL_DISK"}


@pytest.mark.parametrize("more", [{"minRamCount": 3000}, {"computingSite": "BNL"}], ids=["too large", "pinned"])
def test_the_avoided_queue_counts_when_no_other_can_take_the_job(grid: Grid, more: dict[str, Any]) -> None:
    job_id = submit(grid, None, **more)
    fail(grid, "BNL", STAGE_IN)
    told = grid.describe(job_id)
    assert (told["jobStatus"], told["computingSite"]) == ("activated", "BNL")
    assert grid.history(job_id)[-2:] == ["defined", "activated"]


def test_when_a_job_has_failed_everywhere_all_queues_count(grid: Grid) -> None:
    with_rules(grid, ELSEWHERE)
    job_id = submit(grid, None)
    seen = []
    for _ in range(3):
        seen.append(grid.describe(job_id)["computingSite"])
        fail(grid, seen[-1])
    assert set(seen[:2]) == {"BNL", "UTA"}
    assert grid.state(job_id) == "activated"


def test_inputs_are_brought_to_the_new_queue(grid: Grid) -> None:
    grid.register("mc.test.evnt", "BNL_DISK", "evnt.1")
    job_id = submit(grid, None, prodDBlock="mc.test.evnt", Files=f.analysis_job("evnt.1")["Files"])
    assert grid.describe(job_id)["computingSite"] == "BNL"
    fail(grid, "BNL", STAGE_IN)
    assert grid.history(job_id)[-3:] == ["defined", "assigned", "activated"]
    finish(grid, "UTA")
    assert grid.state(job_id) == "finished"


def test_a_lost_pilot_may_send_the_job_elsewhere(grid: Grid) -> None:
    with_rules(grid, ELSEWHERE)
    job_id = submit(grid, None)
    first = grid.describe(job_id)["computingSite"]
    job = grid.get_job(first)
    grid.update(job, "running")
    grid.watch(2 * 3600 + 60)
    assert grid.history(job_id)[-3:] == ["running", "defined", "activated"]
    assert grid.describe(job_id)["computingSite"] != first
    assert grid.update(job, "running")["command"] == "tobekilled"
    assert grid.get_job(grid.describe(job_id)["computingSite"])["logFile"] == job["logFile"], "it stored none"


# --- with more


def test_more_memory_at_the_same_queue(grid: Grid) -> None:
    job_id = submit(grid, minRamCount=1000)
    fail(grid, "BNL", MEMORY)
    told = grid.describe(job_id)
    assert (told["jobStatus"], told["computingSite"], told["minRamCount"]) == ("activated", "BNL", 1500)
    assert grid.get_job("BNL", mem=1400)["StatusCode"] == 20, "too small a slot"
    assert grid.get_job("BNL", mem=1500)["minRamCount"] == 1500


def test_more_memory_than_the_queue_has_is_elsewhere(grid: Grid) -> None:
    (job_id,) = grid.submit(f.analysis_job(minRamCount=2000))
    f.move(grid.buffer, job_id, jobs.JobState.ACTIVATED, site="UTA")
    fail(grid, "UTA", MEMORY)
    told = grid.describe(job_id)
    assert (told["jobStatus"], told["computingSite"], told["minRamCount"]) == ("activated", "BNL", 3000)
    assert reasons(grid, job_id) == [f"pilot {MEMORY}: tried elsewhere than at UTA with 3000 MB of memory, not 2000"]


def test_no_more_memory_than_there_is(grid: Grid) -> None:
    job_id = submit(grid, minRamCount=3000, maxAttempt=5)
    fail(grid, "BNL", MEMORY)
    assert grid.describe(job_id)["minRamCount"] == 4000
    fail(grid, "BNL", MEMORY)
    assert grid.state(job_id) == "failed"
    assert reasons(grid, job_id)[-1] == f"pilot {MEMORY}: no queue has more than 4000 MB of memory"


def test_more_wall_time(grid: Grid) -> None:
    job_id = submit(grid, maxWalltime=1000)
    fail(grid, "BNL", TIME)
    assert grid.get_job("BNL", remainingTime=1400)["StatusCode"] == 20
    assert grid.get_job("BNL", remainingTime=1600)["maxWalltime"] == 1500
    assert decisions(grid, job_id) == [(1, "BNL", "more_wall_time", True)]


# --- rules of the installation


def test_passive_rules_are_only_noted(grid: Grid) -> None:
    with_rules(grid, RetryRule(name="trial", action=RetryAction.ELSEWHERE, passive=True), *RULES)
    job_id = submit(grid, None)
    site = grid.describe(job_id)["computingSite"]
    fail(grid, site)
    assert grid.describe(job_id)["computingSite"] == site
    assert decisions(grid, job_id) == [(1, site, "elsewhere", False), (1, site, "retry", True)]
    first = grid.call(None, "getRetries", job_id=job_id)[0]
    assert (first["rule"], first["passive"]) == ("trial", True)


def test_without_rules_nothing_is_tried_again(grid: Grid) -> None:
    with_rules(grid)
    job_id = submit(grid)
    grid.get_job("BNL")
    grid.watch(2000)
    assert grid.state(job_id) == "failed"
    assert decisions(grid, job_id) == []


def test_the_rules_in_force_are_told(grid: Grid) -> None:
    with_rules(grid, ELSEWHERE, *RULES)
    told = grid.call(None, "getRetryRules")
    assert [rule["name"] for rule in told] == ["all elsewhere", *(rule.name for rule in RULES)]
    assert told == grid.client(None).get("/api/v1/system/get_retry_rules").json["data"]
    assert told[1] == {
        "name": "lost pilot", "action": "retry", "family": "jobDispatcher", "codes": [100, 102], "pattern": "",
        "labels": [], "queues": [], "vos": [], "factor": 1.5, "max_attempts": 0, "wished": False, "passive": False,
    }  # fmt: skip


def test_decisions_about_a_job_that_is_not_there(grid: Grid) -> None:
    answer = grid.client(None).get("/server/panda/getRetries?job_id=4711")
    assert answer.status_code == 404
    assert "no job 4711" in answer.json["message"]


def test_nobody_submits_a_log_of_an_attempt_that_was_not(grid: Grid) -> None:
    job = f.analysis_job()
    job["Files"].append({"type": "oldlog", "lfn": "x.log", "dataset": "user.alice.hist.log"})
    answer = grid.client("alice").post("/server/panda/submitJobs", json={"jobs": [job]})
    assert answer.status_code == 400
    assert "type is input, output or log" in answer.json["message"]


# --- everything may come twice


def rows(grid: Grid, job_id: int) -> list[Any]:
    def read(connection: Any) -> list[Any]:
        return [files.load_jobs(connection, [job_id]), jobs.history_of(connection, job_id)]

    return [*grid.buffer.read(read), grid.call(None, "getRetries", job_id=job_id)]


@pytest.mark.parametrize("code", [SIGNAL, STAGE_IN])
def test_work_that_is_done_twice_makes_one_attempt(grid: Grid, code: int) -> None:
    job_id = submit(grid, None)
    fail(grid, grid.describe(job_id)["computingSite"], code)
    before = rows(grid, job_id)
    data = grid.server.rooms.data
    adder.add(data, [(job_id, 1)])
    adder.give_up(data, job_id, 1, "late")
    grid.watch(1)
    assert rows(grid, job_id) == before


def crash_once(real: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function do its work and then crash, the first time."""
    crashed: list[bool] = []

    def crashing(*args: Any, **told: Any) -> Any:
        answer = real(*args, **told)
        if not crashed:
            crashed.append(True)
            raise OSError("the lights went out")
        return answer

    return crashing


@pytest.mark.parametrize("step", ["_go_on", "_with_new_log"])
def test_a_crash_in_the_middle_leaves_nothing_half_done(grid: Grid, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    monkeypatch.setattr(retrying, step, crash_once(getattr(retrying, step)))
    job_id = submit(grid)
    fail(grid, "BNL")
    assert grid.state(job_id) == "holding"
    assert decisions(grid, job_id) == []
    grid.restart()
    grid.watch(120)
    assert grid.state(job_id) == "activated"
    assert decisions(grid, job_id) == [(1, "BNL", "retry", True)]
    assert len(status_of_files(grid, job_id)) == 3
    finish(grid, "BNL")
    assert grid.state(job_id) == "finished"


def test_a_word_of_the_failed_attempt_that_is_repeated_changes_nothing(grid: Grid) -> None:
    job_id = submit(grid)
    first = fail(grid, "BNL")
    second = grid.get_job("BNL")
    grid.update(second, "running")
    for word in ("running", "failed", "finished"):
        assert grid.update(first, word)["command"] == "tobekilled"
    assert grid.state(job_id) == "running"


def test_an_old_log_on_its_way_does_not_hold_up_the_job(grid: Grid) -> None:
    (job_id,) = grid.submit(f.production_job(computingSite="UTA", maxAttempt=2), who="prodman")
    grid.work()
    job = grid.get_job("UTA")
    grid.run_job(job, outcome="failed", pilotErrorCode=SIGNAL)
    while grid.state(job_id) == "holding":
        assert grid.server.pool.run_all(limit=1)
    (lost,) = (grid.root / "UTA_DISK").rglob(job["logFile"])
    lost.rename(lost.with_suffix(".away"))
    finish(grid, "UTA")
    grid.called_back(job["destinationDblock"].split(",")[1], "BNL_DISK")  # a hint that comes too early
    grid.work()
    assert status_of_files(grid, job_id)[job["logFile"]] == ("oldlog", "transferring")
    assert grid.state(job_id) == "finished"
