"""The fork back end with real processes: restarts, signals, and everything that dies at the wrong moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from schedulers.batch import fork, fork_job
from schedulers.batch.fork import ForkBatch
from schedulers.batch.fork_record import STATES, read_record
from schedulers.batch.protocol import BatchSettings, BatchState, PilotCounts, PilotRequest, PilotStatus
from schedulers.errors import BatchUnknown

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
PATIENCE_S = 10.0

Opener = Callable[..., ForkBatch]


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def open_batch(state_dir: Path) -> Iterator[Opener]:
    """Open the same state directory as often as wanted, as restarted schedulers do; at the end no pilot is left."""

    def open_it(**settings) -> ForkBatch:
        given = {"slots": {"Q": 10}, "stop_grace_s": 5.0, **settings}
        return ForkBatch(BatchSettings(state_dir, "test", **given))

    yield open_it
    for path in state_dir.glob("fork/*/*/started.json"):
        started = json.loads(path.read_text())
        if fork_job.process_identity(started["pid"]) == started["identity"]:
            with suppress(ProcessLookupError):
                os.killpg(started["pid"], signal.SIGKILL)


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "100"], start_new_session=True) as process:
        yield process
        process.kill()


def shell(script: str, **fields) -> PilotRequest:
    return PilotRequest("Q", ("sh", "-c", script), **fields)


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "waited for too long"
        time.sleep(0.02)


def status(batch: ForkBatch, batch_id: str) -> PilotStatus:
    return batch.poll([batch_id])[batch_id]


def wait_for(batch: ForkBatch, batch_id: str, state: BatchState) -> PilotStatus:
    wait_until(lambda: status(batch, batch_id).state is state)
    return status(batch, batch_id)


def live_dir(state_dir: Path, batch_id: str) -> Path:
    return state_dir / "fork" / "live" / batch_id


def alive(pid: int) -> bool:
    return fork_job.process_identity(pid) is not None


# --- restarts ---


def test_a_pilot_outlives_the_scheduler_that_sent_it_and_its_exit_code_is_not_lost(open_batch, state_dir, tmp_path):
    code = f"""
from pathlib import Path
from schedulers.batch.fork import ForkBatch
from schedulers.batch.protocol import BatchSettings, PilotRequest
batch = ForkBatch(BatchSettings(Path({str(state_dir)!r}), "test", slots={{"Q": 1}}))
script = "echo ran >> {tmp_path}/ran; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; exit 5"
print(*batch.submit(2, PilotRequest("Q", ("sh", "-c", script))))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    first, second = done.stdout.split()
    batch = open_batch(slots={"Q": 1})
    assert batch.live() == {first: "Q", second: "Q"}
    wait_for(batch, first, BatchState.RUNNING)
    assert batch.counts() == {"Q": PilotCounts(pending=1, running=1)}
    (tmp_path / "go").touch()
    wait_until(lambda: (live_dir(state_dir, first) / "ended.json").exists())  # with nobody looking
    for batch_id in (first, second):
        assert wait_for(open_batch(slots={"Q": 1}), batch_id, BatchState.FAILED).exit_code == 5
    assert (tmp_path / "ran").read_text() == "ran\n" * 2


def test_schedulers_that_come_and_go_start_each_pilot_once(open_batch, tmp_path):
    ids = open_batch(slots={}).submit(8, shell(f"echo ran >> {tmp_path}/ran"))
    # All look before the first wrapper can have claimed its job, so that many wrappers race for each.
    for _ in range(4):
        open_batch().counts()
    batch = open_batch()
    for batch_id in ids:
        wait_for(batch, batch_id, BatchState.DONE)
    assert (tmp_path / "ran").read_text() == "ran\n" * 8


def test_a_wrapper_that_comes_second_does_nothing(open_batch, state_dir, tmp_path):
    (batch_id,) = open_batch(slots={}).submit(1, shell(f"echo ran >> {tmp_path}/ran"))
    directory = live_dir(state_dir, batch_id)
    for _ in range(2):
        subprocess.run([sys.executable, "-I", "-S", fork_job.__file__, str(directory)], check=True)
    assert (tmp_path / "ran").read_text() == "ran\n"


def test_a_scheduler_killed_anywhere_loses_and_doubles_nothing(open_batch, state_dir, tmp_path):
    code = f"""
from pathlib import Path
from schedulers.batch.fork import ForkBatch
from schedulers.batch.protocol import BATCH_ID_MARK, BatchSettings, PilotRequest
batch = ForkBatch(BatchSettings(Path({str(state_dir)!r}), "test", slots={{"Q": 3}}))
request = PilotRequest("Q", ("sh", "-c", "echo " + BATCH_ID_MARK + " >> {tmp_path}/ran"))
print("up", flush=True)
while True:
    batch.submit(1, request)
"""
    for pause_s in (0.03, 0.06, 0.1):
        with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as scheduler:
            assert scheduler.stdout is not None
            scheduler.stdout.readline()
            time.sleep(pause_s)
            scheduler.kill()
    batch = open_batch()
    ids = {path.name for folder in ("live", "ended") for path in (state_dir / "fork" / folder).glob("[!.]*")}
    assert len(ids) >= 3
    wait_until(lambda: not batch.live())
    ran = (tmp_path / "ran").read_text().split()
    assert sorted(ran) == sorted(ids)


# --- the pilot's surroundings ---


def test_output_environment_and_directory_are_the_pilots_own(open_batch, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_SCHEDULER", "1")
    monkeypatch.setenv("LANG", "C.UTF-8")
    batch = open_batch(command_prefix=("env", "PREFIXED=yes"))
    script = "pwd; env; cat; echo error >&2"
    (batch_id,) = batch.submit(1, shell(script, environment={"TMPDIR": "/var/tmp"}, work_dir=tmp_path))
    wait_for(batch, batch_id, BatchState.DONE)
    logs = batch.logs(batch_id)
    out = logs.stdout.read_text().splitlines()
    assert out[0] == str(tmp_path)
    assert {"TMPDIR=/var/tmp", "PREFIXED=yes", "LANG=C.UTF-8", f"PATH={os.environ['PATH']}"} <= set(out)
    assert not any(line.startswith("SECRET") for line in out)
    assert logs.stderr.read_text() == "error\n"
    assert oct(logs.stdout.stat().st_mode & 0o777) == "0o600"


def test_the_pilot_leads_no_session_of_the_scheduler(open_batch):
    batch = open_batch()
    (batch_id,) = batch.submit(1, shell("ps -o sid= -p $$; ps -o pgid= -p $$"))
    wait_for(batch, batch_id, BatchState.DONE)
    session, group = map(int, batch.logs(batch_id).stdout.read_text().split())
    assert session == group != os.getsid(0)


@pytest.mark.parametrize(
    "request_",
    [PilotRequest("Q", ("/no/such/pilot",)), shell("true", work_dir=Path("/no/such/directory"))],
)
def test_a_pilot_that_cannot_be_started_has_failed_and_says_why(open_batch, request_):
    batch = open_batch()
    (batch_id,) = batch.submit(1, request_)
    failed = wait_for(batch, batch_id, BatchState.FAILED)
    assert failed.exit_code == 127
    assert "/no/such/" in failed.reason


def test_a_pilot_killed_by_a_signal_has_failed(open_batch):
    batch = open_batch()
    (batch_id,) = batch.submit(1, shell("kill -SEGV $$"))
    assert wait_for(batch, batch_id, BatchState.FAILED).exit_code == -signal.SIGSEGV


def test_nothing_that_a_pilot_left_behind_keeps_running(open_batch, tmp_path):
    batch = open_batch()
    (batch_id,) = batch.submit(1, shell(f"sleep 100 & echo $! > {tmp_path}/pid"))
    wait_for(batch, batch_id, BatchState.DONE)
    left = int((tmp_path / "pid").read_text())
    wait_until(lambda: not alive(left))


# --- cancelling ---


def test_cancel_ends_the_pilots_group_and_nobody_else(open_batch, tmp_path, bystander):
    batch = open_batch()
    script = f"sleep 100 & echo $! > {tmp_path}/child; wait"
    kept, dropped = (batch.submit(1, shell(script.replace("child", name)))[0] for name in ("kept", "dropped"))
    wait_until(lambda: all((tmp_path / name).exists() for name in ("kept", "dropped")))
    batch.cancel([dropped])
    assert wait_for(batch, dropped, BatchState.REMOVED).native == "stopped"
    wait_until(lambda: not alive(int((tmp_path / "dropped").read_text())))
    assert alive(int((tmp_path / "kept").read_text()))
    assert bystander.poll() is None
    assert status(batch, kept).state is BatchState.RUNNING


def test_a_pilot_may_tidy_up_when_it_is_cancelled(open_batch, tmp_path):
    batch = open_batch()
    (batch_id,) = batch.submit(1, shell(f"trap 'echo tidy; exit 9' TERM; touch {tmp_path}/up; sleep 100 & wait"))
    wait_until((tmp_path / "up").exists)
    batch.cancel([batch_id])
    assert wait_for(batch, batch_id, BatchState.REMOVED).exit_code == 9
    assert batch.logs(batch_id).stdout.read_text() == "tidy\n"


def test_a_pilot_that_does_not_listen_is_killed_after_the_grace(open_batch, tmp_path):
    batch = open_batch(stop_grace_s=0.3)
    (batch_id,) = batch.submit(1, shell(f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.05; done"))
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    batch.cancel([batch_id])
    assert status(batch, batch_id).native == "stopping"
    assert batch.counts()["Q"].running == 1
    wait_for(batch, batch_id, BatchState.REMOVED)
    wait_until(lambda: not alive(int((tmp_path / "pid").read_text())))


def test_a_restarted_scheduler_finishes_what_a_cancel_began(open_batch, tmp_path):
    batch = open_batch()
    (batch_id,) = batch.submit(1, shell(f"trap '' TERM; touch {tmp_path}/up; while :; do sleep 0.05; done"))
    wait_until((tmp_path / "up").exists)
    batch.cancel([batch_id])
    wait_for(open_batch(stop_grace_s=0.0), batch_id, BatchState.REMOVED)


def test_a_pilot_cancelled_while_it_waits_never_starts(open_batch, tmp_path):
    batch = open_batch(slots={})
    (batch_id,) = batch.submit(1, shell(f"touch {tmp_path}/ran"))
    batch.cancel([batch_id])
    again = open_batch()
    assert status(again, batch_id).native == "withdrawn"
    assert again.live() == {}
    assert not (tmp_path / "ran").exists()


def test_a_cancel_between_start_and_claim_is_obeyed(open_batch, state_dir, tmp_path):
    (batch_id,) = open_batch(slots={}).submit(1, shell(f"touch {tmp_path}/ran"))
    directory = live_dir(state_dir, batch_id)
    fork_job.write_new(directory / fork_job.CANCELLED, {"cancelled_at": fork_job.now_text()})
    subprocess.run([sys.executable, "-I", "-S", fork_job.__file__, str(directory)], check=True)
    assert not (tmp_path / "ran").exists()
    assert read_record(directory).native == "stopped"


def test_a_pid_that_now_belongs_to_another_is_left_alone(open_batch, state_dir, bystander):
    (batch_id,) = open_batch(slots={}).submit(1, shell("sleep 100"))
    identity = fork_job.process_identity(bystander.pid)
    assert identity is not None
    boot, pid, ticks = identity.rsplit(":", 2)
    earlier = {"pid": bystander.pid, "identity": f"{boot}:{pid}:{int(ticks) - 1}", "started_at": fork_job.now_text()}
    fork_job.write_new(live_dir(state_dir, batch_id) / fork_job.STARTED, earlier)
    batch = open_batch(stop_grace_s=0.0)
    batch.cancel([batch_id])
    assert status(batch, batch_id).state is BatchState.REMOVED
    assert bystander.poll() is None


def test_a_pilot_that_vanished_has_failed_without_an_exit_code(open_batch, state_dir, tmp_path):
    batch = open_batch()
    (batch_id,) = batch.submit(1, shell(f"touch {tmp_path}/up; sleep 100"))
    wait_until((tmp_path / "up").exists)
    os.killpg(json.loads((live_dir(state_dir, batch_id) / "started.json").read_text())["pid"], signal.SIGKILL)
    failed = wait_for(batch, batch_id, BatchState.FAILED)
    assert (failed.native, failed.exit_code) == ("vanished", None)
    assert failed.reason


# --- trouble ---


def test_a_wrapper_that_fails_is_not_started_again_and_again(open_batch, monkeypatch, tmp_path):
    batch = open_batch()
    monkeypatch.setattr(fork_job, "__file__", str(tmp_path / "nowhere.py"))
    (batch_id,) = batch.submit(1, shell("true"))
    failed = wait_for(batch, batch_id, BatchState.FAILED)
    assert "wrapper process failed" in failed.reason
    assert "nowhere.py" in batch.logs(batch_id).stderr.read_text()


def test_a_machine_that_cannot_fork_now_may_do_so_later(open_batch, monkeypatch, caplog):
    batch = open_batch()

    def refuse(*_arguments: object, **_options: object) -> int:
        raise BlockingIOError("no more processes")

    with monkeypatch.context() as patched:
        patched.setattr(fork.os, "posix_spawn", refuse)
        (batch_id,) = batch.submit(1, shell("true"))
        assert status(batch, batch_id).state is BatchState.PENDING
    assert "no more processes" in caplog.text
    wait_for(batch, batch_id, BatchState.DONE)


@pytest.mark.parametrize("content", ["", "[]", "{}", "nonsense"])
def test_a_spoilt_job_is_an_error_that_names_the_trouble(open_batch, state_dir, content):
    (batch_id,) = open_batch(slots={}).submit(1, shell("true"))
    (live_dir(state_dir, batch_id) / fork_job.JOB).write_text(content)
    with pytest.raises(BatchUnknown, match="fork back end"):
        open_batch().counts()


def test_old_logs_are_thrown_away_and_their_pilots_forgotten(open_batch):
    batch = open_batch()
    (batch_id,) = batch.submit(1, shell("true"))
    wait_for(batch, batch_id, BatchState.DONE)
    assert open_batch().logs(batch_id).stdout.exists()
    assert status(open_batch(keep_logs_s=0.0), batch_id).state is BatchState.UNKNOWN


def test_looking_only_changes_nothing(open_batch, state_dir, tmp_path):
    rehearsal = open_batch(look_only=True)
    assert (rehearsal.counts(), rehearsal.live()) == ({}, {})
    assert not state_dir.exists()
    (batch_id,) = open_batch(slots={}).submit(1, shell(f"touch {tmp_path}/ran"))
    assert rehearsal.counts() == {"Q": PilotCounts(pending=1)}
    assert status(rehearsal, batch_id).state is BatchState.PENDING
    assert list(live_dir(state_dir, batch_id).iterdir()) == [live_dir(state_dir, batch_id) / fork_job.JOB]


def test_every_native_state_has_one_of_ours():
    assert set(STATES.values()) == set(BatchState) - {BatchState.UNKNOWN}


def test_a_cycle_with_many_pilots_is_cheap(open_batch):
    batch = open_batch(slots={})
    ids = batch.submit(100, shell("true"))
    began = time.process_time()
    for _ in range(5):
        batch.poll(ids)
        batch.counts()
    assert (time.process_time() - began) / 5 < 0.2
