"""Datasets: how far they are, what is in them, where it lies, and who made it."""

from __future__ import annotations

from dataclasses import dataclass

from pandamonitor.query import Query
from pandamonitor.tables import table_of
from pandamonitor.views.jobs import summaries
from pandamonitor.views.page import Monitor, Page, View, screen
from pandaserver.errors import NotFound
from pandaserver.model.dataset import DatasetStatus, DatasetType
from pandaserver.taskbuffer import monitoring as reading
from pandaserver.taskbuffer import monitoring_data as stored

JOB_HOURS = 8760  # a dataset is looked at long after its jobs have ended


def build_list(monitor: Monitor, query: Query) -> Page:
    """Make the list."""
    chosen = stored.DatasetFilter(name=query.text("name"), type=query.text("type"), status=query.text("status"))
    total, partial = monitor.database.read(lambda c: stored.count_datasets(c, chosen))
    shown = screen(query, total, partial=partial)
    sort = query.text("order", "-created")
    rows = monitor.database.read(
        lambda c: stored.list_datasets(c, chosen, sort=sort, limit=shown.size, offset=shown.offset)
    )
    values = {
        "rows": rows,
        "screen": shown,
        "sort": sort,
        "types": tuple(DatasetType),
        "statuses": (*DatasetStatus, "open", "frozen"),
    }
    data = {"total": total, "partial": partial, "datasets": rows}
    columns = ("name", "type", "status", "files", "size_bytes", "endpoint", "parent", "created_at")
    return Page("Datasets", "datasets", values, data, table_of(rows, columns))


@dataclass(frozen=True)
class _Read:
    dataset: stored.DatasetRow
    files: list[stored.StoredFile]
    copies: dict[str, int]
    transfers: list[stored.TransferCount]
    parts: list[stored.DatasetRow]
    jobs: reading.JobCount


def _read(connection: reading.Snapshot, name: str, query: Query) -> _Read | None:
    dataset = stored.find_dataset(connection, name)
    if dataset is None:
        return None
    shown = screen(query, dataset.files)
    return _Read(
        dataset=dataset,
        files=stored.files_in(connection, name, limit=shown.size, offset=shown.offset),
        copies=stored.copies_by_endpoint(connection, name),
        transfers=stored.count_transfers(connection, stored.TransferFilter(dataset=name)),
        parts=stored.parts_of(connection, name),
        jobs=reading.count_jobs(connection, reading.JobFilter(dataset=name)),
    )


def build_one(monitor: Monitor, query: Query, *, name: str) -> Page:
    """Make the page of one dataset."""
    read = monitor.database.read(lambda c: _read(c, name, query))
    if read is None:
        raise NotFound(f"There is no dataset {name}.", field="dataset", value=name)
    wanted = dict(monitor.database.read(lambda c: stored.subscriptions_of(c, name)))
    values = {
        "read": read,
        "dataset": read.dataset,
        "screen": screen(query, read.dataset.files),
        "wanted": wanted,
        "places": sorted({*read.copies, *wanted}),
        "states": summaries(read.jobs, query)[0].values,
        "job_hours": JOB_HOURS,
    }
    data = {
        "dataset": read.dataset,
        "total": read.dataset.files,
        "files": read.files,
        "copies": read.copies,
        "subscriptions": wanted,
        "transfers": read.transfers,
        "parts": read.parts,
        "jobs": {"total": read.jobs.total, "partial": read.jobs.partial},
    }
    columns = ("scope", "lfn", "guid", "size_bytes", "adler32", "endpoints")
    return Page(f"Dataset {name}", "dataset", values, data, table_of(read.files, columns))


VIEWS = (
    View("/datasets", ("name", "type", "status", "order", "page", "size"), build_list),
    View("/datasets/<path:name>", ("page", "size"), build_one),
)
