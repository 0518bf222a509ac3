"""Re-brokerage: jobs that wait where they will not run soon are sent back, if there is a better place for them now."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from pandaserver.dataservice.planning import look_around, plan_each
from pandaserver.dataservice.retrying import rebroker
from pandaserver.dataservice.service import DataService
from pandaserver.model.choice import Load, Snapshot
from pandaserver.model.grid import QueueStatus
from pandaserver.taskbuffer import files, waiting
from pandaserver.taskbuffer.database import Connection

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MovingRules:
    """How many jobs are looked at in a round, and when a queue is overshot; None: never."""

    most: int = 500
    overshoot_ratio: float | None = 3.0
    overshoot_after_s: float = 3600


@dataclass(frozen=True)
class _Crowd:
    """Jobs that wait at a queue: why they should not, for how long they have, and how many are too many."""

    queue: str
    reason: str
    after_s: float
    number: int


@dataclass
class Mover:
    """Looks for jobs to be sent elsewhere, a few in each round; where it stopped it goes on in the next."""

    service: DataService
    rules: MovingRules
    reached: dict[str, int] = field(default_factory=dict)  # the last job looked at, by queue

    def run_once(self) -> int:
        """Do one round; tell how many jobs were sent back."""
        left, moved = self.rules.most, 0
        snapshot = self.service.loads.snapshot(self.service.buffer, self.service.broker_rules)
        for crowd in crowds(snapshot, self.rules):
            if left <= 0:
                break
            looked_at = self._some_of(crowd, left)
            left -= len(looked_at)
            moved += self._send_back(crowd, looked_at) if looked_at else 0
        return moved

    def _some_of(self, crowd: _Crowd, left: int) -> list[int]:
        buffer, limit = self.service.buffer, min(left, crowd.number)
        since, below = buffer.now() - timedelta(seconds=crowd.after_s), self.reached.pop(crowd.queue, None)
        found = buffer.read(lambda c: waiting.movable(c, crowd.queue, since=since, below=below, limit=limit))
        if len(found) == limit:
            self.reached[crowd.queue] = found[-1]
        return found

    def _send_back(self, crowd: _Crowd, job_ids: list[int]) -> int:
        """Send back those that the brokerage would place elsewhere now."""
        service = self.service
        found = service.buffer.read(lambda c: files.load_jobs(c, job_ids))
        plans = plan_each(found, look_around(service, found), service)
        elsewhere = [plan.job_id for plan in plans if plan.queue not in (None, crowd.queue)]
        return service.buffer.run(lambda c: self._reject(c, crowd, elsewhere)) if elsewhere else 0

    def _reject(self, connection: Connection, crowd: _Crowd, job_ids: list[int]) -> int:
        now, reason = self.service.buffer.now(), f"{crowd.queue} {crowd.reason}, brokered anew"
        still = [
            one
            for one in files.load_jobs(connection, job_ids, lock=True)
            if one.job.state in waiting.MOVABLE and one.job.site == crowd.queue and not one.job.pinned
        ]
        for one in still:
            rebroker(connection, one, reason=reason, now=now)
        if still:
            log.info("%d jobs leave %s: it %s", len(still), crowd.queue, crowd.reason)
        return len(still)


def crowds(snapshot: Snapshot, rules: MovingRules) -> Iterator[_Crowd]:
    """Say at which queues jobs wait that should not."""
    grid = snapshot.topology.queues
    loads = {name: snapshot.loads[name] for name in sorted(grid) if name in snapshot.loads}
    off = [name for name in loads if grid[name].status is QueueStatus.OFFLINE]
    for name in off:
        if loads[name].queued:
            yield _Crowd(name, "is offline", 0, loads[name].queued)
    if rules.overshoot_ratio is None:
        return
    for name, load in loads.items():
        excess = 0 if name in off else _excess(name, load, snapshot, rules.overshoot_ratio)
        if excess > 0:
            told = f"is overshot: {load.queued} jobs wait, {load.running} run"
            yield _Crowd(name, told, rules.overshoot_after_s, excess)


def _excess(name: str, load: Load, snapshot: Snapshot, ratio: float) -> int:
    """Count the jobs that are too many at a queue, when others have far fewer for what they run."""
    too_many = load.queued - int(ratio * (1 + load.running))
    if too_many <= 0:
        return 0
    grid = snapshot.topology.queues
    others = [
        snapshot.loads.get(other, Load())
        for other, queue in grid.items()
        if other != name and queue.status is QueueStatus.ONLINE and (snapshot.pilots.get(other) or not snapshot.pilots)
    ]
    best = min((other.weight for other in others), default=None)
    return too_many if best is not None and load.weight > ratio * best else 0
