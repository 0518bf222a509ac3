"""Information for pilots and schedulers: queues, storage, counts, in the form that existing pilots read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pandaserver.dataservice.ddm.storage import file_url
from pandaserver.dataservice.service import DataService
from pandaserver.errors import NotFound
from pandaserver.externalinterface.queuedata import queue_data as queue_data
from pandaserver.model.file import Replica
from pandaserver.model.grid import Endpoint, Queue, Topology
from pandaserver.taskbuffer import datasets, jobs, topology
from pandaserver.taskbuffer.buffer import TaskBuffer


def storage_data(endpoint: Endpoint) -> dict[str, Any]:
    """Describe a storage endpoint as pilots expect it."""
    scheme, _, path = endpoint.url.partition("://")
    host, slash, rest = path.partition("/")
    protocol = {
        "endpoint": f"{scheme}://{host or 'localhost'}",
        "path": slash + rest,
        "flavour": scheme.upper(),
        "id": 1,
    }
    ways = ("read_lan", "read_wan", "write_lan", "write_wan")
    return {
        "id": 1,
        "name": endpoint.name,
        "site": endpoint.site,
        "state": "ACTIVE",
        "type": "DATADISK",
        "token": "DATADISK",
        "is_deterministic": True,
        "arprotocols": {way: [protocol] for way in ways},
        "rprotocols": {},
        "resource": {},
    }


def grid(buffer: TaskBuffer) -> Topology:
    """Read the configured grid."""
    return buffer.read(topology.load)


def queue(buffer: TaskBuffer, name: str) -> Queue:
    """Find a queue.

    Raises:
        NotFound: there is no such queue.
    """
    queues = grid(buffer).queues
    if name not in queues:
        raise NotFound(f"there is no queue {name}; known are {', '.join(sorted(queues))}", field="queue", value=name)
    return queues[name]


def counts(buffer: TaskBuffer) -> dict[str, dict[str, int]]:
    """Count jobs by queue and state; every configured queue is there, also when it has none."""
    by_queue = buffer.read_replica(jobs.count_by_queue_and_state)
    return {name: by_queue.get(name, {}) for name in grid(buffer).queues}


def dataset_files(service: DataService, dataset: str) -> list[dict[str, Any]]:
    """List the files of a dataset with their copies.

    Raises:
        NotFound: there is no such dataset.
    """
    name = dataset.rstrip("/")
    names = service.ddm.contents(name)
    if not names:
        dataset_facts(service.buffer, name)
    endpoints = grid(service.buffer).endpoints
    return [_file_facts(copies, endpoints) for copies in service.ddm.replicas(names).values()]


def _file_facts(copies: Sequence[Replica], endpoints: dict[str, Endpoint]) -> dict[str, Any]:
    first = copies[0]
    return {
        "scope": first.scope,
        "lfn": first.lfn,
        "guid": first.guid,
        "fsize": first.size_bytes,
        "checksum": f"ad:{first.adler32}",
        "replicas": [{"endpoint": r.endpoint, "url": _url(r, endpoints)} for r in copies],
    }


def _url(replica: Replica, endpoints: dict[str, Endpoint]) -> str:
    """Give the URL of a copy; empty where the DDM knows an endpoint that this server does not."""
    known = endpoints.get(replica.endpoint)
    return file_url(known, replica.scope, replica.lfn) if known else ""


def dataset_facts(buffer: TaskBuffer, dataset: str) -> dict[str, Any]:
    """Tell what the server knows of a dataset.

    Raises:
        NotFound: there is no such dataset.
    """
    found = buffer.read(lambda c: datasets.load(c, dataset.rstrip("/")))
    if found is None:
        raise NotFound(f"there is no dataset {dataset}", field="dataset", value=dataset)
    return vars(found) | {"type": found.type.value, "status": found.status.value}
