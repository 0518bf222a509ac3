"""Transfers go by links, with their own tries; containers, deletions, quotas and what links carried."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from pandaserver.taskbuffer import schema

revision = "0004"
down_revision = "0003"
phase = "pre"


def upgrade() -> None:
    """Bring the schema one step forward."""
    with op.batch_alter_table("ddm_transfers", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("lane", sa.String(length=255), nullable=True, comment="of the link, where it is being copied")
        )
        batch_op.add_column(sa.Column("tries", sa.Integer(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("first_tried_at", schema.UTC6(), nullable=True))
        batch_op.add_column(sa.Column("due_at", schema.UTC6(), nullable=True, comment="not to be copied before"))
        batch_op.create_index("ix_transfers_link", ["state", "source", "destination", "due_at"], unique=False)
        batch_op.create_index("ix_transfers_copy", ["destination", "scope", "lfn"], unique=False)
        batch_op.create_index("ix_transfers_lane", ["lane"], unique=False)
    with op.batch_alter_table("endpoints", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("quota_gb", sa.Double(), server_default="0", nullable=False, comment="0: no limit")
        )
    op.create_table(
        "links",
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("at_once", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("source", "destination", name=op.f("pk_links")),
        comment="how links between endpoints may be used, as configured; * stands for any endpoint",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "ddm_containers",
        sa.Column("container", sa.String(length=255), nullable=False),
        sa.Column("dataset", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset"], ["ddm_datasets.name"], name=op.f("fk_ddm_containers_dataset"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("container", "dataset", name=op.f("pk_ddm_containers")),
        comment="built-in DDM: which datasets are in which container",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("ddm_containers", schema=None) as batch_op:
        batch_op.create_index("ix_containers_dataset", ["dataset"], unique=False)
    _deletions()
    _link_hours()


def _deletions() -> None:
    op.create_table(
        "ddm_deletions",
        sa.Column("scope", sa.String(length=64), nullable=False),
        sa.Column("lfn", sa.String(length=255), nullable=False),
        sa.Column("endpoint", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("begun", sa.Boolean(), server_default=sa.text("0"), nullable=False, comment="may be gone already"),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("message", sa.String(length=500), nullable=True),
        sa.Column("created_at", schema.UTC6(), nullable=False),
        sa.Column("due_at", schema.UTC6(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "lfn", "endpoint", name=op.f("pk_ddm_deletions")),
        comment="built-in DDM: copies of files that are in no dataset any more, to be removed from storage",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("ddm_deletions", schema=None) as batch_op:
        batch_op.create_index("ix_deletions_due", ["endpoint", "due_at"], unique=False)


def _link_hours() -> None:
    op.create_table(
        "ddm_link_hours",
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("hour", schema.UTC6(), nullable=False),
        sa.Column("files", sa.Integer(), server_default="0", nullable=False),
        sa.Column("bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("seconds", sa.Double(), server_default="0", nullable=False, comment="of copying, all lanes together"),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("source", "destination", "hour", name=op.f("pk_ddm_link_hours")),
        comment="built-in DDM: what links carried, by the hour",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("ddm_link_hours", schema=None) as batch_op:
        batch_op.create_index("ix_link_hours_hour", ["hour"], unique=False)
