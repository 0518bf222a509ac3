"""Lanes: lines of activated jobs of one queue that are alike to a pilot, so that a claim looks at few things."""

from __future__ import annotations

from dataclasses import dataclass

from pandaserver.model.attempt import ClaimRequest
from pandaserver.model.job import PRODUCTION_LABELS, Job

_SIGNIFICANT_BITS = 3


@dataclass(frozen=True, kw_only=True)
class LaneKey:
    """What makes jobs alike; memory, disk and wall time are the lower bounds of their classes."""

    queue: str
    owner: str  # DN
    label: str
    vo: str
    working_group: str
    cores: int
    memory_mb: int
    disk_mb: int
    wall_time_s: int

    @property
    def production(self) -> bool:
        """Say whether this is production rather than analysis."""
        return self.label in PRODUCTION_LABELS


@dataclass(kw_only=True)
class Lane:
    """A lane as one process sees it; mutable on purpose, the process counts on while it claims."""

    lane_id: int
    key: LaneKey
    priority: int  # of its first job, as last seen
    running: int  # open attempts, as last seen


def lane_key(job: Job, queue: str) -> LaneKey:
    """Tell which lane of a queue a job belongs to."""
    return LaneKey(
        queue=queue,
        owner=job.owner,
        label=job.label,
        vo=job.vo,
        working_group=job.working_group,
        cores=job.cores or 1,
        memory_mb=floor_of(job.memory_mb),
        disk_mb=floor_of(job.disk_mb),
        wall_time_s=floor_of(job.wall_time_s),
    )


def floor_of(value: int) -> int:
    """Give the lower bound of a resource class: the three highest bits stay, so a class is at most 25 % wide."""
    dropped = max(value.bit_length() - _SIGNIFICANT_BITS, 0)
    return value >> dropped << dropped


def may_fit(key: LaneKey, request: ClaimRequest) -> bool:
    """Say whether a lane can hold jobs for a request; exact memory, disk and wall time are looked at later."""
    return (
        key.queue == request.queue
        and (request.labels is None or key.label in request.labels)
        and _within(key.cores, request.cores)
        and _within(key.memory_mb, request.memory_mb)
        and _within(key.disk_mb, request.disk_mb)
        and _within(key.wall_time_s, request.remaining_s)
        and request.vo in ("", key.vo)
        and request.owner in ("", key.owner)
        and request.working_group in ("", key.working_group)
    )


def surely_fits(key: LaneKey, request: ClaimRequest) -> bool:
    """Say whether every job of a lane that may fit does fit, however much of its class it needs."""
    classes = (
        (key.memory_mb, request.memory_mb),
        (key.disk_mb, request.disk_mb),
        (key.wall_time_s, request.remaining_s),
    )
    return all(_within(_top_of(lowest), offered) for lowest, offered in classes)


def _top_of(lowest: int) -> int:
    """Give the highest value of the class that begins here."""
    return lowest + (1 << max(lowest.bit_length() - _SIGNIFICANT_BITS, 0)) - 1


def _within(needed: int, offered: int) -> bool:
    return offered <= 0 or needed <= offered
