"""Counts pilots' calls in memory and writes sums now and then: a row per call would make all pilots wait in line."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from datetime import datetime, timedelta

from pandaserver.taskbuffer import activity
from pandaserver.taskbuffer.buffer import TaskBuffer

WRITE_EVERY_S = 2.0  # what a killed server forgets: statistics of so long, nothing that was promised


class ActivityMeter:
    """Sums up calls by queue until the next writing."""

    def __init__(self, buffer: TaskBuffer, every_s: float = WRITE_EVERY_S) -> None:
        self._buffer, self._every = buffer, timedelta(seconds=every_s)
        self._lock = threading.Lock()
        self._counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._written_at: datetime | None = None

    def note(self, queue: str, kind: str) -> None:
        """Count one more: `requests`, `jobs` or `updates`."""
        with self._lock:
            self._counts[queue][kind] += 1

    def write_due(self) -> None:
        """Write the sums when the last writing is long enough ago."""
        now = self._buffer.now()
        with self._lock:
            if self._written_at is not None and now - self._written_at < self._every:
                return
            self._written_at, counts, self._counts = now, self._counts, defaultdict(Counter)
        if counts:
            self._buffer.run(lambda c: activity.add(c, counts, now))
