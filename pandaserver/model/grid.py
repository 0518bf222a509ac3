"""Where jobs can run and data can lie: queues, storage endpoints, clouds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class QueueStatus(StrEnum):
    """What a queue takes."""

    ONLINE = "online"
    TEST = "test"  # test jobs only
    BROKEROFF = "brokeroff"  # runs what it has, gets nothing new
    OFFLINE = "offline"


@dataclass(frozen=True, kw_only=True)
class Queue:
    """A place that pilots serve; `computingSite` on the wire. Zero means no limit."""

    name: str
    site: str
    cloud: str
    tier: int
    status: QueueStatus
    endpoint: str
    memory_mb: int = 0
    cores: int = 1
    max_wall_time_s: int = 0
    max_work_dir_mb: int = 0
    releases: tuple[str, ...] = ()  # empty: any
    platforms: tuple[str, ...] = ()
    vos: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()  # given to the payload
    heartbeat_s: int = 1800

    def takes_label(self, label: str) -> bool:
        """Say whether the queue's status lets jobs of this kind be brokered to it."""
        return self.status is QueueStatus.ONLINE or (self.status is QueueStatus.TEST and label == "test")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A storage endpoint: the root URL below which files lie."""

    name: str
    site: str
    url: str


@dataclass(frozen=True, kw_only=True)
class Topology:
    """The whole grid as configured."""

    queues: dict[str, Queue]
    endpoints: dict[str, Endpoint]

    def tier1(self, cloud: str) -> Queue | None:
        """Find the Tier-1 queue of a cloud: the first of its queues with tier 1."""
        return next((q for q in self.queues.values() if q.cloud == cloud and q.tier == 1), None)

    def endpoint_of(self, place: str) -> str | None:
        """Resolve the name of an endpoint, a queue or a site to an endpoint."""
        if place in self.endpoints:
            return place
        if place in self.queues:
            return self.queues[place].endpoint
        return next((e.name for e in self.endpoints.values() if e.site == place), None)
