"""The demonstration as a user runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from demonstration.grid import build
from demonstration.run import Outcome, Size, fetch, follow, submit_all

ROOT = Path(__file__).resolve().parents[2]


def demo(tmp_path: Path, *arguments: str) -> list[str]:
    places = ["--output", str(tmp_path / "results"), "--directory", str(tmp_path)]
    return [sys.executable, str(ROOT / "tools" / "demo"), *places, *arguments]


def test_the_whole_chain_finds_the_z_boson(open_path: Path) -> None:
    done = subprocess.run(demo(open_path, "--json"), capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["submitted"] == told["finished"] == 25
    assert told["failed"] == 0
    assert abs(told["z_mass_gev"] - 91.2) < 2
    assert 0 < told["first_job_seconds"] < told["seconds"]
    assert told["files_moved"] > 0
    assert Path(told["plot"]).read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in open_path.iterdir()) == ["results"]  # the grid is gone


def test_the_whole_chain_on_mariadb(open_path: Path, mariadb: object) -> None:
    url = mariadb.new_database()  # type: ignore[attr-defined]
    small = ("--json", "--jobs", "4", "--events", "100", "--database", url)
    done = subprocess.run(demo(open_path, *small), capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["finished"] == 6


def test_ctrl_c_leaves_nothing_behind(open_path: Path) -> None:
    process = subprocess.Popen(demo(open_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    family: list[psutil.Process] = []
    end = time.monotonic() + 120
    while not any("panda-pilot" in " ".join(command_line(p)) for p in family):
        assert process.poll() is None and time.monotonic() < end, process.stdout and process.stdout.read()
        time.sleep(0.2)
        family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "cleaning up" in said
    _, alive = psutil.wait_procs(family, timeout=20)
    assert [command_line(p) for p in alive] == []
    assert list(open_path.iterdir()) == []


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.restart
@pytest.mark.parametrize("finished_before", [0, 1, 3, 5, 8])
def test_a_killed_server_loses_nothing(open_path: Path, finished_before: int) -> None:
    grid = build(open_path / "grid", slots=2)
    outcome = Outcome(time.monotonic())
    killed = False

    def kill_server(jobs: object) -> None:
        nonlocal killed
        done = sum(job.finished for job in jobs)  # type: ignore[attr-defined]
        if not killed and done >= finished_before:
            killed = True
            grid.services.kill("server", signal.SIGKILL)
            grid.start_server()

    try:
        grid.start_server()
        ids = submit_all(grid, Size(jobs=8, events=60, files_per_job=4))
        grid.start_scheduler()
        follow(grid, ids, outcome, report=kill_server, limit_s=180)
        fetch(grid, outcome, open_path / "results")
    finally:
        grid.stop(keep_files=False)
    assert killed
    assert [(job.name, job.state) for job in outcome.jobs if not job.finished] == []
    assert {job.attributes["attemptNr"] for job in outcome.jobs} == {1}  # no attempt was lost either
    assert outcome.good
