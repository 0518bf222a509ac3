"""Users, pilots and operators speak of jobs in the archive: they are told the same as before, and change nothing."""

from __future__ import annotations

from typing import Any

import factories as f
import pytest
import sqlalchemy as sa
from factories import Grid
from unchanged import unchanged

from pandaserver.taskbuffer import schema

FOUR_DAYS = 4 * 86400


def ids_in(grid: Grid, table: sa.Table) -> set[int]:
    return grid.buffer.read(lambda c: set(c.execute(sa.select(table.c.job_id)).scalars()))


def archived(grid: Grid) -> set[int]:
    assert not ids_in(grid, schema.jobs) & ids_in(grid, schema.archived["jobs"])
    return ids_in(grid, schema.archived["jobs"])


def finished(grid: Grid) -> dict[str, Any]:
    """Let a job of the production manager finish; give what its pilot was given."""
    grid.submit(f.production_job(jobParameters="--events 10", maxAttempt=3), who="prodman")
    grid.work()
    job = grid.get_job()
    grid.run_job(job, metaData='{"events": 10}', stdout="done\n", coreCount="4")
    grid.work()
    return job


def failed(grid: Grid) -> dict[str, Any]:
    """Let a job fail in both of its attempts."""
    grid.submit(f.production_job(2), who="prodman")
    for _ in range(2):
        grid.work()
        job = next(job for job in map(grid.get_job, ("BNL", "UTA")) if job["StatusCode"] == 0)
        grid.run_job(job, outcome="failed", pilotErrorCode=1099, pilotErrorDiag="no input", pilotLog="Traceback")
    grid.work()
    return job


def cancelled(grid: Grid) -> dict[str, Any]:
    (job_id,) = grid.submit(f.analysis_job("nothing.root"))
    assert grid.call("alice", "killJobs", ids=[job_id]) == [True]
    return {"PandaID": job_id}


ENDS = {"finished": finished, "failed": failed, "cancelled": cancelled}


def told(grid: Grid, *job_ids: int) -> list[Any]:
    """All that can be asked about jobs."""
    answers = [grid.call(None, method, ids=list(job_ids)) for method in ("getJobStatus", "getFullJobStatus")]
    for method in ("getBrokerageReasons", "getRetries"):
        answers += [grid.call(None, method, job_id=job_id) for job_id in job_ids]
    return answers


@pytest.mark.parametrize("end", ENDS)
def test_every_answer_about_a_job_stays_the_same(grid: Grid, end: str) -> None:
    job_id = ENDS[end](grid)["PandaID"]
    before = told(grid, job_id)
    assert before[0][0]["jobStatus"] == end
    assert archived(grid) == set()
    grid.watch(FOUR_DAYS)
    assert archived(grid) == {job_id}
    assert told(grid, job_id) == before
    assert grid.state(job_id) == end


def test_the_answers_have_something_to_compare(grid: Grid) -> None:
    good, bad = finished(grid)["PandaID"], failed(grid)["PandaID"]
    grid.watch(FOUR_DAYS)
    (one, other), _, reasons, _, _, retries = told(grid, good, bad)
    assert (one["metadata"], one["actualCoreCount"]) == ('{"events": 10}', "4") and len(one["Files"]) == 2
    assert (other["pilotErrorCode"], other["attemptNr"], other["failedAttempt"]) == (1099, 2, 1)
    assert [f["type"] for f in other["Files"]].count("oldlog") == 1
    assert {r["verdict"] for r in reasons} >= {"chosen"} and len(retries) == 2


def test_living_archived_and_unknown_jobs_in_one_question(grid: Grid) -> None:
    old = finished(grid)["PandaID"]
    grid.watch(FOUR_DAYS)
    (young,) = grid.submit(f.production_job(), who="prodman")
    assert archived(grid) == {old}
    asked = [young, 999, old, old, young, 0]
    found = grid.call(None, "getJobStatus", ids=asked)
    assert [one and one["PandaID"] for one in found] == [young, None, old, old, young, None]


@pytest.mark.parametrize("method", ["getBrokerageReasons", "getRetries"])
def test_an_unknown_job_stays_unknown(grid: Grid, method: str) -> None:
    old = finished(grid)["PandaID"]
    grid.watch(FOUR_DAYS)
    answer = grid.client(None).post(f"/server/panda/{method}", json={"job_id": old + 1})
    assert (answer.status_code, answer.json["value"]) == (404, str(old + 1))


# --- kills


def test_killing_what_has_ended_does_nothing(grid: Grid) -> None:
    old = finished(grid)["PandaID"]
    grid.watch(FOUR_DAYS)
    (young,) = grid.submit(f.production_job(), who="prodman")
    before = told(grid, old)
    assert grid.call("prodman", "killJobs", ids=[old, young, 999]) == [False, True, False]
    assert grid.state(young) == "cancelled"
    assert told(grid, old) == before


def test_the_jobs_of_others_are_theirs_also_in_the_archive(grid: Grid) -> None:
    theirs = finished(grid)["PandaID"]
    grid.watch(FOUR_DAYS)
    (mine,) = grid.submit(f.analysis_job())
    with unchanged(grid):
        answer = grid.client("alice").post("/server/panda/killJobs", json={"ids": [mine, theirs]})
    assert answer.status_code == 403
    assert f"job {theirs} belongs to {grid.pki.dn('prodman')}" in answer.json["message"]
    assert grid.state(mine) != "cancelled", "nothing was killed"


def test_an_operator_may_name_them_and_kills_nothing(grid: Grid) -> None:
    job = cancelled(grid)
    grid.watch(FOUR_DAYS)
    assert archived(grid) == {job["PandaID"]}
    assert grid.call("prodman", "killJobs", ids=[job["PandaID"]]) == [False]


# --- pilots


WORDS = ["starting", "running", "finished", "failed", "holding"]


@pytest.mark.parametrize("end", [finished, failed])
@pytest.mark.parametrize("word", WORDS)
def test_a_pilot_that_speaks_of_an_archived_job_is_told_to_stop(grid: Grid, end: Any, word: str) -> None:
    job = end(grid)
    grid.watch(FOUR_DAYS)
    assert archived(grid) == {job["PandaID"]}
    grid.update(job, "running")  # writes down how many calls of pilots there were, which is due after so long
    with unchanged(grid):
        answer = grid.update(job, word)
        assert (answer["StatusCode"], answer["command"]) == (30, "tobekilled")
        assert "this attempt is over" in answer["message"]


def test_in_bulk_each_word_has_its_own_answer(grid: Grid) -> None:
    old = finished(grid)
    grid.watch(FOUR_DAYS)
    grid.submit(f.production_job(), who="prodman")
    grid.work()
    young = grid.get_job()
    updates = [
        {"jobId": one["PandaID"], "attemptNr": one["attemptNr"], "jobToken": one["jobToken"], "state": "running"}
        for one in (old, young, {"PandaID": 999, "attemptNr": 1, "jobToken": "x"})
    ]
    answers = grid.call("pilot", "updateJobsInBulk", jobList=updates)
    assert [(a["StatusCode"], a.get("command")) for a in answers[:2]] == [(30, "tobekilled"), (0, "NULL")]
    assert answers[2]["StatusCode"] == 30 and "there is no job 999" in answers[2]["message"]
    assert grid.state(young["PandaID"]) == "running"


def test_a_request_that_got_an_archived_job_gets_a_new_one(grid: Grid) -> None:
    grid.submit(f.production_job(), who="prodman")
    grid.work()
    first = grid.get_job(requestId="11111111-2222")
    grid.run_job(first)
    grid.work()
    grid.watch(FOUR_DAYS)
    assert archived(grid) == {first["PandaID"]}
    grid.submit(f.production_job(2), who="prodman")
    grid.work()
    assert grid.get_job(requestId="11111111-2222")["PandaID"] > first["PandaID"]


# --- what else refers to jobs


def test_a_submission_that_comes_twice_is_answered_the_same_for_ever(grid: Grid) -> None:
    ids = grid.submit(f.analysis_job("nothing.root"), clientKey="once")
    grid.call("alice", "killJobs", ids=ids)
    grid.watch(FOUR_DAYS)
    assert archived(grid) == set(ids)
    assert grid.submit(f.analysis_job("nothing.root"), clientKey="once") == ids
    assert ids_in(grid, schema.jobs) == set()


def test_ids_are_not_used_again(grid: Grid) -> None:
    job_id = cancelled(grid)["PandaID"]
    grid.watch(FOUR_DAYS)
    assert ids_in(grid, schema.jobs) == set()
    assert cancelled(grid)["PandaID"] > job_id


def test_datasets_of_archived_jobs_are_what_they_were(grid: Grid) -> None:
    finished(grid)
    questions = [("queryFilesInDataset", "mc.test.evnt"), ("queryDataset", "mc.test.evnt")]
    before = [grid.call(None, method, dataset=name) for method, name in questions]
    grid.watch(FOUR_DAYS)
    grid.watch(FOUR_DAYS)
    assert archived(grid) == {1}
    assert [grid.call(None, method, dataset=name) for method, name in questions] == before


def test_who_waits_for_the_output_of_an_archived_job_gets_it(grid: Grid) -> None:
    """A user comes back to the data of last month."""
    finished(grid)
    grid.watch(FOUR_DAYS)
    (reader,) = grid.submit(f.analysis_job("evnt.00001._00001.root"))
    grid.work()
    assert grid.state(reader) in ("activated", "assigned")


def test_the_duty_tells_what_it_did(grid: Grid) -> None:
    finished(grid)
    grid.watch(FOUR_DAYS)
    table = schema.duties
    statement = sa.select(table.c.last_result).where(table.c.name == "archive")
    assert grid.buffer.read(lambda c: c.execute(statement).scalar_one()) == "1 done"
