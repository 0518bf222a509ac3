"""The two places where jobs are, living ones and archived ones, for those who look through both at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.archive import month_of
from pandaserver.taskbuffer.schema_archive import MONTH


@dataclass(frozen=True)
class Shelf:
    """Tables that have the same columns on each shelf, and in the archive the month."""

    jobs: sa.Table
    files: sa.Table
    errors: sa.Table
    attempts: sa.Table

    def since(self, table: sa.Table, moment: datetime | None) -> list[sa.ColumnElement[bool]]:
        """Keep to the months of jobs that ended since a moment: the database leaves the others untouched."""
        return [table.c[MONTH] >= month_of(moment)] if moment is not None and MONTH in table.c else []

    def same_job(self, one: sa.FromClause, other: sa.FromClause) -> sa.ColumnElement[bool]:
        """Join two of the tables; by the month too, which spares looking into every one."""
        same = one.c.job_id == other.c.job_id
        return sa.and_(same, one.c[MONTH] == other.c[MONTH]) if MONTH in one.c else same


LIVING = Shelf(schema.jobs, schema.files, schema.job_errors, schema.attempts)
ARCHIVE = Shelf(*(schema.archived[name] for name in ("jobs", "files", "job_errors", "attempts")))


def shelves(*, archive: bool = True) -> list[Shelf]:
    """Give the shelves to look through."""
    return [LIVING, ARCHIVE] if archive else [LIVING]


def together(parts: Sequence[sa.Select[Any]]) -> sa.CompoundSelect[Any]:
    """Put what is found on the shelves into one; each part keeps its own order and limit."""
    return sa.union_all(*(sa.select(part.subquery()) for part in parts))
