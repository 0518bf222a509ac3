"""Adder: works off a pilot's last word: checks and registers outputs, sends them on, ends the job."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pandaserver import errors
from pandaserver.dataservice import staging
from pandaserver.dataservice.ddm.protocol import FileName
from pandaserver.dataservice.ending import Ending, end_badly
from pandaserver.dataservice.retrying import after_failure
from pandaserver.dataservice.service import CLOSE, FINISH, DataService, ask_for_datasets
from pandaserver.dataservice.setupper import wake
from pandaserver.errors import DDMFatal
from pandaserver.model.attempt import OutputReport
from pandaserver.model.codes import DDMError, ErrorFamily, JobError
from pandaserver.model.file import OUTPUTS, File, FileStatus, FileType, Replica
from pandaserver.model.job import Job, JobWithFiles
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import attempts, files, jobs, topology
from pandaserver.taskbuffer.database import Connection

log = logging.getLogger(__name__)

Asked = tuple[int, int]  # job id, number of the attempt


@dataclass(frozen=True)
class Stored:
    """An output or log of the job that the pilot stored, with where."""

    file: File
    replica: Replica

    @property
    def there(self) -> bool:
        """Say whether it is already where it shall end."""
        return self.file.endpoint in (None, self.replica.endpoint)


@dataclass(frozen=True)
class _Outcome:
    """What came of an attempt: what its pilot stored, and whether it went well."""

    one: JobWithFiles
    stored: tuple[Stored, ...]
    success: bool

    @property
    def names_there(self) -> list[FileName]:
        """Name the files that are where they shall end."""
        return [(s.file.scope, s.file.lfn) for s in self.stored if s.there]


def add(service: DataService, asked: Sequence[Asked]) -> None:
    """Work off the last words of attempts: background work of kind `add`.

    Raises:
        DDMError: outputs cannot be registered, or not now; of one job, or of one among several, which is then to be
            found by working off fewer of them.
    """
    outcomes = _outcomes(service, asked)
    try:
        _register(service, [s for outcome in outcomes for s in outcome.stored])
    except DDMFatal as error:
        if len(outcomes) > 1:
            raise
        _fail(service, outcomes[0].one, str(error), code_of(error))
        return
    if outcomes:
        service.buffer.run(lambda c: _conclude(c, service, outcomes))


def _outcomes(service: DataService, asked: Sequence[Asked]) -> list[_Outcome]:
    """Find what came of attempts that are still to be worked off; those that claim what is not so have failed."""
    found, reports = service.buffer.read(lambda c: _look(c, asked))
    suffixes = _suffixes(service, reports, found)
    queues = topology.of(service.buffer).queues
    outcomes = []
    for one in found:
        report = reports.get(one.job.job_id, {})
        reported = [OutputReport(**o) for o in report.get("outputs", [])]
        success = report.get("state") == "finished"
        place = _Place(queues[one.job.site or ""].endpoint, suffixes.get(one.job.job_id, ""))
        try:
            stored = _match(one, reported, place, complete=success)
        except DDMFatal as error:
            _fail(service, one, str(error), code_of(error))
        else:
            outcomes.append(_Outcome(one, tuple(stored), success))
    return outcomes


def _suffixes(
    service: DataService, reports: Mapping[int, Mapping[str, Any]], found: Sequence[JobWithFiles]
) -> dict[int, str]:
    """Give what the attempts that staged files added to their names."""
    staged = [x.job for x in found if any(o.get("staged") for o in reports.get(x.job.job_id, {}).get("outputs", []))]
    secret = service.buffer.read(staging.secret_of) if staged and service.ddm.stages_outputs else ""
    return {job.job_id: staging.suffix(secret, job.job_id, job.attempt) for job in staged if secret}


def _look(connection: Connection, asked: Sequence[Asked]) -> tuple[list[JobWithFiles], dict[int, dict[str, Any]]]:
    wanted, loaded = set(asked), files.load_jobs(connection, [job_id for job_id, _ in asked])
    found = [x for x in loaded if x.job.state is JobState.HOLDING and (x.job.job_id, x.job.attempt) in wanted]
    return found, attempts.last_reports(connection, [one.job for one in found])


def give_up(service: DataService, job_id: int, attempt: int, error: str) -> None:
    """End a job whose outputs could not be registered in all the time there was; a last try tells what it was."""
    code = int(DDMError.ADDER)
    try:
        add(service, [(job_id, attempt)])
    except Exception as last:  # noqa: BLE001 - whatever it is, the job has to end
        code, error = code_of(last), str(last)
    found = service.buffer.read(lambda c: files.load_jobs(c, [job_id]))
    if found and _current(found[0].job, attempt):
        _fail(service, found[0], f"outputs could not be registered: {error}", code)


def code_of(error: Exception) -> int:
    """Choose the ddmErrorCode: whose size or checksum is wrong, what is no endpoint, what cannot be sent on."""
    if isinstance(error, _NotSentOn):
        return DDMError.SUBSCRIPTION
    return _CODES.get(getattr(error, "field", None) or "", DDMError.ADDER)


_CODES = {"fsize": DDMError.CHECKSUM, "adler32": DDMError.CHECKSUM, "endpoint": DDMError.ENDPOINT}


class _NotSentOn(errors.DDMError):
    """Outputs are registered where they are, and their transfer cannot be requested."""


class _NeverSentOn(_NotSentOn, DDMFatal):
    """Nor will it be."""


def _current(job: Job, attempt: int) -> bool:
    return job.state is JobState.HOLDING and job.attempt == attempt


@dataclass(frozen=True)
class _Place:
    """Where the pilot of an attempt stored what it does not say more of."""

    endpoint: str
    suffix: str  # of the names of staged files


def _match(one: JobWithFiles, reported: Sequence[OutputReport], place: _Place, *, complete: bool) -> list[Stored]:
    """Pair what the pilot stored with what the job was to make; old pilots leave the endpoint to us.

    Of a job that is not `complete` only the log counts: another attempt may make the outputs, under their names.

    Raises:
        DDMFatal: a file that is not the job's, or (for a successful job) one that is missing.
    """
    own = {f.lfn: f for f in one.of_type(*OUTPUTS)}
    strange = [r.lfn for r in reported if r.lfn not in own]
    if strange:
        raise DDMFatal(f"the pilot stored {strange[0]}, which is no output of the job", field="lfn", value=strange[0])
    told = {r.lfn for r in reported}
    lacking = [lfn for lfn, f in own.items() if lfn not in told and f.type is FileType.OUTPUT]
    if complete and lacking:
        raise DDMFatal(f"the pilot reported success without {', '.join(lacking)}", field="lfn", value=lacking[0])
    counting = OUTPUTS if complete else (FileType.LOG,)
    return [Stored(own[r.lfn], _replica(own[r.lfn], r, place)) for r in reported if own[r.lfn].type in counting]


def _replica(file: File, report: OutputReport, place: _Place) -> Replica:
    return Replica(
        scope=file.scope,
        lfn=file.lfn,
        endpoint=report.endpoint or place.endpoint,
        guid=report.guid or file.guid or "",
        size_bytes=report.size_bytes,
        adler32=report.adler32,
        staged_as=place.suffix if report.staged else "",
    )


def _register(service: DataService, stored: Sequence[Stored]) -> None:
    """Tell the DDM: into the _sub dataset where a file is, and into the dataset that users know when it is at home."""
    placed: dict[str, list[Replica]] = defaultdict(list)
    wanted: dict[str, set[str]] = defaultdict(set)
    for one in stored:
        block = one.file.block or one.file.dataset
        placed[block].append(one.replica)
        if not one.there:
            wanted[one.file.endpoint or ""].add(block)
        elif block != one.file.dataset:
            placed[one.file.dataset].append(one.replica)
    if placed:
        service.ddm.register(placed)
    for endpoint, blocks in sorted(wanted.items()):
        try:
            service.ddm.request(blocks, endpoint)
        except errors.DDMError as error:
            kind = _NeverSentOn if isinstance(error, DDMFatal) else _NotSentOn
            raise kind(f"no transfer to {endpoint}: {error}", field=error.field, value=error.value) from error


def _conclude(connection: Connection, service: DataService, outcomes: Sequence[_Outcome]) -> None:
    locked = jobs.lock(connection, [outcome.one.job for outcome in outcomes])
    current = [
        replace(outcome, one=replace(outcome.one, job=job))
        for outcome in outcomes
        if (job := locked.get(outcome.one.job.job_id)) and _current(job, outcome.one.job.attempt)
    ]
    now, stored = service.buffer.now(), [s for outcome in current for s in outcome.stored]
    files.save(connection, [_as_stored(s) for s in stored])
    _conclude_well(connection, [outcome for outcome in current if outcome.success], now)
    for outcome in current:
        if not outcome.success:
            _conclude_badly(connection, outcome.one, service, log_ready=bool(outcome.stored))
    ask_for_datasets(connection, CLOSE, {s.file.block for s in stored if s.file.block}, now)
    # what was on its way may have arrived while nobody knew yet that it was waited for
    ask_for_datasets(connection, FINISH, {s.file.block for s in stored if s.file.block and not s.there}, now)


def _as_stored(stored: Stored) -> File:
    replica = stored.replica
    return replace(
        stored.file,
        status=FileStatus.READY if stored.there else FileStatus.TRANSFERRING,
        guid=replica.guid,
        size_bytes=replica.size_bytes,
        checksum=f"ad:{replica.adler32}",
    )


def _conclude_well(connection: Connection, outcomes: Sequence[_Outcome], now: datetime) -> None:
    files.set_status(connection, [file_id for o in outcomes for file_id in _absent_logs(o)], FileStatus.FAILED)
    moving = [(o.one.job, text) for o in outcomes if (text := _on_their_way(o))]
    jobs.change_states(connection, moving, JobState.TRANSFERRING, now=now)
    done = [o.one.job for o in outcomes if all(s.there for s in o.stored)]
    jobs.change_state(connection, done, JobState.FINISHED, now=now, reason="all outputs are where they belong")
    wake(connection, [name for o in outcomes for name in o.names_there], now)


def _absent_logs(outcome: _Outcome) -> list[int]:
    told = {s.file.file_id for s in outcome.stored}
    return [f.file_id for f in outcome.one.of_type(FileType.LOG) if f.file_id not in told]


def _on_their_way(outcome: _Outcome) -> str:
    """Say where the outputs of a job are still to go; nothing when all are there."""
    moving = [s.file.endpoint or "" for s in outcome.stored if not s.there]
    return f"{len(moving)} outputs on their way to {', '.join(sorted(set(moving)))}" if moving else ""


def _conclude_badly(connection: Connection, one: JobWithFiles, service: DataService, *, log_ready: bool) -> None:
    state = JobState.CANCELLED if one.job.kill_requested else JobState.FAILED
    reason = "killed as asked" if one.job.kill_requested else "the pilot reported failure"
    ending = Ending(state=state, reason=reason, reported=True, log_ready=log_ready)
    after_failure(connection, one, ending, rules=service.retry_rules, now=service.buffer.now())


def _fail(service: DataService, one: JobWithFiles, text: str, code: int) -> None:
    log.warning("job %d: %s", one.job.job_id, text)
    error = JobError(ErrorFamily.DDM, code, text)
    ending = Ending(state=JobState.FAILED, reason="outputs could not be registered", errors=(error,), reported=True)
    service.buffer.run(lambda c: _end_unregistered(c, service, one, ending))


def _end_unregistered(connection: Connection, service: DataService, one: JobWithFiles, ending: Ending) -> None:
    """End a job that claims success; some of its outputs may be in the catalogue, and stand in the way of others."""
    found = files.load_jobs(connection, [one.job.job_id], lock=True)
    locked = [x for x in found if _current(x.job, one.job.attempt)]
    now, report = service.buffer.now(), attempts.last_reports(connection, [one.job]).get(one.job.job_id, {})
    if report.get("state") == "finished":
        end_badly(connection, locked, ending, now)
    else:
        for failed in locked:
            after_failure(connection, failed, ending, rules=service.retry_rules, now=now)
