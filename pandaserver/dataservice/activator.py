"""Activator: lets jobs be pulled when their inputs are at the site."""

from __future__ import annotations

import logging
from datetime import datetime

from pandaserver.dataservice.service import DataService
from pandaserver.model.dataset import Dataset, DatasetStatus
from pandaserver.model.file import FileStatus, FileType
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import datasets, files, jobs
from pandaserver.taskbuffer.database import Connection

log = logging.getLogger(__name__)


def activate(service: DataService, dataset: Dataset) -> None:
    """Activate the jobs of a dispatch dataset that is complete at its site: background work of kind `activate`."""
    absent = service.ddm.missing_at(dataset.name, dataset.endpoint or "")
    if absent or not service.ddm.contents(dataset.name):
        log.info("%s is not complete at %s yet, %d files to come", dataset.name, dataset.endpoint, len(absent))
        return
    service.buffer.run(lambda c: _activate(c, dataset.name, service.buffer.now()))


def _activate(connection: Connection, dataset: str, now: datetime) -> None:
    waiting = files.load_jobs(connection, jobs.with_dispatch_dataset(connection, dataset), lock=True)
    waiting = [one for one in waiting if one.job.state is JobState.ASSIGNED]
    arrived = [f for one in waiting for f in one.of_type(FileType.INPUT) if f.block == dataset]
    files.set_status(connection, [f.file_id for f in arrived], FileStatus.READY)
    now_here = {f.file_id for f in arrived}
    complete = [
        one.job
        for one in waiting
        if all(f.status is FileStatus.READY or f.file_id in now_here for f in one.of_type(FileType.INPUT))
    ]
    jobs.change_state(connection, complete, JobState.ACTIVATED, now=now, reason=f"{dataset} has arrived")
    datasets.set_status(
        connection, [dataset], DatasetStatus.COMPLETED, expected=[DatasetStatus.DEFINED, DatasetStatus.RUNNING], now=now
    )
