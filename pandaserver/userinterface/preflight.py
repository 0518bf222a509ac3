"""Pre-flight: what would become of jobs if they were submitted now. Nothing is stored."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from pandaserver.dataservice.planning import where, why_nowhere
from pandaserver.dataservice.service import DataService
from pandaserver.errors import DDMError
from pandaserver.model.choice import Choice, Request, Snapshot, wish_of
from pandaserver.model.file import FileType, Replica
from pandaserver.model.job import NewJob
from pandaserver.model.priority import PriorityRules
from pandaserver.taskbuffer import activity
from pandaserver.taskbuffer.buffer import TaskBuffer

log = logging.getLogger(__name__)

FileName = tuple[str, str]

_HISTORY_S = 10800.0
_LONG_S = 6 * 3600.0
NO_QUEUE, LATER, NO_PILOT, MISSING = "no_queue", "closed_now", "no_pilot", "missing_input"
CLIPPED, LONG_WAIT, UNKNOWN_INPUTS = "clipped", "long_wait", "inputs_not_checked"


@dataclass(frozen=True)
class Warned:
    """Something that the submitter should know; the field is the one by its name on the wire."""

    code: str
    text: str
    field: str = ""


@dataclass(frozen=True)
class Checked:
    """What would become of one job."""

    choice: Choice
    warnings: tuple[Warned, ...] = ()
    expected_wait_s: float | None = None  # None: nobody knows

    @property
    def runnable(self) -> bool:
        """Say whether some queue could take it now and its inputs are there."""
        return self.choice.queue is not None and not any(one.code == MISSING for one in self.warnings)


@dataclass(frozen=True)
class Submitter:
    """Who would submit, and what the installation says of priorities."""

    dn: str
    rules: PriorityRules = field(default_factory=PriorityRules)


@dataclass(frozen=True)
class _View:
    """What is true now: the grid, where inputs are (None: nobody knows), jobs that queues gave out per second."""

    snapshot: Snapshot
    replicas: Mapping[FileName, Sequence[Replica]] | None
    pace: Mapping[str, float]


def check(
    service: DataService, submitter: Submitter, new: Sequence[NewJob], *, look_for_inputs: bool = True
) -> list[Checked]:
    """Tell of each job what would become of it; jobs that are equal are looked at once."""
    made = {(f.scope, f.lfn) for job in new for f in job.files if f.type is not FileType.INPUT}
    inputs = [tuple((f.scope, f.lfn) for f in job.files if f.type is FileType.INPUT) for job in new]
    outside = {name for names in inputs for name in names} - made
    view = _View(
        service.loads.snapshot(service.buffer, service.broker_rules),
        _replicas(service, outside) if look_for_inputs else {},
        _pace(service.buffer),
    )
    known: dict[object, Checked] = {}
    found = list[Checked]()
    for job, names in zip(new, inputs, strict=True):
        request = _request(job, names, submitter, view)
        key = (request.wish, request.inputs, job.assigned_priority)
        if key not in known:
            known[key] = _check(service, job, request, submitter=submitter, view=view)
            missing = _missing(names, made, view) if look_for_inputs else ()
            known[key] = replace(known[key], warnings=(*known[key].warnings, *missing))
        found.append(known[key])
    return found


def _replicas(service: DataService, names: set[FileName]) -> Mapping[FileName, Sequence[Replica]] | None:
    try:
        return service.ddm.replicas(names) if names else {}
    except DDMError as error:
        log.warning("inputs of new jobs cannot be looked for: %s", error)
        return None


def _pace(buffer: TaskBuffer) -> dict[str, float]:
    """Tell how many jobs queues gave to pilots lately, per second."""
    start = buffer.now() - timedelta(seconds=_HISTORY_S)
    seen = buffer.read_replica(lambda c: activity.since(c, start))
    return {name: one.jobs / _HISTORY_S for name, one in seen.items() if one.jobs}


def _request(job: NewJob, names: tuple[FileName, ...], submitter: Submitter, view: _View) -> Request:
    places = where(names, view.replicas or {})
    pinned = job.site is not None
    wish = wish_of(job, owner=submitter.dn, pinned=pinned, input_bytes=places.input_bytes, avoid=frozenset())
    return Request(job_id=0, wish=wish, priority=job.assigned_priority, inputs=names, **vars(places))


def _check(service: DataService, job: NewJob, request: Request, *, submitter: Submitter, view: _View) -> Checked:
    (choice,) = service.choose([request], view.snapshot)
    wait_s = None if choice.queue is None else _wait_s(choice.queue, view)
    return Checked(choice, tuple(_warnings(job, choice, submitter, view, wait_s)), wait_s)


def _wait_s(queue: str, view: _View) -> float | None:
    """Expect that what waits in front goes at the pace of the last hours."""
    load, pace = view.snapshot.loads.get(queue), view.pace.get(queue)
    ahead = load.queued if load is not None else 0
    return (1 + ahead) / pace if pace else None


def _warnings(job: NewJob, choice: Choice, submitter: Submitter, view: _View, wait_s: float | None) -> list[Warned]:
    found = list[Warned]()
    if choice.queue is None:
        later = choice.may_pass
        text = "no queue can take the job now, it will wait" if later else "no queue can take the job, it will fail"
        found.append(Warned(LATER if later else NO_QUEUE, f"{text}: {why_nowhere(choice)}"))
    elif _is_silent(choice.queue, view.snapshot):
        hours = (view.snapshot.rules.pilots_within_s or 0) / 3600
        found.append(Warned(NO_PILOT, f"no pilot was seen at {choice.queue} in the last {hours:g} hours"))
    if wait_s is not None and wait_s > _LONG_S:
        found.append(Warned(LONG_WAIT, f"at the pace of the last hours it waits {wait_s / 3600:.0f} h for a pilot"))
    most = submitter.rules.raise_max
    if not job.production and job.assigned_priority > most:
        text = f"priority {job.assigned_priority} is cut to {most}, the most by which users may lift their jobs"
        found.append(Warned(CLIPPED, text, "assignedPriority"))
    return found


def _is_silent(queue: str, snapshot: Snapshot) -> bool:
    return snapshot.rules.pilots_within_s is not None and not snapshot.pilots.get(queue)


def _missing(names: Sequence[FileName], made: set[FileName], view: _View) -> list[Warned]:
    """Name inputs that are in no catalogue; those that other jobs of the submission make will come."""
    if view.replicas is None:
        return [Warned(UNKNOWN_INPUTS, "the catalogue does not answer, so the inputs were not looked for", "Files")]
    lacking = [name for name in names if name not in view.replicas and name not in made]
    if not lacking:
        return []
    text = f"{len(lacking)} input files are not in the catalogue, first {lacking[0][0]}:{lacking[0][1]}; it will wait"
    return [Warned(MISSING, text, "Files")]
