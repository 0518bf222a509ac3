"""Every declared call, in both dialects: where it is, how it is called, who may call it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import Grid, Pki, make_grid, production_job
from unchanged import unchanged

from pandaserver.web.application import CALLS
from pandaserver.web.calls import Call
from pandaserver.web.roles import Role

CONTRACT = {  # what is promised: v1 path, legacy method, who, writes
    ("system/is_alive", "isAlive", "anyone", False),
    ("system/get_attributes", "getAttr", "anyone", False),
    ("system/get_roles", "getRoles", "anyone", False),
    ("system/get_timeouts", "getTimeouts", "anyone", False),
    ("job/submit", "submitJobs", "user", True),
    ("job/get_description", "getJobStatus", "anyone", False),
    ("job/get_description_incl_archive", "getFullJobStatus", "anyone", False),
    ("job/kill", "killJobs", "user", True),
    ("job/get_reasons", "getBrokerageReasons", "anyone", False),
    ("job/get_retries", "getRetries", "anyone", False),
    ("job/why", "whyJob", "anyone", False),
    ("job/check", "checkJobs", "user", False),
    ("system/get_retry_rules", "getRetryRules", "anyone", False),
    ("share/list", "getShares", "anyone", False),
    ("pilot/acquire_jobs", "getJob", "pilot", True),
    ("pilot/update_job", "updateJob", "pilot", True),
    ("pilot/update_jobs_bulk", "updateJobsInBulk", "pilot", True),
    ("statistics/job_stats_by_site", "getJobStatisticsPerSite", "anyone", False),
    ("queue/list", "getSiteSpecs", "anyone", False),
    ("queue/get", "getSiteSpec", "anyone", False),
    ("file_server/upload_cache_file", "putFile", "user", True),
    ("data/list_files", "queryFilesInDataset", "anyone", False),
    ("data/get_dataset", "queryDataset", "anyone", False),
    ("data/dataset_completed", "datasetCompleted", "ddm", True),
    ("data/ddm_messages", "ddmMessages", "ddm", True),
    ("queue/history", "getQueueHistory", "anyone", False),
    ("queue/set_status", "setQueueStatus", "operator", True),
    ("queue/clear_status", "clearQueueStatus", "operator", True),
    ("creds/set_user_secrets", "set_user_secrets", "user", True),
    ("creds/get_user_secrets", "get_user_secrets", "user", False),
    ("creds/get_job_secrets", "get_job_secrets", "pilot", True),
}
PROMISED_AND_NOT_THERE = {"file_server/validate_cache_file"}
WRONG_ROLES = {
    Role.USER: (),
    Role.PILOT: ("alice", "prodman", "ddm"),
    Role.DDM: ("alice", "prodman", "pilot"),
    Role.OPERATOR: ("alice", "pilot", "ddm"),
}
NEEDS: dict[str, dict[str, Any]] = {
    "job/submit": {"jobs": [production_job()]},
    "job/get_description": {"job_ids": [1]},
    "job/get_description_incl_archive": {"job_ids": [1]},
    "job/kill": {"job_ids": [1]},
    "job/get_reasons": {"job_id": 1},
    "job/get_retries": {"job_id": 1},
    "job/why": {"job_id": 1},
    "job/check": {"jobs": [production_job()]},
    "pilot/acquire_jobs": {"siteName": "BNL"},
    "queue/get": {"queue": "BNL"},
    "share/list": {"queue": "BNL"},
    "pilot/update_job": {"jobId": 1, "state": "running", "attemptNr": 0},
    "queue/history": {"queue": "BNL"},
    "queue/set_status": {"queue": "BNL", "status": "offline", "reason": "disks are full"},
    "queue/clear_status": {"queue": "BNL"},
    "creds/set_user_secrets": {"key": "name", "value": "x"},
    "creds/get_job_secrets": {"jobId": 1, "jobToken": "x"},
    "data/list_files": {"dataset": "mc.test.evnt"},
    "data/get_dataset": {"dataset": "mc.test.evnt"},
    "data/dataset_completed": {"dataset": "mc.test.evnt"},
}
every_call = pytest.mark.parametrize("call", CALLS, ids=lambda call: call.legacy)
guarded_call = pytest.mark.parametrize("call", [c for c in CALLS if c.role is not Role.ANYONE], ids=lambda c: c.legacy)


@pytest.fixture
def prepared_url(sqlite_pattern: Path, tmp_path: Path) -> str:
    """The doors do not depend on the database: SQLite is enough here."""
    shutil.copyfile(sqlite_pattern, tmp_path / "panda.db")
    return f"sqlite:///{tmp_path / 'panda.db'}"


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory, pki: Pki, sqlite_pattern: Path) -> Iterator[Grid]:
    """One server for the tests that only try its doors."""
    root = tmp_path_factory.mktemp("door")
    shutil.copyfile(sqlite_pattern, root / "panda.db")
    grid = make_grid(root / "grid", pki, f"sqlite:///{root / 'panda.db'}")
    yield grid
    grid.close()


def who_may(call: Call) -> str | None:
    usual = {Role.USER: "alice", Role.PILOT: "pilot", Role.DDM: "ddm", Role.OPERATOR: "prodman"}
    return usual.get(call.role)


def paths(call: Call) -> tuple[str, str]:
    return f"/server/panda/{call.legacy}", f"/api/v1/{call.path}"


def refused(answer: Any) -> tuple[int, str]:
    """The status of a refusal and its text, in whichever dialect."""
    told = answer.json
    if "success" in told:
        assert told["success"] is False and told["data"] is None and answer.status_code == 200
        return told["error"]["status"], told["message"]
    assert told["message"] == told["errorDialog"] and told["StatusCode"] != 0
    return answer.status_code, told["message"]


def test_the_calls_are_those_of_the_contract():
    assert {(c.path, c.legacy, c.role.value, c.writes) for c in CALLS} == CONTRACT


def test_no_two_calls_share_a_place():
    for places in ([c.path for c in CALLS], [c.legacy for c in CALLS]):
        assert len(set(places)) == len(places)


@every_call
def test_a_call_is_there_in_both_dialects(door: Grid, call: Call):
    for path in paths(call):
        answer = door.client(who_may(call)).post(path, json=NEEDS.get(call.path, {}))
        assert answer.status_code != 405 and answer.status_code < 500
        assert "requested URL was not found" not in answer.text
        if path.startswith("/api/"):
            assert answer.status_code == 200
            assert set(answer.json) - {"error"} == {"success", "message", "data"}
            assert isinstance(answer.json["success"], bool) and isinstance(answer.json["message"], str)


@every_call
def test_only_calls_that_change_nothing_can_be_had_by_get(door: Grid, call: Call):
    for path in paths(call):
        answer = door.client(who_may(call)).get(path, query_string=NEEDS.get(call.path, {}))
        assert (answer.status_code == 405) is call.writes, path
        if call.writes:
            assert (
                "POST" in answer.headers["Allow"] and answer.is_json and "method not allowed" in answer.json["message"]
            )


@every_call
@pytest.mark.parametrize("method", ["put", "delete", "patch"])
def test_other_methods_are_refused(door: Grid, call: Call, method: str):
    for path in paths(call):
        answer = getattr(door.client(who_may(call)), method)(path)
        assert answer.status_code == 405 and answer.is_json


@guarded_call
def test_a_guarded_call_needs_a_certificate(door: Grid, call: Call):
    with unchanged(door):
        for path in paths(call):
            status, text = refused(door.client(None).post(path, json=NEEDS.get(call.path, {})))
            assert status == 401 and "certificate" in text and "curl" in text


@guarded_call
def test_a_guarded_call_needs_the_role(door: Grid, call: Call):
    with unchanged(door):
        for who in WRONG_ROLES[call.role]:
            for path in paths(call):
                status, text = refused(door.client(who).post(path, json=NEEDS.get(call.path, {})))
                assert status == 403 and door.pki.dn(who) in text and call.role.value in text


def test_the_status_codes_of_the_old_dialect(grid: Grid):
    assert grid.client(None).post("/server/panda/killJobs", json={"ids": [1]}).json["StatusCode"] == 40
    assert grid.client("alice").post("/server/panda/getJob", json={"siteName": "BNL"}).json["StatusCode"] == 70
    assert grid.client("alice").post("/server/panda/killJobs", json={"ids": "x"}).json["StatusCode"] == 30


@every_call
def test_unknown_parameters_are_named(door: Grid, call: Call):
    if call.raw:
        return  # pilots say more than the server uses
    with unchanged(door):
        for path in paths(call):
            told = NEEDS.get(call.path, {}) | {"bogus": "very wrong"}
            answer = door.client(who_may(call)).post(path, json=told)
            status, text = refused(answer)
            assert status == 400 and "bogus" in text
            culprit = answer.json.get("error", answer.json)
            assert (culprit["field"], culprit["value"]) == ("bogus", "very wrong")


@every_call
def test_missing_parameters_are_named(door: Grid, call: Call):
    for param in (p for p in call.params if p.required):
        told = {name: value for name, value in NEEDS[call.path].items() if name != param.name}
        for path in paths(call):
            answer = door.client(who_may(call)).post(path, json=told)
            status, text = refused(answer)
            assert status == 400 and f"{param.name} is missing" in text
            assert answer.json.get("error", answer.json)["field"] == param.name


def test_pilots_may_say_more_than_the_server_uses(grid: Grid):
    assert (
        grid.get_job("BNL", cpu=2596.136, allowOtherCountry=False, workingGroup="", unheard=["of"])["StatusCode"] == 20
    )


@pytest.mark.parametrize("path", ["/server/panda/noSuchCall", "/api/v1/job/no_such", "/api/v1/nothing", "/", "/server"])
def test_unknown_methods_are_404_and_json(door: Grid, path: str):
    for method in ("get", "post"):
        answer = getattr(door.client("alice"), method)(path)
        assert answer.status_code == 404 and answer.is_json and "not found" in answer.json["message"]
        assert ("success" in answer.json) is path.startswith("/api/v1")


@pytest.mark.parametrize("method", ["get", "post"])
def test_is_alive(grid: Grid, method: str):
    answer = getattr(grid.client(None), method)("/server/panda/isAlive")
    assert (answer.text, answer.mimetype) == ("alive=yes", "text/plain")
    answer = getattr(grid.client(None), method)("/api/v1/system/is_alive")
    assert answer.json == {"success": True, "message": "", "data": "alive=yes"}


def test_every_answer_says_that_it_is_not_to_be_kept_or_guessed_at(grid: Grid):
    for path in ("/server/panda/isAlive", "/api/v1/queue/list", "/nothing", "/cache/nothing"):
        headers = grid.client(None).get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"


def test_times_are_marked_in_v1_and_text_in_the_old_dialect(grid: Grid):
    (job_id,) = grid.submit(production_job())
    (old,) = grid.client(None).get(f"/server/panda/getJobStatus?ids={job_id}").json
    (new,) = grid.client(None).get(f"/api/v1/job/get_description?job_ids={job_id}").json["data"]
    for name in ("creationTime", "modificationTime", "stateChangeTime"):
        assert re.fullmatch(r"2026-11-22 12:00:0\d", old[name])
        assert set(new[name]) == {"__datetime__"} and new[name]["__datetime__"].startswith("2026-11-22T12:00:0")
        assert "+" not in new[name]["__datetime__"], "clients take moments without zone"
    assert old["startTime"] is None and new["startTime"] is None


def test_get_attributes_tells_who_the_server_sees(grid: Grid):
    seen = grid.client("alice").get("/api/v1/system/get_attributes").json["data"]
    assert seen["identity"]["dn"] == grid.pki.dn("alice") and seen["identity"]["name"] == "Alice Adams"
    assert seen["identity"]["limited"] is False and seen["identity"]["proxyDepth"] == 1
    assert seen["parameters"] == {} and isinstance(seen["environment"], dict)
    assert grid.call(None, "getAttr")["identity"] == {}


def test_queue_information(grid: Grid):
    listed = grid.call(None, "getSiteSpecs")
    assert set(listed) == {"BNL", "UTA"}
    one = grid.call(None, "getSiteSpec", siteName="BNL")
    assert one == listed["BNL"]
    newer = grid.client(None).get("/api/v1/queue/get?queue=BNL").json["data"]
    since = newer["standing"].pop("since")["__datetime__"]
    assert one["standing"].pop("since") == since[:19].replace("T", " ") and one == newer
    assert one.items() >= grid.client(None).get("/cache/schedconfig/BNL.all.json").json.items()
    needed = {"nickname": "BNL", "panda_resource": "BNL", "atlas_site": "BNL", "state": "ACTIVE", "status": "online"}
    assert needed.items() <= one.items() and one["astorages"]["write_lan"] == ["BNL_DISK"] and one["maxwdir"] > 0


def test_unknown_queues_and_datasets_are_404(grid: Grid):
    for path in ("/server/panda/getSiteSpec?siteName=NOPE", "/cache/schedconfig/NOPE.all.json"):
        answer = grid.client(None).get(path)
        assert answer.status_code == 404 and answer.json["field"] == "queue" and answer.json["value"] == "NOPE"
        assert "BNL, UTA" in answer.json["message"]
    for call in ("queryDataset", "queryFilesInDataset"):
        answer = grid.client(None).get(f"/server/panda/{call}?dataset=no.such.dataset")
        assert (answer.status_code, answer.json["value"]) == (404, "no.such.dataset")


def test_storage_information(grid: Grid):
    told = grid.client(None).get("/cache/ddmendpoints.json").json
    assert set(told) == {"BNL_DISK", "UTA_DISK"}
    for way in ("read_lan", "read_wan", "write_lan", "write_wan"):
        (protocol,) = told["BNL_DISK"]["arprotocols"][way]
        assert (protocol["endpoint"], protocol["path"]) == ("file://localhost", f"{grid.root}/BNL_DISK")
    assert told["BNL_DISK"]["is_deterministic"] is True


def test_statistics_name_every_queue(grid: Grid):
    assert grid.call(None, "getJobStatisticsPerSite") == {"BNL": {}, "UTA": {}}
    grid.submit(production_job(computingSite="UTA"), production_job(2, computingSite="UTA"))
    grid.work()
    expected = {"BNL": {}, "UTA": {"activated": 2}}
    assert grid.call(None, "getJobStatisticsPerSite") == expected
    assert grid.client(None).get("/api/v1/statistics/job_stats_by_site").json["data"] == expected


def test_the_ddm_says_that_a_dataset_has_arrived(grid: Grid):
    grid.register("mc.test.evnt", "BNL_DISK", "a.root")
    job = {"transformation": "t", "computingSite": "UTA"}
    job["Files"] = [{"type": "input", "lfn": "a.root", "dataset": "mc.test.evnt"}]
    (job_id,) = grid.submit(job)
    grid.work()
    block = grid.describe(job_id)["dispatchDBlock"]
    for told in ({"dataset": block, "site": "UTA_DISK"}, {"vuid": block}):
        answer = grid.client("ddm").post("/server/panda/datasetCompleted", data=told)
        assert (answer.status_code, answer.text) == (200, "True")
    for name, status in (("no.such.dataset", 404), ("", 400)):
        answer = grid.client("ddm").post("/server/panda/datasetCompleted", json={"dataset": name})
        assert answer.status_code == status and answer.json["field"] == "dataset"


def test_answers_are_standard_json(grid: Grid):
    grid.submit(production_job(jobMetrics="λ " * 100, assignedPriority=5))
    text = grid.client(None).get("/server/panda/getJobStatus?ids=1").text

    def no_constant(name: str) -> None:
        raise AssertionError(name)

    (described,) = json.loads(text, parse_constant=no_constant)
    assert described["jobMetrics"] == "λ " * 100
