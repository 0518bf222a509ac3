"""Payloads that behave badly, with a real server and pilot: each ends as a failed job with its code, and a log."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import open_folder

from demonstration.grid import BIN, Grid, build
from pandaserver.client.answers import JobInfo
from pandaserver.client.api import PandaClient

pytestmark = [pytest.mark.zoo]

SCRIPT = """#!/usr/bin/env python3
import os, signal, sys, time
what = sys.argv[1]
print("payload", what, flush=True)
if what == "exit":
    sys.exit(3)
if what == "hang":
    time.sleep(600)
if what == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "good":
    open(sys.argv[2], "w").write("made")
"""


@pytest.fixture(scope="module")
def zoo() -> Iterator[Grid]:
    with open_folder() as root:
        yield from running(root)


def running(root: Path) -> Iterator[Grid]:
    grid = build(root / "grid", slots=1)
    try:
        grid.start_server()
        yield grid
    finally:
        grid.stop(keep_files=False)


@pytest.fixture
def alice(zoo: Grid) -> Iterator[PandaClient]:
    with PandaClient(zoo.url, zoo.proxy("alice"), zoo.ca_dir) as client:
        yield client


def submit(alice: PandaClient, zoo: Grid, what: str, **more: Any) -> int:
    script = zoo.root / "zoo.py"
    script.write_text(SCRIPT)
    lfn = f"{what}.$PANDAID.txt"
    job = {
        "transformation": alice.upload(script),
        "jobParameters": f"{what} {lfn}",
        "computingSite": "BNL",
        "destinationDBlock": "user.alice.zoo",
        "maxAttempt": 1,
        "Files": [{"type": "output", "lfn": lfn}],
    }
    return alice.submit([job | more])[0].job_id


def send_pilot(zoo: Grid, name: str) -> None:
    """Start a pilot for one job, as the scheduler would."""
    words = [*zoo.pilot_prefix, BIN / "panda-pilot", "--server", zoo.url, "--queue", "BNL", "--max-jobs", "1"]
    words += ["--proxy", zoo.proxy("pilot"), "--ca-dir", zoo.ca_dir, "--work-dir", zoo.root / "pilots"]
    words += ["--check-interval", "0.2", "--kill-grace", "1", "--heartbeat", "1", "--poll-interval", "0.5"]
    zoo.services.start(name, *words)


def wait_until(alice: PandaClient, job_id: int, *states: str) -> JobInfo:
    end = time.monotonic() + 60
    while True:
        (job,) = alice.status([job_id])
        assert job is not None
        if job.state in states:
            return job
        assert time.monotonic() < end, f"job {job_id} is still {job.state}: {job.errors}"
        time.sleep(0.2)


def log_of(alice: PandaClient, job: JobInfo, name: str) -> str:
    """Read a file of the job's log tarball, at the storage where it was registered."""
    (log,) = [f for f in job.files if f["type"] == "log"]
    assert log["status"] == "ready"
    (found,) = [f for f in alice.files(log["dataset"]) if f.lfn == log["lfn"]]
    with tarfile.open(found.replicas[0].url.removeprefix("file://")) as tar:
        (member,) = [m for m in tar.getmembers() if m.name.endswith(name)]
        content = tar.extractfile(member)
        assert content is not None
        return content.read().decode()


@pytest.mark.parametrize(
    ("what", "more", "code", "exit_code"),
    [
        ("exit", {}, 1305, "3"),
        ("kill", {}, 1305, "137"),
        ("nothing", {}, 1165, "0"),
        ("hang", {"maxWalltime": 2}, 1213, None),
    ],
)
def test_a_bad_payload_is_a_failed_job_with_a_log(
    zoo: Grid, alice: PandaClient, what: str, more: dict[str, Any], code: int, exit_code: str | None
) -> None:
    job_id = submit(alice, zoo, what, **more)
    send_pilot(zoo, f"pilot-{what}")
    job = wait_until(alice, job_id, "failed", "finished", "cancelled", "closed")
    assert job.state == "failed"
    assert job.attributes["pilotErrorCode"] == code, job.errors
    assert job.attributes["pilotErrorDiag"]
    if exit_code is not None:
        assert job.attributes["transExitCode"] == exit_code
    assert [f["status"] for f in job.files if f["type"] == "output"] == ["failed"]
    assert f"payload {what}" in log_of(alice, job, "payload.stdout")


def test_a_user_kills_a_running_job(zoo: Grid, alice: PandaClient) -> None:
    job_id = submit(alice, zoo, "hang")
    send_pilot(zoo, "pilot-killed")
    wait_until(alice, job_id, "running")
    assert alice.kill([job_id]) == [True]
    job = wait_until(alice, job_id, "failed", "finished", "cancelled", "closed")
    assert job.state == "cancelled"
    assert job.attributes["pilotErrorCode"] == 1144
    assert "payload hang" in log_of(alice, job, "payload.stdout")


def test_a_good_payload_finishes(zoo: Grid, alice: PandaClient) -> None:
    job_id = submit(alice, zoo, "good")
    send_pilot(zoo, "pilot-good")
    job = wait_until(alice, job_id, "failed", "finished", "cancelled", "closed")
    assert job.finished, job.errors
    (file,) = alice.files("user.alice.zoo")
    assert file.lfn == f"good.{job_id:05d}.txt"
