"""Payload processes: found in both process tables, measured, and ended down to the last one; no other is touched."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from integration.test_pilot_stub import ROOT, alive, eventually

from pandapilot.clock import SystemClock
from pandapilot.failures import JobFailure
from pandapilot.payload import Payload
from pandapilot.processes import Process, descendants, proc_table, psutil_table, send

pytestmark = pytest.mark.integration
TABLES = pytest.mark.parametrize("table", [proc_table, psutil_table])
ENVIRONMENT = {"PATH": os.environ["PATH"]}


def start(script: str, directory: Path, table=proc_table) -> Payload:
    return Payload(["sh", "-c", script], directory, environment=ENVIRONMENT, table=table)


@pytest.fixture
def sleeper():
    with subprocess.Popen(["sleep", "100"]) as process:
        yield process
        process.kill()


@TABLES
def test_table_knows_this_process(table):
    me = table()[os.getpid()]
    assert me.parent == os.getppid()
    assert me.cpu_s > 0
    assert me.memory_bytes > 1_000_000
    assert not me.ended


@TABLES
def test_table_shows_the_dead_as_ended(table):
    with subprocess.Popen(["true"]) as process:
        eventually(lambda: table()[process.pid].ended)


def test_names_of_processes_cannot_confuse_the_table(tmp_path):
    program = tmp_path / ") R 1 1 ("
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "100"]) as process:
        assert proc_table()[process.pid].parent == os.getpid()
        process.kill()


def fake(pid, parent, **more):
    facts = {"started": 1.0, "cpu_s": 0.0, "memory_bytes": 0, "ended": False, **more}
    return Process(pid=pid, parent=parent, **facts)


def test_descendants_leave_out_the_spared_with_all_below_them():
    processes = [fake(0, 0), fake(1, 0), fake(2, 1), fake(3, 2), fake(4, 1), fake(5, 4), fake(6, 0)]
    table = {process.pid: process for process in processes}
    assert {process.pid for process in descendants(table, 1, frozenset())} == {2, 3, 4, 5}
    assert {process.pid for process in descendants(table, 1, frozenset({(4, 1.0)}))} == {2, 3}
    assert {process.pid for process in descendants(table, 1, frozenset({(4, 9.9)}))} == {2, 3, 4, 5}


@TABLES
def test_signal_goes_only_to_the_process_that_was_meant(table, sleeper):
    meant = table()[sleeper.pid]
    send([fake(sleeper.pid, meant.parent, started=meant.started - 1)], 9, table)
    time.sleep(0.1)
    assert alive(sleeper.pid)
    send([meant], 9, table)
    eventually(lambda: not alive(sleeper.pid))
    send([meant], 9, table)


@TABLES
def test_payload_is_measured_with_its_children(table, tmp_path):
    script = "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'; sleep 100"
    payload = start(script, tmp_path, table)
    try:
        eventually(lambda: payload.measure().cpu_s > 0.05)
        assert payload.measure().memory_bytes > 100_000
    finally:
        ended = payload.stop(1, SystemClock())
    assert ended.exit_code == 128 + 15
    assert ended.cpu_s > 0.05
    assert ended.max_memory_bytes > 100_000


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -9 $$", 137)])
def test_exit_code_is_kept(tmp_path, script, code):
    payload = start(script, tmp_path)
    eventually(payload.ended)
    ended = payload.stop(1, SystemClock())
    assert ended.exit_code == code
    assert payload.stop(1, SystemClock()) is ended
    assert payload.ended()


@TABLES
def test_stopping_spares_what_was_there_before(table, tmp_path, sleeper):
    payload = start("trap '' TERM; (sleep 100 &) ; while :; do sleep 0.1; done", tmp_path, table)
    begun = time.monotonic()
    time.sleep(0.3)
    assert payload.stop(0.5, SystemClock()).exit_code == 137
    assert time.monotonic() - begun < 5
    assert alive(sleeper.pid)
    assert not [path for path in Path("/proc").glob("[0-9]*") if _works_in(path, tmp_path)]


def _works_in(process: Path, directory: Path) -> bool:
    try:
        return (process / "cwd").resolve() == directory
    except OSError:
        return False


@pytest.mark.parametrize("command", [["./none"], ["./noexec"], ["./nofirstline"], ["sh", "a\0b"]])
def test_payload_that_cannot_be_started_fails_the_job(tmp_path, command):
    (tmp_path / "noexec").write_text("#!/bin/sh\n")
    (tmp_path / "nofirstline").write_text("echo hello\n")
    (tmp_path / "nofirstline").chmod(0o755)
    with pytest.raises(JobFailure) as caught:
        Payload(command, tmp_path, environment=ENVIRONMENT, table=proc_table)
    assert caught.value.code == 1305


def test_hardened_process_gets_its_orphans_back_and_hides_its_memory():
    script = """
        import os, subprocess, time
        from pandapilot.processes import harden
        harden()
        subprocess.run(["sh", "-c", "setsid sleep 0.2 &"], check=True)
        print(os.stat(f"/proc/{os.getpid()}/environ").st_uid)
        print(os.waitpid(-1, 0)[1])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["0", "0"]
