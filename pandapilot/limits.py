"""Which limits a payload has and whether it broke one: pure, so that every rule can be tested at once."""

from __future__ import annotations

from dataclasses import dataclass

from pandapilot.codes import ErrorCode
from pandapilot.jobs import Job
from pandapilot.queues import Queue

MIB = 1024 * 1024
GIB = 1024 * MIB
STDOUT_LIMIT_BYTES = 2 * GIB
MEMORY_FACTOR = 2.0
DIRECTORY_FACTOR = 1.1


@dataclass(frozen=True)
class Limits:
    """What a payload may use at most; None is no limit."""

    wall_s: float | None = None
    cpu_s: float | None = None
    memory_bytes: float | None = None
    stdout_bytes: float | None = STDOUT_LIMIT_BYTES
    directory_bytes: float | None = None
    idle_s: float | None = None


@dataclass(frozen=True)
class Usage:
    """What a payload has used so far; idle is the time since it last changed a file."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    memory_bytes: float = 0
    stdout_bytes: float = 0
    directory_bytes: float = 0
    idle_s: float = 0.0


@dataclass(frozen=True)
class Violation:
    """A limit that was broken, in the words that go into the report."""

    code: ErrorCode
    diagnosis: str


@dataclass(frozen=True)
class _Rule:
    quantity: str
    code: ErrorCode
    what: str
    unit: str
    divisor: float = 1.0


_RULES = (
    _Rule("memory_bytes", ErrorCode.MEMORY_LIMIT, "memory", "MB", MIB),
    _Rule("directory_bytes", ErrorCode.DIRECTORY_TOO_LARGE, "job directory", "MB", MIB),
    _Rule("stdout_bytes", ErrorCode.STDOUT_TOO_LARGE, "standard output", "MB", MIB),
    _Rule("wall_s", ErrorCode.TIME_LIMIT, "wall-clock time", "s"),
    _Rule("cpu_s", ErrorCode.TIME_LIMIT, "CPU time", "s"),
    _Rule("idle_s", ErrorCode.LOOPING, "time without touching a file", "s"),
)


def violation(usage: Usage, limits: Limits) -> Violation | None:
    """Return the first limit that is broken; using exactly what is allowed is allowed."""
    for rule in _RULES:
        used, allowed = getattr(usage, rule.quantity), getattr(limits, rule.quantity)
        if allowed is not None and used > allowed:
            amounts = f"{used / rule.divisor:.1f} of {allowed / rule.divisor:.1f} {rule.unit}"
            return Violation(rule.code, f"payload stopped: {rule.what} {amounts} used")
    return None


def limits_for(job: Job, queue: Queue, *, remaining_s: float, looping_s: float) -> Limits:
    """Put together what the job, the queue and the pilot's own remaining life allow; 0 in the data is no limit."""
    wall = [limit for limit in (job.max_wall_s, queue.max_wall_s) if limit]
    return Limits(
        wall_s=min([*wall, max(0.0, remaining_s)]),
        cpu_s=job.max_cpu_s or None,
        memory_bytes=queue.max_memory_mb * MIB * MEMORY_FACTOR or None,
        directory_bytes=queue.max_directory_mb * MIB * DIRECTORY_FACTOR or None,
        idle_s=looping_s or None,
    )
