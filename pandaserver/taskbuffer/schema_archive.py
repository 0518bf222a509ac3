"""The tables of the archive, each made like the table of living jobs whose rows it takes over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

PREFIX = "archived_"
MONTH = "month"  # the first day of the month in which the job ended
LAST_PARTITION = "pmax"
_BY_MONTH = f"RANGE COLUMNS (`{MONTH}`) (PARTITION {LAST_PARTITION} VALUES LESS THAN (MAXVALUE))"

# Table -> the key, which begins with the job so that all of a job lies together, and further columns to search by.
# On MariaDB every unique key has to have the month in it, for the tables are partitioned by month.
_SHAPES: dict[str, tuple[Sequence[str], dict[str, Sequence[str]]]] = {
    "jobs": (
        ("job_id",),
        {
            "since": ("state_since",),
            "owner": ("owner", "state_since"),
            "site": ("site", "state_since"),
            "task": ("task_id",),
            "input": ("input_dataset",),
            "output": ("output_dataset",),
        },
    ),
    "job_details": (("job_id",), {}),
    "job_history": (("job_id", "history_id"), {}),
    "job_errors": (("job_id", "error_id"), {"at": ("at",)}),
    "retry_decisions": (("job_id", "decision_id"), {}),
    "brokerage_reasons": (("job_id", "reason_id"), {}),
    "brokerage_rounds": (("job_id", "round_id"), {}),
    "files": (("job_id", "file_id"), {"lfn": ("lfn",), "dataset": ("dataset",), "block": ("block",)}),
    "attempts": (("job_id", "number"), {"ended": ("ended_at",)}),
}


def mirrors(metadata: sa.MetaData) -> dict[str, sa.Table]:
    """Add the tables of the archive to those of the living jobs; give them by the names of these."""
    return {name: _mirror(metadata.tables[name], *shape) for name, shape in _SHAPES.items()}


def _mirror(live: sa.Table, key: Sequence[str], indexes: dict[str, Sequence[str]]) -> sa.Table:
    name = f"{PREFIX}{live.name}"
    month = sa.Column(MONTH, sa.Date, primary_key=True, nullable=False)
    copied = {c.name: _column(c, in_key=c.name in key) for c in live.columns}
    in_order = [*(copied.pop(part) for part in key), month, *copied.values()]
    return sa.Table(
        name,
        live.metadata,
        *in_order,
        *(sa.Index(f"ix_{name}_{part}", *columns) for part, columns in indexes.items()),
        comment=f"as {live.name}, of jobs that ended long ago",
        mysql_partition_by=_BY_MONTH,
        **{option: value for option, value in live.kwargs.items() if option.startswith("mysql_")},
    )


def _column(live: sa.Column[Any], *, in_key: bool) -> sa.Column[Any]:
    default: Any = live.server_default.arg if isinstance(live.server_default, sa.DefaultClause) else None
    key: dict[str, Any] = {"primary_key": True, "autoincrement": False} if in_key else {}
    return sa.Column(live.name, live.type, nullable=live.nullable, server_default=default, **key)
