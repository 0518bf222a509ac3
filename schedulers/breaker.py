"""Stops feeding a queue whose pilots die young: a circuit breaker, one per queue.

Closed: pilots are sent. Open: a pause, twice as long each time. Half open: one pilot at a time, until one is well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from schedulers.batch.protocol import BatchState, PilotStatus

EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class BreakerRules:
    """When a pilot died young, how many of those are too many, and how long the pauses are."""

    short_pilot_s: float = 20.0
    bad_pilots: int = 5
    pause_s: float = 30.0
    pause_max_s: float = 1800.0


@dataclass(frozen=True)
class Breaker:
    """What is remembered about the health of one queue's pilots."""

    bad_in_a_row: int = 0
    opened: int = 0
    opened_at: datetime = EPOCH
    paused_until: datetime = EPOCH

    def pause_left_s(self, now: datetime) -> float:
        """Say how long nothing may be sent yet."""
        return max(0.0, (self.paused_until - now).total_seconds())

    @property
    def probing(self) -> bool:
        """Whether pilots have to show that they are well again."""
        return self.opened > 0


def after(breaker: Breaker, status: PilotStatus, *, rules: BreakerRules, now: datetime) -> Breaker:
    """Learn from one pilot that has ended, or that runs and has become old enough to be called well."""
    lived_s = status.lived_s(now)
    if status.state is BatchState.FAILED and lived_s < rules.short_pilot_s:
        return _after_bad(breaker, rules=rules, now=now)
    if status.state in (BatchState.DONE, BatchState.FAILED):
        return Breaker()
    proven = status.state is BatchState.RUNNING and lived_s >= rules.short_pilot_s
    if proven and breaker.probing and status.started_at is not None and status.started_at >= breaker.opened_at:
        return Breaker()
    return breaker


def _after_bad(breaker: Breaker, *, rules: BreakerRules, now: datetime) -> Breaker:
    bad = replace(breaker, bad_in_a_row=breaker.bad_in_a_row + 1)
    paused = bad.pause_left_s(now) > 0
    if paused or (not bad.probing and bad.bad_in_a_row < rules.bad_pilots):
        return bad
    pause_s = min(rules.pause_s * 2.0 ** min(bad.opened, 30), rules.pause_max_s)
    return replace(bad, opened=bad.opened + 1, opened_at=now, paused_until=now + timedelta(seconds=pause_s))
