"""Dispatch datasets: inputs that jobs wait for, from the request for their transfer until nobody needs them."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime, timedelta

from pandaserver.dataservice.ddm.protocol import FileName, Wanted
from pandaserver.dataservice.ending import Ending, end_badly
from pandaserver.dataservice.service import DataService
from pandaserver.errors import DDMFatal
from pandaserver.model.codes import DDMError, ErrorFamily, JobError
from pandaserver.model.dataset import DatasetStatus, DatasetType
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import datasets, files, jobs
from pandaserver.taskbuffer.database import Connection

log = logging.getLogger(__name__)

_AT_ONCE = 200


def dispatch(service: DataService, dataset: str, endpoint: str, names: list[FileName]) -> None:
    """Have inputs brought to a site: background work of kind `dispatch`."""
    if not _is_waited_for(service, dataset):
        return
    try:
        service.ddm.attach({dataset: names})
        service.ddm.freeze([dataset])
        service.ddm.request([dataset], endpoint)
    except DDMFatal as error:
        give_up(service, dataset, str(error))
    else:
        if not _is_waited_for(service, dataset):  # the jobs went elsewhere meanwhile, when nothing could be cancelled
            service.ddm.cancel([(dataset, endpoint)])


def _is_waited_for(service: DataService, dataset: str) -> bool:
    return bool(service.buffer.read(lambda c: jobs.with_dispatch_dataset(c, dataset)))


def give_up(service: DataService, dataset: str, error: str) -> None:
    """End the jobs that wait for inputs which cannot be brought."""
    log.warning("%s cannot be brought: %s", dataset, error)
    told = JobError(ErrorFamily.DDM, DDMError.SETUP, f"inputs cannot be brought: {error}")
    ending = Ending(state=JobState.FAILED, reason="inputs cannot be brought", errors=(told,))

    def end(connection: Connection) -> None:
        found = files.load_jobs(connection, jobs.with_dispatch_dataset(connection, dataset), lock=True)
        waiting = [x for x in found if x.job.state is JobState.ASSIGNED and x.job.dispatch_dataset == dataset]
        end_badly(connection, waiting, ending, service.buffer.now())

    service.buffer.run(end)


def release(service: DataService, names: Collection[str]) -> None:
    """Cancel the transfers of datasets that no job needs any more: background work of kind `release`.

    A name is used once: what no job needs now, none will need again.
    """
    needless = service.buffer.read(lambda c: _needless(c, names))
    if needless:
        service.ddm.cancel(needless)
        service.buffer.run(lambda c: _note_released(c, [name for name, _ in needless], service.buffer.now()))


def _needless(connection: Connection, names: Collection[str]) -> list[Wanted]:
    needed = jobs.dispatch_datasets_in_use(connection, names)
    found = datasets.load_many(connection, set(names) - needed)
    return [(dataset.name, dataset.endpoint or "") for dataset in found]


def _note_released(connection: Connection, names: Collection[str], now: datetime) -> None:
    open_ = [DatasetStatus.DEFINED, DatasetStatus.RUNNING]
    datasets.set_status(connection, names, DatasetStatus.CLOSED, expected=open_, now=now)


def forget(service: DataService, kept_s: float) -> int:
    """Delete datasets that have been there for so long and that no job needs any more; tell how many."""
    before = service.buffer.now() - timedelta(seconds=kept_s)
    wanted = service.buffer.read(lambda c: datasets.not_in_use(c, DatasetType.DISPATCH, before=before, limit=_AT_ONCE))
    if wanted:
        names = [name for name, _ in wanted]
        service.ddm.cancel(wanted)
        service.ddm.delete(names)
        service.buffer.run(lambda c: datasets.remove(c, names))
    return len(wanted)
