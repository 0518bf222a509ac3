"""Looks into the server while it is under load, with py-spy where that is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmark.processes import BenchError
from benchmark.show import Sheet

INSTALL = "py-spy is not installed. Run: pip install py-spy"
_TOP = 20
_RATE = 200  # samples per second; of threads that hold the interpreter's lock: those that compute
_LATE_S = 30


class Watch(Protocol):
    """Watches the server while there is load: a profiler, or nobody."""

    def __call__(self, seconds: float) -> AbstractContextManager[Any]:
        """Watch for so long."""


def nobody(seconds: float) -> AbstractContextManager[Any]:
    """Do not watch."""
    return nullcontext()


@dataclass
class Profiler:
    """Records the processes of a server; the samples go to <name>-N.raw in a folder, as `stack count` lines."""

    pid: int
    folder: Path
    name: str
    files: list[Path] = field(default_factory=list)

    @contextmanager
    def watch(self, seconds: float) -> Iterator[None]:
        """Record for so long."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.files.append(self.folder / f"{self.name}-{len(self.files) + 1}.raw")
        command = [
            py_spy(), "record", "--pid", str(self.pid), "--subprocesses", "--gil", "--format", "raw",
            "--rate", str(_RATE), "--duration", str(max(1, round(seconds))), "--output", str(self.files[-1]),
        ]  # fmt: skip
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            yield
            said, _ = process.communicate(timeout=_LATE_S)
        finally:
            process.kill()
            process.wait()
        if not self.files[-1].is_file():
            raise BenchError(f"py-spy recorded nothing:\n{said.decode(errors='replace')[-1000:]}")

    def sheets(self) -> list[Sheet]:
        """Give where most of the samples were: packages, functions, functions of the server with all they call."""
        return [sheet for path in self.files for sheet in _sheets(path)]


def py_spy() -> str:
    """Find py-spy.

    Raises:
        BenchError: it is not installed.
    """
    beside = Path(sys.executable).parent
    found = shutil.which("py-spy", path=os.pathsep.join([str(beside), os.environ.get("PATH", os.defpath)]))
    if found is None:
        raise BenchError(INSTALL)
    return found


def _sheets(path: Path) -> list[Sheet]:
    own, total, samples = top(path.read_text(encoding="utf-8", errors="replace"))
    packages: Counter[str] = Counter()
    for name, count in own.items():
        packages[package_of(name)] += count
    ours = [(name, count) for name, count in total.most_common() if "(pandaserver/" in name]
    functions = [
        (name, _percent(count, samples), _percent(total[name], samples)) for name, count in own.most_common(_TOP)
    ]
    return [
        Sheet(f"Profile {path}, {samples} samples", ("package", "own %"), _shares(packages.most_common(_TOP), samples)),
        Sheet("Top functions", ("function", "own %", "with callees %"), functions),
        Sheet("Functions of the server", ("function", "with callees %"), _shares(ours[: 2 * _TOP], samples)),
    ]


def _shares(counts: list[tuple[str, int]], samples: int) -> list[tuple[str, float]]:
    return [(name, _percent(count, samples)) for name, count in counts]


def _percent(count: int, samples: int) -> float:
    return 100 * count / samples


def package_of(function: str) -> str:
    """Give the package of `name (package/module.py)`, or the module where there is no package."""
    place = function.rpartition("(")[2].rstrip(")")
    return place.partition("/")[0].removesuffix(".py")


def top(raw: str) -> tuple[Counter[str], Counter[str], int]:
    """Count samples by function: with it at the end of the stack, and with it anywhere."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    samples = 0
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        if not count.isdigit() or not stack:
            continue
        frames = [_function(frame) for frame in stack.split(";") if not frame.startswith(("process ", "thread "))]
        if not frames:
            continue
        samples += int(count)
        own[frames[-1]] += int(count)
        total.update(dict.fromkeys(frames, int(count)))
    return own, total, max(samples, 1)


def _function(frame: str) -> str:
    """Take the number of the line away."""
    name, colon, number = frame.rpartition(":")
    return f"{name})" if colon and number.rstrip(")").isdigit() else frame
