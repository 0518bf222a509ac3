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
import runpy, sys
sys.path.insert(0, sys.argv[1])
import _venv
_venv.enter = lambda: None  # the tests run inside the environment already
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


def check_lives(told: dict[str, Any], doors: list[tuple[str, str]], clients: list[int]) -> None:
    assert {"cpu_ms_per_job", "web_ms", "db_ms", "pilot_lives_per_s", "floor_ratio", "by_clients"} <= set(told)
    rows = told["rows"]
    expected = [(front, connection, number) for front, connection in doors for number in clients]
    assert [(one["front"], one["connection"], one["clients"]) for one in rows] == expected
    for one in rows:
        assert (one["jobs"], one["lives"], one["finished"]) == (6, 6, 6)
        assert not one["problems"]
        assert one["calls"]["updateJob finished"]["count"] == 6
        assert all(set(call) == CALL_KEYS for call in one["calls"].values())
        assert one["cpu_ms_per_job"] > 0
        assert one["background_ms"] > 0, "threads are not told apart"
        assert (one["threads_ms"].get("httpd", 0.0) > 0) == (one["front"] == "apache")


def test_lives(folder: Path) -> None:
    told = bench(folder, "life", "--clients", "1,3", "--jobs", "6", "--seconds", "30", *SMALL_SERVER)
    check_lives(told, [("gunicorn", "http")], [1, 3])
    assert set(told["by_clients"]) == {"1", "3"}


def test_lives_through_every_front_end(folder: Path) -> None:
    doors = ["--front", "gunicorn,apache", "--connections", "http,new"]
    told = bench(folder, "life", "--clients", "2", "--jobs", "6", "--seconds", "30", *SMALL_SERVER, *doors)
    check_lives(told, [(front, kind) for front in ("gunicorn", "apache") for kind in ("http", "new")], [2])


def test_pilots_that_wait(folder: Path) -> None:
    told = bench(folder, "longpoll", "--parked", "6", "--seconds", "2", "--wait", "2", *SMALL_SERVER)
    assert (told["pilots"], told["wait_s"]) == (6, 2)
    assert told["parked"] + told["told_to_come_later"] == 6
    assert told["given"] > 0
    assert told["idle_core_percent"] == pytest.approx(told["idle_web_percent"] + told["idle_db_percent"], abs=0.05)
    assert not told["problems"]


def test_what_is_not_known_is_refused(folder: Path) -> None:
    done = subprocess.run(command("life", "--front", "nginx"), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "'nginx' is none of gunicorn, apache" in done.stderr


@pytest.mark.parametrize("name", ["life", "longpoll"])
def test_help_has_examples(name: str) -> None:
    done = subprocess.run(command(name, "--help"), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "examples:" in done.stdout and f"tools/bench {name}" in done.stdout
    assert all(word in done.stdout for word in ("gunicorn", "apache", "--https", "--new-connections"))


def test_calls(folder: Path) -> None:
    told = bench(folder, "calls", "--only", "updateJob", "--seconds", "0.3", "--clients", "2", *SMALL_SERVER)
    assert told["long_poll"]["given"]
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
    arguments = ("--running", "40", "--rate", "20", "--lives", "4", "--seconds", "1", "--https")
    told = bench(folder, "heartbeats", *arguments, *SMALL_SERVER)
    assert told["running"] == 40
    assert told["calls"]["heartbeat"]["count"] > 5
    assert told["calls"]["updateJob finished"]["count"] > 0
    assert not told["problems"]


def test_data(folder: Path) -> None:
    small = ("--jobs", "12", "--files", "4", "--file-kb", "10", "--seconds", "0.01")
    told = bench(folder, "data", *small, *SMALL_SERVER)
    assert (told["finished"], told["problems"]) == (12, {})
    assert (told["inputs_copied"], told["inputs_needed_at_other_sites"]) == (8, 8)
    assert told["outputs_and_logs_at_tier1"] == told["of_them_with_the_right_bytes"] == 24
    assert (told["sub_datasets_open"], told["files_left_beside_their_place"]) == (0, 0)


def test_floor(folder: Path) -> None:
    told = bench(folder, "floor", "--seconds", "2", "--clients", "2", *SMALL_SERVER)
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
