"""Tables of the archive."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from pandaserver.taskbuffer import schema

revision = "0002"
down_revision = "0001"
phase = "pre"


def upgrade() -> None:
    """Bring the schema one step forward."""
    op.create_table(
        "archived_attempts",
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("queue", sa.String(length=64), nullable=False),
        sa.Column("lane_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("pilot", sa.String(length=255), server_default="", nullable=False),
        sa.Column("node", sa.String(length=255), server_default="", nullable=False),
        sa.Column("computing_element", sa.String(length=255), server_default="", nullable=False),
        sa.Column("pilot_id", sa.String(length=255), server_default="", nullable=False),
        sa.Column("scheduler_id", sa.String(length=255), server_default="", nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=True),
        sa.Column("claimed_at", schema.UTC6(), nullable=False),
        sa.Column("lease_until", schema.UTC6(), nullable=False),
        sa.Column("ended_at", schema.UTC6(), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("exit_code", sa.String(length=64), nullable=True),
        sa.Column("cpu_time_s", sa.Double(), nullable=True),
        sa.Column("max_rss_kb", sa.BigInteger(), nullable=True),
        sa.Column("timing", sa.String(length=64), nullable=True),
        sa.Column("usage", sa.JSON(), nullable=False),
        sa.Column("report", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("job_id", "number", "month", name=op.f("pk_archived_attempts")),
        comment="as attempts, of jobs that ended long ago",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
        mysql_partition_by="RANGE COLUMNS (`month`) (PARTITION pmax VALUES LESS THAN (MAXVALUE))",
    )
    with op.batch_alter_table("archived_attempts", schema=None) as batch_op:
        batch_op.create_index("ix_archived_attempts_ended", ["ended_at"], unique=False)

    op.create_table(
        "archived_brokerage_reasons",
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column(
            "reason_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("at", schema.UTC6(), nullable=False),
        sa.Column("site", sa.String(length=64), nullable=False),
        sa.Column("verdict", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.String(length=500), server_default="", nullable=False),
        sa.Column("weight", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("job_id", "reason_id", "month", name=op.f("pk_archived_brokerage_reasons")),
        comment="as brokerage_reasons, of jobs that ended long ago",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
        mysql_partition_by="RANGE COLUMNS (`month`) (PARTITION pmax VALUES LESS THAN (MAXVALUE))",
    )
    op.create_table(
        "archived_files",
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("file_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("lfn", sa.String(length=255), nullable=False),
        sa.Column("scope", sa.String(length=64), nullable=False),
        sa.Column("guid", sa.String(length=64), nullable=True),
        sa.Column("dataset", sa.String(length=255), server_default="", nullable=False),
        sa.Column("block", sa.String(length=255), nullable=True),
        sa.Column("destination", sa.String(length=64), nullable=True),
        sa.Column("endpoint", sa.String(length=64), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("checksum", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("job_id", "file_id", "month", name=op.f("pk_archived_files")),
        comment="as files, of jobs that ended long ago",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
        mysql_partition_by="RANGE COLUMNS (`month`) (PARTITION pmax VALUES LESS THAN (MAXVALUE))",
    )
    with op.batch_alter_table("archived_files", schema=None) as batch_op:
        batch_op.create_index("ix_archived_files_block", ["block"], unique=False)
        batch_op.create_index("ix_archived_files_dataset", ["dataset"], unique=False)
        batch_op.create_index("ix_archived_files_lfn", ["lfn"], unique=False)

    op.create_table(
        "archived_job_details",
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column(
            "parameters",
            sa.Text().with_variant(mysql.MEDIUMTEXT(), "mariadb").with_variant(mysql.MEDIUMTEXT(), "mysql"),
            nullable=False,
        ),
        sa.Column(
            "metadata",
            sa.Text().with_variant(mysql.MEDIUMTEXT(), "mariadb").with_variant(mysql.MEDIUMTEXT(), "mysql"),
            nullable=True,
        ),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("log_extract", sa.Text(), nullable=True),
        sa.Column("stdout_tail", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("job_id", "month", name=op.f("pk_archived_job_details")),
        comment="as job_details, of jobs that ended long ago",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
        mysql_partition_by="RANGE COLUMNS (`month`) (PARTITION pmax VALUES LESS THAN (MAXVALUE))",
    )
    op.create_table(
        "archived_job_errors",
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column(
            "error_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("family", sa.String(length=64), nullable=False),
        sa.Column("code", sa.Integer(), nullable=False),
        sa.Column("diagnostic", sa.String(length=500), server_default="", nullable=False),
        sa.Column("at", schema.UTC6(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "error_id", "month", name=op.f("pk_archived_job_errors")),
        comment="as job_errors, of jobs that ended long ago",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
        mysql_partition_by="RANGE COLUMNS (`month`) (PARTITION pmax VALUES LESS THAN (MAXVALUE))",
    )
    with op.batch_alter_table("archived_job_errors", schema=None) as batch_op:
        batch_op.create_index("ix_archived_job_errors_at", ["at"], unique=False)

    op.create_table(
        "archived_job_history",
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column(
            "history_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("at", schema.UTC6(), nullable=False),
        sa.Column("from_state", sa.String(length=16), nullable=True),
        sa.Column("to_state", sa.String(length=16), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("reason", sa.String(length=500), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("job_id", "history_id", "month", name=op.f("pk_archived_job_history")),
        comment="as job_history, of jobs that ended long ago",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
        mysql_partition_by="RANGE COLUMNS (`month`) (PARTITION pmax VALUES LESS THAN (MAXVALUE))",
    )
    op.create_table(
        "archived_jobs",
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("owner_name", sa.String(length=255), server_default="", nullable=False),
        sa.Column("name", sa.String(length=255), server_default="", nullable=False),
        sa.Column("label", sa.String(length=64), server_default="", nullable=False),
        sa.Column("processing_type", sa.String(length=64), server_default="", nullable=False),
        sa.Column("transformation", sa.String(length=1024), server_default="", nullable=False),
        sa.Column(
            "definition_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), server_default="0", nullable=False
        ),
        sa.Column(
            "jobset_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), server_default="0", nullable=False
        ),
        sa.Column("task_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), server_default="0", nullable=False),
        sa.Column(
            "parent_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), server_default="0", nullable=False
        ),
        sa.Column("vo", sa.String(length=64), server_default="", nullable=False),
        sa.Column("working_group", sa.String(length=255), server_default="", nullable=False),
        sa.Column("assigned_priority", sa.Integer(), server_default="0", nullable=False),
        sa.Column("priority", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failed_attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("max_attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("site", sa.String(length=64), nullable=True),
        sa.Column("pinned", sa.Boolean(), server_default=sa.text("0"), nullable=False),
        sa.Column("cloud", sa.String(length=64), server_default="", nullable=False),
        sa.Column("release", sa.String(length=255), server_default="", nullable=False),
        sa.Column("platform", sa.String(length=64), server_default="", nullable=False),
        sa.Column("input_dataset", sa.String(length=255), server_default="", nullable=False),
        sa.Column("dispatch_dataset", sa.String(length=255), nullable=True),
        sa.Column("output_dataset", sa.String(length=255), server_default="", nullable=False),
        sa.Column("destination", sa.String(length=64), server_default="", nullable=False),
        sa.Column("cores", sa.Integer(), server_default="0", nullable=False),
        sa.Column("memory_mb", sa.Integer(), server_default="0", nullable=False),
        sa.Column("disk_mb", sa.Integer(), server_default="0", nullable=False),
        sa.Column("cpu_time_s", sa.Integer(), server_default="0", nullable=False),
        sa.Column("wall_time_s", sa.Integer(), server_default="0", nullable=False),
        sa.Column("command", sa.String(length=64), nullable=True),
        sa.Column("created_at", schema.UTC6(), nullable=False),
        sa.Column("state_since", schema.UTC6(), nullable=False),
        sa.Column("modified_at", schema.UTC6(), nullable=False),
        sa.Column("started_at", schema.UTC6(), nullable=True),
        sa.Column("ended_at", schema.UTC6(), nullable=True),
        sa.PrimaryKeyConstraint("job_id", "month", name=op.f("pk_archived_jobs")),
        comment="as jobs, of jobs that ended long ago",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
        mysql_partition_by="RANGE COLUMNS (`month`) (PARTITION pmax VALUES LESS THAN (MAXVALUE))",
    )
    with op.batch_alter_table("archived_jobs", schema=None) as batch_op:
        batch_op.create_index("ix_archived_jobs_input", ["input_dataset"], unique=False)
        batch_op.create_index("ix_archived_jobs_output", ["output_dataset"], unique=False)
        batch_op.create_index("ix_archived_jobs_owner", ["owner", "state_since"], unique=False)
        batch_op.create_index("ix_archived_jobs_since", ["state_since"], unique=False)
        batch_op.create_index("ix_archived_jobs_site", ["site", "state_since"], unique=False)
        batch_op.create_index("ix_archived_jobs_task", ["task_id"], unique=False)

    op.create_table(
        "archived_retry_decisions",
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column(
            "decision_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("queue", sa.String(length=64), server_default="", nullable=False),
        sa.Column("rule", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("passive", sa.Boolean(), nullable=False),
        sa.Column("done", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(length=500), server_default="", nullable=False),
        sa.Column("at", schema.UTC6(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "decision_id", "month", name=op.f("pk_archived_retry_decisions")),
        comment="as retry_decisions, of jobs that ended long ago",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
        mysql_partition_by="RANGE COLUMNS (`month`) (PARTITION pmax VALUES LESS THAN (MAXVALUE))",
    )
    op.create_table(
        "schema_floor",
        sa.Column("revision", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_schema_floor")),
        comment="servers that do not know this revision may not work here any more; empty: all may",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
