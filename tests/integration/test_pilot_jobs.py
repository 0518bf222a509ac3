"""Jobs that go well and jobs that go badly, run by the real pilot process against a stub server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib

import pytest
from integration.test_pilot_stub import DISK, SCOPE, TOKEN, alive, eventually, job, pilot, run_pilot, stub_server

pytestmark = pytest.mark.integration

COPY = """#!/bin/sh
echo "copying $1 to $2"
cat "$1" "$1" > "$2"
echo '{"exitCode": 0, "exitMsg": "all well", "nEvents": 7}' > jobReport.json
echo kept > small.note; echo big > core.123
"""


@pytest.fixture
def stub(tmp_path):
    with stub_server(tmp_path) as server:
        yield server


@pytest.fixture
def work(tmp_path):
    directory = tmp_path / "work"
    directory.mkdir()
    return directory


def run_script(stub, work, text, *arguments, **more):
    """Run one job whose payload is the given shell script; returns the final report."""
    stub.jobs.append(job(1, stub.add_script("run.sh", "#!/bin/sh\n" + text), **more))
    assert run_pilot(stub, work, "--max-jobs=1", *arguments).process.returncode == 0
    return stub.final


def test_job_with_input_output_and_log_finishes(stub, work):
    content = b"some physics\n" * 100
    stub.add_input("in.txt", content)
    url = stub.add_script("copy.sh", COPY)
    stub.jobs.append(job(11, url, inputs={"in.txt": content}, outputs="out.txt", jobPars="in.txt 'out.txt'"))
    run = run_pilot(stub, work, "--label=user", "--pilot-id=P7", "--scheduler-id=S7")
    assert run.process.returncode == 0

    assert stub.place("out.txt").read_bytes() == content * 2
    assert oct(stub.place("out.txt").stat().st_mode & 0o777) == "0o644"
    assert stub.updates[0]["state"] == "starting"
    assert [update["state"] for update in stub.updates][-2:] == ["running", "finished"]

    final = stub.final
    catalogue = json.loads(final["xml"])
    assert set(catalogue) == {"out.txt", "job.11.log.tgz"}
    assert catalogue["out.txt"]["fsize"] == 2 * len(content)
    assert catalogue["out.txt"]["adler32"] == f"{zlib.adler32(content * 2):08x}"
    assert catalogue["out.txt"]["surl"] == f"file://localhost{stub.place('out.txt')}"
    assert catalogue["out.txt"]["endpoint"] == DISK
    assert json.loads(final["metaData"])["nEvents"] == 7
    assert (final["pilotErrorCode"], final["transExitCode"], final["exeErrorCode"]) == (0, 0, 0)
    assert final["pilotTiming"].count("|") == 4
    assert final["endTime"] >= final["startTime"]
    assert "copying in.txt" in final["stdout"]

    for update in stub.updates:
        assert (update["jobId"], update["attemptNr"], update["jobToken"]) == ("11", 1, TOKEN)
        assert (update["pilotID"], update["schedulerID"]) == ("P7", "S7")
    first = stub.requests[0]
    assert first["siteName"] == "STUB_Q" and first["prodSourceLabel"] == "user"
    assert first["mem"] > 0 and first["diskSpace"] > 0 and first["remainingTime"] > 0

    members = stub.log_members(11)
    assert {"payload.stdout", "payload.stderr", "pilot.log", "jobReport.json", "job.json", "small.note"} <= set(members)
    assert not {"in.txt", "out.txt", "core.123"} & set(members)
    assert json.loads(members["job.json"])["PandaID"] == 11
    assert list(work.iterdir()) == []


def test_token_is_neither_in_the_log_nor_in_the_tarball(stub, work):
    stub.add_script("leak.sh", "#!/bin/sh\ntrue\n")
    stub.jobs.append(job(12, f"{stub.url}/cache/leak.sh?{TOKEN}"))
    stub.update_hook = lambda update: (500, {"message": TOKEN}) if len(seen) < 1 and not seen.append(1) else None
    seen: list[int] = []
    run = run_pilot(stub, work)
    assert "********" in run.log
    assert TOKEN not in run.log
    assert all(TOKEN.encode() not in content for name, content in stub.log_members(12).items() if name != "job.json")
    assert "jobToken" not in json.loads(stub.log_members(12)["job.json"])


def test_payload_that_fails_stores_its_log_and_no_output(stub, work):
    script = 'echo \'{"exitCode": 65, "exitMsg": "no events"}\' > jobReport.json; echo x > out; echo why >&2; exit 3'
    final = run_script(stub, work, script, outputs="out")
    assert final["state"] == "failed"
    assert (final["pilotErrorCode"], final["transExitCode"], final["exeErrorCode"]) == (1305, 3, 65)
    assert final["exeErrorDiag"] == "no events"
    assert "why" in final["pilotLog"] and len(final["pilotLog"]) <= 1024
    assert set(json.loads(final["xml"])) == {"job.1.log.tgz"}
    assert not stub.place("out").exists()
    assert stub.log_members(1)["payload.stderr"] == b"why\n"


@pytest.mark.parametrize(
    ("script", "arguments", "queue", "more", "code"),
    [
        ("sleep 60", [], {}, {"maxWalltime": 1}, 1213),
        ("sleep 60", [], {"maxtime": 1}, {}, 1213),
        ("sleep 60", ["--lifetime=3"], {}, {}, 1213),
        ("while :; do :; done", [], {}, {"maxCpuCount": 1}, 1213),
        ("sleep 60", ["--looping-time=1"], {}, {}, 1150),
        ("head -c 3000000 /dev/zero > f; sleep 60", [], {"maxwdir": 1}, {}, 1104),
        (
            f"exec {sys.executable} -c 'x = b\"1\" * 200000000; import time; time.sleep(60)'",
            [],
            {"maxrss": 50},
            {},
            1235,
        ),
    ],
    ids=["job-time", "queue-time", "lifetime", "cpu", "looping", "directory", "memory"],
)
def test_payload_over_a_limit_is_stopped(stub, work, script, arguments, queue, more, code):
    stub.queue.update(queue)
    final = run_script(stub, work, script, *arguments, **more)
    assert (final["state"], final["pilotErrorCode"]) == ("failed", code)
    assert final["transExitCode"] == 128 + 15
    assert set(json.loads(final["xml"])) == {"job.1.log.tgz"}


def test_payload_that_does_not_heed_sigterm_is_killed(stub, work):
    final = run_script(stub, work, "trap '' TERM; while :; do sleep 0.1; done", maxWalltime=1)
    assert (final["pilotErrorCode"], final["transExitCode"]) == (1213, 128 + 9)


@pytest.mark.parametrize(
    ("script", "code"),
    [("true", 1165), (": > out", 1191), ("ln -s /etc/passwd out", 1165), ("mkdir out", 1165), ("mkfifo out", 1165)],
    ids=["missing", "empty", "link", "directory", "pipe"],
)
def test_output_that_is_no_proper_file_fails_the_job(stub, work, script, code):
    final = run_script(stub, work, script, outputs="out")
    assert (final["state"], final["pilotErrorCode"], final["transExitCode"]) == ("failed", code, 0)
    assert not stub.place("out").exists()


@pytest.mark.parametrize(
    ("change", "code"),
    [({"inFiles": "other.txt"}, 1103), ({"checksum": "ad:00000001"}, 1171), ({"fsize": "5"}, 1175)],
    ids=["missing", "checksum", "size"],
)
def test_bad_input_fails_the_job_before_the_payload_runs(stub, work, change, code):
    stub.add_input("in.txt", b"data")
    final = run_script(stub, work, "touch ran", inputs={"in.txt": b"data"}, **change)
    assert (final["state"], final["pilotErrorCode"]) == ("failed", code)
    assert {update["state"] for update in stub.updates} == {"starting", "failed"}
    assert b"trying again" in stub.log_members(1)["pilot.log"]
    assert "payload.stdout" not in stub.log_members(1)


@pytest.mark.parametrize("lfn", ["../evil", "a/b", "-rf", "payload.stdout", "x" * 256], ids=lambda name: name[:16])
def test_hostile_file_name_is_refused(stub, work, lfn):
    final = run_script(stub, work, "true", outputs=lfn)
    assert (final["state"], final["pilotErrorCode"]) == ("failed", 1190 if len(lfn) > 255 else 1008)


@pytest.mark.parametrize(
    ("transformation", "code"), [("http://localhost:1/x.sh", 1149), ("/cache/none.sh", 1149), ("no-such-thing", 1146)]
)
def test_transformation_that_cannot_be_had_fails_the_job(stub, work, transformation, code):
    stub.jobs.append(job(1, stub.url + transformation if transformation.startswith("/") else transformation))
    run_pilot(stub, work)
    assert (stub.final["state"], stub.final["pilotErrorCode"]) == ("failed", code)


def test_installed_transformation_is_run_without_a_shell(stub, work):
    stub.jobs.append(job(1, "touch", jobPars="'$HOME;x' 'a b'", outputs="out"))
    stub.jobs.append(job(2, "cp", jobPars="in.txt 'out.txt'", inputs={"in.txt": b"data"}, outputs="out.txt"))
    stub.add_input("in.txt", b"data")
    run_pilot(stub, work)
    first, second = (update for update in stub.updates if update["state"] in ("finished", "failed"))
    assert (first["transExitCode"], first["pilotErrorCode"]) == (0, 1165)
    assert second["state"] == "finished"
    assert {"$HOME;x", "a b"} <= set(stub.log_members(1))


def test_transformation_that_comes_as_an_input_is_used(stub, work):
    script = b"#!/bin/sh\necho brought along\n"
    stub.add_input("run.sh", script)
    stub.jobs.append(job(1, "http://localhost:1/run.sh", inputs={"run.sh": script}))
    run_pilot(stub, work)
    assert stub.final["state"] == "finished"
    assert stub.final["stdout"] == "brought along\n"


def test_payload_environment_is_clean(stub, work):
    stub.queue["environ"] = "PATH=/opt/sw/bin:/usr/bin:/bin;SITE_SW=/opt/sw;MY_API_KEY=x"
    script = "env | sort; echo; ls -l /proc/self/fd | sed 's/.*-> //'; ulimit -a >/dev/null; pwd"
    final = run_script(stub, work, script)
    environment, rest = final["stdout"].split("\n\n")
    pairs = dict(line.split("=", 1) for line in environment.splitlines())
    assert set(pairs) - {"PWD", "_", "SHLVL", "OLDPWD"} == {
        "PATH", "HOME", "LANG", "TMPDIR", "PANDAID", "PanDA_TaskID", "SITE_SW"
    }  # fmt: skip
    assert pairs["PATH"] == "/opt/sw/bin:/usr/bin:/bin"
    assert pairs["HOME"] == rest.splitlines()[-1]
    assert pairs["TMPDIR"].startswith(pairs["HOME"] + "/")
    assert (pairs["PANDAID"], pairs["PanDA_TaskID"]) == ("1", "55")
    links = [line for line in rest.splitlines()[:-1] if line and not line.startswith("total")]
    allowed = ("/dev/null", "payload.stdout", "payload.stderr", "/fd", "pipe:")
    assert all(any(part in link for part in allowed) for link in links), links


def test_processes_left_behind_are_ended_and_no_others(stub, work, tmp_path):
    innocent = tmp_path / "innocent.pid"
    subprocess.run(["sh", "-c", f"setsid sleep 300 & echo $! > {innocent}"], check=True)  # has lost its parent
    pids = tmp_path / "pids"
    script = (
        f"(setsid sh -c 'trap \"\" TERM; echo $$ >> {pids}; sleep 300' &) ; sleep 300 & echo $! >> {pids}; sleep 0.5"
    )
    try:
        final = run_script(stub, work, script)
        assert final["state"] == "finished"
        left = [int(pid) for pid in pids.read_text().split()]
        assert len(left) == 2
        eventually(lambda: not any(alive(pid) for pid in left))
        assert alive(int(innocent.read_text()))
    finally:
        os.kill(int(innocent.read_text()), 9)


def test_payload_dies_with_a_killed_pilot(stub, work, tmp_path):
    pid = tmp_path / "pid"
    stub.jobs.append(job(1, stub.add_script("run.sh", f"#!/bin/sh\necho $$ > {pid}; exec sleep 300\n")))
    with pilot(stub, work) as running:
        eventually(lambda: pid.exists() and pid.read_text())
        running.process.kill()
        running.wait()
    eventually(lambda: not alive(int(pid.read_text())))


def test_payload_cannot_lead_the_log_astray(stub, work, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("top secret")
    script = (
        f"rm payload.stdout; ln -s {secret} payload.stdout; ln -s {secret} jobReport.json; mkfifo pipe; chmod 0 tmp"
    )
    final = run_script(stub, work, script)
    assert final["state"] == "finished"
    assert "top secret" not in json.dumps(final)
    assert all(b"top secret" not in content for content in stub.log_members(1).values())
    assert list(work.iterdir()) == []


def test_log_that_cannot_be_stored_does_not_fail_the_job(stub, work):
    final = run_script(stub, work, "echo x > out", outputs="out", ddmEndPointOut=f"{DISK},NOWHERE")
    assert final["state"] == "finished"
    assert set(json.loads(final["xml"])) == {"out"}
    assert "log not stored" in final["pilotErrorDiag"] and "NOWHERE" in final["pilotErrorDiag"]


def test_storage_that_cannot_be_written_fails_the_job(stub, work):
    place = stub.place("out")
    place.parent.parent.parent.mkdir(parents=True)
    place.parent.parent.write_text("a file where a directory should be")
    final = run_script(stub, work, "echo x > out", outputs="out")
    assert (final["state"], final["pilotErrorCode"]) == ("failed", 1137)
    assert SCOPE.replace(".", "/") in final["pilotErrorDiag"]


def test_directories_are_for_their_owner_only(stub, work):
    final = run_script(stub, work, "stat -c %a . .. tmp")
    assert final["stdout"].split() == ["700"] * 3
