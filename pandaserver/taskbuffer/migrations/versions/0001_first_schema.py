"""First schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from pandaserver.taskbuffer import schema

revision = "0001"
down_revision = None
phase = "pre"


def upgrade() -> None:
    """Bring the schema one step forward."""
    op.create_table(
        "counters",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("value", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counters")),
        comment="serial numbers that are not row ids",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "cpu_usage",
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("hour", schema.UTC6(), nullable=False),
        sa.Column("cpu_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "hour", name=op.f("pk_cpu_usage")),
        comment="CPU time of a user's analysis, by the hour in which the attempts ended: what the daily quota is about",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("cpu_usage", schema=None) as batch_op:
        batch_op.create_index("ix_cpu_usage_hour", ["hour"], unique=False)

    op.create_table(
        "datasets",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("vo", sa.String(length=64), server_default="", nullable=False),
        sa.Column("parent", sa.String(length=255), nullable=True),
        sa.Column("endpoint", sa.String(length=64), nullable=True),
        sa.Column("created_at", schema.UTC6(), nullable=False),
        sa.Column("modified_at", schema.UTC6(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_datasets")),
        comment="datasets the server works with; what is in them stands in the DDM's catalogue",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("datasets", schema=None) as batch_op:
        batch_op.create_index("ix_datasets_parent", ["parent"], unique=False)
        batch_op.create_index("ix_datasets_status", ["type", "status"], unique=False)

    op.create_table(
        "ddm_datasets",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("frozen", sa.Boolean(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", schema.UTC6(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_ddm_datasets")),
        comment="built-in DDM: datasets",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "ddm_files",
        sa.Column("scope", sa.String(length=64), nullable=False),
        sa.Column("lfn", sa.String(length=255), nullable=False),
        sa.Column("guid", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("adler32", sa.String(length=8), nullable=False),
        sa.Column("created_at", schema.UTC6(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "lfn", name=op.f("pk_ddm_files")),
        comment="built-in DDM: files and what their bytes must be",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "ddm_replicas",
        sa.Column("scope", sa.String(length=64), nullable=False),
        sa.Column("lfn", sa.String(length=255), nullable=False),
        sa.Column("endpoint", sa.String(length=64), nullable=False),
        sa.Column("created_at", schema.UTC6(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "lfn", "endpoint", name=op.f("pk_ddm_replicas")),
        comment="built-in DDM: where good copies are",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("ddm_replicas", schema=None) as batch_op:
        batch_op.create_index("ix_replicas_endpoint", ["endpoint"], unique=False)

    op.create_table(
        "ddm_transfers",
        sa.Column(
            "transfer_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("dataset", sa.String(length=255), nullable=False),
        sa.Column("scope", sa.String(length=64), nullable=False),
        sa.Column("lfn", sa.String(length=255), nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False, comment="queued, done, failed"),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("message", sa.String(length=500), nullable=True),
        sa.Column("created_at", schema.UTC6(), nullable=False),
        sa.Column("ended_at", schema.UTC6(), nullable=True),
        sa.PrimaryKeyConstraint("transfer_id", name=op.f("pk_ddm_transfers")),
        comment="built-in DDM: copies to be made and made",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("ddm_transfers", schema=None) as batch_op:
        batch_op.create_index("ix_transfers_state", ["state", "created_at"], unique=False)
        batch_op.create_index("uq_transfers_file", ["dataset", "scope", "lfn", "destination"], unique=True)

    op.create_table(
        "duties",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=True),
        sa.Column("lease_until", schema.UTC6(), nullable=True),
        sa.Column("next_run_at", schema.UTC6(), nullable=False),
        sa.Column("last_run_at", schema.UTC6(), nullable=True),
        sa.Column("last_result", sa.String(length=500), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_duties")),
        comment="periodic duties; one process at a time holds the lease of each",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "endpoints",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("site", sa.String(length=64), nullable=False),
        sa.Column("url", sa.String(length=1024), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_endpoints")),
        comment="storage endpoints",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "jobs",
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False, comment="DN of the end entity"),
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
        sa.Column("command", sa.String(length=64), nullable=True, comment="told to the pilot with the next heartbeat"),
        sa.Column("created_at", schema.UTC6(), nullable=False),
        sa.Column("state_since", schema.UTC6(), nullable=False),
        sa.Column("modified_at", schema.UTC6(), nullable=False, comment="last word about the job, heartbeats included"),
        sa.Column("started_at", schema.UTC6(), nullable=True),
        sa.Column("ended_at", schema.UTC6(), nullable=True),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_jobs")),
        comment="every live job: what the server decides by; PandaID is job_id, jobStatus is state, computingSite is site",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.create_index("ix_jobs_definition", ["owner", "definition_id"], unique=False)
        batch_op.create_index("ix_jobs_dispatch", ["dispatch_dataset"], unique=False)
        batch_op.create_index("ix_jobs_modified", ["modified_at"], unique=False)
        batch_op.create_index("ix_jobs_owner_state", ["owner", "state"], unique=False)
        batch_op.create_index("ix_jobs_site_state", ["site", "state"], unique=False)
        batch_op.create_index("ix_jobs_state_since", ["state", "state_since"], unique=False)
        batch_op.create_index("ix_jobs_task", ["task_id"], unique=False)

    op.create_table(
        "lanes",
        sa.Column("lane_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("queue", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("label", sa.String(length=64), server_default="", nullable=False),
        sa.Column("vo", sa.String(length=64), server_default="", nullable=False),
        sa.Column("working_group", sa.String(length=255), server_default="", nullable=False),
        sa.Column("cores", sa.Integer(), server_default="0", nullable=False),
        sa.Column("memory_mb", sa.Integer(), server_default="0", nullable=False),
        sa.Column("disk_mb", sa.Integer(), server_default="0", nullable=False),
        sa.Column("wall_time_s", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", schema.UTC6(), nullable=False),
        sa.PrimaryKeyConstraint("lane_id", name=op.f("pk_lanes")),
        comment="lines of activated jobs of one queue that are alike to a pilot; memory, disk and wall time are lower bounds",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("lanes", schema=None) as batch_op:
        batch_op.create_index(
            "uq_lanes_all",
            ["queue", "owner", "label", "vo", "working_group", "cores", "memory_mb", "disk_mb", "wall_time_s"],
            unique=True,
        )

    op.create_table(
        "queue_activity",
        sa.Column("queue", sa.String(length=64), nullable=False),
        sa.Column("hour", schema.UTC6(), nullable=False),
        sa.Column("requests", sa.Integer(), server_default="0", nullable=False),
        sa.Column("jobs", sa.Integer(), server_default="0", nullable=False),
        sa.Column("updates", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_seen", schema.UTC6(), nullable=False),
        sa.PrimaryKeyConstraint("queue", "hour", name=op.f("pk_queue_activity")),
        comment="how often pilots asked and reported, by hour",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "queues",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("site", sa.String(length=64), nullable=False),
        sa.Column("cloud", sa.String(length=64), nullable=False),
        sa.Column("tier", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("endpoint", sa.String(length=64), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column(
            "activations",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            server_default="0",
            nullable=False,
            comment="jobs activated so far: news for pilots that wait",
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_queues")),
        comment="places that pilots serve, as configured",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "sandbox_files",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", schema.UTC6(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_sandbox_files")),
        comment="files in the cache directory",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "secrets",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_secrets")),
        comment="keys that all server processes share",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "submissions",
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("client_key", sa.String(length=64), nullable=False),
        sa.Column("answer", sa.JSON(), nullable=False),
        sa.Column("created_at", schema.UTC6(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "client_key", name=op.f("pk_submissions")),
        comment="answers already given, so that a repeated submission is not a second one",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "users",
        sa.Column("dn", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column(
            "status", sa.String(length=16), server_default="enabled", nullable=False, comment="enabled, disabled"
        ),
        sa.Column(
            "definitions",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
            comment="submissions so far; the last jobDefinitionID",
        ),
        sa.Column("first_seen", schema.UTC6(), nullable=False),
        sa.Column("last_seen", schema.UTC6(), nullable=False),
        sa.PrimaryKeyConstraint("dn", name=op.f("pk_users")),
        comment="who has submitted",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "work",
        sa.Column("work_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column(
            "version",
            sa.Integer(),
            server_default="1",
            nullable=False,
            comment="grows when the work is asked for again",
        ),
        sa.Column("due_at", schema.UTC6(), nullable=False),
        sa.Column(
            "again_at", schema.UTC6(), nullable=True, comment="asked for again while held: when it shall run once more"
        ),
        sa.Column("owner", sa.String(length=255), nullable=True),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("first_tried_at", schema.UTC6(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("created_at", schema.UTC6(), nullable=False),
        sa.PrimaryKeyConstraint("work_id", name=op.f("pk_work")),
        comment="what background threads have to do; a row may be taken at due_at, and is leased until due_at while held",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("work", schema=None) as batch_op:
        batch_op.create_index("ix_work_due", ["kind", "due_at"], unique=False)
        batch_op.create_index("uq_work_kind_key", ["kind", "key"], unique=True)

    op.create_table(
        "attempts",
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("queue", sa.String(length=64), nullable=False),
        sa.Column(
            "lane_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=True,
            comment="the lane that it was taken from: an open attempt counts for its share",
        ),
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
        sa.Column(
            "report", sa.JSON(), nullable=True, comment="the pilot's last word, until the adder has worked it off"
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name=op.f("fk_attempts_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("pk_attempts")),
        comment="one pilot's try at a job, under a lease",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("attempts", schema=None) as batch_op:
        batch_op.create_index("ix_attempts_lane", ["lane_id", "ended_at"], unique=False)
        batch_op.create_index("ix_attempts_lease", ["ended_at", "lease_until"], unique=False)
        batch_op.create_index("uq_attempts_request", ["pilot", "request_id"], unique=True)

    op.create_table(
        "brokerage_reasons",
        sa.Column(
            "reason_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", schema.UTC6(), nullable=False),
        sa.Column("site", sa.String(length=64), nullable=False),
        sa.Column("verdict", sa.String(length=64), nullable=False, comment="chosen, possible, rejected"),
        sa.Column("reason", sa.String(length=500), server_default="", nullable=False),
        sa.Column("weight", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.job_id"], name=op.f("fk_brokerage_reasons_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("reason_id", name=op.f("pk_brokerage_reasons")),
        comment="why a job went to a site and not to the others",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("brokerage_reasons", schema=None) as batch_op:
        batch_op.create_index("ix_reasons_job", ["job_id", "reason_id"], unique=False)

    op.create_table(
        "ddm_contents",
        sa.Column("dataset", sa.String(length=255), nullable=False),
        sa.Column("scope", sa.String(length=64), nullable=False),
        sa.Column("lfn", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset"], ["ddm_datasets.name"], name=op.f("fk_ddm_contents_dataset"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("dataset", "scope", "lfn", name=op.f("pk_ddm_contents")),
        comment="built-in DDM: which files are in which dataset",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("ddm_contents", schema=None) as batch_op:
        batch_op.create_index("ix_contents_file", ["scope", "lfn"], unique=False)

    op.create_table(
        "ddm_subscriptions",
        sa.Column("dataset", sa.String(length=255), nullable=False),
        sa.Column("endpoint", sa.String(length=64), nullable=False),
        sa.Column("created_at", schema.UTC6(), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset"], ["ddm_datasets.name"], name=op.f("fk_ddm_subscriptions_dataset"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("dataset", "endpoint", name=op.f("pk_ddm_subscriptions")),
        comment="built-in DDM: datasets that shall be complete at an endpoint",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "files",
        sa.Column("file_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("lfn", sa.String(length=255), nullable=False),
        sa.Column("scope", sa.String(length=64), nullable=False),
        sa.Column("guid", sa.String(length=64), nullable=True),
        sa.Column("dataset", sa.String(length=255), server_default="", nullable=False),
        sa.Column("block", sa.String(length=255), nullable=True),
        sa.Column("destination", sa.String(length=64), nullable=True, comment="where the user wants an output"),
        sa.Column("endpoint", sa.String(length=64), nullable=True, comment="where that is, since the job has a site"),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("checksum", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name=op.f("fk_files_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("file_id", name=op.f("pk_files")),
        comment="one row for each file of a job; prodDBlock/destinationDBlock is dataset, dispatchDBlock or _sub is block",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("files", schema=None) as batch_op:
        batch_op.create_index("ix_files_block", ["block", "status"], unique=False)
        batch_op.create_index("ix_files_dataset", ["dataset"], unique=False)
        batch_op.create_index("ix_files_job", ["job_id"], unique=False)
        batch_op.create_index("ix_files_lfn", ["lfn", "scope"], unique=False)

    op.create_table(
        "job_details",
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
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
        sa.Column("attributes", sa.JSON(), nullable=False, comment="wire attributes the server keeps and does not use"),
        sa.Column("log_extract", sa.Text(), nullable=True),
        sa.Column("stdout_tail", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name=op.f("fk_job_details_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_job_details")),
        comment="long texts of a job, read only when a person or the pilot needs them",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "job_errors",
        sa.Column("error_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("family", sa.String(length=64), nullable=False),
        sa.Column("code", sa.Integer(), nullable=False),
        sa.Column("diagnostic", sa.String(length=500), server_default="", nullable=False),
        sa.Column("at", schema.UTC6(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name=op.f("fk_job_errors_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("error_id", name=op.f("pk_job_errors")),
        comment="what went wrong, by owner; pilotErrorCode/Diag and so on",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("job_errors", schema=None) as batch_op:
        batch_op.create_index("ix_errors_code", ["at", "family", "code"], unique=False)
        batch_op.create_index("ix_errors_job", ["job_id"], unique=False)

    op.create_table(
        "job_history",
        sa.Column(
            "history_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", schema.UTC6(), nullable=False),
        sa.Column("from_state", sa.String(length=16), nullable=True),
        sa.Column("to_state", sa.String(length=16), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("reason", sa.String(length=500), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name=op.f("fk_job_history_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("history_id", name=op.f("pk_job_history")),
        comment="every change of state, written in the transaction that made it",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("job_history", schema=None) as batch_op:
        batch_op.create_index("ix_history_at", ["at", "to_state"], unique=False)
        batch_op.create_index("ix_history_job", ["job_id", "history_id"], unique=False)

    op.create_table(
        "ready",
        sa.Column("lane_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("rank", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("memory_mb", sa.Integer(), nullable=False),
        sa.Column("disk_mb", sa.Integer(), nullable=False),
        sa.Column("wall_time_s", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name=op.f("fk_ready_job_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["lane_id"], ["lanes.lane_id"], name=op.f("fk_ready_lane_id")),
        sa.PrimaryKeyConstraint("lane_id", "rank", "job_id", name=op.f("pk_ready")),
        comment="activated jobs in the order of their dispatch; rank is the negated priority, so that the key itself is the order",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("ready", schema=None) as batch_op:
        batch_op.create_index("ix_ready_job", ["job_id"], unique=False)

    op.create_table(
        "retry_decisions",
        sa.Column(
            "decision_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("queue", sa.String(length=64), server_default="", nullable=False),
        sa.Column("rule", sa.String(length=64), nullable=False),
        sa.Column(
            "action",
            sa.String(length=16),
            nullable=False,
            comment="retry, elsewhere, more_memory, more_wall_time, no_retry",
        ),
        sa.Column("passive", sa.Boolean(), nullable=False),
        sa.Column("done", sa.Boolean(), nullable=False, comment="another attempt follows by this rule"),
        sa.Column("reason", sa.String(length=500), server_default="", nullable=False),
        sa.Column("at", schema.UTC6(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.job_id"], name=op.f("fk_retry_decisions_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("decision_id", name=op.f("pk_retry_decisions")),
        comment="what the retry rules said of each failed attempt; a job done `elsewhere` avoids the queue",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("retry_decisions", schema=None) as batch_op:
        batch_op.create_index("ix_decisions_job", ["job_id", "decision_id"], unique=False)
