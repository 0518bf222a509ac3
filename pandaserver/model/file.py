"""Files of a job and what is known of them in the catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FileType(StrEnum):
    """What a file is to its job."""

    INPUT = "input"
    OUTPUT = "output"
    LOG = "log"
    OLD_LOG = "oldlog"  # of an attempt before the last


OUTPUTS = (FileType.OUTPUT, FileType.LOG)  # what the last attempt makes
SUBMITTED = (FileType.INPUT, *OUTPUTS)


class FileStatus(StrEnum):
    """How far a file of a job is."""

    UNKNOWN = "unknown"
    PENDING = "pending"  # input in a dispatch dataset, on its way
    READY = "ready"  # input at the site, or output at its destination
    MISSING = "missing"  # input not in the catalogue
    TRANSFERRING = "transferring"  # output on its way to the destination
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class NewFile:
    """A file as a user asks for it."""

    lfn: str
    type: FileType
    dataset: str
    scope: str
    guid: str | None = None
    destination: str | None = None  # endpoint, queue or site where an output shall end
    size_bytes: int | None = None
    checksum: str | None = None  # "ad:<8 hex digits>"


@dataclass(frozen=True, kw_only=True)
class File(NewFile):
    """A file of an accepted job."""

    file_id: int
    job_id: int
    block: str | None = None  # dispatch dataset of an input, _sub dataset of an output
    endpoint: str | None = None  # where an output shall end, known when the job has a site
    status: FileStatus = FileStatus.UNKNOWN


@dataclass(frozen=True, kw_only=True)
class Replica:
    """One copy of a file, with what must be true of its bytes."""

    scope: str
    lfn: str
    endpoint: str
    guid: str
    size_bytes: int
    adler32: str
    staged_as: str = ""  # the suffix of the name under which a pilot stored it, beside its place


def staged_name(lfn: str, suffix: str) -> str:
    """Name a file that waits beside its place; with room for what storage puts around a name while it writes."""
    return lfn[: _LONGEST_STAGED - len(suffix)] + suffix


_LONGEST_STAGED = 200


def default_scope(dataset: str) -> str:
    """Give the scope of a dataset by its name: `user.alice` of user.alice.x, else the first dotted part."""
    parts = dataset.strip("/").split(".")
    if len(parts) > 2 and parts[0] in ("user", "group"):
        return ".".join(parts[:2])
    return parts[0]
