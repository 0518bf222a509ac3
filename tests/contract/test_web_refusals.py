"""Bad input at every door: the right status, the field and value named, and nothing changed. On both databases."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from factories import Grid, analysis_job, production_job
from unchanged import unchanged

SUBMIT = ("/server/panda/submitJobs", "/api/v1/job/submit")
UPDATE = ("/server/panda/updateJob", "/api/v1/pilot/update_job")
CLAIM = ("/server/panda/getJob", "/api/v1/pilot/acquire_jobs")
UNREADABLE = {
    "no JSON": (b'{"jobs": [', 400),
    "bytes": (bytes(range(256)) * 10, 400),
    "a list": (b'[{"transformation": "t"}]', 400),
    "a text": (b'"jobs"', 400),
    "latin-1": (b'{"jobs": "\xe9"}', 400),
    "a name twice": (b'{"jobs": [], "jobs": []}', 400),
    "NaN": (b'{"jobs": NaN}', 400),
    "deep": (b'{"jobs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
    "a pickle": (b"(lp0\nccopy_reg\n_reconstructor\np1\n.", 400),
    "cut gzip": (gzip.compress(b'{"jobs": []}')[:-6], 400),
    "a bomb": (gzip.compress(b" " * 25 * 1024 * 1024), 413),
    "21 MB": (b" " * (21 * 1024 * 1024), 413),
    "10 MB of garbage": (b"\x9f\x00{[\xff" * (2 * 1024 * 1024), 400),
}
PICKLE = "(lp0\nccopy_reg\n_reconstructor\np1\n(cpandaserver.taskbuffer.JobSpec\nJobSpec\np2\n."


def culprit(answer: Any) -> tuple[int, str | None, str | None]:
    """Status, field and value that an answer names, in either dialect; and it tells no internals."""
    told = answer.json
    assert told["message"] and "Traceback" not in answer.text and 'File \\"' not in answer.text
    if "success" not in told:
        assert told["StatusCode"] in (30, 40, 70) and told["errorDialog"] == told["message"]
        return answer.status_code, told["field"], told["value"]
    assert told["success"] is False and told["data"] is None
    assert answer.status_code in (200, told["error"]["status"])
    return told["error"]["status"], told["error"]["field"], told["error"]["value"]


def refused_jobs(grid: Grid, *jobs: Any, field: str, words: str = "", **told: Any) -> None:
    with unchanged(grid):
        for path in SUBMIT:
            answer = grid.client("alice").post(path, json={"jobs": list(jobs)} | told)
            assert culprit(answer)[:2] == (400, field), answer.text
            assert words in answer.json["message"]


BODIES_THAT_CANNOT_BE_READ = UNREADABLE


def test_bodies_that_cannot_be_read(grid: Grid, subtests: pytest.Subtests):
    for name in BODIES_THAT_CANNOT_BE_READ:
        with subtests.test(name=str(name)[:40]):
            body, status = UNREADABLE[name]
            with unchanged(grid):
                for who, paths in (("alice", SUBMIT), ("pilot", CLAIM), ("pilot", UPDATE)):
                    for path in paths:
                        answer = grid.client(who).post(path, data=body, content_type="application/json")
                        assert answer.status_code == status, "also in v1, whose clients take only 200 for an answer"
                        assert culprit(answer)[:2] == (status, "body")


def test_a_pickle_of_an_old_client_is_called_by_its_name(grid: Grid):
    with unchanged(grid):
        for call, field in (("submitJobs", "jobs"), ("killJobs", "ids"), ("getJobStatus", "ids")):
            answer = grid.client("alice").post(f"/server/panda/{call}", data={field: PICKLE})
            assert culprit(answer)[:2] == (400, field) and "pickle" in answer.json["message"]


JOBS_THAT_ARE_NO_LIST = ["", "text", '"[]"', '"text"', "5", "null", "{}", "[", "[]", 5, {}, [], None, True]


def test_jobs_that_are_no_list(grid: Grid, subtests: pytest.Subtests):
    for jobs in JOBS_THAT_ARE_NO_LIST:
        with subtests.test(jobs=str(jobs)[:40]), unchanged(grid):
            for path in SUBMIT:
                answer = grid.client("alice").post(path, json={"jobs": jobs})
                assert culprit(answer)[:2] == (400, "jobs"), answer.text


def test_too_many_jobs(grid: Grid):
    refused_jobs(grid, *[{"transformation": "t"}] * 5001, field="jobs", words="5001 jobs submitted, 1 to 5000")


def test_one_bad_job_refuses_all(grid: Grid):
    refused_jobs(
        grid, production_job(1), {"transformation": ""}, production_job(2), field="transformation", words="job 1"
    )
    refused_jobs(grid, production_job(1), {"transformation": "t", "grid": []}, field="grid", words="job 1")


def test_an_unknown_queue_is_named_with_those_that_are_there(grid: Grid):
    refused_jobs(grid, production_job(computingSite="CERN"), field="computingSite", words="known are BNL, UTA")


HOSTILE_FILE_NAMES = [
    "../etc/passwd", "/etc/passwd", "a/../b", "a/b", "..", ".", ".hidden", "-rf", "a..b", "a b", "a,b", "a;b", "a$b",
    "a\nb", "a\tb", "a\x1b[31mb", "a'b", 'a"b', "a\\b", "a%2fb", "naïve", "ﬁle", "日本", "a\u202eb", "a\u200bb", "",
    "x" * 256, "x" * 250 + "$PANDAID", "a\n", "$PANDAID/", "~", "*", "a?b", "<b>", "&",
]  # fmt: skip


def test_hostile_file_names(grid: Grid, subtests: pytest.Subtests):
    for lfn in HOSTILE_FILE_NAMES:
        with subtests.test(lfn=str(lfn)[:40]):
            dataset = {"type": "output", "dataset": "d"}
            refused_jobs(
                grid,
                {"transformation": "t", "Files": [dataset | {"lfn": lfn}]},
                field="lfn",
                words="lfn is no good name",
            )


HOSTILE_NAMES = ["../x", "/x", "a//b", "a b", "a..b", "x" * 181, "é", "a\nb", ".a", "a,b", "a/b"]


def test_hostile_names_of_datasets_and_scopes(grid: Grid, subtests: pytest.Subtests):
    for name in HOSTILE_NAMES:
        with subtests.test(name=str(name)[:40]):
            job = {"transformation": "t"}
            file = {"type": "output", "lfn": "o", "dataset": "d"}
            refused_jobs(grid, job | {"Files": [file | {"dataset": name, "scope": "s"}]}, field="dataset")
            refused_jobs(grid, job | {"Files": [file | {"scope": name}]}, field="scope")
            for field in ("prodDBlock", "destinationDBlock"):
                refused_jobs(grid, job | {field: name}, field=field)


HOSTILE_LABELS = ["a b", "../x", "a/b", "a,b", "é", "x" * 65, "a\n"]


def test_hostile_labels_which_are_in_the_names_of_datasets(grid: Grid, subtests: pytest.Subtests):
    for label in HOSTILE_LABELS:
        with subtests.test(label=str(label)[:40]):
            refused_jobs(grid, {"transformation": "t", "prodSourceLabel": label}, field="prodSourceLabel")


def test_a_dataset_from_which_no_scope_can_be_made(grid: Grid):
    refused_jobs(grid, {"transformation": "t", "destinationDBlock": "x" * 65}, field="scope", words="at most 64")


def test_a_file_twice(grid: Grid):
    output = {"type": "output", "lfn": "o.root", "dataset": "d"}
    for other in (output, output | {"type": "input"}, output | {"scope": "other"}, output | {"dataset": "e"}):
        job = {"transformation": "t", "Files": [output, other]}
        refused_jobs(grid, job, field="lfn", words="o.root is there twice")
    log = {"type": "log", "dataset": "d"}
    job = {"transformation": "t", "Files": [log | {"lfn": "a"}, log | {"lfn": "b"}]}
    refused_jobs(grid, job, field="Files", words="more than one log")


VALUES_THAT_NO_COLUMN_HOLDS = [
    ("jobName", "x" * 256), ("transformation", "x" * 1025), ("processingType", "x" * 65), ("VO", "x" * 65),
    ("workingGroup", "x" * 256), ("cloud", "x" * 65), ("AtlasRelease", "x" * 256), ("cmtConfig", "x" * 65),
    ("destinationSE", "x" * 65), ("computingSite", "x" * 65), ("jobParameters", "x" * 1_000_001), ("grid", "x" * 4001),
    ("coreCount", 2**31), ("minRamCount", -1), ("maxAttempt", 2**31), ("taskID", 2**63), ("jobsetID", -1),
    ("assignedPriority", 2**31 - 1), ("assignedPriority", -(2**31)), ("maxCpuCount", True), ("maxWalltime", 1.5),
    ("jobName", "\ud800"), ("jobName", "a\x00b"), ("jobMetrics", "\ud800"), ("jobMetrics", {"a": [1]}),
    ("hs06", 10**400), ("nEvents", [1]), ("jobStatsu", "x"), ("owner", "/CN=root"),
]  # fmt: skip


def test_values_that_no_column_holds(grid: Grid, subtests: pytest.Subtests):
    for field, value in VALUES_THAT_NO_COLUMN_HOLDS:
        with subtests.test(field=str(field)[:40], value=str(value)[:40]):
            refused_jobs(grid, {"transformation": "t"} | {field: value}, field=field)


def test_values_as_large_as_columns_hold_are_stored_and_come_back(grid: Grid):
    """SQLite would take anything; MariaDB in strict mode says where a limit is wrong."""
    texts = {
        "jobName": 255, "transformation": 1024, "processingType": 64, "VO": 64, "workingGroup": 255, "cloud": 64,
        "AtlasRelease": 255, "cmtConfig": 64, "destinationSE": 64, "jobParameters": 1_000_000, "grid": 4000,
    }  # fmt: skip
    job: dict[str, Any] = {name: "𝄞" * length for name, length in texts.items()}
    job |= {"prodSourceLabel": "x" * 64, "prodDBlock": "p" * 180, "destinationDBlock": "d." + "x" * 174}
    job |= dict.fromkeys(
        ["coreCount", "minRamCount", "maxDiskCount", "maxCpuCount", "maxWalltime", "maxAttempt"], 2**31 - 1
    )
    job |= dict.fromkeys(["jobDefinitionID", "jobsetID", "taskID", "parentID"], 2**62)
    job |= {"assignedPriority": -1_000_000}
    file = {
        "dataset": "d" * 64 + "." + "x" * 115,
        "GUID": "g" * 64,
        "checksum": "ad:" + "a" * 60,
        "destinationSE": "e" * 64,
    }
    file |= {"fsize": 2**62}
    job["Files"] = [file | {"type": kind, "lfn": kind[0] * 255} for kind in ("input", "output", "log")]
    (job_id,) = grid.submit(job)
    described = grid.describe(job_id)
    wanted = {name: value for name, value in job.items() if name != "Files"}
    assert {name: described[name] for name in wanted} == wanted
    for stored, sent in zip(described["Files"], job["Files"], strict=True):
        assert {name: stored[name] for name in sent} == sent


def test_kept_attributes_come_back_as_they_were(grid: Grid):
    kept = {"specialHandling": "a,b", "nEvents": 5, "hs06": 1.5, "eventService": True, "jobMetrics": "\u2028 'q\" \\ 𝄞"}
    (job_id,) = grid.submit(production_job(**kept))
    assert {name: grid.describe(job_id)[name] for name in kept} == kept


WRONG_JOB_IDS = ["x", "1,x", [None], [True], [1.5], {"a": 1}, [[1]], [2**63], list(range(5501)), "1;2", None]


def test_wrong_job_ids(grid: Grid, subtests: pytest.Subtests):
    for ids in WRONG_JOB_IDS:
        with subtests.test(ids=str(ids)[:40]), unchanged(grid):
            for who, call in (("alice", "job/kill"), (None, "job/get_description")):
                answer = grid.client(who).post(f"/api/v1/{call}", json={"job_ids": ids})
                assert culprit(answer)[:2] == (400, "job_ids")


def test_unknown_jobs_are_null_and_cannot_be_killed(grid: Grid):
    (mine,) = grid.submit(production_job())
    assert [j and j["PandaID"] for j in grid.call(None, "getJobStatus", ids=[mine, 999, -1, 2**62])] == [
        mine,
        None,
        None,
        None,
    ]
    with unchanged(grid):
        assert grid.call("alice", "killJobs", ids=[999, -1]) == [False, False]
    answer = grid.client(None).get("/api/v1/job/get_reasons?job_id=999")
    assert culprit(answer) == (404, "job_id", "999")


WRONG_QUESTIONS_OF_PILOTS = [
    ("siteName", ""),
    ("siteName", ["BNL"]),
    ("mem", "much"),
    ("mem", -1),
    ("mem", True),
    ("mem", 1e300),
    ("mem", "NaN"),
    ("diskSpace", {}),
    ("remainingTime", 10**30),
    ("requestId", "x" * 65),
    ("node", ["wn"]),
    ("prodSourceLabel", {}),
]


def test_wrong_questions_of_pilots(grid: Grid, subtests: pytest.Subtests):
    for field, value in WRONG_QUESTIONS_OF_PILOTS:
        with subtests.test(field=str(field)[:40], value=str(value)[:40]):
            grid.submit(production_job())
            grid.work()
            with unchanged(grid):
                for path in CLAIM:
                    assert culprit(grid.client("pilot").post(path, json={"siteName": "BNL", field: value}))[:2] == (
                        400,
                        field,
                    )


def test_a_pilot_of_an_unknown_queue(grid: Grid):
    with unchanged(grid):
        for path in CLAIM:
            answer = grid.client("pilot").post(path, json={"siteName": "CERN"})
            assert culprit(answer) == (404, "siteName", "CERN") and "BNL, UTA" in answer.json["message"]


@pytest.fixture
def taken(grid: Grid) -> dict[str, Any]:
    """A job that a pilot has."""
    grid.submit(production_job())
    grid.work()
    return grid.get_job("BNL") if grid.state(1) == "activated" else {}


def say(taken: dict[str, Any], **told: Any) -> dict[str, Any]:
    known = {
        "jobId": taken["PandaID"],
        "attemptNr": taken["attemptNr"],
        "jobToken": taken["jobToken"],
        "state": "running",
    }
    return known | told


OUTPUT = {"fsize": 5, "adler32": "00000001"}


WRONG_WORDS_OF_PILOTS = [
    ("state", "done"), ("state", ""), ("state", None), ("state", ["running"]), ("jobId", "x"), ("jobId", 1.5),
    ("jobId", None), ("jobId", True), ("jobId", 2**63), ("attemptNr", "first"), ("attemptNr", 2**63), ("maxRSS", -1),
    ("maxRSS", 1e300), ("cpuConsumptionTime", "nan"), ("pilotErrorCode", 2**31), ("exeErrorCode", "bad"),
    ("jobMetrics", {"a": 1}), ("nEvents", 2**63), ("stdout", ["a"]), ("metaData", {"exitCode": 0}), ("node", {}),
]  # fmt: skip


def test_wrong_words_of_pilots(grid: Grid, taken: dict[str, Any], subtests: pytest.Subtests):
    for field, value in WRONG_WORDS_OF_PILOTS:
        with subtests.test(field=str(field)[:40], value=str(value)[:40]), unchanged(grid):
            for path in UPDATE:
                answer = grid.client("pilot").post(path, json=say(taken, **{field: value}))
                assert culprit(answer)[:2] == (400, field), answer.text


OUTPUTS_THAT_CANNOT_BE_VERIFIED = [
    ("<POOLFILECATALOG/>", "xml"),
    ("[1]", "xml"),
    ({"o": None}, "xml"),
    ({"o": {}}, "xml"),
    ({"o": {"fsize": 5}}, "xml"),
    ({"o": OUTPUT | {"fsize": -1}}, "fsize"),
    ({"o": OUTPUT | {"fsize": "5 kB"}}, "fsize"),
    ({"o": OUTPUT | {"adler32": "not hex"}}, "adler32"),
    ('{"o": {"fsize": 1}, "o": {"fsize": 2}}', "xml"),
]


def test_outputs_that_cannot_be_verified(grid: Grid, taken: dict[str, Any], subtests: pytest.Subtests):
    for xml, field in OUTPUTS_THAT_CANNOT_BE_VERIFIED:
        with subtests.test(xml=str(xml)[:40], field=str(field)[:40]):
            with unchanged(grid):
                for path in UPDATE:
                    answer = grid.client("pilot").post(path, json=say(taken, state="finished", xml=xml))
                    assert culprit(answer)[:2] == (400, field), answer.text
            assert grid.state(taken["PandaID"]) == "sent"


AN_UPDATE_OF_A_JOB_THAT_IS_NOT_THERE = [999, 0, -5, 2**62]


def test_an_update_of_a_job_that_is_not_there(grid: Grid, taken: dict[str, Any], subtests: pytest.Subtests):
    for job_id in AN_UPDATE_OF_A_JOB_THAT_IS_NOT_THERE:
        with subtests.test(job_id=str(job_id)[:40]), unchanged(grid):
            answer = grid.client("pilot").post("/server/panda/updateJob", json=say(taken, jobId=job_id))
            assert culprit(answer) == (404, "jobId", str(job_id)) and answer.json["command"] == "tobekilled"
            answer = grid.client("pilot").post("/api/v1/pilot/update_job", json=say(taken, jobId=job_id))
            assert culprit(answer) == (404, "jobId", str(job_id))


STALE_1 = [
    {"jobToken": "wrong"},
    {"jobToken": "é" * 64},
    {"attemptNr": 7},
    {"attemptNr": 0},
    {"jobToken": "\ud800"},
    {"attemptNr": -1},
]
STALE_2 = ["running", "finished", "failed"]


def test_a_stale_attempt_is_told_to_stop_and_changes_nothing(
    grid: Grid, taken: dict[str, Any], subtests: pytest.Subtests
):
    for stale in STALE_1:
        for state in STALE_2:
            with subtests.test(stale=str(stale)[:40], state=str(state)[:40]), unchanged(grid):
                answer = grid.client("pilot").post("/server/panda/updateJob", json=say(taken, state=state, **stale))
                assert answer.status_code == 200
                assert (answer.json["StatusCode"], answer.json["command"]) == (30, "tobekilled")
                assert "this attempt is over" in answer.json["message"]
                data = (
                    grid.client("pilot")
                    .post("/api/v1/pilot/update_job", json=say(taken, state=state, **stale))
                    .json["data"]
                )
                assert (data["StatusCode"], data["command"]) == (30, "tobekilled")


def test_a_token_of_another_job_does_not_count(grid: Grid):
    grid.submit(production_job(1), production_job(2))
    grid.work()
    jobs = {grid.state(i): grid.describe(i)["computingSite"] for i in (1, 2)}
    assert set(jobs) == {"activated"}
    first, second = (grid.get_job(grid.describe(i)["computingSite"]) for i in (1, 2))
    with unchanged(grid):
        assert grid.update(first, "finished", jobToken=second["jobToken"])["command"] == "tobekilled"


def test_other_peoples_jobs_are_not_killed(grid: Grid):
    (mine,) = grid.submit(production_job())
    (theirs,) = grid.submit(analysis_job(), who="bob")
    with unchanged(grid):
        for path in ("/server/panda/killJobs", "/api/v1/job/kill"):
            answer = grid.client("alice").post(path, json={"job_ids": [mine, theirs]})
            assert culprit(answer) == (403, "job_ids", str(theirs)) and "nothing was killed" in answer.json["message"]
    assert grid.call("alice", "killJobs", ids=[mine]) == [True]


WRONG_DATASETS = ["", "\x00", 5, None, ["a"], {"a": 1}, "\ud800"]


def test_wrong_datasets(grid: Grid, subtests: pytest.Subtests):
    for dataset in WRONG_DATASETS:
        with subtests.test(dataset=str(dataset)[:40]), unchanged(grid):
            for who, path in (
                ("ddm", "data/dataset_completed"),
                (None, "data/list_files"),
                (None, "data/get_dataset"),
            ):
                status, field, _ = culprit(grid.client(who).post(f"/api/v1/{path}", json={"dataset": dataset}))
                assert (status, field) in ((400, "dataset"), (404, "dataset"))


def test_an_output_dataset_of_a_user_is_nothing_that_the_ddm_reports(grid: Grid):
    grid.register("mc.test.evnt", "BNL_DISK", "a.root")
    (job_id,) = grid.submit(analysis_job("a.root"))
    grid.work()
    with unchanged(grid):
        answer = grid.client("ddm").post("/server/panda/datasetCompleted", json={"dataset": "user.alice.hist"})
        assert culprit(answer)[0] in (400, 404) and grid.describe(job_id)


def test_values_in_refusals_are_short_and_without_control_characters(grid: Grid):
    answer = grid.client("alice").post(
        SUBMIT[0], json={"jobs": [{"transformation": "t", "\x1b[31m\nx": "\x1b\n" * 9999}]}
    )
    assert answer.status_code == 400 and len(answer.json["value"]) < 200
    assert answer.json["value"].isprintable()


def test_a_job_with_a_thousand_files_is_no_problem(grid: Grid):
    files = [{"type": "output", "lfn": f"f{n}", "dataset": "d.x"} for n in range(1000)]
    (job_id,) = grid.submit({"transformation": "t", "Files": files})
    assert len(grid.describe(job_id)["Files"]) == 1001


def test_json_in_json_is_read_once(grid: Grid):
    jobs = [production_job()]
    assert grid.call("alice", "submitJobs", jobs=json.dumps(jobs))
    with unchanged(grid):
        answer = grid.client("alice").post(SUBMIT[0], json={"jobs": json.dumps(json.dumps(jobs))})
        assert culprit(answer)[:2] == (400, "jobs")
