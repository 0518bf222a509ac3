"""The calls of pilots, field by field, as existing pilots send and read them. On both databases."""

from __future__ import annotations

import gzip
import json
import uuid
from typing import Any

import pytest
from factories import Grid, analysis_job, production_job

FORM = "application/x-www-form-urlencoded"
JOB_FIELDS = """
    StatusCode PandaID jobName jobDefinitionID taskID attemptNr prodUserID prodSourceLabel processingType transformation
    jobPars inFiles scopeIn realDatasetsIn GUID fsize checksum ddmEndPointIn outFiles scopeOut realDatasets
    ddmEndPointOut destinationDblock logFile logGUID scopeLog coreCount minRamCount maxDiskCount maxCpuCount maxWalltime
    currentPriority swRelease homepackage cmtConfig jobToken heartbeatInterval leaseTime jobsetID prodDBlockToken
    dispatchDblock prodDBlocks destinationDBlockToken destinationSE fileDestinationSE transferType sourceSite cloud
    nSent
""".split()
OF_INPUTS = ["inFiles", "scopeIn", "realDatasetsIn", "GUID", "fsize", "checksum", "ddmEndPointIn", "prodDBlockToken"]
OF_OUTPUTS = ["outFiles", "realDatasets", "ddmEndPointOut", "destinationDBlockToken", "fileDestinationSE"]
ASK = {  # as pilot 3 asks
    "siteName": "BNL",
    "computingElement": "BNL",
    "prodSourceLabel": "user",
    "diskSpace": 14336,
    "workingGroup": "",
    "cpu": 2596.136,
    "mem": 24105.55,
    "node": "wn1",
    "allowOtherCountry": False,
}


@pytest.fixture
def job(grid: Grid) -> dict[str, Any]:
    """A job with two inputs, two outputs and a log, as a pilot gets it."""
    grid.register("mc.test.evnt", "BNL_DISK", "in1.root", "in2.root")
    told = analysis_job("in1.root", "in2.root", computingSite="BNL", jobName="name", jobParameters="-x 1", maxAttempt=1)
    told["Files"].append({"type": "output", "lfn": "second.json", "dataset": "group.higgs.other"})
    grid.submit(told)
    grid.work()
    return dict(grid.client("pilot").post("/server/panda/getJob", json=ASK).json)


def send(grid: Grid, call: str, told: dict[str, Any], way: str) -> dict[str, Any]:
    """Send as pilots do: gzip without saying so, JSON, or a form with every value a string."""
    body = json.dumps(told).encode()
    options: dict[str, Any] = {
        "gzip": {"data": gzip.compress(body), "content_type": "application/json"},
        "json": {"data": body, "content_type": "application/json"},
        "form": {"data": {name: str(value) for name, value in told.items()}, "content_type": FORM},
        "v1": {"data": gzip.compress(body), "headers": {"Content-Encoding": "gzip"}},
    }[way]
    path = {"getJob": "acquire_jobs", "updateJob": "update_job"}[call]
    answer = grid.client("pilot").post(f"/api/v1/pilot/{path}" if way == "v1" else f"/server/panda/{call}", **options)
    assert answer.status_code == 200 and answer.mimetype == "application/json"
    return dict(answer.json["data"] if way == "v1" else answer.json)


def test_a_job_has_every_field_of_the_contract(job: dict[str, Any]):
    assert set(JOB_FIELDS) <= set(job)
    assert all(isinstance(value, str | int | float) for value in job.values()), "pilots read plain values"
    assert not [name for name, value in job.items() if value is None]


def test_the_values_of_a_job(grid: Grid, job: dict[str, Any]):
    expected = {
        "StatusCode": 0,
        "PandaID": 1,
        "jobName": "name",
        "attemptNr": 1,
        "prodUserID": grid.pki.dn("alice"),
        "prodSourceLabel": "user",
        "transformation": "https://localhost/cache/read.py",
        "jobPars": "-x 1",
        "coreCount": 1,
        "inFiles": "in1.root,in2.root",
        "scopeIn": "mc,mc",
        "realDatasetsIn": "mc.test.evnt,mc.test.evnt",
        "ddmEndPointIn": "BNL_DISK,BNL_DISK",
        "outFiles": "hist.00001.json,second.json,job.00001.log.tgz",
        "scopeOut": "user.alice,group.higgs",
        "realDatasets": "user.alice.hist,group.higgs.other,user.alice.hist.log",
        "ddmEndPointOut": "BNL_DISK,BNL_DISK,BNL_DISK",
        "logFile": "job.00001.log.tgz",
        "scopeLog": "user.alice",
        "heartbeatInterval": 5,
        "leaseTime": 7200.0,
        "currentPriority": 1000,
        "swRelease": "NULL",
        "cmtConfig": "NULL",
    }
    assert {name: job[name] for name in expected} == expected
    assert job["fsize"] == "19,19" and all(c.startswith("ad:") and len(c) == 11 for c in job["checksum"].split(","))
    assert uuid.UUID(job["logGUID"]) and all(uuid.UUID(guid) for guid in job["GUID"].split(","))
    assert len(job["jobToken"]) >= 32


def test_lists_are_parallel(job: dict[str, Any]):
    assert {name: job[name].count(",") for name in OF_INPUTS} == dict.fromkeys(OF_INPUTS, 1)
    assert {name: job[name].count(",") for name in OF_OUTPUTS} == dict.fromkeys(OF_OUTPUTS, 2)
    assert job["scopeOut"].count(",") == 1, "the scope of the log stands in scopeLog"


def test_a_job_without_files_has_a_log_all_the_same(grid: Grid):
    grid.submit({"transformation": "t", "prodSourceLabel": "user", "computingSite": "BNL"})
    grid.work()
    job = grid.get_job("BNL")
    assert {name: job[name] for name in OF_INPUTS} == dict.fromkeys(OF_INPUTS, "")
    assert job["outFiles"] == job["logFile"] == "job.00001.log.tgz" and job["scopeOut"] == ""


@pytest.mark.parametrize("way", ["gzip", "json", "form", "v1"])
def test_a_whole_life_in_every_way_of_sending(grid: Grid, way: str):
    grid.submit(production_job(computingSite="BNL"))
    grid.work()
    job = send(grid, "getJob", ASK | {"prodSourceLabel": "managed", "requestId": "r1"}, way)
    assert job["StatusCode"] == 0 and job["PandaID"] == 1
    assert send(grid, "getJob", ASK | {"prodSourceLabel": "managed", "requestId": "r2"}, way)["StatusCode"] == 20
    say = {
        "jobId": str(job["PandaID"]),
        "timestamp": "2026-11-22T12:00:00+00:00",
        "siteName": "BNL",
        "node": "wn1",
        "attemptNr": job["attemptNr"],
        "schedulerID": "unknown",
        "pilotID": "unknown|PR|3.11.5.1",
        "xml": "",
        "startTime": 1790000000.25,
        "metaData": "",
        "coreCount": 1,
        "cpuConsumptionUnit": "s+CPU",
        "jobToken": job["jobToken"],
    }
    states = ["starting", "running", "running", "running"]
    for state in states:
        assert send(grid, "updateJob", say | {"state": state}, way) == {"StatusCode": 0, "command": "NULL"}
    assert grid.state(1) == "running"
    scopes = [*job["scopeOut"].split(","), job["scopeLog"]]
    stored = {lfn: grid.store("BNL_DISK", s, lfn) for s, lfn in zip(scopes, job["outFiles"].split(","), strict=True)}
    last = say | {
        "state": "finished",
        "xml": json.dumps(stored),
        "metaData": '{"exitCode": 0, "nEvents": 7}\n',
        "coreCount": 2,
        "meanCoreCount": 2.0,
        "pilotTiming": "0|0|20|0|0|0",
        "pilotLog": "",
        "endTime": 1790000020.25,
        "pilotErrorCode": 0,
        "pilotErrorDiag": "",
        "transExitCode": 0,
        "exeErrorCode": 0,
        "exeErrorDiag": "",
        "cpuConsumptionTime": 12,
        "maxRSS": 4711,
        "nEvents": 7,
        "jobMetrics": "a=1 b=2",
    }
    assert send(grid, "updateJob", last, way) == {"StatusCode": 0, "command": "NULL"}
    assert send(grid, "updateJob", last, way)["StatusCode"] == 0, "the last word may come twice"
    assert grid.state(1) == "holding"
    grid.work()
    described = grid.describe(1)
    expected = {
        "jobStatus": "finished",
        "attemptNr": 1,
        "modificationHost": "wn1",
        "pilotTiming": "0|0|20|0|0|0",
        "maxRSS": 4711,
        "transExitCode": "0",
        "cpuConsumptionTime": 12.0,
        "cpuConsumptionUnit": "s+CPU",
        "jobMetrics": "a=1 b=2",
        "metadata": '{"exitCode": 0, "nEvents": 7}\n',
        "pilotErrorCode": 0,
        "exeErrorCode": 0,
        "computingSite": "BNL",
    }
    assert {name: described[name] for name in expected} == expected
    assert str(described["nEvents"]) == "7" and str(described["actualCoreCount"]) == "2"
    for file in described["Files"]:
        facts = stored[file["lfn"]]
        assert (file["fsize"], file["checksum"]) == (facts["fsize"], f"ad:{facts['adler32']}")
        assert file["status"] == "ready"


def test_a_failed_job_tells_who_failed(grid: Grid, job: dict[str, Any]):
    errors = {"pilotErrorCode": -1152, "pilotErrorDiag": "p" * 600, "exeErrorCode": "65", "exeErrorDiag": "payload"}
    grid.run_job(job, outcome="failed", transExitCode=3, stdout="the end", pilotLog="the log", **errors)
    grid.work()
    described = grid.describe(1)
    assert (described["jobStatus"], described["transExitCode"]) == ("failed", "3")
    assert (described["pilotErrorCode"], described["pilotErrorDiag"]) == (-1152, "p" * 500)
    assert (described["exeErrorCode"], described["exeErrorDiag"]) == (65, "payload")
    assert described["supErrorCode"] == 0
    assert [f["status"] for f in described["Files"] if f["type"] == "log"] == ["ready"]


def test_a_repeated_question_gets_the_same_job(grid: Grid):
    grid.submit(production_job(1, computingSite="BNL"), production_job(2, computingSite="BNL"))
    grid.work()
    first = grid.get_job("BNL", requestId="one")
    assert grid.get_job("BNL", requestId="one") == first
    assert grid.get_job("BNL", requestId="two")["PandaID"] != first["PandaID"]
    assert grid.get_job("BNL", requestId="three")["StatusCode"] == 20


def test_an_old_pilot_without_a_token_is_believed_by_its_attempt(grid: Grid, job: dict[str, Any]):
    assert grid.update(job, "running", jobToken=None) == {"StatusCode": 0, "command": "NULL"}
    assert grid.update(job, "running", jobToken=None, attemptNr=2)["command"] == "tobekilled"


@pytest.mark.parametrize(
    ("label", "got"), [("managed", True), ("any", True), ("", True), ("NULL", True), ("user", False), ("test", False)]
)
def test_pilots_get_jobs_of_their_kind(grid: Grid, label: str, got: bool):
    grid.submit(production_job(computingSite="BNL"))
    grid.work()
    assert (grid.get_job("BNL", prodSourceLabel=label)["StatusCode"] == 0) is got


@pytest.mark.parametrize(
    ("said", "got"),
    [
        ({"mem": 1999.9}, False),
        ({"mem": "2000"}, True),
        ({"mem": 0}, True),
        ({"diskSpace": 99}, False),
        ({"diskSpace": "100"}, True),
        ({"remainingTime": 59}, False),
        ({"remainingTime": 60.5}, True),
        ({"mem": None, "diskSpace": "", "remainingTime": "NULL"}, True),
    ],
    ids=str,
)
def test_pilots_get_jobs_that_fit(grid: Grid, said: dict[str, Any], got: bool):
    grid.submit(production_job(computingSite="BNL", minRamCount=2000, maxDiskCount=100, maxWalltime=60))
    grid.work()
    assert (grid.get_job("BNL", **said)["StatusCode"] == 0) is got


def test_a_pilot_log_with_anything_in_it_is_kept(grid: Grid, job: dict[str, Any]):
    hostile = "\x00\x1b[31m\ud800𝄞<script>" * 500
    grid.update(job, "running", stdout=hostile, pilotLog=hostile, metaData=hostile, node=hostile)
    grid.update(job, "failed", pilotErrorCode=1, pilotErrorDiag=hostile, xml="{}", jobMetrics=hostile)
    assert grid.state(1) == "holding"
