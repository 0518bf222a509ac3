"""The `panda` command against a server: what people see, what programs read, and how it ends."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from integration.test_client_stub import (
    Grid,
    Heard,
    NoAnswer,
    Stub,
    make_grid,
    pki,
    refusal,
    server_context,
    serving,
    success,
)

from pandaserver.client.main import main

JOB = {"transformation": "https://x/run.sh", "jobName": "one"}
DESCRIBE = "job/get_description_incl_archive"
SINCE = {"__datetime__": "2026-03-04T05:06:07"}

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    return make_grid(tmp_path_factory.mktemp("grid"))


@pytest.fixture
def stub(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setenv("X509_USER_PROXY", str(grid.proxy))
    monkeypatch.setenv("X509_CERT_DIR", str(grid.ca_dir))
    with serving(server_context(grid)) as server:
        monkeypatch.setenv("PANDA_URL_SSL", f"{server.url}/server/panda")
        yield server


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process; gives exit code, standard output and standard error."""

    def run_it(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_it


def described(job_id: int, state: str, **more: Any) -> dict[str, Any]:
    job = {"PandaID": job_id, "jobStatus": state, "jobName": "test", "computingSite": "A_Q", "attemptNr": 1}
    return job | {"stateChangeTime": SINCE, "Files": []} | more


def submitted(heard: Heard) -> Any:
    return success([[101 + place, 7, {"jobsetID": 7}] for place in range(len(heard.body["jobs"]))])


def job_file(tmp_path: Path, content: object) -> str:
    path = tmp_path / "jobs.json"
    path.write_text(json.dumps(content))
    return str(path)


# --- submit ---


def test_submit_a_file(run: Run, stub: Stub, tmp_path: Path) -> None:
    stub.on("job/submit", submitted)
    assert run("submit", job_file(tmp_path, [JOB, JOB])) == (0, "submitted 2 jobs: 101-102\n", "")
    assert stub.heard[0].body["jobs"] == [JOB, JOB]


def test_submit_one_job_and_read_json(run: Run, stub: Stub, tmp_path: Path) -> None:
    stub.on("job/submit", submitted)
    code, out, _ = run("submit", job_file(tmp_path, JOB), "--json", "--client-key", "k1")
    assert code == 0
    told = {"PandaID": 101, "jobDefinitionID": 7, "jobsetID": 7}
    assert json.loads(out) == {"client_key": "k1", "jobs": [told]}


def test_submit_standard_input(run: Run, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.on("job/submit", submitted)
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(JOB)))
    assert run("submit", "-")[:2] == (0, "submitted 1 job: 101\n")


def test_dry_run_submits_nothing(run: Run, stub: Stub, tmp_path: Path) -> None:
    code, out, _ = run("submit", job_file(tmp_path, [JOB]), "--dry-run")
    assert (code, json.loads(out), stub.heard) == (0, [JOB], [])


def test_lost_answer(run: Run, stub: Stub, tmp_path: Path) -> None:
    stub.on("job/submit", NoAnswer(), submitted)
    code, out, _ = run("submit", job_file(tmp_path, JOB))
    assert (code, out) == (0, "submitted 1 job: 101\n")
    first, second = (heard.body["clientKey"] for heard in stub.heard)
    assert first == second


def test_answer_that_is_lost_for_good_leaves_the_key(run: Run, stub: Stub, tmp_path: Path) -> None:
    stub.on("job/submit", NoAnswer())
    code, _, err = run("submit", job_file(tmp_path, JOB), "--retries", "0")
    key = stub.heard[0].body["clientKey"]
    assert code == 3
    assert f"submit again with --client-key {key}" in err


def test_server_says_no(run: Run, stub: Stub, tmp_path: Path) -> None:
    stub.on("job/submit", refusal(403, "/CN=Alice is not welcome", named="certificate", value="/CN=Alice"))
    assert run("submit", job_file(tmp_path, JOB)) == (1, "", "panda: /CN=Alice is not welcome\n")
    code, out, _ = run("--json", "submit", job_file(tmp_path, JOB))
    error = {"message": "/CN=Alice is not welcome", "field": "certificate", "value": "/CN=Alice"}
    assert (code, json.loads(out)) == (1, {"error": error})


@pytest.mark.parametrize("content", ["{", '"text"', "[]", "[1]", ""])
def test_file_without_jobs(run: Run, stub: Stub, tmp_path: Path, content: str) -> None:
    path = tmp_path / "jobs.json"
    path.write_text(content)
    code, out, err = run("submit", str(path))
    assert (code, out, stub.heard) == (2, "", [])
    assert str(path) in err


def test_file_that_is_not_there(run: Run, stub: Stub) -> None:
    assert run("submit", "/no/such.json") == (1, "", "panda: cannot read /no/such.json: No such file or directory\n")


def test_job_options_beside_a_file(run: Run, stub: Stub, tmp_path: Path) -> None:
    code, _, err = run("submit", job_file(tmp_path, JOB), "--memory-mb", "2000")
    assert code == 2
    assert "--memory-mb goes with --transformation" in err


def script(tmp_path: Path, text: str = "#!/bin/sh\necho hello\n") -> Path:
    path = tmp_path / "my run.sh"
    path.write_text(text)
    return path


def test_script_is_uploaded_under_a_unique_name(run: Run, stub: Stub, tmp_path: Path) -> None:
    stub.on("job/submit", submitted)
    stub.on("file_server/upload_cache_file", lambda heard: success(f"https://cache/{uploaded_name(heard)}"))
    for _ in range(2):
        arguments = ("--parameters", "seed=$SERIAL", "--outputs", "h.$PANDAID.root", "--output-dataset", "user.a.t")
        assert run("submit", "--transformation", str(script(tmp_path)), *arguments, "--repeat", "2")[0] == 0
    names = [uploaded_name(heard) for heard in stub.calls("file_server/upload_cache_file")]
    assert all(re.fullmatch(r"my_run\.[0-9a-f]{32}\.sh", name) for name in names)
    assert names[0] != names[1]
    jobs = stub.heard[1].body["jobs"]
    assert [job["transformation"] for job in jobs] == [f"https://cache/{names[0]}"] * 2
    assert [job["jobParameters"] for job in jobs] == ["seed=1", "seed=2"]
    assert jobs[0]["Files"] == [{"lfn": "h.$PANDAID.root", "type": "output", "dataset": "user.a.t"}]


def uploaded_name(heard: Heard) -> str:
    found = re.search(rb'filename="([^"]+)"', heard.content)
    assert found
    return found[1].decode()


def test_dry_run_uploads_nothing(run: Run, stub: Stub, tmp_path: Path) -> None:
    code, out, _ = run("submit", "--transformation", str(script(tmp_path)), "--dry-run", "--site", "A_Q")
    (job,) = json.loads(out)
    assert (code, stub.heard, job["computingSite"]) == (0, [], "A_Q")
    assert job["transformation"].startswith(f"{stub.url}/cache/my_run.")


@pytest.mark.parametrize("transformation", ["https://x.example.org/run.sh", "simulate"])
def test_transformations_that_are_elsewhere(run: Run, stub: Stub, transformation: str) -> None:
    _, out, _ = run("submit", "--transformation", transformation, "--dry-run")
    (job,) = json.loads(out)
    assert (job["transformation"], job["jobName"]) == (transformation, transformation.rpartition("/")[2])
    assert stub.heard == []


def test_scripts_that_could_not_run(run: Run, stub: Stub, tmp_path: Path) -> None:
    code, _, err = run("submit", "--transformation", str(script(tmp_path, "echo hello\n")))
    assert code == 1
    assert "#!" in err
    code, _, err = run("submit", "--transformation", str(tmp_path / "no.sh"))
    assert code == 1
    assert "No such file" in err
    assert stub.heard == []


def test_script_is_not_uploaded_for_jobs_that_make_no_sense(run: Run, stub: Stub, tmp_path: Path) -> None:
    path = str(script(tmp_path))
    outputs = ("--outputs", "same.root", "--output-dataset", "user.a.t", "--repeat", "2")
    for arguments in (outputs, ("--outputs", "a"), ("--inputs", "a"), ("--parameters", "it's")):
        assert run("submit", "--transformation", path, *arguments)[0] == 2
    assert stub.heard == []


def test_whole_dataset_as_input(run: Run, stub: Stub) -> None:
    names = ["b", "a", "c"]
    file = {"scope": "user.bob", "guid": "", "fsize": 1, "checksum": "ad:1", "replicas": []}
    stub.on("data/list_files", [file | {"lfn": lfn} for lfn in names], [])
    arguments = ("--transformation", "sum", "--input-dataset", "user.bob.x", "--files-per-job", "2", "--dry-run")
    _, out, _ = run("submit", *arguments, "--parameters", "$INPUTS")
    first, second = json.loads(out)
    assert (first["jobParameters"], second["jobParameters"]) == ("b a", "c")
    assert first["prodDBlock"] == "user.bob.x"
    assert first["Files"][0] == {"lfn": "b", "type": "input", "dataset": "user.bob.x", "scope": "user.bob"}
    code, _, err = run("submit", *arguments)
    assert code == 2
    assert "user.bob.x has no files" in err


def test_submit_and_wait(run: Run, stub: Stub, tmp_path: Path) -> None:
    stub.on("job/submit", submitted)
    stub.on(DESCRIBE, [described(101, "running")], [described(101, "finished")])
    code, out, err = run("submit", job_file(tmp_path, JOB), "--wait", "--interval", "0")
    assert code == 0
    assert out.splitlines()[0] == "submitted 1 job: 101"
    assert "finished" in out.splitlines()[-1]
    assert err.splitlines() == ["0/1 ended: 1 running", "1/1 ended: 1 finished"]


def test_submit_and_wait_as_json(run: Run, stub: Stub, tmp_path: Path) -> None:
    stub.on("job/submit", submitted)
    stub.on(DESCRIBE, [described(101, "failed")])
    code, out, _ = run("submit", job_file(tmp_path, JOB), "--wait", "--interval", "0", "--json")
    assert code == 1
    assert [job["jobStatus"] for job in json.loads(out)["jobs"]] == ["failed"]


# --- following ---


def test_status(run: Run, stub: Stub) -> None:
    file = {"type": "output", "lfn": "h.root", "dataset": "user.a.t", "status": "ready", "fsize": 12}
    failed = described(6, "failed", pilotErrorCode=1150, pilotErrorDiag="looping", transExitCode="3")
    stub.on(DESCRIBE, [described(5, "running", Files=[file]), failed])
    code, out, _ = run("status", "5-6", "6", "--files")
    assert stub.heard[0].body == {"job_ids": [5, 6]}
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["JOB", "STATE", "NAME", "SITE", "ATTEMPT", "SINCE", "(UTC)"],
        ["5", "running", "test", "A_Q", "1", "2026-03-04", "05:06:07"],
        ["6", "failed", "test", "A_Q", "1", "2026-03-04", "05:06:07"],
        "job 6: pilot 1150: looping".split(),
        "job 6: payload ended with exit code 3".split(),
        ["JOB", "TYPE", "FILE", "DATASET", "STATUS", "BYTES"],
        ["5", "output", "h.root", "user.a.t", "ready", "12"],
    ]


def test_status_of_unknown_jobs(run: Run, stub: Stub) -> None:
    stub.on(DESCRIBE, [None, described(6, "running")], [None, None], [None, described(6, "running")])
    code, out, _ = run("status", "5", "6")
    assert code == 1
    assert out.splitlines()[-1] == "no such job: 5"
    assert run("status", "5,6") == (1, "no such job: 5, 6\n", "")
    code, out, _ = run("status", "5", "6", "--json")
    assert code == 1
    assert [job and job["jobStatus"] for job in json.loads(out)] == [None, "running"]
    assert json.loads(out)[1]["stateChangeTime"] == "2026-03-04T05:06:07+00:00"


def test_hostile_text_cannot_steer_the_terminal(run: Run, stub: Stub) -> None:
    stub.on(DESCRIBE, [described(5, "failed", jobName="a\x1b[2Jb\nc", exeErrorCode=1, exeErrorDiag="\x1b]0;x\x07")])
    _, out, _ = run("status", "5")
    assert "\x1b" not in out
    assert "a\\x1b[2Jb c" in out


@pytest.mark.parametrize(("state", "code"), [("finished", 0), ("failed", 1), ("cancelled", 1), ("closed", 1)])
def test_wait(run: Run, stub: Stub, state: str, code: int) -> None:
    both = [described(5, "finished"), described(6, "activated")]
    stub.on(DESCRIBE, both, NoAnswer(), [described(6, state)])
    assert run("wait", "5", "6", "--interval", "0")[0] == code
    assert [heard.body["job_ids"] for heard in stub.heard] == [[5, 6], [6], [6]]


def test_wait_with_a_limit(run: Run, stub: Stub) -> None:
    stub.on(DESCRIBE, [described(5, "running")])
    code, out, err = run("wait", "5", "--timeout", "0.05", "--interval", "9")
    assert (code, out) == (1, "")
    assert "1 of 1 jobs have not ended after 0.05 s" in err
    assert len(stub.heard) == 2


def test_wait_for_an_unknown_job(run: Run, stub: Stub) -> None:
    stub.on(DESCRIBE, [None])
    code, _, err = run("wait", "5")
    assert code == 1
    assert "knows no job 5" in err


def test_why(run: Run, stub: Stub) -> None:
    reason = {"site": "B_Q", "verdict": "rejected", "reason": "4000 MB of memory asked, 2000 there", "weight": None}
    reason |= {"criterion": "memory", "value": 4000, "limit": 2000}
    earlier = {"time": SINCE, "site": None, "more": 0, "reasons": [], "advice": "", "changes": {}}
    last = earlier | {"reasons": [reason | {"time": SINCE}], "more": 3}
    told = {"PandaID": 5, "jobStatus": "defined", "text": "submitted", "advice": "ask for less", "rounds": []}
    stub.on(DESCRIBE, [described(5, "defined")])
    stub.on("job/why", *[told | {"rounds": rounds} for rounds in ([earlier, last], [earlier, last], [], [last])])
    code, out, _ = run("why", "5")
    assert code == 0
    lines = out.splitlines()
    assert lines[2] == "since then: submitted" and lines[3].endswith("no place was found")
    assert lines[4].split() == ["SITE", "VERDICT", "CRITERION", "ASKED", "THERE", "WEIGHT", "REASON"]
    assert lines[5].split(maxsplit=6) == ["B_Q", "rejected", "memory", "4000", "2000", "-", reason["reason"]]
    assert lines[6:] == [
        "and 3 more queues that were possible",
        "what would help: ask for less",
        "1 earlier rounds are shown with --all",
    ]
    assert run("why", "5", "--all")[1].count("no place was found") == 2
    assert "no place was looked for yet" in run("why", "5")[1]
    document = json.loads(run("why", "5", "--json")[1])
    assert (document["PandaID"], document["jobStatus"]) == (5, "defined")
    assert document["rounds"][0]["reasons"][0]["site"] == "B_Q" and document["advice"] == "ask for less"


def test_why_is_not_understood(run: Run, stub: Stub) -> None:
    stub.on(DESCRIBE, [described(5, "activated")])
    stub.on("job/why", {"text": "x"})
    code, _, err = run("why", "5")
    assert code == 3
    assert "the answer to job/why is not understood" in err


PREVIEW = {
    "runnable": True, "site": "B_Q", "possible": ["B_Q", "A_Q"], "more": 1, "expectedWait": 7500, "advice": "",
    "changes": {}, "warnings": [], "rejected": [],
}  # fmt: skip
WARNED = [{"code": "no_queue", "text": "no queue can take the job", "field": ""}]


def test_submit_check(run: Run, stub: Stub, tmp_path: Path) -> None:
    file = tmp_path / "jobs.json"
    file.write_text(json.dumps([{"transformation": "t", "jobName": "one"}, {"transformation": "t"}]))
    bad = PREVIEW | {"runnable": False, "site": None, "possible": [], "more": 0, "expectedWait": None}
    bad |= {"warnings": WARNED}
    stub.on("job/check", [PREVIEW, bad], [bad, bad], [PREVIEW, PREVIEW])
    code, out, _ = run("submit", str(file), "--check")
    assert code == 1
    lines = [line.split() for line in out.splitlines()]
    assert lines[1] == ["0", "one", "yes", "B_Q", "3", "2.08", "h"]
    assert lines[2] == ["1", "-", "no", "-", "0", "unknown"]
    assert out.splitlines()[3:] == ["job 1: no queue can take the job", "nothing was submitted"]
    assert "jobs 0, 1: no queue" in run("submit", str(file), "--check")[1]
    code, out, _ = run("submit", str(file), "--check", "--json")
    assert (code, json.loads(out)) == (0, [PREVIEW, PREVIEW])
    assert {heard.call for heard in stub.heard} == {"job/check"}


def test_submit_shows_warnings(run: Run, stub: Stub, tmp_path: Path) -> None:
    file = tmp_path / "jobs.json"
    file.write_text(json.dumps({"transformation": "t"}))
    warned = {"jobsetID": 1, "warnings": [WARNED[0] | {"jobs": 3}, WARNED[0] | {"text": "other"}]}
    stub.on("job/submit", [[5, 1, warned]], [[5, 1, warned]])
    code, out, _ = run("submit", str(file))
    assert (code, out.splitlines()[1:]) == (0, ["warning: no queue can take the job (3 jobs)", "warning: other"])
    assert json.loads(run("submit", str(file), "--json")[1])["warnings"][1] == "other"


def test_why_of_an_unknown_job(run: Run, stub: Stub) -> None:
    stub.on(DESCRIBE, [None])
    assert run("why", "5")[0] == 1


def test_kill(run: Run, stub: Stub) -> None:
    stub.on("job/kill", [True, True], [True, False], [True, False], [False])
    assert run("kill", "5", "6") == (0, "killed 2 of 2 jobs; those with a pilot end when it asks next\n", "")
    code, out, _ = run("kill", "5", "6")
    assert code == 1
    assert out.splitlines()[1] == "ended before, or unknown: 6"
    told = json.loads(run("kill", "5", "6", "--json")[1])
    assert told == [{"PandaID": 5, "killed": True}, {"PandaID": 6, "killed": False}]
    assert run("kill", "6")[:2] == (1, "killed 0 of 1 jobs\nended before, or unknown: 6\n")


def test_kill_of_somebody_elses_job(run: Run, stub: Stub) -> None:
    stub.on("job/kill", refusal(403, "job 5 belongs to /CN=Bob, not to /CN=Alice; nothing was killed"))
    code, _, err = run("kill", "5")
    assert code == 1
    assert "belongs to /CN=Bob" in err


# --- the grid ---


def test_timeouts(run: Run, stub: Stub) -> None:
    rule = {"state": "running", "subject": "any", "after_s": 7200, "action": "retry", "heartbeat": True}
    other = {"state": "holding", "subject": "analysis", "after_s": 5400, "action": "fail", "heartbeat": False}
    codes = {"family": "jobDispatcher", "code": 100}
    stub.on("system/get_timeouts", [rule | codes, other | codes])
    code, out, _ = run("timeouts")
    lines = [re.split(r"  +", line.strip()) for line in out.splitlines()]
    assert code == 0 and lines == [
        ["STATE", "JOBS", "AFTER", "SINCE", "THEN", "ERROR"],
        ["running", "any", "2 h", "last word of the pilot", "retry", "jobDispatcher 100"],
        ["holding", "analysis", "1 h 30 min", "change of state", "fail", "jobDispatcher 100"],
    ]
    assert json.loads(run("timeouts", "--json")[1]) == [rule | codes, other | codes]
    stub.on("system/get_timeouts", [{"state": "running"}])
    code, _, err = run("timeouts")
    assert code != 0 and "too old" in err


def test_sites(run: Run, stub: Stub) -> None:
    queue = {"atlas_site": "A", "status": "online", "corecount": 1, "maxrss": 2000, "maxtime": 5400}
    standing = {"by": "Otto", "reason": "disk full", "switched": True, "until": SINCE}
    queue |= {"standing": standing, "pilots": {"requests": 7}}
    stub.on("queue/list", {"B_Q": {"status": "offline"}, "A_Q": queue})
    stub.on("statistics/job_stats_by_site", {"A_Q": {"activated": 2, "assigned": 1, "running": 3, "closed": 4}})
    code, out, _ = run("sites")
    assert code == 0
    why = "disk full (until 2026-03-04 05:06 UTC)"
    assert [line.split() for line in out.splitlines()[1:]] == [
        ["A_Q", "A", "online", "2", "3", "7", "1", "2000", "1.5", "Otto", *why.split()],
        ["B_Q", "-", "offline", "0", "0", "-", "-", "-", "-", "-", "-"],
    ]
    told = json.loads(run("sites", "--json")[1])
    assert told["A_Q"]["jobs"]["running"] == 3
    assert told["B_Q"] == {"status": "offline", "jobs": {}}


def test_whoami(run: Run, stub: Stub, grid: Grid) -> None:
    seen = {"dn": "/CN=Alice", "name": "Alice", "limited": False, "notAfter": SINCE, "fqans": []}
    stub.on("system/get_attributes", {"identity": seen}, {"identity": seen | {"limited": True}}, {"identity": {}})
    code, out, _ = run("whoami")
    assert code == 0
    assert "dn:          /CN=Alice" in out
    assert "valid until: 2026-03-04 05:06:07 UTC" in out
    assert "limited" not in out
    assert "limited: cannot submit" in run("whoami")[1]
    code, _, err = run("whoami")
    assert code == 3
    assert "sees no certificate" in err


def dataset(directory: Path, **contents: bytes) -> list[dict[str, Any]]:
    directory.mkdir()
    wire = []
    for lfn, content in contents.items():
        (directory / lfn).write_bytes(content)
        replica = {"endpoint": "A_DISK", "url": (directory / lfn).as_uri()}
        facts = {"scope": "user.a", "lfn": lfn, "guid": "g1", "fsize": len(content), "replicas": [replica]}
        wire.append(facts | {"checksum": f"ad:{zlib.adler32(content):08x}"})
    return wire


def test_files(run: Run, stub: Stub, tmp_path: Path) -> None:
    stub.on("data/list_files", dataset(tmp_path / "se", a=b"1"), dataset(tmp_path / "se2", a=b"1"), [])
    code, out, _ = run("files", "user.a.t")
    assert (code, out.splitlines()[1].split()) == (0, ["a", "1", "00320032", "A_DISK", "g1"])
    (told,) = json.loads(run("files", "user.a.t", "--json")[1])
    assert (told["lfn"], told["size_bytes"], told["replicas"][0]["endpoint"]) == ("a", 1, "A_DISK")
    assert run("files", "user.a.t")[:2] == (0, "user.a.t has no files\n")


def test_download(run: Run, stub: Stub, tmp_path: Path) -> None:
    wire = dataset(tmp_path / "se", a=b"1", b=b"2")
    stub.on("data/list_files", wire)
    code, out, _ = run("download", "user.a.t", "--to", str(tmp_path / "got"))
    assert (code, (tmp_path / "got" / "b").read_bytes()) == (0, b"2")
    assert str(tmp_path / "got" / "a") in out
    wire[1]["replicas"] = []
    (tmp_path / "got" / "b").unlink()
    code, out, _ = run("download", "user.a.t", "--to", str(tmp_path / "got"))
    assert code == 1
    assert out.splitlines()[-1] == "1 of 2 files could not be had"
    told = json.loads(run("download", "user.a.t", "--to", str(tmp_path / "got"), "--json")[1])
    assert [each["path"] for each in told] == [str(tmp_path / "got" / "a"), None]


def test_upload(run: Run, stub: Stub, tmp_path: Path) -> None:
    stub.on("file_server/upload_cache_file", lambda heard: success(f"https://cache/{uploaded_name(heard)}"))
    path = script(tmp_path)
    assert run("upload", str(path), "--name", "x.sh") == (0, "https://cache/x.sh\n", "")
    assert json.loads(run("upload", str(path), "--json")[1]) == {"url": "https://cache/my run.sh"}


# --- cannot reach or authenticate ---


def test_nobody_listens(run: Run, stub: Stub, free_port: int) -> None:
    code, out, err = run("sites", "--server", f"https://localhost:{free_port}", "--retries", "0")
    assert (code, out) == (3, "")
    assert err == f"panda: cannot reach localhost:{free_port}: Connection refused\n"


def test_options_may_stand_on_either_side_of_the_command(run: Run, stub: Stub, free_port: int) -> None:
    stub.on("queue/list", {})
    stub.on("statistics/job_stats_by_site", {})
    nowhere = f"https://localhost:{free_port}"
    assert run("--server", nowhere, "--retries", "0", "sites")[0] == 3
    assert run("--server", nowhere, "sites", "--server", stub.url)[0] == 0
    assert run("--json", "sites")[1] == "{}\n"


def test_expired_proxy(run: Run, stub: Stub, grid: Grid) -> None:
    old = grid.write("old.pem", pki.delegate(grid.alice, period=pki.over()))
    code, out, err = run("whoami", "--proxy", str(old), "--json")
    assert code == 3
    assert f"the proxy {old} expired at" in err
    assert "voms-proxy-init" in err
    assert json.loads(out)["error"]["field"] == "proxy"


def test_no_proxy(run: Run, stub: Stub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stub.on(DESCRIBE, [described(5, "running")])
    monkeypatch.delenv("X509_USER_PROXY")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run("status", "5")[0] == 0, "anybody may look"
    code, _, err = run("kill", "5")
    assert code == 3
    assert f"there is none at {tmp_path}/x509up_u{os.getuid()}" in err


def test_no_server(run: Run, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PANDA_URL_SSL")
    code, _, err = run("sites")
    assert code == 2
    assert "PANDA_URL_SSL" in err


# --- as a process ---


def process(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pandaserver.client.main", *arguments]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def test_reader_that_has_had_enough(stub: Stub) -> None:
    stub.on("queue/list", {f"{number}_Q": {"status": "online"} for number in range(5000)})
    stub.on("statistics/job_stats_by_site", {})
    with process("sites") as panda:
        assert panda.stdout is not None and panda.stderr is not None
        panda.stdout.readline()
        panda.stdout.close()
        assert (panda.wait(timeout=20), panda.stderr.read()) == (0, "")


def test_tables_and_colours_on_a_terminal(stub: Stub) -> None:
    stub.on(DESCRIBE, [described(5, "finished", jobName="[red]name[/red]")])
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "pandaserver.client.main", "wait", "5"]
    done = subprocess.run(command, stdout=slave, stderr=slave, env=environment, timeout=20, check=False)
    os.close(slave)
    shown = os.read(master, 65536).decode()
    os.close(master)
    assert done.returncode == 0
    assert "1/1 ended 1 finished" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert "\x1b[32mfinished" in shown
    assert "[red]name[/red]" in shown, "what the server tells is no markup"
    assert "─" in shown


def test_no_traceback_when_interrupted(stub: Stub) -> None:
    stub.on(DESCRIBE, [described(5, "running")])
    with process("wait", "5", "--interval", "30") as panda:
        assert panda.stderr is not None
        assert panda.stderr.readline() == "0/1 ended: 1 running\n"
        panda.send_signal(2)
        said = panda.stderr.read()
        assert panda.wait(timeout=20) == 130
        assert said == "panda: interrupted; jobs that were submitted go on\n"


def test_help_is_quick() -> None:
    start = time.perf_counter()
    with process("--help") as panda:
        out, _ = panda.communicate(timeout=20)
    assert panda.returncode == 0
    assert time.perf_counter() - start < 5, "half a second is normal; this machine may be busy"
    assert "exit codes:" in out
