"""The built-in DDM: a catalogue in the database, endpoints that are folders, copies made by background threads."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pandaserver.dataservice.ddm import storage
from pandaserver.dataservice.ddm.protocol import FileName
from pandaserver.errors import DDMError, DDMFatal
from pandaserver.model.file import Replica
from pandaserver.model.grid import Endpoint
from pandaserver.taskbuffer import catalogue, topology
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection
from pandaserver.taskbuffer.work import NewWork, WorkItem
from pandaserver.taskbuffer.work import add as add_work

log = logging.getLogger(__name__)

COPY = "ddm_copy"
CALLBACK = "ddm_callback"


class LocalDDM:
    """Implements `DDM` for sites whose storage the server can reach as folders."""

    def __init__(self, buffer: TaskBuffer) -> None:
        self._buffer = buffer

    def replicas(self, names: Iterable[FileName]) -> dict[FileName, list[Replica]]:
        """See `DDM`."""
        wanted = list(names)
        return self._buffer.read(lambda c: catalogue.replicas(c, wanted)) if wanted else {}

    def contents(self, dataset: str) -> list[FileName]:
        """See `DDM`."""
        return self._buffer.read(lambda c: catalogue.contents(c, dataset))

    def register(self, placed: Mapping[str, Sequence[Replica]]) -> None:
        """See `DDM`."""
        new = {replica for replicas in placed.values() for replica in replicas}
        endpoints = self._endpoints() if new else {}
        for replica in new:
            path = storage.file_path(_known(endpoints, replica.endpoint), replica.scope, replica.lfn)
            storage.verify(path, size_bytes=replica.size_bytes, checksum=replica.adler32)
        now = self._buffer.now()
        names = {dataset: [(r.scope, r.lfn) for r in replicas] for dataset, replicas in placed.items()}

        def work(connection: Connection) -> None:
            catalogue.add_replicas(connection, new, now)
            _put_into(connection, names, now)

        self._buffer.run(work)

    def attach(self, placed: Mapping[str, Iterable[FileName]]) -> None:
        """See `DDM`."""
        names, now = {dataset: list(some) for dataset, some in placed.items()}, self._buffer.now()
        self._buffer.run(lambda c: _attach(c, names, now))

    def freeze(self, datasets: Iterable[str]) -> None:
        """See `DDM`."""
        names = list(datasets)
        self._buffer.run(lambda c: catalogue.freeze(c, names))

    def request(self, datasets: Iterable[str], endpoint: str) -> None:
        """See `DDM`."""
        _known(self._endpoints(), endpoint)
        names, now = sorted(datasets), self._buffer.now()

        def work(connection: Connection) -> None:
            catalogue.add_datasets(connection, names, now)
            catalogue.subscribe(connection, names, endpoint, now)
            for name in names:
                _queue_copies(connection, name, endpoint, now)

        self._buffer.run(work)

    def cancel(self, dataset: str, endpoint: str) -> None:
        """See `DDM`."""
        self._buffer.run(lambda c: catalogue.unsubscribe(c, dataset, endpoint))

    def missing_at(self, dataset: str, endpoint: str) -> list[FileName]:
        """See `DDM`."""
        return list(self._buffer.read(lambda c: catalogue.missing_at(c, dataset, endpoint)))

    def copy(self, items: Sequence[WorkItem]) -> None:
        """Make queued copies: background work of kind `ddm_copy`. One that fails does not hold up the others.

        Raises:
            DDMError: a copy cannot be made, or not now; the others have been.
        """
        ids = [item.payload["transfer_id"] for item in items]
        transfers = self._buffer.read(lambda c: catalogue.still_queued(c, ids))
        copies, failures = self.replicas([(t.scope, t.lfn) for t in transfers]), list[DDMError]()
        made = list[_Made]()
        for transfer in transfers:
            try:
                made.append(self._copy_from_anywhere(transfer, copies.get((transfer.scope, transfer.lfn), [])))
            except DDMError as error:
                failures.append(error)
        now = self._buffer.now()
        if made:
            self._buffer.run(lambda c: _note_made(c, made, now))
        if failures:
            raise failures[0]

    def _copy_from_anywhere(self, transfer: catalogue.Transfer, replicas: Sequence[Replica]) -> _Made:
        """Copy from the first source that has good bytes."""
        started, endpoints, failures = time.monotonic(), self._endpoints(), []
        target = storage.file_path(_known(endpoints, transfer.destination), transfer.scope, transfer.lfn)
        for replica in sorted(replicas, key=lambda r: r.endpoint != transfer.destination):  # it may be there already
            if replica.endpoint == transfer.destination:
                return _Made(transfer, replica, time.monotonic() - started)
            source = storage.file_path(_known(endpoints, replica.endpoint), transfer.scope, transfer.lfn)
            try:
                storage.copy(source, target, size_bytes=replica.size_bytes, checksum=replica.adler32)
            except DDMError as error:
                failures.append(f"{replica.endpoint}: {error}")
            else:
                return _Made(transfer, replica, time.monotonic() - started)
        raise DDMError(
            f"no good copy of {transfer.lfn}: {'; '.join(failures) or 'no replica'}", field="lfn", value=transfer.lfn
        )

    def give_up(self, item: WorkItem, error: str) -> None:
        """Record that a copy will not be made."""
        now = self._buffer.now()
        number = item.payload["transfer_id"]
        self._buffer.run(lambda c: catalogue.end_transfer(c, number, "failed", message=error[:500], ended_at=now))

    def _endpoints(self) -> dict[str, Endpoint]:
        return topology.of(self._buffer).endpoints


@dataclass(frozen=True)
class _Made:
    """A copy that is there now: from where, and how long it took."""

    transfer: catalogue.Transfer
    source: Replica
    seconds: float


def _note_made(connection: Connection, made: Sequence[_Made], now: datetime) -> None:
    catalogue.lock(connection, {m.transfer.dataset for m in made})  # or two that end together would wait for each other
    catalogue.add_replicas(connection, [replace(m.source, endpoint=m.transfer.destination) for m in made], now)
    catalogue.end_transfers(
        connection,
        [replace(m.transfer, state="done", source=m.source.endpoint, seconds=m.seconds, ended_at=now) for m in made],
    )
    wanted = sorted({(m.transfer.dataset, m.transfer.destination) for m in made})
    complete = [_callback(*pair) for pair in wanted if not catalogue.any_queued(connection, *pair)]
    if complete:
        add_work(connection, complete, now=now)


def _attach(connection: Connection, placed: Mapping[str, Sequence[FileName]], now: datetime) -> None:
    names = {name for some in placed.values() for name in some}
    unknown = sorted(names - set(catalogue.facts(connection, names)))
    if unknown:
        raise DDMFatal(
            f"{len(unknown)} files are not in the catalogue, first {unknown[0]}", field="lfn", value=unknown[0]
        )
    _put_into(connection, placed, now)


def _put_into(connection: Connection, placed: Mapping[str, Sequence[FileName]], now: datetime) -> None:
    """Put known files into datasets, and have them brought to where the datasets are wanted."""
    frozen = catalogue.frozen(connection, placed)
    for dataset in (name for name, closed in frozen.items() if closed):
        new = set(placed[dataset]) - catalogue.of_dataset(connection, dataset, placed[dataset])
        if new:
            raise DDMFatal(
                f"dataset {dataset} is frozen, {len(new)} files cannot be added", field="dataset", value=dataset
            )
    catalogue.add_datasets(connection, [name for name in placed if name not in frozen], now)
    catalogue.add_contents(connection, placed)
    for dataset, endpoint in catalogue.subscriptions(connection, placed):
        _queue_copies(connection, dataset, endpoint, now)


def _queue_copies(connection: Connection, dataset: str, endpoint: str, now: datetime) -> None:
    """Queue what is missing at the endpoint; when nothing is, call back at once."""
    rows = [
        {
            "dataset": dataset,
            "scope": scope,
            "lfn": lfn,
            "destination": endpoint,
            "state": "queued",
            "size_bytes": size_bytes,
            "created_at": now,
        }
        for (scope, lfn), size_bytes in catalogue.missing_at(connection, dataset, endpoint).items()
    ]
    catalogue.add_transfers(connection, rows)
    queued = catalogue.queued_transfers(connection, dataset, endpoint)
    copies = [NewWork(kind=COPY, key=str(t.transfer_id), payload={"transfer_id": t.transfer_id}) for t in queued]
    add_work(connection, copies or [_callback(dataset, endpoint)], now=now)


def _callback(dataset: str, endpoint: str) -> NewWork:
    return NewWork(kind=CALLBACK, key=f"{dataset}@{endpoint}"[:255], payload={"dataset": dataset, "endpoint": endpoint})


def _known(endpoints: dict[str, Endpoint], name: str) -> Endpoint:
    if name not in endpoints:
        raise DDMFatal(f"there is no endpoint {name}; known are {', '.join(endpoints)}", field="endpoint", value=name)
    return endpoints[name]
