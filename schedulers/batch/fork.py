"""A stand-in for a batch system on one machine: pilots are processes, and all it knows is in files.

There is no daemon. Whoever asks moves things on: ended jobs are put aside, free slots are filled. Because each job is
claimed on disk by its own wrapper process, any number of restarts can neither lose one nor start one twice.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from schedulers.batch import fork_job
from schedulers.batch.fork_record import ForkRecord, read_optional, read_record
from schedulers.batch.protocol import (
    BATCH_ID_MARK,
    LIVE,
    BatchId,
    BatchSettings,
    BatchState,
    BatchSystem,
    PilotCounts,
    PilotLogs,
    PilotRequest,
    PilotStatus,
)
from schedulers.errors import BatchUnknown, PilotNotKnown

log = logging.getLogger(__name__)

GOOD_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ")
"""All that a pilot inherits of the scheduler's environment; the rest is given in the configuration."""
PURGE_EVERY_S = 60.0


def open_batch(settings: BatchSettings) -> BatchSystem:
    """Open the batch system kept in the `fork` folder of the state directory."""
    return ForkBatch(settings)


class ForkBatch:
    """Runs pilots as processes of this machine, so many at a time per queue."""

    def __init__(self, settings: BatchSettings) -> None:
        self._settings = settings
        self._live = settings.state_dir / "fork" / "live"
        self._ended = settings.state_dir / "fork" / "ended"
        self._wrappers: dict[BatchId, int] = {}
        self._next_purge = 0.0
        if not settings.look_only:
            for folder in (self._live, self._ended):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def submit(self, count: int, request: PilotRequest) -> tuple[BatchId, ...]:
        """Write the jobs down, then start as many as there are free slots."""
        with _answering():
            ids = tuple(self._write_job(request, number) for number in range(count))
            self._move_on()
        return ids

    def poll(self, ids: Sequence[BatchId]) -> dict[BatchId, PilotStatus]:
        """Read the files of the jobs."""
        with _answering():
            self._move_on()
            return {batch_id: self._status(batch_id) for batch_id in ids}

    def counts(self) -> dict[str, PilotCounts]:
        """Count the jobs that have not ended."""
        with _answering():
            self._move_on()
            found = Counter((record.queue, record.state) for record in self._live_records().values())
        queues = {queue for queue, _ in found}
        return {q: PilotCounts(found[q, BatchState.PENDING], found[q, BatchState.RUNNING]) for q in queues}

    def live(self) -> dict[BatchId, str]:
        """List the jobs that have not ended."""
        with _answering():
            self._move_on()
            return {batch_id: record.queue for batch_id, record in self._live_records().items()}

    def cancel(self, ids: Sequence[BatchId]) -> None:
        """Mark the jobs, and send SIGTERM to the process groups of those that run; SIGKILL follows after the grace."""
        with _answering():
            for batch_id in ids:
                if (directory := self._find(batch_id)) and directory.parent == self._live:
                    self._cancel(directory)
            self._move_on()

    def logs(self, batch_id: BatchId) -> PilotLogs:
        """Point at the two files that the pilot writes to."""
        directory = self._find(batch_id)
        if directory is None:
            raise PilotNotKnown(f"no pilot {batch_id!r} in {self._live.parent}; logs are kept for a limited time")
        return PilotLogs(directory / "stdout", directory / "stderr")

    def _write_job(self, request: PilotRequest, number: int) -> BatchId:
        batch_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{number:03d}-{os.urandom(2).hex()}"
        words = [word.replace(BATCH_ID_MARK, batch_id) for word in request.argv]
        inherited = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        draft = self._live / f".{batch_id}"
        draft.mkdir(mode=0o700)
        job = {
            "queue": request.queue,
            "argv": [*self._settings.command_prefix, *words],
            "environment": {**inherited, **request.environment},
            "work_dir": str(request.work_dir or self._live / batch_id),
            "submitted_at": fork_job.now_text(),
        }
        (draft / fork_job.JOB).write_text(json.dumps(job))
        draft.rename(self._live / batch_id)
        return batch_id

    def _find(self, batch_id: BatchId) -> Path | None:
        if not GOOD_ID.fullmatch(batch_id):
            return None
        return next((folder / batch_id for folder in (self._live, self._ended) if (folder / batch_id).is_dir()), None)

    def _status(self, batch_id: BatchId) -> PilotStatus:
        directory = self._find(batch_id)
        return read_record(directory).status() if directory else PilotStatus(BatchState.UNKNOWN)

    def _live_records(self) -> dict[BatchId, ForkRecord]:
        """Read every job that has not ended, oldest first."""
        if not self._live.is_dir():
            return {}
        names = sorted(path.name for path in self._live.iterdir() if GOOD_ID.fullmatch(path.name))
        records = {name: read_record(self._live / name) for name in names}
        return {name: record for name, record in records.items() if record.state in LIVE}

    def _move_on(self) -> None:
        """Do what the daemon of a real batch system does all the time."""
        if self._settings.look_only:
            return
        self._reap()
        self._put_aside()
        self._fill_slots()
        self._purge()

    def _reap(self) -> None:
        for batch_id, pid in list(self._wrappers.items()):
            if not _has_ended(pid):
                continue
            del self._wrappers[batch_id]
            directory = self._live / batch_id
            if directory.is_dir() and not (directory / fork_job.STARTED).exists():
                # Left without an end this job would be started again and again.
                end = {
                    "exit_code": None,
                    "reason": "its wrapper process failed, see stderr",
                    "ended_at": fork_job.now_text(),
                }
                fork_job.write_new(directory / fork_job.ENDED, end)

    def _put_aside(self) -> None:
        for path in list(self._live.iterdir()):
            if not GOOD_ID.fullmatch(path.name):
                continue
            record = read_record(path)
            if record.native == "withdrawn" and path.name in self._wrappers:
                continue  # its wrapper is about to find that out; the files stay until it has
            if record.state not in LIVE:
                path.rename(self._ended / path.name)
                log.info(
                    "pilot %s of %s ended: %s, exit code %s", path.name, record.queue, record.native, record.exit_code
                )
            elif record.native == "stopping":
                self._kill_when_overdue(record)

    def _fill_slots(self) -> None:
        records = self._live_records()
        busy = Counter(
            r.queue for name, r in records.items() if r.state is BatchState.RUNNING or name in self._wrappers
        )
        for batch_id, record in records.items():
            waits = record.native == "waiting" and batch_id not in self._wrappers
            if waits and busy[record.queue] < self._settings.slots.get(record.queue, 0):
                busy[record.queue] += 1
                try:
                    self._wrappers[batch_id] = _spawn_wrapper(record.directory)
                except OSError as error:
                    log.warning("pilot %s cannot begin now and goes on waiting: %s", batch_id, error)

    def _cancel(self, directory: Path) -> None:
        # First the mark, then the look: a wrapper that claims the job in between sees the mark and does not run it.
        fork_job.write_new(directory / fork_job.CANCELLED, {"cancelled_at": fork_job.now_text()})
        record = read_record(directory)
        if record.native == "stopping" and not self._kill_when_overdue(record):
            _signal_group(record, signal.SIGTERM)

    def _kill_when_overdue(self, record: ForkRecord) -> bool:
        if record.cancelled_at is None:
            return False
        overdue = (datetime.now(UTC) - record.cancelled_at).total_seconds() >= self._settings.stop_grace_s
        if overdue:
            _signal_group(record, signal.SIGKILL)
        return overdue

    def _purge(self) -> None:
        if time.monotonic() < self._next_purge:
            return
        self._next_purge = time.monotonic() + PURGE_EVERY_S
        oldest = time.time() - self._settings.keep_logs_s
        for path in list(self._ended.iterdir()):
            if path.stat().st_mtime < oldest:
                shutil.rmtree(path)


def _spawn_wrapper(directory: Path) -> int:
    """Start the wrapper of one job in a session of its own and give its pid."""
    writing = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", str(Path(fork_job.__file__).resolve()), str(directory)],
        {},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(directory / "stdout"), writing, 0o600),
            (os.POSIX_SPAWN_OPEN, 2, str(directory / "stderr"), writing, 0o600),
        ],
        setsid=True,
        setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGPIPE],
    )


def _has_ended(pid: int) -> bool:
    """Say whether our child has ended, and let the kernel forget it."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def _signal_group(record: ForkRecord, number: signal.Signals) -> None:
    """Signal the pilot's own process group, after making sure once more that it is still the one we started."""
    pid = record.pid
    started = read_optional(record.directory / fork_job.STARTED)
    if pid is None or fork_job.process_identity(pid) != started["identity"]:
        return
    with suppress(ProcessLookupError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
            log.info("sent %s to the process group of pilot %s", number.name, record.directory.name)


@contextmanager
def _answering() -> Iterator[None]:
    """Turn trouble with the files into the one answer that stops the scheduler from guessing."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        raise BatchUnknown(f"the fork back end cannot read or write its state: {error!r}") from error
