"""Rucio as the data management: its catalogue is ours, its rules are our requests, its daemons move the data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pandaserver.config_rucio import RucioSection, pairs
from pandaserver.dataservice.ddm import placing
from pandaserver.dataservice.ddm.moving import Place
from pandaserver.dataservice.ddm.protocol import FileName, Progress, ProgressState, StagedFile, Wanted
from pandaserver.dataservice.ddm.rucio_client import (
    ALREADY_THERE,
    HELD,
    NOT_THERE,
    UNSUPPORTED,
    RucioConnection,
)
from pandaserver.dataservice.ddm.rucio_names import Did, did_of, guid_in, guid_out, in_parts, names_by
from pandaserver.dataservice.ddm.rucio_rules import AT_ONCE, Rules
from pandaserver.dataservice.ddm.storage import Stores, below_root
from pandaserver.errors import DDMError, DDMFatal, DDMUnknown
from pandaserver.model.file import Replica
from pandaserver.model.grid import Endpoint

_OVER = -1  # the lifetime of what has ended a moment ago
_NO_PFN = ["none"]  # a scheme that nobody has: where files lie is known, and to tell it costs Rucio most of its time


class RucioDDM:
    """Implements `DDM` over a Rucio server, whose RSEs are our endpoints.

    Rucio tells nobody by itself that a dataset has arrived: `polling` asks, and hermes' messages are hints.
    """

    stages_outputs = True

    def __init__(
        self,
        connection: RucioConnection,
        section: RucioSection,
        endpoints: Callable[[], Mapping[str, Endpoint]],
        stores: Stores,
    ) -> None:
        self._ask, self._section = connection.ask, section
        self._endpoints, self._stores = endpoints, stores
        self._names, self._rules = names_by(section), Rules(connection, section)
        self._rse_of = section.rse_of
        self._endpoint_of = {rse: endpoint for endpoint, rse in self._rse_of.items()}
        self._metadata = pairs(section.dataset_metadata)
        self._scopes = set[str]()  # that are known to be there

    # --- what is there

    def replicas(self, names: Iterable[FileName]) -> dict[FileName, list[Replica]]:
        """See `DDM`."""
        found: dict[FileName, list[Replica]] = {}
        for part in in_parts(self._names.known(names), AT_ONCE):
            wire = [did.wire for did in part]
            told = self._ask("list_replicas", wire, schemes=_NO_PFN)
            located = [one for one in told if "AVAILABLE" in one["states"].values()]
            guids = {did_of(one): one.get("guid") for one in self._facts([did_of(one) for one in located]).values()}
            found |= {did_of(one): self._copies(one, guid_out(guids.get(did_of(one)))) for one in located}
        return found

    def _copies(self, told: Mapping[str, Any], guid: str) -> list[Replica]:
        facts = {"guid": guid, "size_bytes": told["bytes"], "adler32": told["adler32"] or ""}
        good = [rse for rse, state in told["states"].items() if state == "AVAILABLE"]
        places = sorted(self._endpoint_of.get(rse, rse) for rse in good)
        return [Replica(scope=told["scope"], lfn=told["name"], endpoint=place, **facts) for place in places]

    def _facts(self, dids: Sequence[Did]) -> dict[Did, dict[str, Any]]:
        """Give what Rucio knows of files, datasets and containers; unknown ones are left out."""
        found: dict[Did, dict[str, Any]] = {}
        for part in in_parts(dids, AT_ONCE):
            told = self._ask("get_metadata_bulk", [did.wire for did in part])
            found |= {did_of(one): one for one in told}
        return found

    def contents(self, dataset: str) -> list[FileName]:
        """See `DDM`."""
        files = sorted(self._files(self._names.dataset(dataset)), key=lambda did: (did.name, did.scope))
        return [(did.scope, did.name) for did in files]

    def _files(self, dataset: Did) -> list[Did]:
        told = self._ask("list_files", dataset.scope, dataset.name, accept=NOT_THERE) or []
        return list({did_of(one): None for one in told})

    def missing_at(self, dataset: str, endpoint: str) -> list[FileName]:
        """See `DDM`."""
        did, rse = self._names.dataset(dataset), self._rse_of.get(endpoint, endpoint)
        there = self._ask("list_dataset_replicas", did.scope, did.name, deep=True, accept=NOT_THERE) or []
        if any(one["rse"] == rse and one["available_length"] == one["length"] for one in there):
            return []
        copies = self.replicas(self._files(did))
        return [
            name for name in self.contents(dataset) if not any(r.endpoint == endpoint for r in copies.get(name, []))
        ]

    # --- what comes in

    def register(self, placed: Mapping[str, Sequence[Replica]]) -> None:
        """See `DDM`; first all is looked at, then it is written, since Rucio compares nothing."""
        new = {(r.scope, r.lfn, r.endpoint): r for replicas in placed.values() for r in replicas}
        places = {r: self._place(r.endpoint, self._names.placed((r.scope, r.lfn))) for r in new.values()}
        taken = [replica for replica, place in places.items() if not placing.put_in_place(place, replica)]
        self._compare([r for replicas in placed.values() for r in replicas])
        fresh = self._addable({name: [Did(r.scope, r.lfn) for r in some] for name, some in placed.items()})
        for replica in taken:  # by bytes that are not in the catalogue
            placing.replace(places[replica], replica)
        self._need_scopes({r.scope for r in places})
        by_rse: dict[str, list[Replica]] = defaultdict(list)
        for replica in new.values():
            by_rse[self._rse(replica.endpoint)].append(replica)
        for rse, replicas in sorted(by_rse.items()):
            for part in in_parts(replicas, AT_ONCE):
                self._ask("add_replicas", rse, [_as_told(r) for r in part])
        self._fill(fresh)

    def _compare(self, replicas: Sequence[Replica]) -> None:
        """Refuse files whose name has other bytes, in the catalogue or among those that come with them."""
        facts = self._facts(list({Did(r.scope, r.lfn): None for r in replicas}))
        known = {did: (one["bytes"], one["adler32"]) for did, one in facts.items()}
        for r in replicas:
            size_bytes, adler32 = known.setdefault(Did(r.scope, r.lfn), (r.size_bytes, r.adler32))
            if (size_bytes, adler32 or r.adler32) != (
                r.size_bytes,
                r.adler32,
            ):  # others may have registered an MD5 only
                text = f"{r.scope}:{r.lfn} is in the catalogue with {size_bytes} bytes and adler32 {adler32}"
                raise DDMFatal(f"{text}, not {r.size_bytes} and {r.adler32}", field="lfn", value=r.lfn)

    def attach(self, placed: Mapping[str, Iterable[FileName]]) -> None:
        """See `DDM`."""
        wanted = {dataset: [self._names.file(name) for name in names] for dataset, names in placed.items()}
        files = list({did: None for dids in wanted.values() for did in dids})
        known = self._facts(files)
        unknown = sorted(did for did in files if did not in known)
        if unknown:
            text = f"{len(unknown)} files are not in the catalogue, first {tuple(unknown[0])}"
            raise DDMUnknown(text, field="lfn", value=unknown[0].name)
        self._fill(self._addable(wanted))

    def _addable(self, wanted: Mapping[str, Sequence[Did]]) -> dict[Did, list[Did]]:
        """Give what is to be put into which dataset, without what is there already.

        Raises:
            DDMFatal: one is frozen or no dataset.
        """
        datasets = {self._names.dataset(name): dids for name, dids in wanted.items()}
        known = self._facts(list(datasets))
        fresh: dict[Did, list[Did]] = {}
        for dataset, dids in datasets.items():
            there = set(self._files(dataset)) if dataset in known else set()
            fresh[dataset] = [did for did in dict.fromkeys(dids) if did not in there]
            self._check_open(dataset, known.get(dataset), len(fresh[dataset]))
        return fresh

    def _check_open(self, dataset: Did, known: Mapping[str, Any] | None, new: int) -> None:
        if known is None:
            return
        if known["did_type"] != "DATASET":
            text = f"{dataset.name} is a {known['did_type'].lower()}, no dataset"
            raise DDMFatal(text, field="dataset", value=dataset.name)
        if new and not known["is_open"]:
            text = f"dataset {dataset.name} is frozen, {new} files cannot be added"
            raise DDMFatal(text, field="dataset", value=dataset.name)

    def _fill(self, fresh: Mapping[Did, Sequence[Did]]) -> None:
        self._make(fresh, "DATASET")
        for dataset, dids in fresh.items():
            for part in in_parts(dids, AT_ONCE):
                self._put_into(dataset, part)

    def _put_into(self, parent: Did, dids: Sequence[Did]) -> None:
        attachment = [parent.wire | {"dids": [did.wire for did in dids]}]
        self._ask("attach_dids_to_dids", attachment, ignore_duplicate=True, accept=ALREADY_THERE)

    def _make(self, dids: Iterable[Did], kind: str) -> None:
        """Make the datasets or containers that are not there."""
        wanted = list(dids)
        self._need_scopes({did.scope for did in wanted})
        known = self._facts(wanted)
        for did in wanted:
            if did not in known:
                told: dict[str, Any] = did.wire | {"type": kind, "meta": self._metadata}
                self._ask("add_dids", [told], accept=ALREADY_THERE)

    def _need_scopes(self, scopes: Iterable[str]) -> None:
        """See to it that scopes are there; without one, Rucio's errors are about its database.

        Raises:
            DDMError: one is not, and the configuration does not let it be made.
        """
        if set(scopes) <= self._scopes:
            return
        self._scopes = set(self._ask("list_scopes"))
        for scope in sorted(set(scopes) - self._scopes):
            if not self._section.make_scopes:
                text = f"Rucio has no scope {scope}: its operators have to make it (or say [rucio] make_scopes = yes)"
                raise DDMError(text, field="scope", value=scope)
            self._ask("add_scope", self._section.account, scope, accept=ALREADY_THERE)
            self._scopes.add(scope)

    def collect(self, container: str, datasets: Iterable[str]) -> None:
        """See `DDM`."""
        whole, parts = self._names.dataset(container), [self._names.dataset(name) for name in datasets]
        known = self._facts([whole, *parts])
        if known.get(whole, {}).get("did_type", "CONTAINER") != "CONTAINER":
            raise DDMFatal(f"{container} is a dataset, no container", field="dataset", value=container)
        absent = [did for did in parts if known.get(did, {}).get("did_type") != "DATASET"]
        if absent:
            text = f"{len(absent)} datasets are not in the catalogue, first {absent[0].name}"
            raise DDMUnknown(text, field="dataset", value=absent[0].name)
        self._make([whole], "CONTAINER")
        for part in in_parts(parts, AT_ONCE):
            self._put_into(whole, part)

    def freeze(self, datasets: Iterable[str]) -> None:
        """See `DDM`."""
        for name in datasets:
            did = self._names.dataset(name)
            self._ask("close", did.scope, did.name, accept=(*NOT_THERE, *UNSUPPORTED))

    # --- what shall be where

    def request(self, datasets: Iterable[str], endpoint: str) -> None:
        """See `DDM`; nobody is called back."""
        self._known(endpoint)
        dids = [self._names.dataset(name) for name in datasets]
        for did, known in self._facts(dids).items():
            self._check_open(did, known, 0)
        self._make(dids, "DATASET")
        for did in dids:
            self._rules.want(did, self._rse(endpoint))

    def progress(self, wanted: Iterable[Wanted]) -> dict[Wanted, Progress]:
        """See `DDM`."""
        return {pair: self._progress(*pair) for pair in dict.fromkeys(wanted)}

    def _progress(self, dataset: str, endpoint: str) -> Progress:
        try:
            did = self._names.dataset(dataset)
        except DDMFatal:
            return Progress(ProgressState.GONE, 0, 0)
        progress = self._rules.progress(did, self._rse(endpoint))
        if progress.state is ProgressState.GONE and progress.total:
            return replace(progress, there=progress.total - len(self.missing_at(dataset, endpoint)))
        return progress

    def cancel(self, wanted: Iterable[Wanted]) -> None:
        """See `DDM`; copies that no other rule holds become a cache, which Rucio empties when it needs the space."""
        for dataset, endpoint in wanted:
            self._rules.end(self._names.dataset(dataset), self._rse(endpoint))

    def discard(self, staged: Iterable[StagedFile]) -> None:
        """See `DDM`."""
        known = self._endpoints()
        for file in staged:
            if file.endpoint in known:
                placing.discard(self._place(file.endpoint, Did(file.scope, file.lfn)), file.suffix)

    # --- what goes

    def delete(self, datasets: Iterable[str]) -> None:
        """See `DDM`; Rucio's undertaker and reaper do it, the dataset is empty at once."""
        for name in datasets:
            did = self._names.dataset(name)
            known = self._facts([did]).get(did)
            if known is not None:
                self._delete(did, is_container=known["did_type"] == "CONTAINER")

    def _delete(self, dataset: Did, *, is_container: bool) -> None:
        if not is_container:
            self._let_go(dataset)
        self._ask("set_metadata", dataset.scope, dataset.name, "lifetime", _OVER, accept=NOT_THERE)

    def _let_go(self, dataset: Did) -> None:
        """Free the copies of files that are in no other dataset; the others stay where lasting rules had them."""
        files = self._files(dataset)
        shared = [did for did in files if self._parents(did) - {dataset}]
        for rule in self._rules.of(dataset):
            if rule["expires_at"] is None:
                self._rules.hold(shared, rule["rse_expression"])
        self._rules.end(dataset)
        self._free([did for did in files if did not in set(shared)])
        for part in in_parts(files, AT_ONCE):
            wire = [did.wire for did in part]
            self._ask("detach_dids", dataset.scope, dataset.name, wire, accept=(*NOT_THERE, *UNSUPPORTED))

    def _parents(self, did: Did) -> set[Did]:
        told = self._ask("list_parent_dids", did.scope, did.name, accept=NOT_THERE) or []
        return {did_of(one) for one in told}

    def _free(self, dids: Sequence[Did]) -> None:
        """Let the reaper take the copies at our endpoints; what a rule holds is free when that ends."""
        ours = {self._rse(endpoint) for endpoint in self._endpoints()}
        for did, replicas in self.replicas(dids).items():
            for rse in {self._rse(replica.endpoint) for replica in replicas} & ours:
                self._ask("set_tombstone", [{"scope": did[0], "name": did[1], "rse": rse}], accept=HELD)

    # --- places

    def _place(self, endpoint: str, did: Did) -> Place:
        return Place(self._stores.at(self._known(endpoint)), below_root(*did))

    def _rse(self, endpoint: str) -> str:
        return self._rse_of.get(endpoint, endpoint)

    def _known(self, endpoint: str) -> Endpoint:
        endpoints = self._endpoints()
        if endpoint not in endpoints:
            text = f"there is no endpoint {endpoint}; known are {', '.join(endpoints)}"
            raise DDMUnknown(text, field="endpoint", value=endpoint)
        return endpoints[endpoint]


def _as_told(replica: Replica) -> dict[str, Any]:
    told = {
        "scope": replica.scope,
        "name": replica.lfn,
        "bytes": replica.size_bytes,
        "adler32": replica.adler32,
    }
    guid = guid_in(replica.guid)
    return told | {"meta": {"guid": guid}} if guid else told
