"""Files of jobs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from pandaserver.model.file import File, FileStatus, FileType, NewFile
from pandaserver.model.job import JobWithFiles
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import jobs, schema

_files = schema.files


def insert(connection: Connection, new: Sequence[tuple[int, NewFile]]) -> None:
    """Write the files of new jobs, as (job id, file) pairs."""
    if new:
        connection.execute(sa.insert(_files), [_new_row(job_id, file) for job_id, file in new])


def _new_row(job_id: int, file: NewFile) -> dict[str, Any]:
    return vars(file) | {"job_id": job_id, "type": file.type.value, "status": FileStatus.UNKNOWN.value}


def of_jobs(connection: Connection, job_ids: Iterable[int]) -> dict[int, tuple[File, ...]]:
    """Load the files of jobs, in the order in which they were given."""
    found: dict[int, list[File]] = defaultdict(list)
    statement = sa.select(_files).where(_files.c.job_id.in_(sorted(set(job_ids)))).order_by(_files.c.file_id)
    for row in connection.execute(statement):
        found[row.job_id].append(_file(row))
    return {job_id: tuple(files) for job_id, files in found.items()}


def load_jobs(connection: Connection, job_ids: Iterable[int], *, lock: bool = False) -> list[JobWithFiles]:
    """Load jobs together with their files, by id."""
    loaded = jobs.load(connection, job_ids, lock=lock)
    files = of_jobs(connection, loaded)
    return [JobWithFiles(job=job, files=files.get(job_id, ())) for job_id, job in loaded.items()]


def set_status(connection: Connection, file_ids: Sequence[int], status: FileStatus, **columns: Any) -> None:
    """Set the status, and other columns, of files."""
    set_columns(connection, file_ids, status=status.value, **columns)


def set_columns(connection: Connection, file_ids: Sequence[int], **columns: Any) -> None:
    """Set columns of files."""
    if file_ids:
        connection.execute(sa.update(_files).where(_files.c.file_id.in_(list(file_ids))).values(columns))


def copy(connection: Connection, patterns: Sequence[File]) -> None:
    """Write further files of accepted jobs, as the patterns say, under ids of their own."""
    if patterns:
        connection.execute(sa.insert(_files), [_copied_row(file) for file in patterns])


def _copied_row(file: File) -> dict[str, Any]:
    row = vars(file) | {"type": file.type.value, "status": file.status.value}
    del row["file_id"]
    return row


@dataclass(frozen=True, kw_only=True)
class FileFact:
    """What has become known of one file."""

    file_id: int
    status: FileStatus
    guid: str | None
    size_bytes: int | None
    checksum: str | None


def set_facts(connection: Connection, facts: Sequence[FileFact]) -> None:
    """Write what has become known of files, each for itself."""
    if facts:
        one = sa.update(_files).where(_files.c.file_id == sa.bindparam("which"))
        connection.execute(one, [_fact_row(fact) for fact in facts])


def _fact_row(fact: FileFact) -> dict[str, Any]:
    row = vars(fact) | {"which": fact.file_id, "status": fact.status.value}
    del row["file_id"]
    return row


def jobs_with_block(connection: Connection, block: str, status: FileStatus) -> list[int]:
    """Find the jobs that have files of a status in a dispatch or _sub dataset."""
    match = sa.and_(_files.c.block == block, _files.c.status == status.value)
    return sorted(connection.execute(sa.select(_files.c.job_id).distinct().where(match)).scalars())


def undecided_in_block(connection: Connection, block: str) -> int:
    """Count the files of a _sub dataset of which nobody knows yet whether they will be."""
    open_ = (FileStatus.UNKNOWN.value, FileStatus.TRANSFERRING.value)
    statement = sa.select(sa.func.count()).where(_files.c.block == block, _files.c.status.in_(open_))
    return int(connection.execute(statement).scalar_one())


def waiting_for(connection: Connection, names: Sequence[tuple[str, str]]) -> list[int]:
    """Find the waiting jobs that miss one of these (scope, lfn)."""
    table = schema.jobs
    statement = (
        sa.select(_files.c.job_id, _files.c.scope, _files.c.lfn)
        .join(table, table.c.job_id == _files.c.job_id)
        .where(
            _files.c.lfn.in_(sorted({lfn for _, lfn in names})),
            _files.c.type == FileType.INPUT.value,
            _files.c.status == FileStatus.MISSING.value,
            table.c.state == JobState.WAITING.value,
        )
    )
    wanted = set(names)
    return sorted({row.job_id for row in connection.execute(statement) if (row.scope, row.lfn) in wanted})


def missing_inputs(connection: Connection, state: JobState, limit: int) -> list[tuple[str, str]]:
    """List (scope, lfn) that jobs in a state miss."""
    table = schema.jobs
    statement = (
        sa.select(_files.c.scope, _files.c.lfn)
        .distinct()
        .join(table, table.c.job_id == _files.c.job_id)
        .where(_files.c.status == FileStatus.MISSING.value, table.c.state == state.value)
        .limit(limit)
    )
    return [(row.scope, row.lfn) for row in connection.execute(statement)]


def _file(row: Row[Any]) -> File:
    values = dict(row._mapping)
    return File(**(values | {"type": FileType(values["type"]), "status": FileStatus(values["status"])}))
