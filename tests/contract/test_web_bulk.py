"""Several jobs and many updates in one request, through the web, on both databases."""

from __future__ import annotations

import json
from typing import Any

import pytest
from factories import Grid, production_job

from pandaserver.model.timeouts import TIMEOUTS


@pytest.fixture
def ids(grid: Grid) -> list[int]:
    """Six activated jobs at BNL."""
    made = grid.submit(*(production_job(n, computingSite="BNL") for n in range(6)))
    grid.work()
    return made


def get_jobs(grid: Grid, number: int, **told: Any) -> list[dict[str, Any]]:
    return list(grid.call("pilot", "getJob", siteName="BNL", nJobs=number, **told)["jobs"])


def word(job: dict[str, Any], state: str = "running", **more: Any) -> dict[str, Any]:
    known = {"jobId": job["PandaID"], "attemptNr": job["attemptNr"], "jobToken": job["jobToken"]}
    return known | {"state": state} | more


def test_several_jobs_come_in_their_order_each_complete(grid: Grid, ids: list[int]):
    jobs = get_jobs(grid, 4)
    assert [job["PandaID"] for job in jobs] == ids[:4]
    assert {job["StatusCode"] for job in jobs} == {0} and len({job["jobToken"] for job in jobs}) == 4
    assert [grid.state(job_id) for job_id in ids] == ["sent"] * 4 + ["activated"] * 2


def test_fewer_jobs_than_asked_for_are_all_there_are(grid: Grid, ids: list[int]):
    assert [job["PandaID"] for job in get_jobs(grid, 100)] == ids
    assert grid.get_job("BNL", nJobs=100)["StatusCode"] == 20


@pytest.mark.parametrize("told", [{}, {"nJobs": 1}, {"n_jobs": "1"}])
def test_one_job_is_answered_as_ever(grid: Grid, ids: list[int], told: dict[str, Any]):
    assert grid.get_job("BNL", **told)["PandaID"] == ids[0]


def test_the_newer_dialect_and_its_name_for_it(grid: Grid, ids: list[int]):
    told = {"siteName": "BNL", "n_jobs": 2}
    answer = grid.client("pilot").post("/api/v1/pilot/acquire_jobs", json=told).json
    assert answer["success"] and [job["PandaID"] for job in answer["data"]["jobs"]] == ids[:2]


@pytest.mark.parametrize("number", [0, 101, "many"])
def test_other_numbers_are_refused(grid: Grid, ids: list[int], number: Any):
    answer = grid.client("pilot").post("/server/panda/getJob", json={"siteName": "BNL", "nJobs": number})
    assert answer.status_code == 400 and answer.json["field"] == "nJobs"
    assert {grid.state(job_id) for job_id in ids} == {"activated"}


def test_a_repeated_request_gets_the_same_jobs(grid: Grid, ids: list[int]):
    first = get_jobs(grid, 3, requestId="r1")
    assert get_jobs(grid, 3, requestId="r1") == first
    assert grid.get_job("BNL", requestId="r1") == first[0], "also where fewer are asked for"
    assert [job["PandaID"] for job in get_jobs(grid, 3, requestId="r2")] == ids[3:]


def test_words_in_one_request_are_answered_in_their_order(grid: Grid, ids: list[int]):
    jobs = get_jobs(grid, 4)
    grid.call("alice", "killJobs", ids=[ids[2]])
    answers = grid.call("pilot", "updateJobsInBulk", jobList=[word(job) for job in jobs])
    assert [(a["StatusCode"], a["command"]) for a in answers] == [
        (0, "NULL"), (0, "NULL"), (0, "tobekilled"), (0, "NULL"),
    ]  # fmt: skip
    assert {grid.state(job_id) for job_id in ids[:4]} == {"running"}


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize("name", ["jobList", "job_list"])
def test_the_list_may_be_text(grid: Grid, ids: list[int], name: str, as_text: bool):
    words = [word(job) for job in get_jobs(grid, 2)]
    told = {name: json.dumps(words) if as_text else words}
    answer = grid.client("pilot").post("/api/v1/pilot/update_jobs_bulk", json=told).json
    assert answer["success"] and answer["data"] == [{"StatusCode": 0, "command": "NULL"}] * 2


def test_bad_words_do_no_harm_to_the_good_ones(grid: Grid, ids: list[int]):
    jobs = get_jobs(grid, 6)
    words = [word(job) for job in jobs]
    words[1] |= {"jobToken": "another"}
    words[2] |= {"state": "dancing"}
    words[3] |= {"jobId": 4711}
    words[4] |= {"attemptNr": 7}
    answers = grid.call("pilot", "updateJobsInBulk", jobList=[*words, "nonsense", None])
    codes = [answer["StatusCode"] for answer in answers]
    assert codes == [0, 30, 30, 30, 30, 0, 30, 30]
    assert [answers[n].get("command") for n in (1, 3, 4)] == ["tobekilled"] * 3
    assert (answers[2]["field"], answers[2]["value"]) == ("state", "dancing")
    assert answers[6]["field"] == "jobList"
    states = [grid.state(job_id) for job_id in ids]
    assert states == ["running", "sent", "sent", "sent", "sent", "running"]


def test_the_same_answers_as_one_by_one(grid: Grid, ids: list[int]):
    first, second = get_jobs(grid, 2)
    mistakes = [word(first, jobToken="x"), word(second, jobId=4711), word(second, state="?")]
    singly = [grid.client("pilot").post("/server/panda/updateJob", json=mistake).json for mistake in mistakes]
    together = grid.call("pilot", "updateJobsInBulk", jobList=mistakes)
    for one in (*singly, *together):
        one.pop("requestId", None)
    assert together == singly


def test_a_whole_life_in_bulk_repeated_at_each_step(grid: Grid, ids: list[int]):
    jobs = get_jobs(grid, 6)
    finals = []
    for job in jobs:
        scopes = [*filter(None, job["scopeOut"].split(",")), job["scopeLog"]]
        stored = {f: grid.store("BNL_DISK", s, f) for s, f in zip(scopes, job["outFiles"].split(","), strict=True)}
        finals.append(word(job, "finished", xml=json.dumps(stored), pilotTiming="1|2|3|4|5"))
    for words in ([word(job, "starting") for job in jobs], [word(job) for job in jobs], finals):
        for _ in range(2):
            answers = grid.call("pilot", "updateJobsInBulk", jobList=words)
            assert {answer["StatusCode"] for answer in answers} == {0}
    grid.work()
    assert {grid.state(job_id) for job_id in ids} == {"finished"}


def test_several_words_about_one_job_count_in_their_order(grid: Grid, ids: list[int]):
    (job, _) = get_jobs(grid, 2)
    words = [word(job, "starting"), word(job, "running"), word(job, "failed", pilotErrorCode=1212)]
    answers = grid.call("pilot", "updateJobsInBulk", jobList=words)
    assert [answer["StatusCode"] for answer in answers] == [0, 0, 0]
    assert grid.history(job["PandaID"])[-4:] == ["sent", "starting", "running", "holding"]


def test_no_words_have_no_answers(grid: Grid):
    assert grid.call("pilot", "updateJobsInBulk", jobList=[]) == []


@pytest.mark.parametrize("told", [{}, {"jobList": {"jobId": 1}}, {"jobList": "[{"}, {"jobList": [{}] * 1001}])
def test_what_is_no_list_of_words_is_refused_as_a_whole(grid: Grid, told: dict[str, Any]):
    answer = grid.client("pilot").post("/server/panda/updateJobsInBulk", json=told)
    assert answer.status_code == 400 and answer.json["field"] == "jobList"


@pytest.mark.parametrize(("who", "status"), [(None, 401), ("alice", 403)])
def test_only_pilots_may(grid: Grid, who: str | None, status: int):
    assert grid.client(who).post("/server/panda/updateJobsInBulk", json={"jobList": []}).status_code == status


def test_anyone_sees_the_timeouts_in_force(grid: Grid):
    told = grid.call(None, "getTimeouts")
    assert [(rule["state"], rule["subject"], rule["after_s"]) for rule in told] == [
        (rule.state, rule.subject, rule.after_s) for rule in grid.server.installation.timeouts
    ]
    assert len(told) == len(TIMEOUTS)
    (running,) = [rule for rule in told if rule["state"] == "running"]
    assert running["heartbeat"] is True and running["family"] == "jobDispatcher" and running["code"] > 0
    v1 = grid.client(None).get("/api/v1/system/get_timeouts").json
    assert v1["data"] == told
