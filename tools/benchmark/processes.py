"""CPU time as the operating system counts it, and the end of processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
# Names of threads that do work which no caller waits for.
BACKGROUND = ("work", "duties", "background")
HTTPD = "httpd"  # all threads of Apache's own processes: TLS, HTTP


class BenchError(Exception):
    """The measurement cannot go on; the text says why."""


def child_environment() -> dict[str, str]:
    """Give the environment in which children find this package, and the server of this tree and no other."""
    tools = Path(__file__).resolve().parent.parent
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tools), str(tools.parent)])}


def free_port() -> int:
    """Find a port on 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def stop_session(process: subprocess.Popen[bytes], *, patience_s: float) -> None:
    """End a process that was started as the leader of its own session, and all that it started."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@dataclass(frozen=True)
class Stat:
    """What /proc/PID/stat says; the CPU time includes children that have ended."""

    session: int
    own_s: float
    ended_children_s: float


def read_stat(text: str) -> Stat:
    """Read a line of /proc/PID/stat; the name in it may hold blanks and brackets."""
    fields = text.rpartition(")")[2].split()
    user, system, children_user, children_system = (int(n) for n in fields[11:15])
    return Stat(int(fields[3]), (user + system) * _TICK_S, (children_user + children_system) * _TICK_S)


def session(leader: int) -> dict[int, Stat]:
    """Give the processes of a session by id."""
    found = {}
    for pid in _ids(Path("/proc")):
        stat = _stat(pid)
        if stat is not None and stat.session == leader:
            found[pid] = stat
    return found


def _stat(pid: int) -> Stat | None:
    try:
        return read_stat(Path(f"/proc/{pid}/stat").read_text(errors="replace"))
    except OSError:  # it has ended
        return None


def _ids(directory: Path) -> Iterator[int]:
    try:
        yield from (int(name) for name in os.listdir(directory) if name.isdigit())  # noqa: PTH208 - ten times as fast
    except OSError:
        return


def thread_times(pid: int) -> Counter[str]:
    """Give the CPU seconds of the living threads of a process by the kind of thread."""
    found: Counter[str] = Counter()
    for thread in _ids(Path(f"/proc/{pid}/task")):
        place = Path(f"/proc/{pid}/task/{thread}")
        try:
            name, spent = (place / "comm").read_text(errors="replace"), (place / "schedstat").read_text()
        except OSError:
            continue
        found["main" if thread == pid else kind_of(name)] += int(spent.split()[0]) / 1e9  # type: ignore[assignment]
    return found


def kind_of(name: str) -> str:
    """Make one name of those of the threads of a pool."""
    return re.sub(r"[-_ 0-9]+$", "", name.strip()) or "other"


@dataclass(frozen=True)
class Usage:
    """CPU seconds: all of the server's, the background threads' part of it, the database's."""

    web_s: float
    background_s: float
    db_s: float
    threads: Mapping[str, float]

    @property
    def total_s(self) -> float:
        """Give server and database together."""
        return self.web_s + self.db_s

    @property
    def front_s(self) -> float:
        """Give what answering requests took."""
        return self.web_s - self.background_s

    def __add__(self, other: Usage) -> Usage:
        """Add two stretches of time."""
        return self._with(other, 1)

    def __sub__(self, other: Usage) -> Usage:
        """Give what was used between two moments."""
        return self._with(other, -1)

    def per(self, count: float) -> Usage:
        """Share it out evenly."""
        many = max(count, 1)
        threads = {name: spent / many for name, spent in self.threads.items()}
        return Usage(self.web_s / many, self.background_s / many, self.db_s / many, threads)

    def _with(self, other: Usage, sign: int) -> Usage:
        names = {*self.threads, *other.threads}
        return Usage(
            self.web_s + sign * other.web_s,
            self.background_s + sign * other.background_s,
            self.db_s + sign * other.db_s,
            {name: self.threads.get(name, 0.0) + sign * other.threads.get(name, 0.0) for name in sorted(names)},
        )


@dataclass(frozen=True)
class Meter:
    """Reads the CPU time of a server and a database, each the leader of its session; 0 for none.

    `python` is the process to look into with a profiler, where that is not the leader.
    """

    web: int
    db: int
    python: int = 0

    def read(self) -> Usage:
        """Tell what was used until now."""
        web = session(self.web) if self.web else {}
        threads: Counter[str] = Counter()
        for pid in web:
            found = thread_times(pid)
            threads.update({HTTPD: found.total()} if is_httpd(pid) else found)
        background = sum(spent for name, spent in threads.items() if name.startswith(BACKGROUND))
        return Usage(_total(web, self.web), background, _total(session(self.db), self.db) if self.db else 0.0, threads)


def is_httpd(pid: int) -> bool:
    """Say whether a process is Apache itself, and not one of its daemons with the application."""
    place = Path(f"/proc/{pid}")
    try:
        name, words = (place / "comm").read_text(errors="replace").strip(), (place / "cmdline").read_bytes()
    except OSError:
        return False
    return name in ("apache2", "httpd") and not words.startswith(b"(wsgi:")


def _total(processes: Mapping[int, Stat], leader: int) -> float:
    ended = processes[leader].ended_children_s if leader in processes else 0.0
    return sum(stat.own_s for stat in processes.values()) + ended
