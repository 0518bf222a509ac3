"""The built-in DDM: a catalogue in the database, endpoints that are folders, copies made by background threads."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
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
        return self._buffer.read(lambda c: catalogue.replicas(c, wanted))

    def contents(self, dataset: str) -> list[FileName]:
        """See `DDM`."""
        return self._buffer.read(lambda c: catalogue.contents(c, dataset))

    def register(self, dataset: str, replicas: Sequence[Replica]) -> None:
        """See `DDM`."""
        endpoints = self._endpoints()
        for replica in replicas:
            path = storage.file_path(_known(endpoints, replica.endpoint), replica.scope, replica.lfn)
            storage.verify(path, size_bytes=replica.size_bytes, checksum=replica.adler32)
        now = self._buffer.now()

        def work(connection: Connection) -> None:
            catalogue.add_replicas(connection, replicas, now)
            self._put_into(connection, dataset, [(r.scope, r.lfn) for r in replicas], now)

        self._buffer.run(work)

    def attach(self, dataset: str, names: Iterable[FileName]) -> None:
        """See `DDM`."""
        wanted, now = list(names), self._buffer.now()
        self._buffer.run(lambda c: self._put_into(c, dataset, wanted, now))

    def freeze(self, dataset: str) -> None:
        """See `DDM`."""
        self._buffer.run(lambda c: catalogue.freeze(c, dataset))

    def request(self, dataset: str, endpoint: str) -> None:
        """See `DDM`."""
        _known(self._endpoints(), endpoint)
        now = self._buffer.now()

        def work(connection: Connection) -> None:
            catalogue.add_dataset(connection, dataset, now)
            catalogue.subscribe(connection, dataset, endpoint, now)
            _queue_copies(connection, dataset, endpoint, now)

        self._buffer.run(work)

    def cancel(self, dataset: str, endpoint: str) -> None:
        """See `DDM`."""
        self._buffer.run(lambda c: catalogue.unsubscribe(c, dataset, endpoint))

    def missing_at(self, dataset: str, endpoint: str) -> list[FileName]:
        """See `DDM`."""
        return self._buffer.read(lambda c: _missing_at(c, dataset, endpoint))

    def copy(self, item: WorkItem) -> None:
        """Make one queued copy: background work of kind `ddm_copy`."""
        transfer = self._buffer.read(lambda c: catalogue.transfer(c, item.payload["transfer_id"]))
        if transfer is None or transfer.state != "queued":
            return
        started = time.monotonic()
        replica = self._copy_from_anywhere(transfer)
        now, seconds = self._buffer.now(), time.monotonic() - started

        def work(connection: Connection) -> None:
            catalogue.lock(connection, transfer.dataset)  # or two copies that end together would wait for each other
            there = Replica(**(vars(replica) | {"endpoint": transfer.destination}))
            catalogue.add_replicas(connection, [there], now)
            catalogue.end_transfer(
                connection, transfer.transfer_id, "done", source=replica.endpoint, seconds=seconds, ended_at=now
            )
            if not catalogue.queued_transfers(connection, transfer.dataset, transfer.destination):
                add_work(connection, [_callback(transfer.dataset, transfer.destination)], now=now)

        self._buffer.run(work)

    def _copy_from_anywhere(self, transfer: catalogue.Transfer) -> Replica:
        """Copy from the first source that has good bytes."""
        name, endpoints = (transfer.scope, transfer.lfn), self._endpoints()
        target = storage.file_path(_known(endpoints, transfer.destination), *name)
        failures = []
        for replica in self.replicas([name]).get(name, []):
            if replica.endpoint == transfer.destination:
                return replica
            source = storage.file_path(_known(endpoints, replica.endpoint), *name)
            try:
                storage.copy(source, target, size_bytes=replica.size_bytes, checksum=replica.adler32)
            except DDMError as error:
                failures.append(f"{replica.endpoint}: {error}")
            else:
                return replica
        raise DDMError(
            f"no good copy of {transfer.lfn}: {'; '.join(failures) or 'no replica'}", field="lfn", value=transfer.lfn
        )

    def give_up(self, item: WorkItem, error: str) -> None:
        """Record that a copy will not be made."""
        now = self._buffer.now()
        number = item.payload["transfer_id"]
        self._buffer.run(lambda c: catalogue.end_transfer(c, number, "failed", message=error[:500], ended_at=now))

    def _put_into(self, connection: Connection, dataset: str, names: list[FileName], now: datetime) -> None:
        known = catalogue.facts(connection, names)
        unknown = [name for name in names if name not in known]
        if unknown:
            raise DDMFatal(
                f"{len(unknown)} files are not in the catalogue, first {unknown[0]}", field="lfn", value=unknown[0]
            )
        new = set(names) - set(catalogue.contents(connection, dataset))
        if new and catalogue.is_frozen(connection, dataset):
            raise DDMFatal(
                f"dataset {dataset} is frozen, {len(new)} files cannot be added", field="dataset", value=dataset
            )
        catalogue.add_dataset(connection, dataset, now)
        catalogue.add_contents(connection, dataset, sorted(new))
        for endpoint in catalogue.subscribed_endpoints(connection, dataset):
            _queue_copies(connection, dataset, endpoint, now)

    def _endpoints(self) -> dict[str, Endpoint]:
        return self._buffer.read(topology.load).endpoints


def _queue_copies(connection: Connection, dataset: str, endpoint: str, now: datetime) -> None:
    """Queue what is missing at the endpoint; when nothing is, call back at once."""
    missing = _missing_at(connection, dataset, endpoint)
    known = catalogue.facts(connection, missing)
    rows = [
        {
            "dataset": dataset,
            "scope": scope,
            "lfn": lfn,
            "destination": endpoint,
            "state": "queued",
            "size_bytes": known[scope, lfn].size_bytes,
            "created_at": now,
        }
        for scope, lfn in missing
    ]
    catalogue.add_transfers(connection, rows)
    queued = catalogue.queued_transfers(connection, dataset, endpoint)
    copies = [NewWork(kind=COPY, key=str(t.transfer_id), payload={"transfer_id": t.transfer_id}) for t in queued]
    add_work(connection, copies or [_callback(dataset, endpoint)], now=now)


def _callback(dataset: str, endpoint: str) -> NewWork:
    return NewWork(kind=CALLBACK, key=f"{dataset}@{endpoint}"[:255], payload={"dataset": dataset, "endpoint": endpoint})


def _missing_at(connection: Connection, dataset: str, endpoint: str) -> list[FileName]:
    names = catalogue.contents(connection, dataset)
    copies = catalogue.replicas(connection, names)
    return [name for name in names if endpoint not in {r.endpoint for r in copies.get(name, [])}]


def _known(endpoints: dict[str, Endpoint], name: str) -> Endpoint:
    if name not in endpoints:
        raise DDMFatal(f"there is no endpoint {name}; known are {', '.join(endpoints)}", field="endpoint", value=name)
    return endpoints[name]
