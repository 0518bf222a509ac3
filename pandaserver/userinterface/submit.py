"""Submission: jobs are checked, written and answered for in one transaction; the heavy work follows later."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pandaserver.dataservice.service import ask_setup
from pandaserver.errors import BadInput, NotAllowed
from pandaserver.model.file import FileType, NewFile, default_scope
from pandaserver.model.job import NewJob
from pandaserver.model.priority import USUAL_RULES, PriorityRules, starting_priority
from pandaserver.taskbuffer import counters, files, jobs, submissions, topology, usage, users
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection

log = logging.getLogger(__name__)

MAX_JOBS = 5000
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+=@-]*")  # of files, datasets, scopes and labels
_MAX_NAME = {
    "lfn": 255,
    "dataset": 180,
    "scope": 64,
    "prodDBlock": 180,
    "destinationDBlock": 176,
    "prodSourceLabel": 64,
}
_LONGEST_ID = "0" * 12  # what $PANDAID may become


@dataclass(frozen=True)
class User:
    """Who submits: the DN that owns, and the name that is shown."""

    dn: str
    name: str


@dataclass(frozen=True)
class Submitted:
    """What became of one submitted job."""

    job_id: int
    definition_id: int
    jobset_id: int


@dataclass(frozen=True)
class _Submission:
    """What comes in one call."""

    user: User
    new: Sequence[NewJob]
    client_key: str
    rules: PriorityRules


def submit(
    buffer: TaskBuffer,
    user: User,
    new: Sequence[NewJob],
    *,
    client_key: str = "",
    rules: PriorityRules = USUAL_RULES,
) -> list[Submitted]:
    """Accept jobs, all or none; with the same client key again, give the first answer again.

    Raises:
        BadInput: a job cannot be accepted; the message says which and why, and nothing is stored.
    """
    if not 0 < len(new) <= MAX_JOBS:
        raise BadInput(f"{len(new)} jobs submitted, 1 to {MAX_JOBS} are accepted", field="jobs", value=len(new))
    grid = buffer.read(topology.load)
    for number, job in enumerate(new):
        check(job, number, set(grid.queues))
    ids = buffer.run(lambda c: counters.take(c, "job", len(new)))
    told = _Submission(user, new, client_key, rules)
    return buffer.run(lambda c: _store(c, told, ids=ids, now=buffer.now()))


def _store(connection: Connection, told: _Submission, *, ids: range, now: datetime) -> list[Submitted]:
    user, client_key = told.user, told.client_key
    # The user's row comes first: of two equal submissions at the same moment the second waits here for the answer.
    known = users.note_submission(connection, user.dn, user.name, now)
    if not known.enabled:
        raise NotAllowed(f"{user.dn} may not submit: the user is disabled", field="certificate", value=user.dn)
    if client_key and (answer := submissions.answered(connection, user.dn, client_key)) is not None:
        return [Submitted(*entry) for entry in answer]
    accepted = [
        jobs.Accepted(job_id, _numbered(job, job_id, known.definitions), user.dn, user.name, priority)
        for job_id, job, priority in zip(ids, told.new, _priorities(connection, told, now), strict=True)
    ]
    jobs.insert(connection, accepted, now)
    files.insert(connection, [(a.job_id, file) for a in accepted for file in a.job.files])
    ask_setup(connection, list(ids), now)
    submitted = [Submitted(a.job_id, a.job.definition_id, a.job.jobset_id) for a in accepted]
    if client_key:
        answer = [[s.job_id, s.definition_id, s.jobset_id] for s in submitted]
        submissions.remember(connection, user.dn, client_key, answer, now)
    log.info("%s submitted %d jobs, %d to %d", user.dn, len(ids), ids[0], ids[-1])
    return submitted


def _priorities(connection: Connection, told: _Submission, now: datetime) -> list[int]:
    """Give each new job its priority; what the user has already is looked at for analysis only."""
    if all(job.production for job in told.new):
        return [starting_priority(job, 0) for job in told.new]
    ahead = jobs.count_unfinished(connection, told.user.dn)
    used = usage.last_day(connection, told.user.dn, now) if told.rules.daily_cpu_s is not None else 0.0
    return [
        starting_priority(job, ahead + place, cpu_used_s=used, rules=told.rules) for place, job in enumerate(told.new)
    ]


def _numbered(job: NewJob, job_id: int, definition: int) -> NewJob:
    """Give a job its numbers, also inside its file names."""
    wanted = _with_log(job, definition)
    named = tuple(replace(f, lfn=f.lfn.replace("$PANDAID", f"{job_id:05d}")) for f in wanted)
    return replace(
        job,
        files=named,
        parameters=job.parameters.replace("$PANDAID", f"{job_id:05d}"),
        definition_id=job.definition_id or definition,
        jobset_id=job.jobset_id or definition,
    )


def _with_log(job: NewJob, definition: int) -> tuple[NewFile, ...]:
    """Give a job without a log file one: every job leaves a log, the failed ones above all."""
    has_log = any(f.type is FileType.LOG for f in job.files)
    return job.files if has_log else (*job.files, _log_file(job, definition))


def _log_file(job: NewJob, definition: int) -> NewFile:
    dataset = f"{job.output_dataset or f'panda.{job.label}.{definition}'}.log"
    return NewFile(lfn="job.$PANDAID.log.tgz", type=FileType.LOG, dataset=dataset, scope=default_scope(dataset))


def check(job: NewJob, number: int, queues: set[str]) -> None:
    """Refuse what could never run.

    Raises:
        BadInput: naming the job's position in the submission, the field and its value.
    """
    where = f"job {number}: "
    if not job.transformation:
        raise BadInput(f"{where}transformation is missing: what shall be run?", field="transformation")
    if job.site is not None and job.site not in queues:
        known = ", ".join(sorted(queues))
        raise BadInput(f"{where}there is no queue {job.site}; known are {known}", field="computingSite", value=job.site)
    names = {"prodSourceLabel": job.label, "prodDBlock": job.input_dataset, "destinationDBlock": job.output_dataset}
    for field, name in names.items():
        _check_name(field, name or "_", where)
    for file in _with_log(job, definition=0):
        _check_file(file, where)
    twice = [lfn for lfn, times in Counter(f.lfn for f in job.files).items() if times > 1]
    if twice:
        raise BadInput(f"{where}file {twice[0]} is there twice", field="lfn", value=twice[0])
    if sum(f.type is FileType.LOG for f in job.files) > 1:
        raise BadInput(f"{where}there is more than one log file", field="Files")


def _check_file(file: NewFile, where: str) -> None:
    _check_name("lfn", file.lfn, where)
    _check_name("dataset", file.dataset, where)
    _check_name("scope", file.scope, where)


def _check_name(field: str, name: str, where: str) -> None:
    most = _MAX_NAME[field]
    text = name.replace("$PANDAID", _LONGEST_ID) if field == "lfn" else name
    if not _NAME.fullmatch(text) or ".." in text or len(text) > most:
        rule = f"letters, digits and _ . : + = @ -, at most {most} characters"
        raise BadInput(f"{where}{field} is no good name: {rule}", field=field, value=name)
