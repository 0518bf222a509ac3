"""What the brokerage is told and what it answers; the choosing itself is the brokerage's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pandaserver.model.grid import Topology
from pandaserver.model.job import Job, NewJob

BYTES_PER_MB = 1024 * 1024
CHOSEN, POSSIBLE, REJECTED = "chosen", "possible", "rejected"


@dataclass(frozen=True)
class Load:
    """Jobs at a queue now."""

    queued: int = 0  # assigned or activated
    running: int = 0  # with a pilot

    @property
    def weight(self) -> float:
        """Weigh it: jobs in front of a new one for each that runs; smaller is better."""
        return (1 + self.queued) / (1 + self.running)


@dataclass(frozen=True)
class Access:
    """A line of the configuration: queues (or sites) and DNs, as patterns of a shell."""

    queues: str
    owner: str


@dataclass(frozen=True, kw_only=True)
class BrokerRules:
    """What an installation says of the choice; None switches a rule off."""

    seed: str = ""
    spread: float = 0.1  # lots are drawn between queues whose weights differ less; 0: the first by name is taken
    finalists: int = 2
    much_worse: float = 2.0
    tier1_bonus: float = 2.0
    tier1_inputs: int = 4
    tier1_input_mb: int = 500
    tier1_only_inputs: int | None = 20
    tier1_only_priority: int | None = 950
    pilots_within_s: float | None = 10800
    silent_jobs: int = 10  # go to queues without pilots all the same
    free_min_mb: int = 1000
    free_per_job_mb: int = 250
    backlog_mb: int = 100_000
    bunch_jobs: int = 20
    allow: tuple[Access, ...] = ()
    deny: tuple[Access, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All that the choice depends on besides the job, as of one moment."""

    topology: Topology
    loads: Mapping[str, Load] = field(default_factory=dict)
    pilots: Mapping[str, int] = field(default_factory=dict)  # calls of pilots by queue, lately; none where not listed
    free_mb: Mapping[str, int] = field(default_factory=dict)  # at endpoints; unknown where not listed
    backlog_mb: Mapping[tuple[str, str], float] = field(default_factory=dict)  # waits to go from endpoint to endpoint
    rules: BrokerRules = BrokerRules()


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What decides where a job may run at all. Jobs with equal wishes get equal answers. Zero and empty: not said."""

    owner: str = ""
    vo: str = ""
    label: str = "user"
    site: str | None = None  # the queue that the user named
    only: frozenset[str] = frozenset()  # queues or sites, of which it has to be one
    without: frozenset[str] = frozenset()  # queues or sites, of which it must not be one
    cloud: str = ""
    releases: tuple[str, ...] = ()
    platform: str = ""
    memory_mb: int = 0
    disk_mb: int = 0
    cores: int = 1
    wall_time_s: int = 0
    input_mb: int = 0
    production: bool = False
    avoid: frozenset[str] = frozenset()  # queues that are taken only when no other can take the job


@dataclass(frozen=True, kw_only=True)
class Request:
    """A job that looks for a queue."""

    job_id: int
    wish: Wish
    priority: int = 0
    inputs: tuple[tuple[str, str], ...] = ()  # scope and name; jobs with equal inputs go together
    input_bytes: int = 0
    bytes_at: Mapping[str, int] = field(default_factory=dict)  # of its inputs, by endpoint
    files_at: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """Something that the user may ask for otherwise: a field of the wish, and its new value."""

    field: str
    value: object
    text: str
    cost: float = 1.0  # how much it hurts, to find the cheapest


@dataclass(frozen=True)
class Refusal:
    """Why a queue cannot take a job; `passing` when waiting may help, `change` when the user can help."""

    criterion: str
    reason: str
    value: object = None  # what was asked for
    limit: object = None  # what is there
    passing: bool = False
    change: Change | None = None


@dataclass(frozen=True)
class Rejected:
    """Queues of which the same was said."""

    queues: tuple[str, ...]
    criterion: str
    reason: str
    value: object = None
    limit: object = None


@dataclass(frozen=True)
class Candidate:
    """A queue that can take the job; weight: smaller is better."""

    queue: str
    weight: float
    reason: str


@dataclass(frozen=True)
class Advice:
    """The cheapest change that makes a queue fit, or what to wait for."""

    text: str
    queue: str = ""
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Choice:
    """The chosen queue, or none; and why."""

    queue: str | None
    candidates: tuple[Candidate, ...] = ()  # the chosen one first, then the best of the others
    more: int = 0  # so many more were possible
    rejected: tuple[Rejected, ...] = ()
    may_pass: bool = False  # nothing chosen now, and waiting may help
    advice: Advice | None = None  # where nothing was chosen


class Broker(Protocol):
    """Chooses queues for jobs."""

    def __call__(self, requests: Sequence[Request], snapshot: Snapshot) -> list[Choice]:
        """Choose for each, counting each choice as load for the next."""


def wish_of(job: Job | NewJob, *, owner: str, pinned: bool, input_bytes: int = 0, avoid: frozenset[str]) -> Wish:
    """Give what the brokerage looks at of a job."""
    only, without = read_site_wishes(job.site_wishes)
    return Wish(
        owner=owner,
        vo=job.vo,
        label=job.label,
        site=job.site if pinned else None,
        only=only,
        without=without,
        cloud=job.cloud,
        releases=tuple(line.strip() for line in job.release.splitlines() if line.strip()),
        platform=job.platform,
        memory_mb=job.memory_mb,
        disk_mb=job.disk_mb,
        cores=job.cores,
        wall_time_s=job.wall_time_s,
        input_mb=-(-input_bytes // BYTES_PER_MB),
        production=job.production,
        avoid=avoid,
    )


_EXCEPT = "!"  # before the names of queues and sites that a job must not go to


def write_site_wishes(only: Sequence[str], without: Sequence[str]) -> str:
    """Write into one text to which queues or sites a job may go, and to which it must not."""
    return ",".join([*only, *(_EXCEPT + name for name in without)])


def read_site_wishes(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """Read that text: the only ones, and those to be left out."""
    if not text:
        return frozenset(), frozenset()
    names = text.split(",")
    without = frozenset(name.removeprefix(_EXCEPT) for name in names if name.startswith(_EXCEPT))
    return frozenset(name for name in names if not name.startswith(_EXCEPT)), without
