"""Watching a payload: one loop that measures, compares with the limits and lets heartbeats through."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from pandapilot.clock import STEP_S, Clock, Tick, delays
from pandapilot.failures import JobFailure
from pandapilot.files import TreeFacts, tree_facts
from pandapilot.jobs import STDERR, STDOUT
from pandapilot.limits import Limits, Usage, violation
from pandapilot.payload import Measure, Payload

logger = logging.getLogger(__name__)

WALK_SHARE = 20  # a walk through the job's directory may take one part in so many of the time


class Activity:
    """Remembers when a directory was last seen to change, by our clock and not by the file system's."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        """Start as if it had changed just now."""
        self._directory = directory
        self._clock = clock
        self._changed = self._next_walk = clock.now()
        self.facts = TreeFacts()

    @property
    def idle_s(self) -> float:
        """Return for how long nothing is known to have changed."""
        return self._clock.now() - self._changed

    def look(self) -> None:
        """Walk through the directory, unless the last walk took so long that it is too early for another."""
        begun = self._clock.now()
        if begun < self._next_walk:
            return
        facts = tree_facts(self._directory)
        took_s = self._clock.now() - begun
        self._next_walk = begun + WALK_SHARE * took_s
        if facts != self.facts:
            self.facts, self._changed = facts, begun


class Watch:
    """The watch over one payload, until it ends or has to be ended."""

    def __init__(self, payload: Payload, directory: Path, *, limits: Limits, clock: Clock, interval_s: float) -> None:
        """Start counting the payload's time."""
        self._payload = payload
        self._directory = directory
        self._limits = limits
        self._clock = clock
        self._interval_s = interval_s
        self._begun = clock.now()
        self._activity = Activity(directory, clock)

    def until_ended(self, tick: Tick, note: Callable[[Measure], None]) -> None:
        """Return when the payload has ended; raises JobFailure when it broke a limit, or what tick raises."""
        next_check, steps = self._clock.now(), delays(first_s=0.02, cap_s=STEP_S)
        while not self._payload.ended():
            tick()
            if self._clock.now() >= next_check:
                self._check(note)
                next_check = self._clock.now() + self._interval_s
            self._clock.sleep(next(steps))

    def _check(self, note: Callable[[Measure], None]) -> None:
        measured = self._payload.measure()
        note(measured)
        self._activity.look()
        usage = Usage(
            wall_s=self._clock.now() - self._begun,
            cpu_s=measured.cpu_s,
            memory_bytes=measured.memory_bytes,
            stdout_bytes=max(_size_of(self._directory / name) for name in (STDOUT, STDERR)),
            directory_bytes=self._activity.facts.size_bytes,
            idle_s=self._activity.idle_s,
        )
        if broken := violation(usage, self._limits):
            logger.warning("%s", broken.diagnosis)
            raise JobFailure(broken.code, broken.diagnosis)


def _size_of(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
