"""What the brokerage is told and what it answers; the choosing itself is the brokerage's."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from pandaserver.model.grid import Queue
from pandaserver.model.job import Job


@dataclass(frozen=True)
class Load:
    """Jobs at a queue now."""

    queued: int = 0  # assigned or activated
    running: int = 0  # with a pilot


@dataclass(frozen=True)
class Verdict:
    """What was said of one queue for one job; weight: smaller is better."""

    queue: str
    verdict: str  # chosen, possible, rejected
    reason: str
    weight: float | None = None


@dataclass(frozen=True)
class Choice:
    """The chosen queue, or none; and why, queue by queue."""

    queue: str | None
    verdicts: tuple[Verdict, ...]
    may_pass: bool = False  # nothing chosen now, and waiting may help


class Broker(Protocol):
    """Chooses a queue for a job."""

    def __call__(
        self,
        job: Job,
        queues: Mapping[str, Queue],
        loads: Mapping[str, Load],
        inputs_at: Mapping[str, int],
        *,
        avoid: Collection[str] = (),
    ) -> Choice:
        """Choose; `inputs_at` is the number of the job's input files at each endpoint, `avoid` where it failed."""
