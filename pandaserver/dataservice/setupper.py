"""Setupper: chooses the site of new jobs, finds their inputs, names the datasets they will use."""

from __future__ import annotations

import logging
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from pandaserver.dataservice.ddm.protocol import FileName
from pandaserver.dataservice.ending import Ending, end_badly
from pandaserver.dataservice.service import DISPATCH, DataService, ask_setup
from pandaserver.model.choice import Broker, Choice, Load
from pandaserver.model.codes import BrokerageError, ErrorFamily, JobError
from pandaserver.model.dataset import Dataset, DatasetStatus, DatasetType, dispatch_name, sub_name
from pandaserver.model.file import File, FileStatus, FileType, Replica
from pandaserver.model.grid import Queue, Topology
from pandaserver.model.job import JobWithFiles
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import counters, datasets, files, jobs, reasons, retries, topology
from pandaserver.taskbuffer.database import Connection
from pandaserver.taskbuffer.work import NewWork
from pandaserver.taskbuffer.work import add as add_work

log = logging.getLogger(__name__)

RETRY_S = 60  # when no queue is open now, look again


@dataclass(frozen=True)
class Plan:
    """What shall become of one job; thought out before the transaction, from what was true then."""

    job_id: int
    choice: Choice | None = None
    missing: tuple[FileName, ...] = ()
    here: frozenset[FileName] = frozenset()  # inputs already at the chosen queue's endpoint


@dataclass(frozen=True)
class _World:
    """What was true when the bunch was looked at."""

    topology: Topology
    loads: dict[str, Load]
    replicas: dict[FileName, list[Replica]]
    avoided: dict[int, set[str]]  # queues that jobs were sent away from


@dataclass(frozen=True)
class _Round:
    """One bunch being set up: what was planned, in which world, and the marks of this round."""

    plans: dict[int, Plan]
    world: _World
    unique: str  # goes into the names of dispatch datasets
    now: datetime

    def is_here(self, file: File) -> bool:
        """Say whether an input is already where its job goes."""
        return (file.scope, file.lfn) in self.plans[file.job_id].here


def set_up(service: DataService, job_ids: list[int]) -> None:
    """Bring defined jobs to waiting, assigned or activated: background work of kind `setup`."""
    found = service.buffer.read(lambda c: files.load_jobs(c, job_ids))
    new = [one for one in found if one.job.state is JobState.DEFINED]
    if not new:
        return
    world = _look_around(service, new)
    plans = {plan.job_id: plan for plan in _plan_all(new, world, service.choose)}
    this = _Round(plans, world, unique=str(uuid.uuid4()), now=service.buffer.now())
    service.buffer.run(lambda c: _carry_out(c, this))
    _look_again(service, plans)


def _look_around(service: DataService, new: list[JobWithFiles]) -> _World:
    grid = service.buffer.read(topology.load)
    counts = service.buffer.read(jobs.count_by_queue_and_state)
    names = {(f.scope, f.lfn) for one in new for f in one.of_type(FileType.INPUT)}
    avoided = service.buffer.read(lambda c: retries.avoided(c, [one.job.job_id for one in new]))
    loads = {name: _load(states) for name, states in counts.items()}
    return _World(grid, loads, service.ddm.replicas(names), avoided)


def _load(states: dict[str, int]) -> Load:
    return Load(
        queued=sum(states.get(s, 0) for s in ("assigned", "activated", "throttled")),
        running=sum(states.get(s, 0) for s in ("sent", "starting", "running")),
    )


def _plan_all(new: list[JobWithFiles], world: _World, broker: Broker) -> Iterable[Plan]:
    """Plan job by job, counting each choice as load for the next."""
    loads = defaultdict(Load, world.loads)
    for one in new:
        plan = _plan(one, world, loads, broker)
        if plan.choice is not None and plan.choice.queue is not None:
            before = loads[plan.choice.queue]
            loads[plan.choice.queue] = Load(queued=before.queued + 1, running=before.running)
        yield plan


def _plan(one: JobWithFiles, world: _World, loads: dict[str, Load], choose: Broker) -> Plan:
    names = [(f.scope, f.lfn) for f in one.of_type(FileType.INPUT)]
    missing = tuple(name for name in names if name not in world.replicas)
    if missing:
        return Plan(one.job.job_id, missing=missing)
    at = Counter(endpoint for name in names for endpoint in {r.endpoint for r in world.replicas[name]})
    choice = choose(one.job, world.topology.queues, loads, at, avoid=world.avoided.get(one.job.job_id, ()))
    if choice.queue is None:
        return Plan(one.job.job_id, choice=choice)
    endpoint = world.topology.queues[choice.queue].endpoint
    here = frozenset(n for n in names if any(r.endpoint == endpoint for r in world.replicas[n]))
    return Plan(one.job.job_id, choice=choice, here=here)


def _carry_out(connection: Connection, this: _Round) -> None:
    """Write what was planned, for the jobs that are still where they were."""
    by_queue: dict[str, list[JobWithFiles]] = defaultdict(list)
    for one in files.load_jobs(connection, this.plans, lock=True):
        plan = this.plans[one.job.job_id]
        if one.job.state is not JobState.DEFINED:
            continue
        if plan.missing:
            _wait(connection, one, plan.missing, this.now)
        elif plan.choice is not None:
            _record(connection, one.job.job_id, plan.choice, this.now)
            if plan.choice.queue is None:
                _nowhere(connection, one, plan.choice, this.now)
            else:
                by_queue[plan.choice.queue].append(one)
    for name, bunch in by_queue.items():
        _assign(connection, bunch, this, this.world.topology.queues[name])


def _wait(connection: Connection, one: JobWithFiles, missing: tuple[FileName, ...], now: datetime) -> None:
    lacking, inputs = set(missing), one.of_type(FileType.INPUT)
    ids = [f.file_id for f in inputs if (f.scope, f.lfn) in lacking]
    files.set_status(connection, [f.file_id for f in inputs], FileStatus.UNKNOWN)  # some were missing and are there now
    files.set_status(connection, ids, FileStatus.MISSING)
    text = f"{len(missing)} input files are not in the catalogue yet, first {missing[0][0]}:{missing[0][1]}"
    jobs.change_state(connection, [one.job], JobState.WAITING, now=now, reason=text)


def _record(connection: Connection, job_id: int, choice: Choice, now: datetime) -> None:
    rows = [reasons.RecordedReason(job_id, now, v.queue, v.verdict, v.reason, v.weight) for v in choice.verdicts]
    reasons.add(connection, rows)


def _nowhere(connection: Connection, one: JobWithFiles, choice: Choice, now: datetime) -> None:
    """No queue can take the job: try later if that may change, else it has failed."""
    if choice.may_pass:
        ask_setup(connection, [one.job.job_id], now, delay_s=RETRY_S)
        return
    why = "; ".join(f"{v.queue}: {v.reason}" for v in choice.verdicts) or "no queue is configured"
    error = JobError(ErrorFamily.BROKERAGE, BrokerageError.NO_SITE, f"no queue can take the job: {why}")
    end_badly(
        connection, [one], Ending(state=JobState.FAILED, reason="no queue can take the job", errors=(error,)), now
    )


def _assign(connection: Connection, bunch: list[JobWithFiles], this: _Round, queue: Queue) -> None:
    """Give a bunch of jobs its queue; those with inputs elsewhere share a dispatch dataset."""
    _name_outputs(connection, bunch, this, queue)
    local = [f for one in bunch for f in one.of_type(FileType.INPUT) if this.is_here(f)]
    files.set_facts(connection, [_known_fact(f, FileStatus.READY, this.world) for f in local])
    moving = [one for one in bunch if any(not this.is_here(f) for f in one.of_type(FileType.INPUT))]
    at_once = [one.job for one in bunch if one not in moving]
    text = f"brokered to {queue.name}, all inputs there"
    jobs.change_state(connection, at_once, JobState.ACTIVATED, now=this.now, reason=text, site=queue.name)
    if moving:
        _dispatch(connection, moving, this, queue)


def _known_fact(file: File, status: FileStatus, world: _World) -> files.FileFact:
    """Give what the catalogue says of an input; the pilot will check its copy against it."""
    known = world.replicas[file.scope, file.lfn][0]
    return files.FileFact(
        file_id=file.file_id,
        status=status,
        guid=known.guid,
        size_bytes=known.size_bytes,
        checksum=f"ad:{known.adler32}",
    )


def _dispatch(connection: Connection, moving: list[JobWithFiles], this: _Round, queue: Queue) -> None:
    """Put what is elsewhere into a dispatch dataset, and ask for its transfer with the same commit."""
    name = dispatch_name(this.unique, moving[0].job.job_id)
    datasets.add(connection, [_dataset(name, DatasetType.DISPATCH, moving[0], queue.endpoint, this.now)])
    absent = [f for one in moving for f in one.of_type(FileType.INPUT) if not this.is_here(f)]
    files.set_facts(connection, [_known_fact(f, FileStatus.PENDING, this.world) for f in absent])
    files.set_status(connection, [f.file_id for f in absent], FileStatus.PENDING, block=name)
    text = f"brokered to {queue.name}, {len(absent)} inputs on their way in {name}"
    given = {"site": queue.name, "dispatch_dataset": name}
    jobs.change_state(connection, [m.job for m in moving], JobState.ASSIGNED, now=this.now, reason=text, **given)
    wanted = sorted({(f.scope, f.lfn) for f in absent})
    payload = {"dataset": name, "endpoint": queue.endpoint, "files": [list(n) for n in wanted]}
    add_work(connection, [NewWork(kind=DISPATCH, key=name, payload=payload)], now=this.now)


def _name_outputs(connection: Connection, bunch: list[JobWithFiles], this: _Round, queue: Queue) -> None:
    """Give the outputs of a bunch their _sub datasets and their destination endpoint."""
    groups: dict[tuple[str, str], list[tuple[JobWithFiles, File]]] = defaultdict(list)
    for one in bunch:
        for file in one.of_type(FileType.OUTPUT, FileType.LOG):
            groups[file.dataset, destination_of(one, file, this.world.topology, queue)].append((one, file))
    for (dataset, endpoint), members in groups.items():
        (serial,) = counters.take(connection, f"sub:{dataset}")
        block = sub_name(dataset, serial)
        parent = _dataset(dataset, DatasetType.OUTPUT, members[0][0], endpoint, this.now)
        part = _dataset(block, DatasetType.SUB, members[0][0], endpoint, this.now, parent=dataset)
        datasets.add(connection, [parent, part])
        ids = [file.file_id for _, file in members]
        files.set_status(connection, ids, FileStatus.UNKNOWN, block=block, endpoint=endpoint)
        files.set_facts(connection, [_with_guid(file) for _, file in members if file.guid is None])


def _with_guid(file: File) -> files.FileFact:
    return files.FileFact(
        file_id=file.file_id,
        status=FileStatus.UNKNOWN,
        guid=str(uuid.uuid4()),
        size_bytes=file.size_bytes,
        checksum=file.checksum,
    )


def destination_of(one: JobWithFiles, file: File, grid: Topology, queue: Queue) -> str:
    """Say at which endpoint an output shall end: where the user said, else the Tier-1 for production, else here."""
    asked = file.destination or one.job.destination
    if asked and (endpoint := grid.endpoint_of(asked)) is not None:
        return endpoint
    tier1 = grid.tier1(one.job.cloud or queue.cloud)
    return tier1.endpoint if one.job.production and tier1 is not None else queue.endpoint


def _dataset(
    name: str, kind: DatasetType, one: JobWithFiles, endpoint: str, now: datetime, *, parent: str | None = None
) -> Dataset:
    return Dataset(
        name=name,
        type=kind,
        status=DatasetStatus.DEFINED,
        vo=one.job.vo,
        parent=parent,
        endpoint=endpoint,
        created_at=now,
        modified_at=now,
    )


def _look_again(service: DataService, plans: dict[int, Plan]) -> None:
    """Wake jobs whose missing input appeared between our look and our commit."""
    missing = {name for plan in plans.values() for name in plan.missing}
    appeared = list(service.ddm.replicas(missing)) if missing else []
    if appeared:
        service.buffer.run(lambda c: wake(c, appeared, service.buffer.now()))


def wake(connection: Connection, names: list[FileName], now: datetime) -> None:
    """Set up again the jobs that waited for these files, and for no others."""
    appeared, ids = set(names), files.waiting_for(connection, names)
    waiting = [one for one in files.load_jobs(connection, ids, lock=True) if one.job.state is JobState.WAITING]
    missing = [f for one in waiting for f in one.inputs_in(FileStatus.MISSING)]
    here = [f.file_id for f in missing if (f.scope, f.lfn) in appeared]
    files.set_status(connection, here, FileStatus.UNKNOWN)
    still = {f.job_id for f in missing if f.file_id not in here}
    complete = [one.job for one in waiting if one.job.job_id not in still]
    jobs.change_state(connection, complete, JobState.DEFINED, now=now, reason="all missing inputs have appeared")
    ask_setup(connection, [job.job_id for job in complete], now)


def dispatch(service: DataService, dataset: str, endpoint: str, names: list[FileName]) -> None:
    """Have inputs brought to a site: background work of kind `dispatch`."""
    service.ddm.attach(dataset, names)
    service.ddm.freeze(dataset)
    service.ddm.request(dataset, endpoint)
