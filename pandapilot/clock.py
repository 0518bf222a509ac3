"""Time as something that can be passed in, so that limits and leases are tested without waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol

Tick = Callable[[], None]

STEP_S = 0.25


class Clock(Protocol):
    """What the pilot needs to know of time."""

    def now(self) -> float:
        """Return seconds that never jump back and have no meaning beyond differences."""

    def epoch(self) -> float:
        """Return the seconds since 1970, for people and for the server."""

    def sleep(self, seconds: float) -> None:
        """Let so much time go by."""


class SystemClock:
    """The clock of the machine; it also counts the time in which the machine was suspended, as leases do."""

    _source = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

    def now(self) -> float:
        """Return seconds since the machine was started."""
        return time.clock_gettime(self._source)

    def epoch(self) -> float:
        """Return the seconds since 1970."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Let so much time go by."""
        time.sleep(max(0.0, seconds))


def pause(clock: Clock, seconds: float, tick: Tick) -> None:
    """Wait in small steps, calling tick in each, so that signals and heartbeats are not held up."""
    end = clock.now() + seconds
    tick()
    while (left := end - clock.now()) > 0:
        clock.sleep(min(STEP_S, left))
        tick()


def delays(first_s: float = 1.0, cap_s: float = 10.0) -> Iterator[float]:
    """Yield the waiting times between tries: doubled each time, up to a cap."""
    delay_s = first_s
    while True:
        yield min(delay_s, cap_s)
        delay_s = min(delay_s * 2, cap_s)
