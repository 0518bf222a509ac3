"""Users' calls as their contracts say: submission in every form, descriptions, killing, reasons. On both databases."""

from __future__ import annotations

import gzip
import json
import re
from typing import Any

import pytest
from factories import Grid, analysis_job, production_job

from pandaserver.web.attributes import FILE_ATTRIBUTES, JOB_ATTRIBUTES

NOT_DESCRIBED = {"prodDBlockToken", "dispatchDBlockToken", "destinationDBlockToken", "md5sum"}
SERVER_ONLY = {"jediTaskID", "datasetID", "fileID", "attemptNr"}


def as_list(job: dict[str, Any], length: int) -> list[Any]:
    """Serialise a job as real clients do: values by position, NULL where unset, the list of files last."""
    files = [[f.get(name, "NULL") for name in FILE_ATTRIBUTES[:18]] + [None] for f in job["Files"]]
    return [job.get(name, "NULL") for name in JOB_ATTRIBUTES[:length]] + [files]


def stored(grid: Grid, job_id: int) -> dict[str, Any]:
    """What the server knows of a job, without what differs between two equal submissions."""
    told = json.loads(json.dumps(grid.describe(job_id)).replace(f"{job_id:05d}", "ID"))
    own = {
        "PandaID",
        "jobDefinitionID",
        "jobsetID",
        "creationTime",
        "modificationTime",
        "stateChangeTime",
        "currentPriority",
    }
    files = [{n: v for n, v in f.items() if n not in ("row_ID", "PandaID")} for f in told.pop("Files")]
    return {name: value for name, value in told.items() if name not in own} | {"Files": files}


def test_a_job_is_the_same_in_whatever_form_it_came(grid: Grid):
    job = analysis_job("in.root", computingSite="BNL", assignedPriority=7, jobParameters="--x 'λ'", maxAttempt=3)
    forms: list[dict[str, Any]] = [
        {"json": {"jobs": [job]}},
        {"json": {"jobs": json.dumps([job])}},
        {"json": {"jobs": [as_list(job, 73)]}},
        {"json": {"jobs": json.dumps([as_list(job, 126)])}},
        {"data": {"jobs": json.dumps([job])}},
        {"data": {"jobs": json.dumps([as_list(job, 126)]), "clientKey": "k"}},
        {"data": gzip.compress(json.dumps({"jobs": [job]}).encode()), "content_type": "application/json"},
        {"data": gzip.compress(json.dumps({"jobs": [job]}).encode()), "headers": {"Content-Encoding": "gzip"}},
        {"data": json.dumps({"jobs": [job]}), "content_type": "application/x-www-form-urlencoded"},
        {"data": {"jobs": json.dumps([job])}, "content_type": "multipart/form-data"},
    ]
    ids = []
    for form in forms:
        answer = grid.client("alice").post("/server/panda/submitJobs", **form)
        assert answer.status_code == 200, (form, answer.text)
        ((job_id, definition, jobset),) = answer.json
        assert definition > 0 and "jobsetID" in jobset
        ids.append(job_id)
    first = stored(grid, ids[0])
    assert first["maxAttempt"] == 3 and first["jobParameters"] == "--x 'λ'" and first["prodUserName"] == "Alice Adams"
    assert all(stored(grid, i) == first for i in ids)
    assert len(set(ids)) == len(forms)


def test_a_form_may_be_as_large_as_json(grid: Grid):
    job = production_job(jobParameters="x" * 900_000)
    answer = grid.client("alice").post("/server/panda/submitJobs", data={"jobs": json.dumps([job, job])})
    assert answer.status_code == 200 and len(answer.json) == 2


def test_both_dialects_answer_the_same(grid: Grid):
    old = grid.call("alice", "submitJobs", jobs=[production_job(), production_job(2)])
    new = grid.client("alice").post("/api/v1/job/submit", json={"jobs": json.dumps([production_job()])}).json
    assert new["success"] is True and "error" not in new
    assert [entry[0] for entry in old] == [1, 2] and new["data"][0][0] == 3
    assert len({entry[1] for entry in old}) == 1, "the jobs of a submission share a definition"
    assert new["data"][0][1] == old[0][1] + 1
    assert all(entry[2]["jobsetID"] == entry[1] for entry in [*old, *new["data"]])


def test_numbers_that_a_client_gives_are_kept(grid: Grid):
    (entry,) = grid.call("alice", "submitJobs", jobs=[production_job(jobDefinitionID="77", jobsetID=78)])
    assert (entry[1], entry[2]["jobsetID"]) == (77, 78)


def test_five_thousand_jobs_are_accepted(grid: Grid):
    entries = grid.call("alice", "submitJobs", jobs=[{"transformation": "t"}] * 5000)
    assert [entry[0] for entry in entries] == list(range(1, 5001))
    ids = ",".join(str(n) for n in range(1, 5001))
    assert len(grid.client(None).post("/server/panda/getJobStatus", data={"ids": ids}).json) == 5000


def test_a_description_has_every_attribute(grid: Grid):
    (job_id,) = grid.submit(analysis_job("in.root"))
    described = grid.describe(job_id)
    assert set(described) == {*JOB_ATTRIBUTES, "Files"}
    assert list(described)[: len(JOB_ATTRIBUTES)] == list(JOB_ATTRIBUTES)
    for file in described["Files"]:
        assert set(file) == {*FILE_ATTRIBUTES} - NOT_DESCRIBED - SERVER_ONLY
    expected = {
        "PandaID": job_id, "jobStatus": "defined", "prodUserID": grid.pki.dn("alice"), "attemptNr": 0, "VO": "testvo",
        "prodSourceLabel": "user", "prodDBlock": "mc.test.evnt", "destinationDBlock": "user.alice.hist", "coreCount": 1,
        "commandToPilot": None, "computingSite": None, "relocationFlag": 0, "transExitCode": None, "metadata": None,
    }  # fmt: skip
    assert expected.items() <= described.items()
    assert {n for n in JOB_ATTRIBUTES if n.endswith("ErrorCode") and described[n] == 0} == {
        f"{family}ErrorCode" for family in ("pilot", "exe", "sup", "ddm", "brokerage", "jobDispatcher", "taskBuffer")
    }


def test_every_job_gets_a_log_and_its_number_in_names(grid: Grid):
    (job_id,) = grid.submit(production_job(jobParameters="-o evnt.$PANDAID.root"))
    described = grid.describe(job_id)
    assert described["jobParameters"] == "-o evnt.00001.root"
    assert [(f["type"], f["lfn"]) for f in described["Files"]] == [
        ("output", "evnt.00001._00001.root"),
        ("log", "job.00001.log.tgz"),
    ]


@pytest.mark.parametrize("call", ["getJobStatus", "getFullJobStatus"])
def test_jobs_are_described_in_the_order_asked_in_every_form(grid: Grid, call: str):
    grid.submit(*[production_job(n) for n in range(1, 4)])
    wanted = [3, 1, None, 1]
    ids = [3, 1, 99, 1]
    client, path = grid.client(None), f"/server/panda/{call}"
    answers = [
        client.post(path, json={"job_ids": ids}),
        client.post(path, json={"ids": [str(i) for i in ids]}),
        client.post(path, data={"ids": json.dumps(ids)}),
        client.post(path, data={"ids": "3,1,99,1"}),
        client.get(f"{path}?ids=3,1,99,1"),
        client.get(f"{path}?job_ids=3&job_ids=1&job_ids=99&job_ids=1"),
        client.post(path, data=gzip.compress(json.dumps({"ids": ids}).encode())),
    ]
    for answer in answers:
        assert answer.status_code == 200
        assert [job and job["PandaID"] for job in answer.json] == wanted


def test_a_user_kills_their_jobs_and_an_operator_everybodys(grid: Grid):
    mine = grid.submit(production_job(), production_job(2))
    theirs = grid.submit(analysis_job("a"), who="bob")
    assert grid.call("alice", "killJobs", ids=[*mine[:1], 99]) == [True, False]
    assert [grid.state(i) for i in mine] == ["cancelled", "defined"]
    answer = grid.client("prodman").post("/api/v1/job/kill", json={"job_ids": [*mine, *theirs]})
    assert answer.json == {"success": True, "message": "", "data": [False, True, True]}
    assert grid.describe(theirs[0])["taskBufferErrorDiag"] == f"killed by {grid.pki.dn('prodman')}"


def test_a_kill_may_come_with_what_clients_add(grid: Grid):
    told = {"job_ids": [1], "code": "4", "use_email_as_id": False, "kill_options": ["keepUnmerged"]}
    assert grid.client("alice").post("/api/v1/job/kill", json=told).json["data"] == [False]
    told = {"ids": "1", "code": "None", "useMailAsID": "False", "killOpts": "None"}
    assert grid.client("alice").post("/server/panda/killJobs", data=told).json == [False]


def test_a_running_job_is_killed_by_its_pilot(grid: Grid):
    (job_id,) = grid.submit(production_job(computingSite="BNL"))
    grid.work()
    job = grid.get_job("BNL")
    assert grid.call("alice", "killJobs", ids=[job_id]) == [True]
    assert grid.describe(job_id)["commandToPilot"] == "tobekilled"
    assert grid.update(job, "running") == {"StatusCode": 0, "command": "tobekilled"}
    grid.run_job(job, outcome="failed", pilotErrorCode=1144, pilotErrorDiag="killed")
    grid.work()
    assert grid.describe(job_id)["pilotErrorCode"] == 1144
    assert grid.call("alice", "killJobs", ids=[job_id]) == [False]


def test_reasons_name_every_site(grid: Grid):
    (job_id,) = grid.submit(production_job(computingSite="UTA"))
    assert grid.call(None, "getBrokerageReasons", job_id=job_id) == []
    grid.work()
    reasons = grid.client(None).get(f"/api/v1/job/get_reasons?job_id={job_id}").json["data"]
    assert {r["site"]: r["verdict"] for r in reasons} == {"UTA": "chosen", "BNL": "rejected"}
    for reason in reasons:
        assert set(reason) >= {"site", "verdict", "reason", "weight", "time"} and reason["reason"]
        assert (reason["criterion"] == "asked for") == (reason["site"] == "BNL")
        assert set(reason["time"]) == {"__datetime__"}
    told = grid.call(None, "getBrokerageReasons", job_id=str(job_id))
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", r["time"]) for r in told)
