"""Closer: freezes _sub datasets when every file of them has its fate."""

from __future__ import annotations

from pandaserver.dataservice.service import DataService
from pandaserver.model.dataset import Dataset, DatasetStatus
from pandaserver.taskbuffer import datasets, files

_OPEN = (DatasetStatus.DEFINED, DatasetStatus.RUNNING)


def close(service: DataService, dataset: Dataset) -> None:
    """Freeze a _sub dataset with nothing to come: background work of kind `close`."""
    now, name = service.buffer.now(), dataset.name
    if service.buffer.read(lambda c: files.undecided_in_block(c, name)):
        service.buffer.run(
            lambda c: datasets.set_status(c, name, DatasetStatus.RUNNING, expected=[DatasetStatus.DEFINED], now=now)
        )
        return
    service.buffer.run(lambda c: datasets.set_status(c, name, DatasetStatus.CLOSED, expected=_OPEN, now=now))
    service.ddm.freeze(name)
    closed = (*_OPEN, DatasetStatus.CLOSED)
    service.buffer.run(lambda c: datasets.set_status(c, name, DatasetStatus.COMPLETED, expected=closed, now=now))
