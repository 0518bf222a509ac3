"""The built-in DDM: a catalogue in the database, storage that the server reaches, copies made by background work."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from pandaserver.dataservice.ddm import placing
from pandaserver.dataservice.ddm.carrying import Carrier
from pandaserver.dataservice.ddm.lanes import ask_callbacks, ask_copies
from pandaserver.dataservice.ddm.moving import Place
from pandaserver.dataservice.ddm.protocol import FileName, Progress, ProgressState, StagedFile, Wanted
from pandaserver.dataservice.ddm.removing import Remover, ask_removals
from pandaserver.dataservice.ddm.storage import Stores, below_root
from pandaserver.errors import DDMFatal, DDMUnknown
from pandaserver.model.file import Replica
from pandaserver.model.grid import Endpoint, Topology
from pandaserver.taskbuffer import catalogue, deletions, topology, transfers
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection

log = logging.getLogger(__name__)

_GIVE_UP_AFTER_S = 86400.0
_FORGOTTEN_AT_ONCE = 500  # files of a dataset, in one transaction


class LocalDDM:
    """Implements `DDM` for sites whose storage the server can reach itself."""

    stages_outputs = True

    def __init__(
        self, buffer: TaskBuffer, stores: Stores | None = None, *, give_up_after_s: float = _GIVE_UP_AFTER_S
    ) -> None:
        self._buffer = buffer
        self._stores = stores or Stores()
        self.carrier = Carrier(buffer, self._stores, give_up_after_s)
        self.remover = Remover(buffer, self._stores)

    # --- the catalogue

    def replicas(self, names: Iterable[FileName]) -> dict[FileName, list[Replica]]:
        """See `DDM`."""
        wanted = list(names)
        return self._buffer.read(lambda c: catalogue.replicas(c, wanted)) if wanted else {}

    def contents(self, dataset: str) -> list[FileName]:
        """See `DDM`."""
        return self._buffer.read(lambda c: catalogue.contents(c, dataset))

    def register(self, placed: Mapping[str, Sequence[Replica]]) -> None:
        """See `DDM`."""
        new = sorted({r for replicas in placed.values() for r in replicas}, key=lambda r: (r.scope, r.lfn, r.endpoint))
        grid = topology.of(self._buffer) if new else None
        places = {r: self._place(grid.endpoints, r.endpoint, r.scope, r.lfn) for r in new} if grid else {}
        taken = [replica for replica, place in places.items() if not placing.put_in_place(place, replica)]
        now = self._buffer.now()
        names = {dataset: [(r.scope, r.lfn) for r in replicas] for dataset, replicas in placed.items()}

        def work(connection: Connection) -> None:
            catalogue.add_replicas(connection, new, now)
            _put_into(connection, names, now)
            for replica in taken:  # nobody else can register other bytes under this name now
                placing.replace(places[replica], replica)

        self._buffer.run(work)

    def attach(self, placed: Mapping[str, Iterable[FileName]]) -> None:
        """See `DDM`."""
        names, now = {dataset: list(some) for dataset, some in placed.items()}, self._buffer.now()
        self._buffer.run(lambda c: _attach(c, names, now))

    def collect(self, container: str, datasets: Iterable[str]) -> None:
        """See `DDM`."""
        names = list(datasets)
        self._buffer.run(lambda c: catalogue.collect(c, container, names))

    def freeze(self, datasets: Iterable[str]) -> None:
        """See `DDM`."""
        names = list(datasets)
        self._buffer.run(lambda c: catalogue.freeze(c, names))

    # --- what is wanted where

    def request(self, datasets: Iterable[str], endpoint: str) -> None:
        """See `DDM`."""
        grid, names, now = topology.of(self._buffer), sorted(datasets), self._buffer.now()
        _known(grid.endpoints, endpoint)

        def work(connection: Connection) -> None:
            _no_containers(connection, names)
            catalogue.add_datasets(connection, names, now)
            transfers.subscribe(connection, names, endpoint, now)
            _bring(connection, [(name, endpoint) for name in names], grid, now)

        self._buffer.run(work)

    def progress(self, wanted: Iterable[Wanted]) -> dict[Wanted, Progress]:
        """See `DDM`."""
        pairs = list(wanted)
        return self._buffer.read(lambda c: _progress(c, pairs))

    def cancel(self, wanted: Iterable[Wanted]) -> None:
        """See `DDM`."""
        pairs = sorted(set(wanted))

        def work(connection: Connection) -> None:
            for dataset, endpoint in pairs:
                transfers.unsubscribe(connection, dataset, endpoint)

        self._buffer.run(work)

    def delete(self, datasets: Iterable[str]) -> None:
        """See `DDM`."""
        for name in sorted(set(datasets)):
            while self._buffer.run(lambda c, name=name: _forget(c, name, self._buffer.now())):  # type: ignore[misc]
                log.debug("%s is forgotten part by part", name)

    def missing_at(self, dataset: str, endpoint: str) -> list[FileName]:
        """See `DDM`."""
        return list(self._buffer.read(lambda c: catalogue.missing_at(c, dataset, endpoint)))

    def discard(self, staged: Iterable[StagedFile]) -> None:
        """See `DDM`."""
        endpoints = topology.of(self._buffer).endpoints
        for file in staged:
            if file.endpoint in endpoints:
                placing.discard(self._place(endpoints, file.endpoint, file.scope, file.lfn), file.suffix)

    def _place(self, endpoints: Mapping[str, Endpoint], endpoint: str, scope: str, lfn: str) -> Place:
        return Place(self._stores.at(_known(endpoints, endpoint)), below_root(scope, lfn))


def _attach(connection: Connection, placed: Mapping[str, Sequence[FileName]], now: datetime) -> None:
    names = {name for some in placed.values() for name in some}
    unknown = sorted(names - catalogue.lock_files(connection, names))
    if unknown:
        raise DDMUnknown(
            f"{len(unknown)} files are not in the catalogue, first {unknown[0]}", field="lfn", value=unknown[0]
        )
    _put_into(connection, placed, now)


def _put_into(connection: Connection, placed: Mapping[str, Sequence[FileName]], now: datetime) -> None:
    """Put known files into datasets, and have them brought to where the datasets are wanted."""
    _no_containers(connection, placed)
    frozen = catalogue.frozen(connection, placed)
    for dataset in (name for name, closed in frozen.items() if closed):
        new = set(placed[dataset]) - catalogue.of_dataset(connection, dataset, placed[dataset])
        if new:
            raise DDMFatal(
                f"dataset {dataset} is frozen, {len(new)} files cannot be added", field="dataset", value=dataset
            )
    catalogue.add_datasets(connection, [name for name in placed if name not in frozen], now)
    catalogue.add_contents(connection, placed)
    if wanted := transfers.subscriptions(connection, placed):
        _bring(connection, wanted, topology.load(connection), now)


def _bring(connection: Connection, wanted: Sequence[Wanted], grid: Topology, now: datetime) -> None:
    """Queue what is missing at the endpoints; where nothing is, call back at once."""
    complete = list[Wanted]()
    for dataset, endpoint in wanted:
        missing = catalogue.missing_at(connection, dataset, endpoint)
        transfers.queue(connection, dataset, endpoint, missing, now)
        ask_copies(connection, transfers.unplanned(connection, dataset, endpoint), grid, now)
        if not missing:
            complete.append((dataset, endpoint))
    ask_callbacks(connection, complete, now)


def _no_containers(connection: Connection, names: Iterable[str]) -> None:
    if found := catalogue.containers(connection, names):
        text = f"{min(found)} is a container; its datasets can be had one by one"
        raise DDMFatal(text, field="dataset", value=min(found))


def _progress(connection: Connection, pairs: Sequence[Wanted]) -> dict[Wanted, Progress]:
    names = {dataset for dataset, _ in pairs}
    wanted, troubles = set(transfers.subscriptions(connection, names)), transfers.troubles(connection, names)
    totals = catalogue.count_files(connection, names)
    found = dict[Wanted, Progress]()
    for dataset, endpoint in pairs:
        total = totals.get(dataset, 0)
        there = total - len(catalogue.missing_at(connection, dataset, endpoint))
        trouble = troubles.get((dataset, endpoint), "") if there < total else ""
        if (dataset, endpoint) not in wanted:
            found[dataset, endpoint] = Progress(ProgressState.GONE, there, total)
        elif there == total:
            found[dataset, endpoint] = Progress(ProgressState.OK, there, total)
        else:
            state = ProgressState.STUCK if trouble else ProgressState.REPLICATING
            found[dataset, endpoint] = Progress(state, there, total, trouble)
    return found


def _forget(connection: Connection, name: str, now: datetime) -> bool:
    """Forget a part of a dataset, or a container; give True when there is more."""
    catalogue.forget_container(connection, name)
    more, emptied = deletions.forget_part(connection, name, now, files=_FORGOTTEN_AT_ONCE)
    ask_removals(connection, emptied, now)
    return more


def _known(endpoints: Mapping[str, Endpoint], name: str) -> Endpoint:
    if name not in endpoints:
        raise DDMUnknown(f"there is no endpoint {name}; known are {', '.join(endpoints)}", field="endpoint", value=name)
    return endpoints[name]
