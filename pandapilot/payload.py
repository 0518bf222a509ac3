"""The payload while it lives: started with a clean environment, measured, and ended with everything it started."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pandapilot.clock import Clock
from pandapilot.codes import ErrorCode
from pandapilot.failures import JobFailure
from pandapilot.files import create
from pandapilot.jobs import STDERR, STDOUT, TEMPORARY, Job
from pandapilot.processes import Process, ProcessTable, descendants, die_with_parent, send

logger = logging.getLogger(__name__)

PATH = "/usr/local/bin:/usr/bin:/bin"
KILL_ROUND_S = 0.05
KILL_PATIENCE_S = 10.0
_KIB = 1024


@dataclass(frozen=True)
class Measure:
    """What a payload and all it started have used so far."""

    cpu_s: float = 0.0
    memory_bytes: int = 0


@dataclass(frozen=True)
class Ended:
    """How a payload ended: its exit code, 128 + n for signal n, and what it used."""

    exit_code: int
    cpu_s: float
    max_memory_bytes: int


def environment_for(job: Job, directory: Path, of_queue: Mapping[str, str]) -> dict[str, str]:
    """Build the payload's environment from nothing, so that no credential of the pilot can slip in."""
    return {
        "PATH": PATH,
        "LANG": "C.UTF-8",
        **of_queue,
        "HOME": str(directory),
        "TMPDIR": str(directory / TEMPORARY),
        "PANDAID": str(job.job_id),
        "PanDA_TaskID": job.task_id,
    }


class Payload:
    """A running payload: one process and everything that descends from it."""

    def __init__(
        self, command: Sequence[str], directory: Path, *, environment: Mapping[str, str], table: ProcessTable
    ) -> None:
        """Start it in its own session, with nothing open but its output files."""
        self._table = table
        self._spare = frozenset(process.key for process in descendants(table(), os.getpid(), frozenset()))
        self._orphans_cpu_s = 0.0
        self._max = Measure()
        self._ended: Ended | None = None
        with create(directory / STDOUT) as stdout, create(directory / STDERR) as stderr:
            self._process = _start(
                lambda: subprocess.Popen(
                    list(command),
                    cwd=directory,
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,
                    preexec_fn=die_with_parent,  # safe: the pilot has one thread only
                )
            )
        self.pid = self._process.pid

    def ended(self) -> bool:
        """Tell whether the payload itself has ended; it is not reaped yet, so its pid stays its own."""
        if self._ended:
            return True
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def measure(self) -> Measure:
        """Sum up CPU time and memory of all processes, reaping orphans that have ended."""
        processes = self._processes()
        self._reap_orphans(processes)
        measured = Measure(
            cpu_s=self._orphans_cpu_s + sum(process.cpu_s for process in processes),
            memory_bytes=sum(process.memory_bytes for process in processes),
        )
        self._max = Measure(
            cpu_s=max(self._max.cpu_s, measured.cpu_s),
            memory_bytes=max(self._max.memory_bytes, measured.memory_bytes),
        )
        return measured

    def stop(self, grace_s: float, clock: Clock) -> Ended:
        """End the payload and whatever it left behind: politely if it still runs, then by force; may be repeated."""
        if self._ended:
            return self._ended
        if not self.ended():
            self._signal(signal.SIGTERM)
            self._wait_until_gone(grace_s, clock)
        end = clock.now() + KILL_PATIENCE_S
        while self._living() and clock.now() < end:
            self._signal(signal.SIGKILL)
            self._wait_until_gone(KILL_ROUND_S, clock)
        if left := self._living():
            logger.error("processes %s of the payload do not die", ", ".join(str(process.pid) for process in left))
        self._ended = self._reap()
        return self._ended

    def _processes(self) -> list[Process]:
        return descendants(self._table(), os.getpid(), self._spare)

    def _living(self) -> list[Process]:
        return [process for process in self._processes() if not process.ended]

    def _wait_until_gone(self, limit_s: float, clock: Clock) -> None:
        end = clock.now() + limit_s
        while self._living() and clock.now() < end:
            clock.sleep(KILL_ROUND_S)

    def _signal(self, number: int) -> None:
        """Signal the group at once, then what has left the group."""
        send([process for process in self._living() if _group_of(process) != self.pid], number, self._table)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)  # the unreaped leader keeps the number of the group from being used anew

    def _reap(self) -> Ended:
        pid, status, used = os.wait4(self.pid, os.WNOHANG)
        if not pid:  # stuck in the kernel, even SIGKILL did not help
            return Ended(128 + signal.SIGKILL, cpu_s=self._max.cpu_s, max_memory_bytes=self._max.memory_bytes)
        self._reap_orphans(self._processes())
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        self._process.returncode = code
        return Ended(
            exit_code=code,
            cpu_s=max(self._max.cpu_s, self._orphans_cpu_s + used.ru_utime + used.ru_stime),
            max_memory_bytes=max(self._max.memory_bytes, _peak_bytes(used)),
        )

    def _reap_orphans(self, processes: list[Process]) -> None:
        for process in processes:
            if process.ended and process.parent == os.getpid() and process.pid != self.pid:
                pid, _, used = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    self._orphans_cpu_s += used.ru_utime + used.ru_stime


def _peak_bytes(used: resource.struct_rusage) -> int:
    """Return the peak that the kernel saw, unless it may stem from the moment when the payload was a copy of us."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used.ru_maxrss * _KIB if used.ru_maxrss > own else 0


def _start(popen: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    try:
        return popen()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise JobFailure(
            ErrorCode.PAYLOAD_FAILED,
            f"the payload could not be started: {error}; a script must begin with the line that names its interpreter",
        ) from error


def _group_of(process: Process) -> int:
    try:
        return os.getpgid(process.pid)
    except OSError:
        return 0


def find_program(name: str, environment: Mapping[str, str]) -> str:
    """Find an installed transformation in the PATH of the payload."""
    found = shutil.which(name, path=environment["PATH"]) if "/" not in name else None
    if not found:
        message = f"transformation {name!r} is neither a URL nor a program in PATH {environment['PATH']}"
        raise JobFailure(ErrorCode.TRANSFORMATION_NOT_FOUND, message)
    return found
