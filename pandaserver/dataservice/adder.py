"""Adder: works off a pilot's last word: checks and registers outputs, sends them on, ends the job."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pandaserver.dataservice.ending import Ending, end_badly
from pandaserver.dataservice.retrying import after_failure
from pandaserver.dataservice.service import CLOSE, FINISH, DataService, ask_for_datasets
from pandaserver.dataservice.setupper import wake
from pandaserver.errors import DDMFatal
from pandaserver.model.attempt import OutputReport
from pandaserver.model.codes import DDMError, ErrorFamily, JobError
from pandaserver.model.file import OUTPUTS, File, FileStatus, FileType, Replica
from pandaserver.model.job import JobWithFiles
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import attempts, files, jobs, topology
from pandaserver.taskbuffer.database import Connection

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stored:
    """An output or log of the job that the pilot stored, with where."""

    file: File
    replica: Replica

    @property
    def there(self) -> bool:
        """Say whether it is already where it shall end."""
        return self.file.endpoint in (None, self.replica.endpoint)


def add(service: DataService, job_id: int, attempt: int) -> None:
    """Work off the last word of an attempt: background work of kind `add`."""
    found = service.buffer.read(lambda c: files.load_jobs(c, [job_id]))
    if not found or not _current(found[0], attempt):
        return
    one = found[0]
    report = service.buffer.read(lambda c: attempts.last_report(c, one.job)) or {}
    reported = [OutputReport(**o) for o in report.get("outputs", [])]
    endpoint = service.buffer.read(lambda c: topology.load(c).queues[one.job.site or ""].endpoint)
    try:
        stored = _match(one, reported, endpoint, complete=_succeeded(report))
        _register(service, stored)
    except DDMFatal as error:
        _fail(service, one, str(error))
        return
    service.buffer.run(lambda c: _conclude(c, service, _Outcome(job_id, attempt, tuple(stored), _succeeded(report))))


def give_up(service: DataService, job_id: int, attempt: int, error: str) -> None:
    """End a job whose outputs could not be registered in all the time there was."""
    found = service.buffer.read(lambda c: files.load_jobs(c, [job_id]))
    if found and _current(found[0], attempt):
        _fail(service, found[0], f"outputs could not be registered: {error}")


def _current(one: JobWithFiles, attempt: int) -> bool:
    return one.job.state is JobState.HOLDING and one.job.attempt == attempt


def _succeeded(report: dict[str, Any]) -> bool:
    return report.get("state") == "finished"


def _match(one: JobWithFiles, reported: Sequence[OutputReport], endpoint: str, *, complete: bool) -> list[Stored]:
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
    return [Stored(own[r.lfn], _replica(own[r.lfn], r, endpoint)) for r in reported if own[r.lfn].type in counting]


def _replica(file: File, report: OutputReport, endpoint: str) -> Replica:
    return Replica(
        scope=file.scope,
        lfn=file.lfn,
        endpoint=report.endpoint or endpoint,
        guid=report.guid or file.guid or "",
        size_bytes=report.size_bytes,
        adler32=report.adler32,
    )


def _register(service: DataService, stored: list[Stored]) -> None:
    """Tell the DDM: into the _sub dataset where the file is, into the dataset itself when that is its end."""
    by_block: dict[str, list[Stored]] = defaultdict(list)
    for one in stored:
        by_block[one.file.block or one.file.dataset].append(one)
    for block, members in by_block.items():
        service.ddm.register(block, [m.replica for m in members])
        for endpoint in {m.file.endpoint for m in members if not m.there}:
            service.ddm.request(block, endpoint or "")
    attach_to_parents(service, [s.file for s in stored if s.there])


def attach_to_parents(service: DataService, arrived: Sequence[File]) -> None:
    """Put files that are where they belong into the datasets that users know."""
    by_dataset: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for file in arrived:
        by_dataset[file.dataset].append((file.scope, file.lfn))
    for dataset, names in by_dataset.items():
        service.ddm.attach(dataset, names)


@dataclass(frozen=True)
class _Outcome:
    """What came of an attempt, registered with the DDM."""

    job_id: int
    attempt: int
    stored: tuple[Stored, ...]
    success: bool


def _conclude(connection: Connection, service: DataService, outcome: _Outcome) -> None:
    locked = files.load_jobs(connection, [outcome.job_id], lock=True)
    if not locked or not _current(locked[0], outcome.attempt):
        return
    one, now = locked[0], service.buffer.now()
    files.set_facts(connection, [_fact(s) for s in outcome.stored])
    if outcome.success:
        _conclude_well(connection, one, outcome.stored, now)
    else:
        _conclude_badly(connection, one, service, log_ready=bool(outcome.stored))
    ask_for_datasets(connection, CLOSE, {s.file.block for s in outcome.stored if s.file.block}, now)
    # what was on its way may have arrived while nobody knew yet that it was waited for
    ask_for_datasets(connection, FINISH, {s.file.block for s in outcome.stored if s.file.block and not s.there}, now)


def _fact(stored: Stored) -> files.FileFact:
    return files.FileFact(
        file_id=stored.file.file_id,
        status=FileStatus.READY if stored.there else FileStatus.TRANSFERRING,
        guid=stored.replica.guid,
        size_bytes=stored.replica.size_bytes,
        checksum=f"ad:{stored.replica.adler32}",
    )


def _conclude_well(connection: Connection, one: JobWithFiles, stored: Sequence[Stored], now: datetime) -> None:
    moving = [s for s in stored if not s.there]
    told = {s.file.file_id for s in stored}
    absent = [f.file_id for f in one.of_type(FileType.LOG) if f.file_id not in told]
    files.set_status(connection, absent, FileStatus.FAILED)
    if moving:
        text = f"{len(moving)} outputs on their way to {', '.join(sorted({s.file.endpoint or '' for s in moving}))}"
        jobs.change_state(connection, [one.job], JobState.TRANSFERRING, now=now, reason=text)
    else:
        jobs.change_state(connection, [one.job], JobState.FINISHED, now=now, reason="all outputs are where they belong")
    wake(connection, [(s.file.scope, s.file.lfn) for s in stored if s.there], now)


def _conclude_badly(connection: Connection, one: JobWithFiles, service: DataService, *, log_ready: bool) -> None:
    state = JobState.CANCELLED if one.job.kill_requested else JobState.FAILED
    reason = "killed as asked" if one.job.kill_requested else "the pilot reported failure"
    ending = Ending(state=state, reason=reason, reported=True, log_ready=log_ready)
    after_failure(connection, one, ending, rules=service.retry_rules, now=service.buffer.now())


def _fail(service: DataService, one: JobWithFiles, text: str) -> None:
    log.warning("job %d: %s", one.job.job_id, text)
    error = JobError(ErrorFamily.DDM, DDMError.ADDER, text)
    ending = Ending(state=JobState.FAILED, reason="outputs could not be registered", errors=(error,), reported=True)
    service.buffer.run(lambda c: _end_unregistered(c, service, one, ending))


def _end_unregistered(connection: Connection, service: DataService, one: JobWithFiles, ending: Ending) -> None:
    """End a job that claims success; some of its outputs may be in the catalogue, and stand in the way of others."""
    locked = [x for x in files.load_jobs(connection, [one.job.job_id], lock=True) if _current(x, one.job.attempt)]
    now = service.buffer.now()
    if _succeeded(attempts.last_report(connection, one.job) or {}):
        end_badly(connection, locked, ending, now)
    else:
        for failed in locked:
            after_failure(connection, failed, ending, rules=service.retry_rules, now=now)
