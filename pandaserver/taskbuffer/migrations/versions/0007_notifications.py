"""Users are told once of each set of their jobs that is complete."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from pandaserver.taskbuffer import schema

revision = "0007"
down_revision = "0006"
phase = "pre"


def upgrade() -> None:
    """Bring the schema one step forward."""
    op.create_table(
        "notifications",
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("jobset_id", schema.Id, nullable=False),
        sa.Column("completed_at", schema.UTC6(), nullable=False),
        sa.Column("told_at", schema.UTC6(), nullable=True),
        sa.Column("address", sa.String(length=255), nullable=True, comment="nobody was told where it is empty"),
        sa.PrimaryKeyConstraint("owner", "jobset_id", name=op.f("pk_notifications")),
        comment="sets of analysis jobs that are complete, and of which their users were told",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
