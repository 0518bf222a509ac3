"""What the brokerage chooses by: how loaded queues are, and which are alive, seen anew now and then.

To count millions of jobs is dear, so that what was counted is used for a while.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from pandaserver.model.choice import BYTES_PER_MB, BrokerRules, Load, Snapshot
from pandaserver.taskbuffer import activity, jobs, links, space, topology
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection

_FRESH_S = 1.0
_SHARE = 20  # what is counted is used for at least so many times as long as the counting took
_SURROUNDINGS_S = 15.0
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class _Surroundings:
    """What changes slowly."""

    pilots: Mapping[str, int] = field(default_factory=dict)
    free_mb: Mapping[str, int] = field(default_factory=dict)
    backlog_mb: Mapping[tuple[str, str], float] = field(default_factory=dict)


class Loads:
    """The loads of all queues as last counted, with what this process has chosen since.

    Other processes choose by counts of their own; all see what the others have chosen when they count again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Load] = {}
        self._until = _NEVER
        self._around, self._around_until = _Surroundings(), _NEVER

    def snapshot(self, buffer: TaskBuffer, rules: BrokerRules) -> Snapshot:
        """Give all that the choice of queues depends on."""
        loads, around = self.now(buffer), self._surroundings(buffer, rules)
        return Snapshot(topology=topology.of(buffer), loads=loads, rules=rules, **vars(around))

    def _surroundings(self, buffer: TaskBuffer, rules: BrokerRules) -> _Surroundings:
        with self._lock:
            begun = buffer.now()
            if begun >= self._around_until:
                self._around = buffer.read_replica(lambda c: _look_around(c, rules, begun))
                took = buffer.now() - begun
                self._around_until = begun + max(timedelta(seconds=_SURROUNDINGS_S), _SHARE * took)
            return self._around

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


def _look_around(connection: Connection, rules: BrokerRules, now: datetime) -> _Surroundings:
    pilots: dict[str, int] = {}
    if rules.pilots_within_s is not None:
        start = now - timedelta(seconds=rules.pilots_within_s)
        seen = activity.since(connection, start).items()
        pilots = {name: one.requests + one.updates for name, one in seen if one.last_seen >= start}
    waiting = {link: one.size_bytes / BYTES_PER_MB for link, one in links.backlog(connection).items() if one.size_bytes}
    return _Surroundings(pilots, space.free_mb(connection), waiting)
