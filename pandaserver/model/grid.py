"""Where jobs can run and data can lie: queues, storage endpoints, clouds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


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
    country: str = ""
    max_input_mb: int = 0  # of all input files of a job
    timefloor_min: int = 0  # a pilot takes further jobs until it is so old; one job if zero
    params: tuple[tuple[str, Any], ...] = ()  # what only pilots understand, handed out as it is

    @property
    def is_closed(self) -> bool:
        """Say whether pilots get nothing here, not even jobs that are there already."""
        return self.status is QueueStatus.OFFLINE

    def takes_label(self, label: str) -> bool:
        """Say whether the queue's status lets jobs of this kind be brokered to it."""
        return self.status is QueueStatus.ONLINE or (self.status is QueueStatus.TEST and label == "test")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A storage endpoint: the root URL below which files lie."""

    name: str
    site: str
    url: str
    quota_gb: float = 0  # what the DDM may fill; no limit if zero


class Source(StrEnum):
    """Who describes queues and endpoints."""

    FILE = "file"
    CRIC = "cric"


SOURCES = {Source.FILE: "sites file", Source.CRIC: "import from CRIC"}  # as people call them


@dataclass(frozen=True, kw_only=True)
class Switch:
    """What an operator said of a queue; it holds against every source of queues until it is cleared or over."""

    queue: str
    status: QueueStatus
    reason: str
    by: str  # DN
    by_name: str
    at: datetime
    until: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Topology:
    """The whole grid as configured."""

    queues: dict[str, Queue]
    endpoints: dict[str, Endpoint]
    links: dict[tuple[str, str], int] = field(default_factory=dict)  # source, destination -> copies made at once

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


ANY_ENDPOINT = "*"
_AT_ONCE = 2


def at_once(links: Mapping[tuple[str, str], int], source: str, destination: str) -> int:
    """Say how many copies go over a link at once: what is said of it, else of its source, its destination, of all."""
    for link in ((source, destination), (source, ANY_ENDPOINT), (ANY_ENDPOINT, destination)):
        if link in links:
            return links[link]
    return links.get((ANY_ENDPOINT, ANY_ENDPOINT), _AT_ONCE)
