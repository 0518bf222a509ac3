"""A very small run of every measurement: its results are whole, whatever the numbers are."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.mysql, pytest.mark.slow]

TOOLS = Path(__file__).resolve().parents[2] / "tools"
RUN_TOOL = """
import runpy, sys, types
sys.modules["_venv"] = types.SimpleNamespace(enter=lambda: None)  # the tests run inside the environment already
sys.path.insert(0, sys.argv[1])
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
SMALL = ("--buffer-pool", "64M", "--queues", "2")
SMALL_SERVER = (*SMALL, "--workers", "1", "--threads", "4")
CALL_KEYS = {"count", "p50_ms", "p95_ms", "p99_ms"}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path below /tmp that the user mysql can get to."""
    made = Path(tempfile.mkdtemp(prefix="bench-", dir="/tmp"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", RUN_TOOL, str(TOOLS), str(TOOLS / "bench"), *arguments]


def bench(folder: Path, *arguments: str) -> dict[str, Any]:
    told = command(arguments[0], "--json", "--directory", str(folder), *arguments[1:])
    done = subprocess.run(told, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert not list(folder.iterdir()), "files were left behind"
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("door", [(), ("--https",), ("--https", "--new-connections")], ids=" ".join)
def test_lives(folder: Path, door: tuple[str, ...]) -> None:
    told = bench(folder, "life", "--clients", "1,3", "--jobs", "6", "--seconds", "30", *SMALL_SERVER, *door)
    assert {"cpu_ms_per_job", "web_ms", "db_ms", "pilot_lives_per_s", "floor_ratio"} <= set(told)
    assert set(told["by_clients"]) == {"1", "3"}
    for one in told["by_clients"].values():
        assert (one["jobs"], one["lives"], one["finished"]) == (6, 6, 6)
        assert not one["problems"]
        assert one["calls"]["updateJob finished"]["count"] == 6
        assert all(set(call) == CALL_KEYS for call in one["calls"].values())
        assert one["cpu_ms_per_job"] > 0
        assert one["background_ms"] > 0, "threads are not told apart"


def test_calls(folder: Path) -> None:
    told = bench(folder, "calls", "--only", "updateJob", "--seconds", "0.3", "--clients", "2", *SMALL_SERVER)
    assert told["long_poll"] == "not there" or told["long_poll"]["given"]
    for name in ("updateJob, sent to running", "updateJob, heartbeat", "updateJob, finished"):
        one = told["calls"][name]
        assert set(one) >= CALL_KEYS | {"per_s", "cpu_ms", "front_ms", "background_ms", "db_ms"}
        assert one["count"] > 0
        assert not one["problems"]


def test_claims(folder: Path) -> None:
    arguments = ("--waiting", "1000", "--claims", "60", "--batch", "5", "--threads-each", "2", *SMALL)
    told = bench(folder, "claim", "--seconds", "20", *arguments)
    assert told["waiting"] == 1000
    assert [one["count"] for one in told["passes"]] == [60, 60, 12, 12]
    assert told["claims"] == 240
    assert told["given_twice"] == 0
    assert told["no_job_answers"] == 0
    assert isinstance(told["nothing_matches"]["too little memory"], float)


def test_heartbeats(folder: Path) -> None:
    arguments = ("--running", "40", "--rate", "20", "--lives", "4", "--seconds", "1")
    told = bench(folder, "heartbeats", *arguments, *SMALL_SERVER)
    assert told["running"] == 40
    assert told["calls"]["heartbeat"]["count"] > 5
    assert told["calls"]["updateJob finished"]["count"] > 0
    assert not told["problems"]


def test_floor(folder: Path) -> None:
    told = bench(folder, "floor", "--seconds", "0.3", "--clients", "2", *SMALL_SERVER)
    assert told["life_ms"] > 0
    assert told["bare_claim"]["count"] > 0
    assert told["empty_route"]["count"] > 0


def test_an_interrupt_leaves_nothing_behind(folder: Path) -> None:
    told = command("life", "--json", "--directory", str(folder), "--clients", "1", "--seconds", "60", *SMALL_SERVER)
    with subprocess.Popen(told, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "warming up" in line:
                break
        (root,) = folder.iterdir()
        database = int((root / "db" / "db.pid").read_text())
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "interrupted" in said
    assert not list(folder.iterdir())
    assert is_gone(database)


def is_gone(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False
