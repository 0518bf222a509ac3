"""The built-in DDM's catalogue: datasets, files, replicas, subscriptions and transfers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.errors import DDMFatal
from pandaserver.model.file import Replica
from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.database import upsert

_datasets, _files, _contents = schema.ddm_datasets, schema.ddm_files, schema.ddm_contents
_replicas, _subscriptions, _transfers = schema.ddm_replicas, schema.ddm_subscriptions, schema.ddm_transfers

FileName = tuple[str, str]  # scope, lfn


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """A copy to be made, made or failed."""

    transfer_id: int
    dataset: str
    scope: str
    lfn: str
    destination: str
    source: str | None
    state: str
    size_bytes: int
    message: str | None
    created_at: datetime
    ended_at: datetime | None
    seconds: float | None


def add_dataset(connection: Connection, name: str, now: datetime) -> None:
    """Register a dataset if it is not there."""
    upsert(connection, _datasets, [{"name": name, "created_at": now}], update={})


def lock(connection: Connection, name: str) -> None:
    """Let nobody else look at a dataset with `lock` or add to it until the transaction ends."""
    connection.execute(sa.select(_datasets.c.name).where(_datasets.c.name == name).with_for_update())


def is_frozen(connection: Connection, name: str) -> bool | None:
    """Say whether nothing can be added any more; None for an unknown dataset."""
    return connection.execute(sa.select(_datasets.c.frozen).where(_datasets.c.name == name)).scalar_one_or_none()


def freeze(connection: Connection, name: str) -> None:
    """Let nothing be added to a dataset any more."""
    connection.execute(sa.update(_datasets).where(_datasets.c.name == name).values(frozen=True))


def add_replicas(connection: Connection, replicas: Sequence[Replica], now: datetime) -> None:
    """Register files with a copy each.

    Raises:
        DDMFatal: a file of that name is known with other bytes.
    """
    known = facts(connection, [(r.scope, r.lfn) for r in replicas])
    for replica in replicas:
        before = known.get((replica.scope, replica.lfn))
        if before is not None and (before.size_bytes, before.adler32) != (replica.size_bytes, replica.adler32):
            text = (
                f"{replica.scope}:{replica.lfn} is in the catalogue with {before.size_bytes} bytes, adler32 "
                f"{before.adler32}; {replica.endpoint} offers {replica.size_bytes} bytes, adler32 {replica.adler32}"
            )
            raise DDMFatal(text, field="lfn", value=replica.lfn)
    new = [_file_row(r, now) for r in replicas if (r.scope, r.lfn) not in known]
    upsert(connection, _files, new, update={})
    copies = [{"scope": r.scope, "lfn": r.lfn, "endpoint": r.endpoint, "created_at": now} for r in replicas]
    upsert(connection, _replicas, copies, update={})


def _file_row(replica: Replica, now: datetime) -> dict[str, Any]:
    return {
        "scope": replica.scope,
        "lfn": replica.lfn,
        "guid": replica.guid,
        "size_bytes": replica.size_bytes,
        "adler32": replica.adler32,
        "created_at": now,
    }


def add_contents(connection: Connection, dataset: str, names: Iterable[FileName]) -> None:
    """Put known files into a dataset."""
    rows = [{"dataset": dataset, "scope": scope, "lfn": lfn} for scope, lfn in names]
    upsert(connection, _contents, rows, update={})


def contents(connection: Connection, dataset: str) -> list[FileName]:
    """List the files of a dataset."""
    statement = sa.select(_contents.c.scope, _contents.c.lfn).where(_contents.c.dataset == dataset)
    return [(r.scope, r.lfn) for r in connection.execute(statement.order_by(_contents.c.lfn))]


@dataclass(frozen=True)
class FileFacts:
    """What the bytes of a file must be."""

    guid: str
    size_bytes: int
    adler32: str


def facts(connection: Connection, names: Iterable[FileName]) -> dict[FileName, FileFacts]:
    """Give what is known of files; unknown ones are left out."""
    wanted = set(names)
    found: dict[FileName, FileFacts] = {}
    for part in _in_parts(sorted({lfn for _, lfn in wanted})):
        for r in connection.execute(sa.select(_files).where(_files.c.lfn.in_(part))):
            if (r.scope, r.lfn) in wanted:
                found[r.scope, r.lfn] = FileFacts(r.guid, r.size_bytes, r.adler32)
    return found


def replicas(connection: Connection, names: Iterable[FileName]) -> dict[FileName, list[Replica]]:
    """Give the copies of files; files without a copy are left out."""
    known = facts(connection, names)
    found: dict[FileName, list[Replica]] = defaultdict(list)
    for part in _in_parts(sorted({lfn for _, lfn in known})):
        rows = connection.execute(sa.select(_replicas).where(_replicas.c.lfn.in_(part)).order_by(_replicas.c.endpoint))
        for row in rows:
            if (fact := known.get((row.scope, row.lfn))) is not None:
                found[row.scope, row.lfn].append(
                    Replica(
                        scope=row.scope,
                        lfn=row.lfn,
                        endpoint=row.endpoint,
                        guid=fact.guid,
                        size_bytes=fact.size_bytes,
                        adler32=fact.adler32,
                    )
                )
    return dict(found)


def subscribe(connection: Connection, dataset: str, endpoint: str, now: datetime) -> None:
    """Let a dataset be complete at an endpoint, now and for what comes in later."""
    upsert(connection, _subscriptions, [{"dataset": dataset, "endpoint": endpoint, "created_at": now}], update={})


def unsubscribe(connection: Connection, dataset: str, endpoint: str) -> None:
    """End a subscription and drop what is still queued for it."""
    match = sa.and_(_subscriptions.c.dataset == dataset, _subscriptions.c.endpoint == endpoint)
    connection.execute(sa.delete(_subscriptions).where(match))
    queued = sa.and_(
        _transfers.c.dataset == dataset, _transfers.c.destination == endpoint, _transfers.c.state == "queued"
    )
    connection.execute(sa.delete(_transfers).where(queued))


def subscribed_endpoints(connection: Connection, dataset: str) -> list[str]:
    """List where a dataset shall be."""
    statement = sa.select(_subscriptions.c.endpoint).where(_subscriptions.c.dataset == dataset)
    return list(connection.execute(statement).scalars())


def add_transfers(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Queue copies of what is missing; one that was given up, or whose result was lost, is queued again."""
    upsert(connection, _transfers, rows, update=["state"])


def queued_transfers(connection: Connection, dataset: str, destination: str) -> list[Transfer]:
    """List the copies of a subscription still to be made."""
    match = sa.and_(
        _transfers.c.dataset == dataset, _transfers.c.destination == destination, _transfers.c.state == "queued"
    )
    rows = connection.execute(sa.select(_transfers).where(match).order_by(_transfers.c.transfer_id))
    return [Transfer(**row._mapping) for row in rows]


def transfer(connection: Connection, transfer_id: int) -> Transfer | None:
    """Load one transfer."""
    row = connection.execute(sa.select(_transfers).where(_transfers.c.transfer_id == transfer_id)).one_or_none()
    return Transfer(**row._mapping) if row else None


def end_transfer(connection: Connection, transfer_id: int, state: str, **columns: Any) -> None:
    """Record how a copy ended."""
    match = _transfers.c.transfer_id == transfer_id
    connection.execute(sa.update(_transfers).where(match).values({"state": state} | columns))


def count_transfers(connection: Connection) -> dict[str, int]:
    """Count transfers by state."""
    rows = connection.execute(sa.select(_transfers.c.state, sa.func.count()).group_by(_transfers.c.state))
    return {row[0]: row[1] for row in rows}


def _in_parts(values: list[str], size: int = 500) -> Iterable[list[str]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
