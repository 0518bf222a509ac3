"""What the monitor reads of data: datasets, their files and copies, transfers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.transfers import Transfer

COUNT_LIMIT = 200_000  # rows looked at for one count; more is told as partial

_datasets = schema.datasets
_known = schema.ddm_datasets
_contents = schema.ddm_contents
_files = schema.ddm_files
_replicas = schema.ddm_replicas
_transfers = schema.ddm_transfers


@dataclass(frozen=True, kw_only=True)
class DatasetFilter:
    """Which datasets; empty means any."""

    name: str = ""  # part of it
    type: str = ""
    status: str = ""


@dataclass(frozen=True, kw_only=True)
class DatasetRow:
    """A dataset, as the server and the catalogue know it; those of the catalogue alone have no type."""

    name: str
    type: str
    status: str
    parent: str | None
    endpoint: str | None
    created_at: datetime | None
    files: int = 0
    size_bytes: int = 0


def _all() -> sa.CompoundSelect[tuple[object, ...]]:
    own = sa.select(
        _datasets.c.name,
        _datasets.c.type,
        _datasets.c.status,
        _datasets.c.parent,
        _datasets.c.endpoint,
        _datasets.c.created_at,
    )
    state = sa.case((_known.c.frozen, "frozen"), else_="open")
    parent, endpoint = sa.null().label("parent"), sa.null().label("endpoint")
    others = sa.select(_known.c.name, sa.literal("").label("type"), state, parent, endpoint, _known.c.created_at)
    return own.union_all(others.where(~sa.exists().where(_datasets.c.name == _known.c.name)))


DATASET_SORTS = ("name", "type", "status", "created")


def list_datasets(
    connection: Connection, chosen: DatasetFilter, *, sort: str = "-created", limit: int = 100, offset: int = 0
) -> list[DatasetRow]:
    """Load one screen of datasets with the number and size of their files."""
    rows = _all().subquery()
    column = rows.c["created_at" if sort.removeprefix("-") == "created" else sort.removeprefix("-")]
    order = column.desc() if sort.startswith("-") else column
    statement = sa.select(rows).where(*_dataset_conditions(rows, chosen)).order_by(order, rows.c.name)
    found = connection.execute(statement.limit(limit).offset(offset)).all()
    sizes = content_sizes(connection, [r.name for r in found])
    return [
        DatasetRow(**r._mapping, files=sizes.get(r.name, (0, 0))[0], size_bytes=sizes.get(r.name, (0, 0))[1])
        for r in found
    ]


def count_datasets(connection: Connection, chosen: DatasetFilter) -> tuple[int, bool]:
    """Count datasets; the second value says that there are more."""
    rows = _all().subquery()
    one = sa.select(rows.c.name).where(*_dataset_conditions(rows, chosen)).limit(COUNT_LIMIT + 1).subquery()
    number = int(connection.execute(sa.select(sa.func.count()).select_from(one)).scalar_one())
    return min(number, COUNT_LIMIT), number > COUNT_LIMIT


def _dataset_conditions(rows: sa.Subquery, chosen: DatasetFilter) -> list[sa.ColumnElement[bool]]:
    found = [rows.c.name.contains(chosen.name, autoescape=True)] if chosen.name else []
    wanted = ((rows.c.type, chosen.type), (rows.c.status, chosen.status))
    return found + [column == value for column, value in wanted if value]


def content_sizes(connection: Connection, datasets: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Give the number of files and bytes of datasets; empty ones are left out."""
    same = sa.and_(_files.c.scope == _contents.c.scope, _files.c.lfn == _contents.c.lfn)
    statement = (
        sa.select(_contents.c.dataset, sa.func.count().label("files"), sa.func.sum(_files.c.size_bytes).label("bytes"))
        .join(_files, same)
        .where(_contents.c.dataset.in_(datasets))
        .group_by(_contents.c.dataset)
    )
    return {r.dataset: (r.files, int(r.bytes or 0)) for r in connection.execute(statement)}


def find_dataset(connection: Connection, name: str) -> DatasetRow | None:
    """Load one dataset; of one that only jobs speak of yet, give the name."""
    rows = _all().subquery()
    row = connection.execute(sa.select(rows).where(rows.c.name == name)).first()
    if row is None:
        return _announced(connection, name)
    files, size = content_sizes(connection, [name]).get(name, (0, 0))
    return DatasetRow(**row._mapping, files=files, size_bytes=size)


def _announced(connection: Connection, name: str) -> DatasetRow | None:
    file = schema.files
    named = (sa.select(file.c.file_id).where(column == name).limit(1) for column in (file.c.dataset, file.c.block))
    if not any(connection.execute(statement).first() for statement in named):
        return None
    return DatasetRow(name=name, type="", status="not made yet", parent=None, endpoint=None, created_at=None)


def parts_of(connection: Connection, name: str, limit: int = 200) -> list[DatasetRow]:
    """Load the parts of an output dataset."""
    rows = _all().subquery()
    statement = sa.select(rows).where(rows.c.parent == name).order_by(rows.c.name).limit(limit)
    found = connection.execute(statement).all()
    sizes = content_sizes(connection, [r.name for r in found])
    return [
        DatasetRow(**r._mapping, files=sizes.get(r.name, (0, 0))[0], size_bytes=sizes.get(r.name, (0, 0))[1])
        for r in found
    ]


def subscriptions_of(connection: Connection, name: str) -> list[tuple[str, datetime]]:
    """Tell where a dataset shall be complete, and since when that is wanted."""
    table = schema.ddm_subscriptions
    statement = sa.select(table.c.endpoint, table.c.created_at).where(table.c.dataset == name).order_by("endpoint")
    return [(r.endpoint, r.created_at) for r in connection.execute(statement)]


@dataclass(frozen=True)
class StoredFile:
    """A file of the catalogue and where its copies are."""

    scope: str
    lfn: str
    guid: str
    size_bytes: int
    adler32: str
    endpoints: tuple[str, ...]


def files_in(connection: Connection, dataset: str, *, limit: int = 100, offset: int = 0) -> list[StoredFile]:
    """Load one screen of a dataset's files."""
    same = sa.and_(_files.c.scope == _contents.c.scope, _files.c.lfn == _contents.c.lfn)
    statement = sa.select(_files).join(_contents, same).where(_contents.c.dataset == dataset)
    rows = connection.execute(statement.order_by(_contents.c.lfn).limit(limit).offset(offset)).all()
    places = _places(connection, [(r.scope, r.lfn) for r in rows])
    return [
        StoredFile(r.scope, r.lfn, r.guid, r.size_bytes, r.adler32, tuple(places.get((r.scope, r.lfn), ())))
        for r in rows
    ]


def _places(connection: Connection, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    statement = sa.select(_replicas).where(_replicas.c.lfn.in_([lfn for _, lfn in names])).order_by("endpoint")
    for row in connection.execute(statement):
        found[row.scope, row.lfn].append(row.endpoint)
    return found


def copies_by_endpoint(connection: Connection, dataset: str) -> dict[str, int]:
    """Count the files of a dataset that each endpoint has."""
    same = sa.and_(_replicas.c.scope == _contents.c.scope, _replicas.c.lfn == _contents.c.lfn)
    statement = (
        sa.select(_replicas.c.endpoint, sa.func.count().label("number"))
        .join(_contents, same)
        .where(_contents.c.dataset == dataset)
        .group_by(_replicas.c.endpoint)
        .order_by(_replicas.c.endpoint)
    )
    return {r.endpoint: r.number for r in connection.execute(statement)}


# --- transfers -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TransferFilter:
    """Which transfers; empty means any. `since` leaves out those asked for before, not those still queued."""

    states: tuple[str, ...] = ()
    destination: str = ""
    source: str = ""
    dataset: str = ""
    since: datetime | None = None


@dataclass(frozen=True)
class TransferCount:
    """Transfers between two endpoints in one state."""

    source: str
    destination: str
    state: str
    number: int
    size_bytes: int
    seconds: float
    oldest: datetime


def count_transfers(connection: Connection, chosen: TransferFilter) -> list[TransferCount]:
    """Sum transfers by source, destination and state."""
    statement = (
        sa.select(
            sa.func.coalesce(_transfers.c.source, "").label("source"),
            _transfers.c.destination,
            _transfers.c.state,
            sa.func.count().label("number"),
            sa.func.sum(_transfers.c.size_bytes).label("bytes"),
            sa.func.sum(sa.func.coalesce(_transfers.c.seconds, 0.0)).label("seconds"),
            sa.func.min(_transfers.c.created_at, type_=schema.UTC6()).label("oldest"),
        )
        .where(*_transfer_conditions(chosen))
        .group_by(_transfers.c.source, _transfers.c.destination, _transfers.c.state)
    )
    rows = connection.execute(statement)
    return [
        TransferCount(r.source, r.destination, r.state, r.number, int(r.bytes), float(r.seconds), r.oldest)
        for r in rows
    ]


def list_transfers(
    connection: Connection, chosen: TransferFilter, *, limit: int = 100, offset: int = 0
) -> list[Transfer]:
    """Load one screen of transfers, newest first."""
    statement = sa.select(_transfers).where(*_transfer_conditions(chosen)).order_by(_transfers.c.transfer_id.desc())
    return [Transfer(**row._mapping) for row in connection.execute(statement.limit(limit).offset(offset))]


def _transfer_conditions(chosen: TransferFilter) -> list[sa.ColumnElement[bool]]:
    found = [sa.or_(_transfers.c.state == "queued", _transfers.c.created_at >= chosen.since)] if chosen.since else []
    if chosen.states:
        found.append(_transfers.c.state.in_(chosen.states))
    wanted = (
        (_transfers.c.destination, chosen.destination),
        (_transfers.c.source, chosen.source),
        (_transfers.c.dataset, chosen.dataset),
    )
    return found + [column == value for column, value in wanted if value]
