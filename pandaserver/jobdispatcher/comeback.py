"""When a pilot that finds no place to wait shall come back: the more there are of them, the later."""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections.abc import Callable

COME_AGAIN_PER_S = 3.0  # in each process: an answer costs some milliseconds, and there is mostly no job
SHORTEST_S, LONGEST_S = 10.0, 120.0
_EARLIEST, _LATEST = 0.5, 1.5  # of that time, so that they do not come back together


class Comebacks:
    """Remembers who was told to come back and has not come yet, and spreads them over time."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        spread: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._clock, self._spread = clock, spread
        self._lock = threading.Lock()
        self._due: list[float] = []

    def promise(self) -> int:
        """Give the seconds after which one more shall come back."""
        with self._lock:
            now = self._clock()
            while self._due and self._due[0] <= now:
                heapq.heappop(self._due)
            mean_s = min(max(SHORTEST_S, len(self._due) / COME_AGAIN_PER_S), LONGEST_S)
            seconds = round(mean_s * self._spread(_EARLIEST, _LATEST))
            heapq.heappush(self._due, now + seconds)
        return seconds
