"""A machine for the rehearsal: a folder as its disk, and namespaces of its own for all else."""

from __future__ import annotations

import os
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BOOT = Path(__file__).with_name("boot.py")
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": "/wheels",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
}
_MARK = "\x1e"  # ends the output of a command, with its exit code
_CHUNK = 65536


class RehearsalError(Exception):
    """The rehearsal cannot go on; the text says why."""


@dataclass(frozen=True)
class Result:
    """What became of a command."""

    exit_code: int
    output: str
    seconds: float


@dataclass(frozen=True)
class Machine:
    """A running machine; `pid` is its first process, as seen from outside."""

    root: Path
    pid: int

    def entering(self, user: str) -> list[str]:
        """Give the words before a command that runs it in there."""
        target = ["nsenter", "--target", str(self.pid)]
        namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd"]
        return [*target, *namespaces, *(["runuser", "-u", user, "--"] if user != "root" else [])]

    def run(self, *words: str, user: str = "root") -> str:
        """Run a command that is not part of the story.

        Raises:
            RehearsalError: it failed.
        """
        command = [*self.entering(user), *words]
        done = subprocess.run(
            command, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RehearsalError(f"{shlex.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def spawn(self, *words: str, user: str = "root") -> subprocess.Popen[str]:
        """Start a command that goes on meanwhile; its output can be read."""
        command = [*self.entering(user), *words]
        return subprocess.Popen(
            command, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip

    @contextmanager
    def session(self, user: str, folder: str) -> Iterator[Session]:
        """Open a shell in which commands follow each other, as on a terminal."""
        command = [*self.entering(user), "bash", "--noprofile", "--norc"]
        environment = _ENVIRONMENT | {"HOME": folder, "USER": user, "LOGNAME": user}
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            session = Session(user, process)
            session.run("cd", limit_s=10)
            yield session
        finally:
            end(process)


@dataclass(frozen=True)
class Session:
    """A shell of a user."""

    user: str
    process: subprocess.Popen[bytes]

    def run(self, command: str, *, limit_s: float) -> Result:
        """Run a command to its end.

        Raises:
            RehearsalError: it takes too long, or ends the shell.
        """
        assert self.process.stdin is not None
        started = time.monotonic()
        line = f"eval {shlex.quote(command)} </dev/null; printf '{_MARK}%d{_MARK}' $?\n"
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()
        text = self._read(command, started + limit_s)
        output, code, _rest = text.rsplit(_MARK, 2)
        return Result(int(code), output, time.monotonic() - started)

    def _read(self, command: str, end: float) -> str:
        assert self.process.stdout is not None
        descriptor, got = self.process.stdout.fileno(), b""
        while got.count(_MARK.encode()) < 2:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
            chunk = os.read(descriptor, _CHUNK) if ready else b""
            if not chunk:
                why = "the shell has ended" if ready else "it takes too long"
                raise RehearsalError(f"{command}: {why}\n{got.decode(errors='replace')[-3000:]}")
            got += chunk
        return got.decode(errors="replace")


def end(process: subprocess.Popen[Any]) -> None:
    """End a process without waiting for what it has started, which may hold its pipes."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            with suppress(OSError):
                pipe.close()


@contextmanager
def machine(root: Path, name: str, *, network: bool) -> Iterator[Machine]:
    """Start a machine whose disk is a folder; with all that runs and is mounted there it ends.

    Raises:
        RehearsalError: the kernel, or the lack of rights, does not allow it.
    """
    namespaces = ["--mount", "--pid", "--fork", "--uts", "--ipc", *([] if network else ["--net"])]
    command = ["unshare", *namespaces, "--propagation", "private", "--kill-child"]
    process = subprocess.Popen(
        [*command, sys.executable, "-I", str(_BOOT), str(root), name],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None and process.stderr is not None
        if process.stdout.readline() != "ready\n":
            process.kill()
            raise RehearsalError(f"the machine does not start: {process.stderr.read()}")
        yield Machine(root, int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]))
    finally:
        end(process)
