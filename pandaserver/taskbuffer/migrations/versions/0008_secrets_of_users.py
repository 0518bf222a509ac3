"""Secrets that users leave for their jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from pandaserver.taskbuffer import schema

revision = "0008"
down_revision = "0007"
phase = "pre"


def upgrade() -> None:
    """Bring the schema one step forward."""
    op.create_table(
        "user_secrets",
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("sealed", sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb"), nullable=False),
        sa.Column("modified_at", schema.UTC6(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "name", name=op.f("pk_user_secrets")),
        comment="what users leave for their jobs; sealed with keys that are not in the database",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
