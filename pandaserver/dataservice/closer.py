"""Closer: freezes _sub datasets when every file of them has its fate."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from pandaserver.dataservice.service import DataService
from pandaserver.model.dataset import DatasetStatus
from pandaserver.taskbuffer import datasets, files
from pandaserver.taskbuffer.database import Connection

_OPEN = (DatasetStatus.DEFINED, DatasetStatus.RUNNING)


def close(service: DataService, names: Collection[str]) -> None:
    """Freeze those _sub datasets that have nothing to come: background work of kind `close`."""
    decided = service.buffer.run(lambda c: _sort_out(c, set(names), service.buffer.now()))
    if decided:
        service.ddm.freeze(decided)
        service.buffer.run(lambda c: _complete(c, decided, service.buffer.now()))


def _sort_out(connection: Connection, names: set[str], now: datetime) -> set[str]:
    """Note which datasets are being filled and which are to be closed; give the latter."""
    undecided = files.undecided_blocks(connection, names)
    decided = names - undecided
    datasets.set_status(connection, undecided, DatasetStatus.RUNNING, expected=[DatasetStatus.DEFINED], now=now)
    datasets.set_status(connection, decided, DatasetStatus.CLOSED, expected=_OPEN, now=now)
    return decided


def _complete(connection: Connection, names: set[str], now: datetime) -> None:
    closed = (*_OPEN, DatasetStatus.CLOSED)
    datasets.set_status(connection, names, DatasetStatus.COMPLETED, expected=closed, now=now)
