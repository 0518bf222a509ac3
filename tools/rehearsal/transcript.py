"""Writes down what was done, as a reader would see it on his terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from rehearsal.machine import Result

_FIRST, _LAST = 6, 14  # lines of a long output that are kept
_WIDTH = 240
_LOGS = ("var/log/panda/*.log", "var/log/apache2/*error.log", "var/log/rehearsal-units/*.log")
_LATEST, _TAIL = 6, 4000
_SLOW_S = 2.0


@dataclass
class Transcript:
    """Goes to all of `streams` at once; keeps the time that each part of the story took."""

    streams: list[TextIO]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, title: str) -> Iterator[None]:
        """Put a headline above what is done inside."""
        self._write(f"\n=== {title}\n")
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[title] = round(time.monotonic() - started, 1)

    def note(self, text: str) -> None:
        """Say what the rehearsal does by itself."""
        self._write(f"--- {text}\n")

    def command(self, prompt: str, command: str, result: Result) -> None:
        """Show a command and what it said."""
        self._write(f"{prompt} {command}\n")
        self._write(shortened(result.output))
        if result.exit_code:
            self._write(f"[exit code {result.exit_code}]\n")
        if result.seconds > _SLOW_S:
            self._write(f"[{result.seconds:.0f} s]\n")

    def evidence(self, root: Path) -> None:
        """Show the ends of the logs on a machine's disk, for whoever has to find out why something failed."""
        for pattern in _LOGS:
            for path in sorted(root.glob(pattern))[-_LATEST:]:
                text = path.read_text(encoding="utf-8", errors="replace")
                self._write(f"\n--- the end of /{path.relative_to(root)}\n{shortened(text[-_TAIL:])}")

    def _write(self, text: str) -> None:
        for stream in self.streams:
            stream.write(text)
            stream.flush()


def shortened(output: str) -> str:
    """Keep the beginning and the end of what a command said; carriage returns overwrite, as on a terminal."""
    lines = [line.rstrip("\r").rpartition("\r")[2][:_WIDTH] for line in output.rstrip("\r\n").split("\n")]
    if len(lines) > _FIRST + _LAST + 1:
        lines = [*lines[:_FIRST], f"[... {len(lines) - _FIRST - _LAST} lines ...]", *lines[-_LAST:]]
    return "".join(f"{line}\n" for line in lines) if output.strip() else ""
