"""What shall become of new jobs: thought out from what is true now, before anything is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pandaserver.dataservice.ddm.protocol import FileName
from pandaserver.dataservice.service import DataService
from pandaserver.model.choice import Choice, Request, Snapshot, wish_of
from pandaserver.model.file import FileType, Replica
from pandaserver.model.grid import Topology
from pandaserver.model.job import JobWithFiles
from pandaserver.taskbuffer import reasons, retries
from pandaserver.taskbuffer.database import Connection


@dataclass(frozen=True)
class Plan:
    """What shall become of one job."""

    job_id: int
    choice: Choice | None = None
    missing: tuple[FileName, ...] = ()
    here: frozenset[FileName] = frozenset()  # inputs already at the chosen queue's endpoint

    @property
    def queue(self) -> str | None:
        """Give the chosen queue, if one was."""
        return self.choice.queue if self.choice is not None else None


@dataclass(frozen=True)
class World:
    """What was true when the bunch was looked at."""

    snapshot: Snapshot
    replicas: Mapping[FileName, Sequence[Replica]]
    avoided: Mapping[int, set[str]]  # queues that jobs were sent away from

    @property
    def topology(self) -> Topology:
        """Give the grid."""
        return self.snapshot.topology


def look_around(service: DataService, new: Sequence[JobWithFiles]) -> World:
    """See what there is to plan with: queues and how they are, where the inputs are, where jobs failed before."""
    names = {(f.scope, f.lfn) for one in new for f in one.of_type(FileType.INPUT)}
    failed = [one.job.job_id for one in new if one.job.failed_attempts]
    avoided = service.buffer.read(lambda c: retries.avoided(c, failed)) if failed else {}
    replicas = service.ddm.replicas(names) if names else {}
    return World(service.loads.snapshot(service.buffer, service.broker_rules), replicas, avoided)


def plan_all(new: Sequence[JobWithFiles], world: World, service: DataService) -> list[Plan]:
    """Plan for each job, and count what was planned; those whose inputs are nowhere have to wait."""
    plans = plan_each(new, world, service)
    service.loads.chosen(Counter(plan.queue for plan in plans if plan.queue is not None))
    return plans


def plan_each(new: Sequence[JobWithFiles], world: World, service: DataService) -> list[Plan]:
    """Plan for each job what would become of it now."""
    inputs = {one.job.job_id: _names(one) for one in new}
    missing = {job_id: tuple(n for n in names if n not in world.replicas) for job_id, names in inputs.items()}
    ready = [one for one in new if not missing[one.job.job_id]]
    choices = service.choose([request_of(one, world) for one in ready], world.snapshot)
    plans = {
        one.job.job_id: Plan(one.job.job_id, choice, here=_here(inputs[one.job.job_id], choice, world))
        for one, choice in zip(ready, choices, strict=True)
    }
    return [plans.get(job_id) or Plan(job_id, missing=missing[job_id]) for job_id in inputs]


def _names(one: JobWithFiles) -> list[FileName]:
    return [(f.scope, f.lfn) for f in one.of_type(FileType.INPUT)]


def request_of(one: JobWithFiles, world: World) -> Request:
    """Give what the brokerage is asked for a job whose inputs are all known."""
    job, names = one.job, tuple(_names(one))
    places = where(names, world.replicas)
    wish = wish_of(
        job,
        owner=job.owner,
        pinned=job.pinned,
        input_bytes=places.input_bytes,
        avoid=frozenset(world.avoided.get(job.job_id, ())),
    )
    return Request(job_id=job.job_id, wish=wish, priority=job.priority, inputs=names, **vars(places))


@dataclass(frozen=True)
class Places:
    """How large inputs are, and how much of them is at each endpoint."""

    input_bytes: int
    bytes_at: Mapping[str, int]
    files_at: Mapping[str, int]


def where(names: Iterable[FileName], replicas: Mapping[FileName, Sequence[Replica]]) -> Places:
    """Add up where files are; those without any copy do not count."""
    bytes_at, files_at, total = Counter[str](), Counter[str](), 0
    for name in names:
        copies = {replica.endpoint: replica.size_bytes for replica in replicas.get(name, ())}
        total += max(copies.values(), default=0)
        bytes_at.update(copies)
        files_at.update(copies.keys())
    return Places(total, bytes_at, files_at)


def _here(names: Sequence[FileName], choice: Choice, world: World) -> frozenset[FileName]:
    """Give the inputs that are already at the chosen queue's endpoint."""
    if choice.queue is None:
        return frozenset()
    endpoint = world.topology.queues[choice.queue].endpoint
    return frozenset(n for n in names if any(r.endpoint == endpoint for r in world.replicas[n]))


def record(connection: Connection, bunch: Sequence[JobWithFiles], plans: Mapping[int, Plan], now: datetime) -> None:
    """Keep why jobs go where they go."""
    choices = [(one.job.job_id, plans[one.job.job_id].choice) for one in bunch]
    reasons.add(connection, [reasons.NewRound(i, now, choice) for i, choice in choices if choice is not None])


_MOST_NAMES = 3


def why_nowhere(choice: Choice) -> str:
    """Say in a line why no queue takes a job, and what would help."""
    said = [f"{_some(one.queues)}: {one.reason}" for one in choice.rejected]
    why = "; ".join(said) or "no queue is configured"
    return f"{choice.advice.text}. {why}" if choice.advice is not None else why


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")
