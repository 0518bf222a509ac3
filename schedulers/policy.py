"""How many pilots to send to a queue now: a chain of small policies, each of which says what it did and why.

The first policies say what is wanted, the later ones only take away; so the order of a chain is its meaning.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Protocol

DRAINING = "brokeroff"
TESTING = "test"
OPEN = "online"


@dataclass(frozen=True)
class QueueFacts:
    """All that is known about one queue at one moment.

    `starting` counts running pilots too young to have their job yet, `unproven` those too young to be called healthy.
    """

    status: str
    activated: int
    pending: int
    running: int
    starting: int = 0
    unproven: int = 0
    pause_left_s: float = 0.0
    probing: bool = False

    @property
    def alive(self) -> int:
        """Pilots that exist."""
        return self.pending + self.running

    @property
    def on_their_way(self) -> int:
        """Pilots that exist and will yet ask for a job."""
        return self.pending + self.starting


@dataclass(frozen=True)
class Unknown:
    """Stands for the facts when somebody did not answer."""

    reason: str


@dataclass(frozen=True)
class Step:
    """What one policy made of the number, and why."""

    policy: str
    n: int
    reason: str


@dataclass(frozen=True)
class Decision:
    """The number of pilots to send with the whole way to it."""

    n: int
    steps: tuple[Step, ...]

    @property
    def reason(self) -> str:
        """The step that had the last say: the last one that changed the number, or the first when none did."""
        before = (0, *(step.n for step in self.steps))
        changes = [step for step, n in zip(self.steps, before, strict=False) if step.n != n]
        last_say = (*self.steps[:1], *changes)
        return last_say[-1].reason if last_say else ""


class Policy(Protocol):
    """One consideration: takes the number so far and the facts, gives the new number and the reason."""

    def __call__(self, n: int, facts: QueueFacts, /) -> tuple[int, str]:
        """Give the new number, never negative, and the reason in words."""


@dataclass(frozen=True)
class FillActivated:
    """A pilot for each job that waits, less those that are on their way."""

    weight: float = 1.0

    def __call__(self, n: int, facts: QueueFacts) -> tuple[int, str]:
        """Ask for what the waiting jobs need."""
        wanted = ceil(round(facts.activated * self.weight, 6))
        reason = f"{facts.activated} activated x {self.weight:g}, {facts.on_their_way} pilots on their way"
        return max(n, wanted - facts.on_their_way, 0), reason


@dataclass(frozen=True)
class MinPending:
    """Some pilots waiting even where no job is, so that the first job finds one."""

    minimum: int

    def __call__(self, n: int, facts: QueueFacts) -> tuple[int, str]:
        """Raise to the minimum."""
        return max(n, self.minimum - facts.on_their_way), f"at least {self.minimum} waiting"


@dataclass(frozen=True)
class QueueStatus:
    """The server's word on the queue: closed queues get nothing, draining ones no more than their jobs need."""

    test_pilots: int = 1

    def __call__(self, n: int, facts: QueueFacts) -> tuple[int, str]:
        """Obey the status."""
        if facts.status == OPEN:
            return n, "queue is online"
        if facts.status == DRAINING:
            return min(n, max(0, facts.activated - facts.on_their_way)), "queue is brokeroff: only what its jobs need"
        if facts.status == TESTING:
            return max(0, self.test_pilots - facts.alive), f"queue is in test: {self.test_pilots} pilots, always"
        return 0, f"queue is {facts.status}"


@dataclass(frozen=True)
class BackOff:
    """Fewer pilots where pilots die young."""

    def __call__(self, n: int, facts: QueueFacts) -> tuple[int, str]:
        """Send nothing during the pause, and one at a time until one is well."""
        if facts.pause_left_s > 0:
            return 0, f"pilots die young here: pause for {ceil(facts.pause_left_s)} s"
        if facts.probing:
            room = max(0, 1 - facts.pending - facts.unproven)
            return min(n, room), "pilots died young here: one at a time until one is well"
        return n, "pilots are well"


@dataclass(frozen=True)
class MaxPending:
    """A limit on the pilots that wait in the batch system."""

    limit: int

    def __call__(self, n: int, facts: QueueFacts) -> tuple[int, str]:
        """Keep below the limit."""
        return min(n, max(0, self.limit - facts.pending)), f"at most {self.limit} pending, {facts.pending} are"


@dataclass(frozen=True)
class MaxRunning:
    """A limit on the pilots that run or may come to run."""

    limit: int

    def __call__(self, n: int, facts: QueueFacts) -> tuple[int, str]:
        """Keep below the limit."""
        return min(n, max(0, self.limit - facts.alive)), f"at most {self.limit} running, {facts.alive} run or wait"


@dataclass(frozen=True)
class PerCycle:
    """A limit on what is sent at once, so that a mistake stays small."""

    limit: int

    def __call__(self, n: int, facts: QueueFacts) -> tuple[int, str]:
        """Keep below the limit."""
        return min(n, self.limit), f"at most {self.limit} in one cycle"


def decide(policies: Sequence[Policy], facts: QueueFacts | Unknown) -> Decision:
    """Run the chain; where the facts are unknown nothing is sent."""
    if isinstance(facts, Unknown):
        return Decision(0, (Step("Unknown", 0, facts.reason),))
    n = 0
    steps: list[Step] = []
    for policy in policies:
        n, reason = policy(n, facts)
        steps.append(Step(type(policy).__name__, n, reason))
    return Decision(n, tuple(steps))


def share(decisions: Mapping[str, Decision], *, alive: Mapping[str, int], limit: int) -> dict[str, Decision]:
    """Keep all queues together below the limit; what room there is goes to the queues with the fewest pilots first."""
    room = max(0, limit - sum(alive.values()))
    granted = dict.fromkeys(decisions, 0)
    waiting = [(alive.get(queue, 0), queue) for queue, decision in decisions.items() if decision.n > 0]
    heapq.heapify(waiting)
    while room > 0 and waiting:
        have, queue = heapq.heappop(waiting)
        granted[queue] += 1
        room -= 1
        if granted[queue] < decisions[queue].n:
            heapq.heappush(waiting, (have + 1, queue))
    reason = f"at most {limit} pilots in all, {sum(alive.values())} are"
    return {
        queue: Decision(granted[queue], (*decision.steps, Step("GlobalCap", granted[queue], reason)))
        for queue, decision in decisions.items()
    }
