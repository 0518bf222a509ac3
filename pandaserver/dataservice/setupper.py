"""Setupper: carries out what was planned for new jobs: their states, and the datasets they will use."""

from __future__ import annotations

import logging
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pandaserver.dataservice.ddm.protocol import FileName
from pandaserver.dataservice.ending import Ending, end_badly
from pandaserver.dataservice.planning import Plan, World, look_around, plan_all, record, why_nowhere
from pandaserver.dataservice.service import DISPATCH, DataService, ask_setup
from pandaserver.errors import DDMFatal
from pandaserver.model.codes import BrokerageError, DDMError, ErrorFamily, JobError
from pandaserver.model.dataset import Dataset, DatasetStatus, DatasetType, dispatch_name, sub_name
from pandaserver.model.file import OUTPUTS, File, FileStatus, FileType
from pandaserver.model.grid import Queue, Topology
from pandaserver.model.job import JobWithFiles
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import counters, datasets, files, jobs
from pandaserver.taskbuffer.database import Connection
from pandaserver.taskbuffer.work import NewWork
from pandaserver.taskbuffer.work import add as add_work

log = logging.getLogger(__name__)

RETRY_S = 60  # when no queue is open now, look again
TOGETHER = 200  # jobs set up in one transaction


Part = tuple[str, str, str]  # of an output dataset: what is made at a queue and goes to an endpoint


@dataclass(frozen=True)
class _Round:
    """One bunch being set up: what was planned, in which world, and the marks of this round."""

    plans: dict[int, Plan]
    world: World
    parts: dict[Part, str]  # the names of their _sub datasets
    unique: str  # goes into the names of dispatch datasets
    now: datetime

    def is_here(self, file: File) -> bool:
        """Say whether an input is already where its job goes."""
        return (file.scope, file.lfn) in self.plans[file.job_id].here


def set_up(service: DataService, job_ids: Sequence[int]) -> None:
    """Bring defined jobs to waiting, assigned or activated: background work of kind `setup`."""
    for part in _batched(dict.fromkeys(job_ids), TOGETHER):
        _set_up_good(service, part)


def _set_up_good(service: DataService, job_ids: list[int]) -> None:
    """Set up jobs together; where the DDM will never do what one of them needs, that one has failed."""
    try:
        _set_up(service, job_ids)
    except DDMFatal as error:
        if len(job_ids) == 1:
            give_up(service, job_ids, str(error))
            return
        for half in _batched(job_ids, (len(job_ids) + 1) // 2):
            _set_up_good(service, half)


def give_up(service: DataService, job_ids: Sequence[int], error: str) -> None:
    """End jobs that could not be set up."""
    told = JobError(ErrorFamily.DDM, DDMError.SETUP, f"the job cannot be set up: {error}")
    ending = Ending(state=JobState.FAILED, reason="the job cannot be set up", errors=(told,))

    def end(connection: Connection) -> None:
        found = files.load_jobs(connection, job_ids, lock=True)
        end_badly(connection, [x for x in found if x.job.state is JobState.DEFINED], ending, service.buffer.now())

    service.buffer.run(end)


def _batched(values: Iterable[int], size: int) -> Iterator[list[int]]:
    """Cut into lists of a size."""
    rest = list(values)
    for begin in range(0, len(rest), size):
        yield rest[begin : begin + size]


def _set_up(service: DataService, job_ids: list[int]) -> None:
    found = service.buffer.read(lambda c: files.load_jobs(c, job_ids))
    new = [one for one in found if one.job.state is JobState.DEFINED]
    if not new:
        return
    world = look_around(service, new)
    plans = {plan.job_id: plan for plan in plan_all(new, world, service)}
    parts = _name_parts(service, new, plans, world.topology)
    this = _Round(plans, world, parts, unique=str(uuid.uuid4()), now=service.buffer.now())
    service.buffer.run(lambda c: _carry_out(c, new, this))
    _look_again(service, plans)


def _name_parts(
    service: DataService, new: list[JobWithFiles], plans: dict[int, Plan], grid: Topology
) -> dict[Part, str]:
    """Give each part of the outputs a _sub dataset's name.

    The numbers are taken for good before anything else is done, so that those who set up parts of the same dataset do
    not wait in line for each other.
    """
    going = [(one, plans[one.job.job_id].queue) for one in new]
    parts = {_part(one, f, grid, q) for one, q in going if q is not None for f in one.of_type(*OUTPUTS)}
    if not parts:
        return {}
    by_dataset: dict[str, list[Part]] = defaultdict(list)
    for part in sorted(parts):
        by_dataset[part[0]].append(part)
    wanted = {f"sub:{dataset}": len(members) for dataset, members in by_dataset.items()}
    taken = service.buffer.run(lambda c: counters.take_all(c, wanted))
    return {
        part: sub_name(dataset, serial)
        for dataset, members in by_dataset.items()
        for part, serial in zip(members, taken[f"sub:{dataset}"], strict=True)
    }


def _part(one: JobWithFiles, file: File, grid: Topology, queue: str) -> Part:
    return file.dataset, queue, destination_of(one, file, grid, grid.queues[queue])


def _carry_out(connection: Connection, new: list[JobWithFiles], this: _Round) -> None:
    """Write what was planned, for the jobs that are still where they were."""
    by_queue: dict[str, list[JobWithFiles]] = defaultdict(list)
    nowhere = list[JobWithFiles]()
    still = _still_defined(connection, new)
    record(connection, still, this.plans, this.now)
    for one in still:
        plan = this.plans[one.job.job_id]
        if plan.missing:
            _wait(connection, one, plan.missing, this.now)
        elif plan.queue is None:
            nowhere.append(one)
        else:
            by_queue[plan.queue].append(one)
    _nowhere(connection, nowhere, this)
    _assign(connection, by_queue, this)


def _still_defined(connection: Connection, new: list[JobWithFiles]) -> list[JobWithFiles]:
    """Lock jobs; leave out what others have moved, also if it has come back: then somebody asked for a new round.

    The files of the rest are as they were, since they change with their job.
    """
    locked = jobs.lock(connection, [one.job for one in new])
    found = [(one, locked[one.job.job_id]) for one in new if one.job.job_id in locked]
    return [
        replace(one, job=job)
        for one, job in found
        if job.state is JobState.DEFINED and job.state_since == one.job.state_since
    ]


def _wait(connection: Connection, one: JobWithFiles, missing: tuple[FileName, ...], now: datetime) -> None:
    lacking, inputs = set(missing), one.of_type(FileType.INPUT)
    ids = [f.file_id for f in inputs if (f.scope, f.lfn) in lacking]
    files.set_status(connection, [f.file_id for f in inputs], FileStatus.UNKNOWN)  # some were missing and are there now
    files.set_status(connection, ids, FileStatus.MISSING)
    text = f"{len(missing)} input files are not in the catalogue yet, first {missing[0][0]}:{missing[0][1]}"
    jobs.change_state(connection, [one.job], JobState.WAITING, now=now, reason=text)


def _nowhere(connection: Connection, bunch: list[JobWithFiles], this: _Round) -> None:
    """No queue can take these jobs: try later if that may change, else they have failed."""
    later = list[int]()
    for one in bunch:
        choice = this.plans[one.job.job_id].choice
        assert choice is not None
        if choice.may_pass:
            later.append(one.job.job_id)
            continue
        text = f"no queue can take the job: {why_nowhere(choice)}"
        error = JobError(ErrorFamily.BROKERAGE, BrokerageError.NO_SITE, text)
        ending = Ending(state=JobState.FAILED, reason="no queue can take the job", errors=(error,))
        end_badly(connection, [one], ending, this.now)
    ask_setup(connection, later, this.now, delay_s=RETRY_S)


def _assign(connection: Connection, by_queue: dict[str, list[JobWithFiles]], this: _Round) -> None:
    """Give jobs their queues; those of a queue with inputs elsewhere share a dispatch dataset."""
    _place_outputs(connection, by_queue, this)
    local = [f for bunch in by_queue.values() for one in bunch for f in one.of_type(FileType.INPUT) if this.is_here(f)]
    files.save(connection, [_as_known(f, FileStatus.READY, this.world) for f in local])
    for name, bunch in sorted(by_queue.items()):
        queue = this.world.topology.queues[name]
        moving = [one for one in bunch if not all(this.is_here(f) for f in one.of_type(FileType.INPUT))]
        waiting = {one.job.job_id for one in moving}
        at_once = [one.job for one in bunch if one.job.job_id not in waiting]
        text = f"brokered to {name}, all inputs there"
        jobs.change_state(connection, at_once, JobState.ACTIVATED, now=this.now, reason=text, site=name)
        if moving:
            _dispatch(connection, moving, this, queue)


def _as_known(file: File, status: FileStatus, world: World, **more: Any) -> File:
    """Give an input what the catalogue says of it; the pilot will check its copy against it."""
    known = world.replicas[file.scope, file.lfn][0]
    checksum = f"ad:{known.adler32}"
    return replace(file, status=status, guid=known.guid, size_bytes=known.size_bytes, checksum=checksum, **more)


def _dispatch(connection: Connection, moving: list[JobWithFiles], this: _Round, queue: Queue) -> None:
    """Put what is elsewhere into a dispatch dataset, and ask for its transfer with the same commit."""
    name = dispatch_name(this.unique, moving[0].job.job_id)
    datasets.add(connection, [_dataset(name, DatasetType.DISPATCH, moving[0], queue.endpoint, this.now)])
    absent = [f for one in moving for f in one.of_type(FileType.INPUT) if not this.is_here(f)]
    files.save(connection, [_as_known(f, FileStatus.PENDING, this.world, block=name) for f in absent])
    text = f"brokered to {queue.name}, {len(absent)} inputs on their way in {name}"
    given = {"site": queue.name, "dispatch_dataset": name}
    jobs.change_state(connection, [m.job for m in moving], JobState.ASSIGNED, now=this.now, reason=text, **given)
    wanted = sorted({(f.scope, f.lfn) for f in absent})
    payload = {"dataset": name, "endpoint": queue.endpoint, "files": [list(n) for n in wanted]}
    add_work(connection, [NewWork(kind=DISPATCH, key=name, payload=payload)], now=this.now)


def _place_outputs(connection: Connection, by_queue: dict[str, list[JobWithFiles]], this: _Round) -> None:
    """Give outputs their _sub datasets and their destination endpoints."""
    new, placed = dict[str, Dataset](), list[File]()
    for name, bunch in by_queue.items():
        for one in bunch:
            for file in one.of_type(*OUTPUTS):
                dataset, _, endpoint = part = _part(one, file, this.world.topology, name)
                block, guid = this.parts[part], file.guid or str(uuid.uuid4())
                placed.append(replace(file, status=FileStatus.UNKNOWN, block=block, endpoint=endpoint, guid=guid))
                if block not in new:
                    new[block] = _dataset(block, DatasetType.SUB, one, endpoint, this.now, parent=dataset)
                    new.setdefault(dataset, _dataset(dataset, DatasetType.OUTPUT, one, endpoint, this.now))
    datasets.add(connection, new.values())
    files.save(connection, placed)


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


def wake(connection: Connection, names: Sequence[FileName], now: datetime) -> None:
    """Set up again the jobs that waited for these files, and for no others."""
    appeared, ids = set(names), files.waiting_for(connection, names)
    if not ids:
        return
    waiting = [one for one in files.load_jobs(connection, ids, lock=True) if one.job.state is JobState.WAITING]
    missing = [f for one in waiting for f in one.inputs_in(FileStatus.MISSING)]
    here = {f.file_id for f in missing if (f.scope, f.lfn) in appeared}
    files.set_status(connection, sorted(here), FileStatus.UNKNOWN)
    still = {f.job_id for f in missing if f.file_id not in here}
    complete = [one.job for one in waiting if one.job.job_id not in still]
    jobs.change_state(connection, complete, JobState.DEFINED, now=now, reason="all missing inputs have appeared")
    ask_setup(connection, [job.job_id for job in complete], now)
