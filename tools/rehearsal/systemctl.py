"""Stands in for systemctl where systemd does not run: it reads the same unit files and does what they say.

Of the sandbox of a unit it makes what shows most mistakes: user, folders that are read-only or hidden, /tmp, umask.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rehearsal.units import (
    JOURNAL,
    PREFIXES,
    SHELL_VARIABLES,
    STATE,
    Unit,
    UnitError,
    assignments,
    command,
    environment,
    identity,
    load,
    sandbox,
    working_directory,
)  # fmt: skip

_TARGETS = Path("/etc/systemd/system")
_START_S = 90.0
_DIED_AT_ONCE_S = 0.5
_QUIET = ("daemon-reload", "reset-failed", "mask", "unmask", "preset")


# ---- running


@dataclass
class Service:
    """A unit that runs, or shall."""

    unit: Unit
    state: Path = STATE
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def pid_file(self) -> Path:
        """Name the file with the process that looks after the unit."""
        return self.state / f"{self.unit.name}.pid"

    @property
    def log_file(self) -> Path:
        """Name the file that stands for the journal."""
        return JOURNAL / f"{self.unit.name}.log"

    def popen(self, line: str, more: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a line of the unit as the unit says."""
        variables = environment(self.unit) | dict(more or {})
        told = command(line, variables)
        words = [*sandbox(self.unit), *([] if told.as_root else identity(self.unit)), *told.words]
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                words, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                cwd=working_directory(self.unit),
                umask=int(self.unit.one("UMask", "0022"), 8),
            )  # fmt: skip

    def do(self, key: str) -> None:
        """Run all lines of a kind, one after another.

        Raises:
            UnitError: one failed that must not.
        """
        for line in self.unit.all(key):
            code = self.popen(line, {"MAINPID": str(self.main_pid() or "")}).wait()
            if code and "-" not in line[: len(line) - len(line.lstrip(PREFIXES))]:
                raise UnitError(f"Job for {self.unit.name} failed: {line} ended with {code}\n{self.last_words()}")

    def last_words(self) -> str:
        """Give the end of what it has written."""
        return self.log_file.read_text(errors="replace")[-2000:] if self.log_file.exists() else ""

    def main_pid(self) -> int | None:
        """Give the process of a running unit."""
        path = Path(self.unit.one("PIDFile", str(self.pid_file)))
        with contextlib.suppress(OSError, ValueError):
            pid = int(path.read_text())
            os.kill(pid, 0)
            return pid
        return None

    def is_active(self) -> bool:
        """Tell whether it runs."""
        return self.main_pid() is not None

    # -- what the commands do

    def start(self) -> None:
        """Start it, and come back when it is ready."""
        if self.is_active():
            return
        if self.unit.is_timer:
            load(self.unit.name.replace(".timer", ".service"))
            return
        if self.unit.kind in ("oneshot", "forking"):
            before = orphans()
            self.do("ExecStartPre")
            self.do("ExecStart")
            if self.unit.kind == "forking" and (left := orphans() - before):
                self.pid_file.write_text(str(min(left)))
            return
        reads, writes = os.pipe()
        if os.fork() == 0:
            os.close(reads)
            os.setsid()
            supervise(self, writes)
        os.close(writes)
        with os.fdopen(reads, "rb") as told:
            said = told.read().decode()
        if said != "ready":
            raise UnitError(f"Job for {self.unit.name} failed: {said}\n{self.last_words()}")

    def stop(self) -> None:
        """Stop it, and come back when it has ended."""
        pid = self.main_pid()
        if pid is None:
            return
        self.do("ExecStop")
        if self.unit.kind != "forking":
            os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + self.unit.stop_s + 5
        while self.is_active():
            if time.monotonic() > end:
                raise UnitError(f"{self.unit.name} does not stop")
            time.sleep(0.05)

    def reload(self) -> None:
        """Let it read its configuration again."""
        if not self.unit.all("ExecReload"):
            raise UnitError(f"Job type reload is not applicable for unit {self.unit.name}.")
        if not self.is_active():
            raise UnitError(f"{self.unit.name} is not active, cannot reload.")
        self.do("ExecReload")


def orphans(processes: Path = Path("/proc")) -> set[int]:
    """List the children of the first process: what a service that goes into the background leaves is among them."""
    found = set[int]()
    for path in processes.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent, *_ = path.read_text().rpartition(")")[2].split()
            if parent == "1" and state != "Z":
                found.add(int(path.parent.name))
    return found


def supervise(service: Service, writes: int) -> None:
    """Be the part of systemd that looks after one service: never comes back."""
    stopping: list[bool] = []

    def stop(_number: int, _frame: object) -> None:
        stopping.append(True)
        if service.process:
            service.process.terminate()

    signal.signal(signal.SIGTERM, stop)
    said = b"ready"
    try:
        service.pid_file.write_text(str(os.getpid()))
        _run_once(service)
    except (UnitError, OSError) as error:
        said = str(error).encode()
    os.write(writes, said)
    os.close(writes)
    if said != b"ready":
        service.pid_file.unlink()
        os._exit(1)
    _detach()
    while not _ended(service, stopping) and not stopping and service.unit.one("Restart", "no") != "no":
        time.sleep(float(service.unit.one("RestartSec", "0.1")))
        with contextlib.suppress(UnitError, OSError):
            _run_once(service)
    service.pid_file.unlink()
    os._exit(0)


def _detach() -> None:
    """Let go of the terminal."""
    with Path("/dev/null").open("r+b") as nothing:
        for descriptor in (0, 1, 2):
            os.dup2(nothing.fileno(), descriptor)


def _run_once(service: Service) -> None:
    """Start the main process and wait until it is ready."""
    service.do("ExecStartPre")
    (line,) = service.unit.all("ExecStart")
    if service.unit.kind == "notify":
        with _notifications(service.state / f"{service.unit.name}.sock") as (address, sock):
            service.process = service.popen(line, {"NOTIFY_SOCKET": address})
            _wait_for_ready(service.process, sock)
    else:
        service.process = service.popen(line)
        with contextlib.suppress(subprocess.TimeoutExpired):
            raise UnitError(f"it ended at once with {service.process.wait(_DIED_AT_ONCE_S)}")
    service.do("ExecStartPost")


@contextlib.contextmanager
def _notifications(path: Path) -> Iterator[tuple[str, socket.socket]]:
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        path.chmod(0o777)
        sock.settimeout(0.2)
        yield str(path), sock


def _wait_for_ready(process: subprocess.Popen[bytes], sock: socket.socket) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        with contextlib.suppress(TimeoutError):
            if b"READY=1" in sock.recv(4096):
                return
        if process.poll() is not None:
            raise UnitError(f"it ended with {process.returncode} before it was ready")
    raise UnitError("it is not ready in time")


def _ended(service: Service, stopping: list[bool]) -> bool:
    """Wait for the main process; kill it where it does not stop. Tells whether that is the end of the service."""
    assert service.process is not None
    while True:
        try:
            code = service.process.wait(service.unit.stop_s if stopping else 0.5)
        except subprocess.TimeoutExpired:
            if stopping:
                service.process.kill()
            continue
        return service.unit.one("Restart", "no") == "on-failure" and code == 0


# ---- the command


def enable(unit: Unit) -> None:
    """Make the links by which it starts with the machine."""
    wanted = [name for line in unit.all("WantedBy", "Install") for name in line.split()]
    if not wanted:
        raise UnitError(f"The unit files have no installation config: {unit.name}")
    for target in wanted:
        link = _TARGETS / f"{target}.wants" / unit.name
        link.parent.mkdir(exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(f"../{unit.name}")
            print(f"Created symlink {link}")


def enabled(ours: tuple[str, ...] = ("apache2", "mariadb", "panda")) -> list[str]:
    """List what starts with the machine, of what the rehearsal is about."""
    return sorted(path.name for path in _TARGETS.glob("*.wants/*") if path.name.startswith(ours))


def boot() -> list[str]:
    """Make what has to be in /run, and tell what starts with the machine."""
    subprocess.run(["systemd-machine-id-setup"], check=False, capture_output=True)
    subprocess.run(["systemd-tmpfiles", "--create", "--boot", "--exclude-prefix=/dev"], check=False)
    return enabled()


def _act(verb: str, unit: Unit, *, now: bool) -> None:
    service = Service(unit)
    if verb == "enable":
        enable(unit)
    if verb in ("stop", "restart", "try-restart") and service.is_active():
        service.stop()
    if verb in ("start", "restart") or (verb == "enable" and now):
        service.start()
    if verb == "reload":
        service.reload()
    if verb in ("is-active", "status"):
        print("active" if service.is_active() else "inactive", service.main_pid() or "")
        if not service.is_active():
            raise UnitError("inactive")


def _set_environment(words: list[str], *, remove: bool) -> None:
    path = STATE / SHELL_VARIABLES
    values = assignments(path.read_text(encoding="utf-8")) if path.exists() else {}
    for word in words:
        values.pop(word.partition("=")[0], None)
    values |= {} if remove else assignments("\n".join(words))
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()), encoding="utf-8")


def main() -> int:
    """Do what is asked; 1 where it failed."""
    parser = argparse.ArgumentParser("systemctl", description=__doc__)
    parser.add_argument("verb")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--now", action="store_true")
    parser.add_argument("--quiet", "-q", action="store_true")
    options = parser.parse_intermixed_args()
    STATE.mkdir(mode=0o755, exist_ok=True)
    JOURNAL.mkdir(mode=0o755, exist_ok=True)
    try:
        if options.verb in ("set-environment", "unset-environment"):
            _set_environment(options.names, remove=options.verb.startswith("un"))
            return 0
        verb, names = ("start", boot()) if options.verb == "boot" else (options.verb, options.names)
        for name in [] if verb in _QUIET else names:
            _act(verb, load(name), now=options.now)
    except (UnitError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
