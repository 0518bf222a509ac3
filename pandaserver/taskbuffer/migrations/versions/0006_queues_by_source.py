"""Queues are described by several sources, and switched by operators."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from pandaserver.taskbuffer import schema

revision = "0006"
down_revision = "0005"
phase = "pre"

_TABLE: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mysql_engine": "InnoDB"}
_LONG = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Bring the schema one step forward."""
    with op.batch_alter_table("queues", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column(
                "configured", sa.String(length=16), server_default="", nullable=False,
                comment="status that its source says",
            )
        )  # fmt: skip
        batch_op.add_column(_source())
        batch_op.add_column(
            sa.Column("more", sa.JSON(), nullable=True, comment="of its description what servers of before do not know")
        )
        batch_op.add_column(_removed("its source does not name it any more"))
    with op.batch_alter_table("endpoints", schema=None) as batch_op:
        batch_op.add_column(_source())
        batch_op.add_column(_removed("its source does not name it any more; files lie there still"))
    _make_tables()


def _source() -> sa.Column[str]:
    return sa.Column(
        "source", sa.String(length=64), server_default="file", nullable=False, comment="who describes it: file, cric"
    )


def _removed(comment: str) -> sa.Column[Any]:
    return sa.Column("removed_at", schema.UTC6(), nullable=True, comment=comment)


def _make_tables() -> None:
    op.create_table(
        "queue_switches",
        sa.Column("queue", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("by", sa.String(length=255), nullable=False, comment="DN of the operator"),
        sa.Column("by_name", sa.String(length=255), nullable=False),
        sa.Column("at", schema.UTC6(), nullable=False),
        sa.Column("until", schema.UTC6(), nullable=True),
        sa.PrimaryKeyConstraint("queue", name=op.f("pk_queue_switches")),
        comment="what operators said of queues: it holds until it is cleared or over",
        **_TABLE,
    )
    op.create_table(
        "queue_history",
        sa.Column("history_id", _ID, autoincrement=True, nullable=False),
        sa.Column("queue", sa.String(length=64), nullable=False),
        sa.Column("at", schema.UTC6(), nullable=False),
        sa.Column(
            "action", sa.String(length=16), nullable=False, comment="set, cleared, over, added, changed, removed"
        ),
        sa.Column("from_status", sa.String(length=16), nullable=True),
        sa.Column("to_status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("by", sa.String(length=255), nullable=False, comment="DN of an operator, or the source: file, cric"),
        sa.Column("by_name", sa.String(length=255), nullable=False),
        sa.Column("until", schema.UTC6(), nullable=True),
        sa.PrimaryKeyConstraint("history_id", name=op.f("pk_queue_history")),
        comment="every change of a queue's status, and every word of an operator about it",
        **_TABLE,
    )
    with op.batch_alter_table("queue_history", schema=None) as batch_op:
        batch_op.create_index("ix_queue_history_queue", ["queue", "history_id"], unique=False)
    op.create_table(
        "grid_sources",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("place", sa.String(length=1024), nullable=False, comment="file or URL"),
        sa.Column("read_at", schema.UTC6(), nullable=True, comment="last time that it was good"),
        sa.Column("changed_at", schema.UTC6(), nullable=True),
        sa.Column("changes", _LONG, nullable=True, comment="what changed then"),
        sa.Column("problem", _LONG, nullable=True),
        sa.Column("problem_at", schema.UTC6(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_grid_sources")),
        comment="where queues and endpoints are described: what was read last, and what is wrong with it now",
        **_TABLE,
    )
