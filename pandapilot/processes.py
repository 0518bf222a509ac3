"""The processes of the payload: finding them all, measuring and ending them, and never touching any other."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

try:
    import psutil
except ImportError:
    psutil = None  # type: ignore[assignment,unused-ignore]

logger = logging.getLogger(__name__)

_SET_DEATH_SIGNAL = 1
_SET_DUMPABLE = 4
_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Process:
    """What is known of one process; pid and start together name it for ever."""

    pid: int
    parent: int
    started: float
    cpu_s: float  # its own and that of its children that have ended
    memory_bytes: int
    ended: bool

    @property
    def key(self) -> tuple[int, float]:
        """Return what tells it from a later process with the same pid."""
        return self.pid, self.started


ProcessTable = Callable[[], Mapping[int, Process]]


def harden() -> None:
    """Make orphans of the payload come back to the pilot, and the pilot's memory unreadable to the payload."""
    if not _prctl(_SET_CHILD_SUBREAPER, 1):
        logger.warning("this system has no child subreaper: processes that leave the payload's group may escape")
    _prctl(_SET_DUMPABLE, 0)


def die_with_parent() -> None:
    """Have the calling process killed when the pilot is; to be called between fork and exec."""
    _prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)


def _prctl(option: int, value: int) -> bool:
    try:
        return bool(_libc.prctl(option, value, 0, 0, 0) == 0)
    except AttributeError:
        return False


def proc_table() -> dict[int, Process]:
    """Read all processes from /proc."""
    found = (_read_stat(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return {process.pid: process for process in found if process}


def _read_stat(entry: Path) -> Process | None:
    try:
        content = (entry / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the name in parentheses, chosen by the process itself: whatever it holds is skipped.
    fields = content[content.rindex(")") + 2 :].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return Process(
        pid=int(entry.name),
        parent=int(fields[1]),
        started=float(fields[19]),
        cpu_s=sum(int(field) for field in fields[11:15]) / ticks,
        memory_bytes=int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
        ended=fields[0] in "ZX",
    )


def psutil_table() -> dict[int, Process]:
    """Read all processes by psutil, which also knows systems without /proc."""
    table = {}
    for entry in psutil.process_iter(["ppid", "create_time", "cpu_times", "memory_info", "status"]):
        facts = entry.info
        if facts["ppid"] is not None:
            table[entry.pid] = Process(
                pid=entry.pid,
                parent=facts["ppid"],
                started=facts["create_time"] or 0.0,
                cpu_s=sum(facts["cpu_times"][:4]) if facts["cpu_times"] else 0.0,
                memory_bytes=facts["memory_info"].rss if facts["memory_info"] else 0,
                ended=facts["status"] in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD),
            )
    return table


def default_table() -> ProcessTable:
    """Choose psutil where it is installed."""
    return proc_table if psutil is None else psutil_table


def descendants(table: Mapping[int, Process], root: int, spare: frozenset[tuple[int, float]]) -> list[Process]:
    """Return all processes below root, parents first, leaving out the spared ones with all that is below them."""
    children: dict[int, list[Process]] = defaultdict(list)
    for process in table.values():
        if process.key not in spare and process.pid != process.parent:
            children[process.parent].append(process)
    found: list[Process] = []
    todo = [root]
    while todo:
        below = children.pop(todo.pop(), [])
        found += below
        todo += [process.pid for process in below]
    return found


def send(processes: Iterable[Process], number: int, table: ProcessTable) -> None:
    """Send a signal to processes, each only if its pid still means the same process.

    They are held by descriptors before they are looked at again, so that no pid can change hands in between.
    """
    held = [(process, _open_process(process.pid)) for process in processes]
    now = table() if held else {}
    for process, descriptor in held:
        present = now.get(process.pid)
        if present is not None and present.key == process.key:
            _send_one(process.pid, descriptor, number)
        if descriptor is not None:
            os.close(descriptor)


def _send_one(pid: int, descriptor: int | None, number: int) -> None:
    try:
        if descriptor is None:
            os.kill(pid, number)
        else:
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        logger.warning("process %d of the payload could not be signalled: not permitted", pid)


def _open_process(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # it is gone, or the system is too old to have such descriptors
        return None
