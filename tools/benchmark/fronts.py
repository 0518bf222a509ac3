"""Runs the server behind one of its front ends, and gives what counts the CPU time of all its processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmark import behind_apache
from benchmark.door import APACHE, Door
from benchmark.processes import BenchError, Meter, child_environment, stop_session
from benchmark.show import say
from benchmark.site import Site
from benchmark.wire import Wire, WireError

_START_S = 60
EMPTY = "empty"  # a server that does nothing


@contextmanager
def server(place: Site, door: Door, *, empty: bool = False) -> Iterator[Meter]:
    """Run a server until the end; an empty one is the embedded server with a route that does nothing.

    Raises:
        BenchError: it does not come up; the text ends with its log.
    """
    say(f"starting the server: {'an empty route' if empty else door}")
    command = _command(place, door, empty=empty)
    with (place.root / "output.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            env=child_environment(), cwd=place.root,
        )  # fmt: skip
    try:
        _wait(place, process, door)
        yield Meter(web=process.pid, db=place.database.pid, python=_python(place, door, process.pid))
    finally:
        stop_session(process, patience_s=15)


def _command(place: Site, door: Door, *, empty: bool) -> list[str]:
    if door.front == APACHE and not empty:
        return behind_apache.prepare(place, door)
    kind = EMPTY if empty else ("https" if door.tls else "http")
    return [sys.executable, "-m", "benchmark.serve", kind, str(place.config)]


def _python(place: Site, door: Door, leader: int) -> int:
    """Give the process to look into: the parent of all gunicorn workers, or one of Apache's daemons."""
    return behind_apache.daemon(place) if door.front == APACHE else leader


def _wait(place: Site, process: subprocess.Popen[bytes], door: Door) -> None:
    address = place.address(door)
    wire = Wire(address, "pilot", address.context("pilot"))
    give_up = time.monotonic() + _START_S
    while True:
        try:
            if wire.get("/server/panda/isAlive")[0] == 200:
                return wire.close()
        except (OSError, WireError):
            pass
        if process.poll() is not None or time.monotonic() > give_up:
            raise BenchError(f"the server does not come up:\n{last_words(place)}")
        time.sleep(0.05)


def last_words(place: Site) -> str:
    """Give the end of the server's logs."""
    logs = [place.root / "output.log", place.log_file, *behind_apache.logs(place)]
    return "\n".join(_tail(log) for log in logs if log.exists())


def _tail(log: os.PathLike[str]) -> str:
    with open(log, encoding="utf-8", errors="replace") as opened:  # noqa: PTH123 - of any kind of path
        return opened.read()[-2000:]
