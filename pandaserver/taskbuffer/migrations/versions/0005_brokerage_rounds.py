"""One row for each round of the brokerage over a job, in place of one for each queue; sites that jobs name or exclude.

What was said of queues before stays in brokerage_reasons and is read from there.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from pandaserver.taskbuffer import schema

revision = "0005"
down_revision = "0004"
phase = "pre"

_OPTIONS: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mysql_engine": "InnoDB"}
_BY_MONTH = "RANGE COLUMNS (`month`) (PARTITION pmax VALUES LESS THAN (MAXVALUE))"


def _id() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _long_text() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


def upgrade() -> None:
    """Bring the schema one step forward."""
    for table in ("jobs", "archived_jobs"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.add_column(sa.Column("site_wishes", sa.String(length=255), server_default="", nullable=False))
    op.create_table(
        "brokerage_rounds",
        sa.Column("round_id", _id(), autoincrement=True, nullable=False),
        sa.Column("job_id", _id(), nullable=False),
        sa.Column("at", schema.UTC6(), nullable=False),
        sa.Column("queue", sa.String(length=64), nullable=True, comment="the chosen one"),
        sa.Column("verdicts", _long_text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.job_id"], name=op.f("fk_brokerage_rounds_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("round_id", name=op.f("pk_brokerage_rounds")),
        comment=(
            "what was said of all queues when a place for a job was looked for; taskbuffer/reasons.py knows the JSON"
        ),
        **_OPTIONS,
    )
    with op.batch_alter_table("brokerage_rounds", schema=None) as batch_op:
        batch_op.create_index("ix_rounds_job", ["job_id", "round_id"], unique=False)
    op.create_table(
        "archived_brokerage_rounds",
        sa.Column("job_id", _id(), autoincrement=False, nullable=False),
        sa.Column("round_id", _id(), autoincrement=False, nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("at", schema.UTC6(), nullable=False),
        sa.Column("queue", sa.String(length=64), nullable=True),
        sa.Column("verdicts", _long_text(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "round_id", "month", name=op.f("pk_archived_brokerage_rounds")),
        comment="as brokerage_rounds, of jobs that ended long ago",
        mysql_partition_by=_BY_MONTH,
        **_OPTIONS,
    )
