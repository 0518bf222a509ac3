"""Datasets: named sets of files, the unit in which data moves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class DatasetType(StrEnum):
    """What a dataset is for."""

    INPUT = "input"
    DISPATCH = "dispatch"  # temporary: inputs on their way to a site
    OUTPUT = "output"  # what the user asked for
    SUB = "sub"  # part of an output, made at one site


class DatasetStatus(StrEnum):
    """How far a dataset is."""

    DEFINED = "defined"
    RUNNING = "running"
    CLOSED = "tobeclosed"
    COMPLETED = "completed"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset as the server knows it; the files are in the DDM's catalogue."""

    name: str
    type: DatasetType
    status: DatasetStatus
    vo: str
    parent: str | None = None  # of a SUB: the OUTPUT dataset it is a part of
    endpoint: str | None = None  # where it shall be complete
    created_at: datetime
    modified_at: datetime


def dispatch_name(unique: str, first_job_id: int) -> str:
    """Name the dispatch dataset of a bunch of jobs by its first job."""
    return f"panda.{unique}_dis{first_job_id}"


def sub_name(dataset: str, serial: int) -> str:
    """Name the `serial`-th part of an output dataset."""
    return f"{dataset.rstrip('/')}_sub0{serial}"
