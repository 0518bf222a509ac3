"""How loaded queues are, for the brokerage: counted now and then, since to count millions of jobs is dear."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pandaserver.model.choice import Load
from pandaserver.taskbuffer import jobs
from pandaserver.taskbuffer.buffer import TaskBuffer

_FRESH_S = 1.0
_SHARE = 20  # what is counted is used for at least so many times as long as the counting took


class Loads:
    """The loads of all queues as last counted, with what this process has chosen since.

    Other processes choose by counts of their own; all see what the others have chosen when they count again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Load] = {}
        self._until = datetime.min.replace(tzinfo=UTC)

    def now(self, buffer: TaskBuffer) -> dict[str, Load]:
        """Give the loads by queue; those with no job are left out."""
        with self._lock:
            begun = buffer.now()
            if begun >= self._until:
                counts = buffer.read_replica(jobs.count_by_queue_and_state)
                self._known = {name: _load(states) for name, states in counts.items()}
                self._until = begun + max(timedelta(seconds=_FRESH_S), _SHARE * (buffer.now() - begun))
            return dict(self._known)

    def chosen(self, numbers: Mapping[str, int]) -> None:
        """Note that so many jobs go to queues."""
        with self._lock:
            for queue, number in numbers.items():
                before = self._known.get(queue, Load())
                self._known[queue] = replace(before, queued=before.queued + number)


def _load(states: Mapping[str, int]) -> Load:
    return Load(
        queued=sum(states.get(s, 0) for s in ("assigned", "activated", "throttled")),
        running=sum(states.get(s, 0) for s in ("sent", "starting", "running")),
    )
