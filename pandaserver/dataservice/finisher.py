"""Finisher: ends jobs whose outputs have arrived at their destination."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from datetime import datetime

from pandaserver.dataservice.ddm.protocol import FileName
from pandaserver.dataservice.ending import Ending, end_badly
from pandaserver.dataservice.service import CLOSE, DataService, ask_for_datasets
from pandaserver.dataservice.setupper import wake
from pandaserver.errors import DDMFatal
from pandaserver.model.codes import DDMError, ErrorFamily, JobError
from pandaserver.model.file import OUTPUTS, File, FileStatus
from pandaserver.model.job import JobWithFiles
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import files, jobs
from pandaserver.taskbuffer.database import Connection


def finish(service: DataService, names: Collection[str]) -> None:
    """Finish the jobs whose part of one of these _sub datasets has arrived: background work of kind `finish`.

    The logs of failed jobs travel the same way.
    """
    found = service.buffer.read(lambda c: _with_moving_files(c, names))
    moving = [f for one in found for f in one.files if f.block in names and f.status is FileStatus.TRANSFERRING]
    copies = service.ddm.replicas({(f.scope, f.lfn) for f in moving}) if moving else {}
    arrived = [f for f in moving if any(r.endpoint == f.endpoint for r in copies.get((f.scope, f.lfn), []))]
    if not arrived:
        return
    by_dataset: dict[str, list[FileName]] = defaultdict(list)
    for file in arrived:
        by_dataset[file.dataset].append((file.scope, file.lfn))
    try:
        service.ddm.attach(by_dataset)
    except DDMFatal as error:
        if len(names) > 1:
            raise  # done again by halves, down to the one that cannot be
        give_up(service, next(iter(names)), str(error))
        return
    service.buffer.run(lambda c: _finish(c, [one.job.job_id for one in found], arrived, service.buffer.now()))


def give_up(service: DataService, name: str, error: str) -> None:
    """End the jobs whose outputs have arrived in a _sub dataset, and cannot be put where users look for them."""
    told = JobError(ErrorFamily.DDM, DDMError.ADDER, f"outputs that have arrived cannot be registered: {error}")
    ending = Ending(state=JobState.FAILED, reason="outputs cannot be registered", errors=(told,))

    def end(connection: Connection) -> None:
        ids = files.jobs_with_blocks(connection, [name], FileStatus.TRANSFERRING)
        found = files.load_jobs(connection, ids, lock=True)
        end_badly(connection, [x for x in found if x.job.state is JobState.TRANSFERRING], ending, service.buffer.now())

    service.buffer.run(end)


def _with_moving_files(connection: Connection, names: Collection[str]) -> list[JobWithFiles]:
    return files.load_jobs(connection, files.jobs_with_blocks(connection, names, FileStatus.TRANSFERRING))


def _finish(connection: Connection, ids: list[int], arrived: list[File], now: datetime) -> None:
    locked = files.load_jobs(connection, ids, lock=True)
    files.set_status(connection, [f.file_id for f in arrived], FileStatus.READY)
    done = {f.file_id for f in arrived}
    complete = [
        one
        for one in locked
        if one.job.state is JobState.TRANSFERRING
        and not any(f.status is FileStatus.TRANSFERRING and f.file_id not in done for f in one.of_type(*OUTPUTS))
    ]
    jobs.change_states(connection, [(one.job, _reason(one, done)) for one in complete], JobState.FINISHED, now=now)
    wake(connection, [(f.scope, f.lfn) for f in arrived], now)
    ask_for_datasets(connection, CLOSE, {f.block for f in arrived if f.block}, now)


def _reason(one: JobWithFiles, arrived: set[int]) -> str:
    return f"outputs have arrived in {', '.join(sorted({f.block or '' for f in one.files if f.file_id in arrived}))}"
