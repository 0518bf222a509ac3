"""Finisher: ends jobs whose outputs have arrived at their destination."""

from __future__ import annotations

import logging
from datetime import datetime

from pandaserver.dataservice.adder import attach_to_parents
from pandaserver.dataservice.service import CLOSE, DataService, ask_for_datasets
from pandaserver.dataservice.setupper import wake
from pandaserver.model.dataset import Dataset
from pandaserver.model.file import OUTPUTS, File, FileStatus
from pandaserver.model.job import JobWithFiles
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import files, jobs
from pandaserver.taskbuffer.database import Connection

log = logging.getLogger(__name__)


def finish(service: DataService, dataset: Dataset) -> None:
    """Finish the jobs whose part of a _sub dataset has arrived: background work of kind `finish`.

    The logs of failed jobs travel the same way.
    """
    ids = service.buffer.read(lambda c: files.jobs_with_block(c, dataset.name, FileStatus.TRANSFERRING))
    moving = [f for one in service.buffer.read(lambda c: files.load_jobs(c, ids)) for f in _moving(one, dataset.name)]
    if not moving:
        return
    copies = service.ddm.replicas({(f.scope, f.lfn) for f in moving})
    arrived = [f for f in moving if any(r.endpoint == f.endpoint for r in copies.get((f.scope, f.lfn), []))]
    if arrived:
        attach_to_parents(service, arrived)
        service.buffer.run(lambda c: _finish(c, ids, arrived, dataset.name, now=service.buffer.now()))


def _moving(one: JobWithFiles, block: str) -> list[File]:
    return [f for f in one.files if f.block == block and f.status is FileStatus.TRANSFERRING]


def _finish(connection: Connection, ids: list[int], arrived: list[File], block: str, *, now: datetime) -> None:
    locked = files.load_jobs(connection, ids, lock=True)
    files.set_status(connection, [f.file_id for f in arrived], FileStatus.READY)
    done = {f.file_id for f in arrived}
    complete = [
        one.job
        for one in locked
        if one.job.state is JobState.TRANSFERRING
        and not any(f.status is FileStatus.TRANSFERRING and f.file_id not in done for f in one.of_type(*OUTPUTS))
    ]
    jobs.change_state(connection, complete, JobState.FINISHED, now=now, reason=f"outputs have arrived in {block}")
    wake(connection, [(f.scope, f.lfn) for f in arrived], now)
    ask_for_datasets(connection, CLOSE, [block], now)
