"""Files of jobs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.model.file import File, FileStatus, FileType, NewFile
from pandaserver.model.job import JobWithFiles
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import jobs, schema
from pandaserver.taskbuffer.statements import Prepared, Upsert, values

_files = schema.files


def insert(connection: Connection, new: Sequence[tuple[int, NewFile]]) -> None:
    """Write the files of new jobs, as (job id, file) pairs."""
    _INSERT.many(connection, [_new_row(job_id, file) for job_id, file in new])


_INSERT = Prepared(sa.insert(_files))


def _new_row(job_id: int, file: NewFile) -> dict[str, Any]:
    return vars(file) | {"job_id": job_id, "type": file.type.value, "status": FileStatus.UNKNOWN.value}


def of_jobs(connection: Connection, job_ids: Iterable[int]) -> dict[int, tuple[File, ...]]:
    """Load the files of jobs, in the order in which they were given."""
    found: dict[int, list[File]] = defaultdict(list)
    for part in jobs.in_parts(sorted(set(job_ids))):
        for row in _OF_JOBS.rows(connection, ids=part):
            file = file_of(row)
            found[file.job_id].append(file)
    return {job_id: tuple(files) for job_id, files in found.items()}


_OF_JOBS = Prepared(sa.select(_files).where(_files.c.job_id.in_(values("ids"))).order_by(_files.c.file_id))


def load_jobs(connection: Connection, job_ids: Iterable[int], *, lock: bool = False) -> list[JobWithFiles]:
    """Load jobs together with their files, by id."""
    loaded = jobs.load(connection, job_ids, lock=lock)
    files = of_jobs(connection, loaded)
    return [JobWithFiles(job=job, files=files.get(job_id, ())) for job_id, job in loaded.items()]


def set_status(connection: Connection, file_ids: Sequence[int], status: FileStatus, **columns: Any) -> None:
    """Set the status, and other columns, of files."""
    set_columns(connection, file_ids, status=status.value, **columns)


def set_columns(connection: Connection, file_ids: Sequence[int], **columns: Any) -> None:
    """Give columns of files the same values."""
    given = {f"new_{name}": value for name, value in columns.items()}
    for part in jobs.in_parts(sorted(file_ids)):
        _update_of(tuple(sorted(columns))).run(connection, ids=part, **given)


@cache
def _update_of(names: tuple[str, ...]) -> Prepared:
    given = {name: sa.bindparam(f"new_{name}", type_=_files.c[name].type) for name in names}
    return Prepared(sa.update(_files).where(_files.c.file_id.in_(values("ids"))).values(given))


def copy(connection: Connection, patterns: Sequence[File]) -> None:
    """Write further files of accepted jobs, as the patterns say, under ids of their own."""
    if patterns:
        connection.execute(sa.insert(_files), [_copied_row(file) for file in patterns])


def _copied_row(file: File) -> dict[str, Any]:
    row = _row(file)
    del row["file_id"]
    return row


def _row(file: File) -> dict[str, Any]:
    return vars(file) | {"type": file.type.value, "status": file.status.value}


def save(connection: Connection, changed: Sequence[File]) -> None:
    """Write what has become known of files of locked jobs, each for itself: all of File that may change."""
    for part in jobs.in_parts(sorted(changed, key=lambda file: file.file_id)):
        _SAVE.many(connection, [_row(file) for file in part])


_MAY_CHANGE = ("status", "guid", "size_bytes", "checksum", "block", "endpoint")
# The rows are there: an "insert" of many is how MariaDB changes many rows, each in its own way, with one statement.
_SAVE = Upsert(_files, lambda new: {name: new[name] for name in _MAY_CHANGE})


def jobs_with_blocks(connection: Connection, blocks: Collection[str], status: FileStatus) -> list[int]:
    """Find the jobs that have files of a status in one of these dispatch or _sub datasets."""
    rows = _WITH_BLOCKS.rows(connection, blocks=sorted(blocks), status=status.value)
    return sorted({row[0] for row in rows})


_WITH_BLOCKS = Prepared(
    sa.select(_files.c.job_id)
    .distinct()
    .where(_files.c.block.in_(values("blocks")), _files.c.status == sa.bindparam("status"))
)


def undecided_blocks(connection: Connection, blocks: Collection[str]) -> set[str]:
    """Tell which of these _sub datasets have files of which nobody knows yet whether they will be."""
    open_ = [FileStatus.UNKNOWN.value, FileStatus.TRANSFERRING.value]
    return {row[0] for row in _UNDECIDED.rows(connection, blocks=sorted(blocks), open=open_)}


_UNDECIDED = Prepared(
    sa.select(_files.c.block)
    .distinct()
    .where(_files.c.block.in_(values("blocks")), _files.c.status.in_(values("open")))
)


def waiting_for(connection: Connection, names: Collection[tuple[str, str]]) -> list[int]:
    """Find the waiting jobs that miss one of these (scope, lfn)."""
    if not _ANY_WAITING.rows(connection):  # most often; it costs far less than to look for all the names
        return []
    wanted, lfns = set(names), sorted({lfn for _, lfn in names})
    rows = [row for part in jobs.in_parts(lfns) for row in _WAITING_FOR.rows(connection, lfns=part)]
    return sorted({job_id for job_id, scope, lfn in rows if (scope, lfn) in wanted})


_jobs = schema.jobs
_ANY_WAITING = Prepared(sa.select(_jobs.c.job_id).where(_jobs.c.state == JobState.WAITING.value).limit(1))
_WAITING_FOR = Prepared(
    sa.select(_files.c.job_id, _files.c.scope, _files.c.lfn)
    .join(_jobs, _jobs.c.job_id == _files.c.job_id)
    .where(
        _files.c.lfn.in_(values("lfns")),
        _files.c.type == FileType.INPUT.value,
        _files.c.status == FileStatus.MISSING.value,
        _jobs.c.state == JobState.WAITING.value,
    )
)


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


_COLUMNS = tuple(column.name for column in _files.c)


def file_of(row: Sequence[Any]) -> File:
    """Make a file of a row that has all columns of the table, in their order."""
    told = dict(zip(_COLUMNS, row, strict=True))
    return File(**(told | {"type": FileType(told["type"]), "status": FileStatus(told["status"])}))
