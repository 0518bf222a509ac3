"""Starts the programs of the temporary grid, each in its own process group, and stops them again."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

_STOP_S = 15


class ServiceDied(Exception):
    """A program of the grid ended although it should run; the text ends with its log."""


@dataclass
class Services:
    """Named programs; their output goes to <name>.log in `logs`."""

    logs: Path
    environment: dict[str, str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *command: str | Path) -> None:
        """Start a program; output of an earlier start is kept before the new."""
        with (self.logs / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [str(word) for word in command],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o002,  # storage folders are shared with the pilots by their group
            )

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the program and all its children, and wait for its end."""
        process = self.running.pop(name)
        _signal_group(process, how)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            _signal_group(process, signal.SIGKILL)
            process.wait()
        if how is not signal.SIGKILL:
            _signal_group(process, signal.SIGKILL)  # children that outlived it

    def check(self) -> None:
        """Raise ServiceDied when a program has ended by itself."""
        for name, process in self.running.items():
            if process.poll() is not None:
                raise ServiceDied(f"{name} ended with code {process.returncode}:\n{self.last_words(name)}")

    def last_words(self, name: str, lines: int = 20) -> str:
        """Give the end of a program's log."""
        log = self.logs / f"{name}.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""

    def stop(self) -> None:
        """Stop everything, in the reverse order of starting."""
        for name in reversed(list(self.running)):
            self.kill(name, signal.SIGTERM)


def _signal_group(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    try:
        os.killpg(process.pid, how)
    except ProcessLookupError:
        return
