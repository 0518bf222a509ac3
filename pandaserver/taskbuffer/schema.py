"""All tables, in one place. Changes go through migrations/; a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, ForeignKey, Index, Integer, String, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect

from pandaserver.taskbuffer import schema_archive

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UTC6(sa.types.TypeDecorator[datetime]):
    """A moment, UTC, microseconds; aware outside, naive in the database."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        """Keep microseconds on MariaDB too, which by default drops them."""
        return dialect.type_descriptor(mysql.DATETIME(fsp=6) if dialect.name in ("mysql", "mariadb") else sa.DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store UTC; a naive moment is a mistake of ours."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive time {value!r}: every time in PanDA is aware")
        return (value if value.tzinfo is UTC else value.astimezone(UTC)).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give back aware UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


Id = sa.BigInteger().with_variant(Integer, "sqlite")
LongText = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
Name = String(255)
Short = String(64)
State = String(16)


def _table(name: str, comment: str, *columns: sa.schema.SchemaItem, **options: Any) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        *columns,
        comment=comment,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        **options,
    )


def _text(name: str, kind: String = Name) -> Column[str]:
    return Column(name, kind, nullable=False, server_default="")


def _number(name: str, kind: Any = Integer) -> Column[int]:
    return Column(name, kind, nullable=False, server_default="0")


def _job_id() -> Column[int]:
    return Column("job_id", Id, ForeignKey("jobs.job_id", ondelete="CASCADE"), nullable=False)


# --- jobs

jobs = _table(
    "jobs",
    "every live job: what the server decides by; PandaID is job_id, jobStatus is state, computingSite is site",
    Column("job_id", Id, primary_key=True, autoincrement=True),
    Column("state", State, nullable=False),
    Column("owner", Name, nullable=False, comment="DN of the end entity"),
    _text("owner_name"),
    _text("name"),
    _text("label", Short),
    _text("processing_type", Short),
    _text("transformation", String(1024)),
    _number("definition_id", Id),
    _number("jobset_id", Id),
    _number("task_id", Id),
    _number("parent_id", Id),
    _text("vo", Short),
    _text("working_group"),
    _number("assigned_priority"),
    _number("priority"),
    _number("attempt"),
    _number("failed_attempts"),
    _number("max_attempt"),
    Column("site", Short),
    Column("pinned", sa.Boolean, nullable=False, server_default=sa.false()),
    _text("cloud", Short),
    _text("release"),
    _text("platform", Short),
    _text("input_dataset"),
    Column("dispatch_dataset", Name),
    _text("output_dataset"),
    _text("destination", Short),
    _number("cores"),
    _number("memory_mb"),
    _number("disk_mb"),
    _number("cpu_time_s"),
    _number("wall_time_s"),
    Column("command", Short, comment="told to the pilot with the next heartbeat"),
    Column("created_at", UTC6, nullable=False),
    Column("state_since", UTC6, nullable=False),
    Column("modified_at", UTC6, nullable=False, comment="last word about the job, heartbeats included"),
    Column("started_at", UTC6),
    Column("ended_at", UTC6),
    _text("site_wishes"),
    Index("ix_jobs_state_since", "state", "state_since"),
    Index("ix_jobs_site_state", "site", "state"),
    Index("ix_jobs_owner_state", "owner", "state"),
    Index("ix_jobs_task", "task_id"),
    Index("ix_jobs_dispatch", "dispatch_dataset"),
    Index("ix_jobs_modified", "modified_at"),
)

job_details = _table(
    "job_details",
    "long texts of a job, read only when a person or the pilot needs them",
    Column("job_id", Id, ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("parameters", LongText, nullable=False),
    Column("metadata", LongText),
    Column("attributes", sa.JSON, nullable=False, comment="wire attributes the server keeps and does not use"),
    Column("log_extract", Text),
    Column("stdout_tail", Text),
)

job_history = _table(
    "job_history",
    "every change of state, written in the transaction that made it",
    Column("history_id", Id, primary_key=True, autoincrement=True),
    _job_id(),
    Column("at", UTC6, nullable=False),
    Column("from_state", State),
    Column("to_state", State, nullable=False),
    _number("attempt"),
    _text("reason", String(500)),
    Index("ix_history_job", "job_id", "history_id"),
)

job_errors = _table(
    "job_errors",
    "what went wrong, by owner; pilotErrorCode/Diag and so on",
    Column("error_id", Id, primary_key=True, autoincrement=True),
    _job_id(),
    _number("attempt"),
    Column("family", Short, nullable=False),
    Column("code", Integer, nullable=False),
    _text("diagnostic", String(500)),
    Column("at", UTC6, nullable=False),
    Index("ix_errors_job", "job_id"),
    Index("ix_errors_code", "at", "family", "code"),
)

retry_decisions = _table(
    "retry_decisions",
    "what the retry rules said of each failed attempt; a job done `elsewhere` avoids the queue",
    Column("decision_id", Id, primary_key=True, autoincrement=True),
    _job_id(),
    Column("attempt", Integer, nullable=False),
    _text("queue", Short),
    Column("rule", Short, nullable=False),
    Column("action", State, nullable=False, comment="retry, elsewhere, more_memory, more_wall_time, no_retry"),
    Column("passive", sa.Boolean, nullable=False),
    Column("done", sa.Boolean, nullable=False, comment="another attempt follows by this rule"),
    _text("reason", String(500)),
    Column("at", UTC6, nullable=False),
    Index("ix_decisions_job", "job_id", "decision_id"),
)

# What servers wrote before there were brokerage_rounds; it is still read.
brokerage_reasons = _table(
    "brokerage_reasons",
    "why a job went to a site and not to the others",
    Column("reason_id", Id, primary_key=True, autoincrement=True),
    _job_id(),
    Column("at", UTC6, nullable=False),
    Column("site", Short, nullable=False),
    Column("verdict", Short, nullable=False, comment="chosen, possible, rejected"),
    _text("reason", String(500)),
    Column("weight", sa.Double),
    Index("ix_reasons_job", "job_id", "reason_id"),
)

brokerage_rounds = _table(
    "brokerage_rounds",
    "what was said of all queues when a place for a job was looked for; taskbuffer/reasons.py knows the JSON",
    Column("round_id", Id, primary_key=True, autoincrement=True),
    _job_id(),
    Column("at", UTC6, nullable=False),
    Column("queue", Short, comment="the chosen one"),
    Column("verdicts", LongText, nullable=False),
    Index("ix_rounds_job", "job_id", "round_id"),
)

files = _table(
    "files",
    "one row for each file of a job; prodDBlock/destinationDBlock is dataset, dispatchDBlock or _sub is block",
    Column("file_id", Id, primary_key=True, autoincrement=True),
    _job_id(),
    Column("type", State, nullable=False),
    Column("lfn", Name, nullable=False),
    Column("scope", Short, nullable=False),
    Column("guid", Short),
    _text("dataset"),
    Column("block", Name),
    Column("destination", Short, comment="where the user wants an output"),
    Column("endpoint", Short, comment="where that is, since the job has a site"),
    Column("status", State, nullable=False),
    Column("size_bytes", sa.BigInteger),
    Column("checksum", Short),
    Index("ix_files_job", "job_id"),
    Index("ix_files_lfn", "lfn", "scope"),
    Index("ix_files_block", "block", "status"),
    Index("ix_files_dataset", "dataset"),
)

attempts = _table(
    "attempts",
    "one pilot's try at a job, under a lease",
    Column("job_id", Id, ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("queue", Short, nullable=False),
    Column("lane_id", Id, comment="the lane that it was taken from: an open attempt counts for its share"),
    _text("pilot"),
    _text("node"),
    _text("computing_element"),
    _text("pilot_id"),
    _text("scheduler_id"),
    Column("request_id", Short),
    Column("claimed_at", UTC6, nullable=False),
    Column("lease_until", UTC6, nullable=False),
    Column("ended_at", UTC6),
    Column("outcome", State),
    Column("exit_code", Short),
    Column("cpu_time_s", sa.Double),
    Column("max_rss_kb", sa.BigInteger),
    Column("timing", Short),
    Column("usage", sa.JSON, nullable=False),
    Column("report", sa.JSON, comment="the pilot's last word, until the adder has worked it off"),
    Index("ix_attempts_lease", "ended_at", "lease_until"),
    Index("ix_attempts_lane", "lane_id", "ended_at"),
    Index("uq_attempts_request", "pilot", "request_id", unique=True),
)

lanes = _table(
    "lanes",
    "lines of activated jobs of one queue that are alike to a pilot; memory, disk and wall time are lower bounds",
    Column("lane_id", Id, primary_key=True, autoincrement=True),
    Column("queue", Short, nullable=False),
    Column("owner", Name, nullable=False),
    _text("label", Short),
    _text("vo", Short),
    _text("working_group"),
    _number("cores"),
    _number("memory_mb"),
    _number("disk_mb"),
    _number("wall_time_s"),
    Column("created_at", UTC6, nullable=False),
    Index(
        "uq_lanes_all", "queue", "owner", "label", "vo", "working_group", "cores", "memory_mb", "disk_mb",
        "wall_time_s", unique=True,
    ),
    sqlite_autoincrement=True,  # what a process remembers of a lane must never be true of another
)  # fmt: skip

ready = _table(
    "ready",
    "activated jobs in the order of their dispatch; rank is the negated priority, so that the key itself is the order",
    Column("lane_id", Id, ForeignKey("lanes.lane_id"), primary_key=True, autoincrement=False),
    Column("rank", Integer, primary_key=True, autoincrement=False),
    Column("job_id", Id, ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("memory_mb", Integer, nullable=False),
    Column("disk_mb", Integer, nullable=False),
    Column("wall_time_s", Integer, nullable=False),
    Index("ix_ready_job", "job_id"),
)

users = _table(
    "users",
    "who has submitted",
    Column("dn", Name, primary_key=True),
    Column("name", Name, nullable=False),
    Column("status", State, nullable=False, server_default="enabled", comment="enabled, disabled"),
    Column("definitions", Id, nullable=False, comment="submissions so far; the last jobDefinitionID"),
    Column("first_seen", UTC6, nullable=False),
    Column("last_seen", UTC6, nullable=False),
)

submissions = _table(
    "submissions",
    "answers already given, so that a repeated submission is not a second one",
    Column("owner", Name, primary_key=True),
    Column("client_key", Short, primary_key=True),
    Column("answer", sa.JSON, nullable=False),
    Column("created_at", UTC6, nullable=False),
)

counters = _table(
    "counters",
    "serial numbers that are not row ids",
    Column("name", Name, primary_key=True),
    Column("value", Id, nullable=False),
)

cpu_usage = _table(
    "cpu_usage",
    "CPU time of a user's analysis, by the hour in which the attempts ended: what the daily quota is about",
    Column("owner", Name, primary_key=True),
    Column("hour", UTC6, primary_key=True),
    Column("cpu_s", sa.Double, nullable=False),
    Index("ix_cpu_usage_hour", "hour"),
)

secrets = _table(
    "secrets",
    "keys that all server processes share",
    Column("name", Short, primary_key=True),
    Column("value", String(128), nullable=False),
)

notifications = _table(
    "notifications",
    "sets of analysis jobs that are complete, and of which their users were told",
    Column("owner", Name, primary_key=True),
    Column("jobset_id", Id, primary_key=True, autoincrement=False),
    Column("completed_at", UTC6, nullable=False),
    Column("told_at", UTC6),
    Column("address", Name, comment="nobody was told where it is empty"),
)

sandbox_files = _table(
    "sandbox_files",
    "files in the cache directory",
    Column("name", Name, primary_key=True),
    Column("owner", Name, nullable=False),
    Column("size_bytes", sa.BigInteger, nullable=False),
    Column("sha256", Short, nullable=False),
    Column("created_at", UTC6, nullable=False),
)

user_secrets = _table(
    "user_secrets",
    "what users leave for their jobs; sealed with keys that are not in the database",
    Column("owner", Name, primary_key=True),
    Column("name", Name, primary_key=True),
    Column("sealed", LongText, nullable=False),
    Column("modified_at", UTC6, nullable=False),
)

# --- the grid

queues = _table(
    "queues",
    "places that pilots serve, as configured",
    Column("name", Short, primary_key=True),
    Column("site", Short, nullable=False),
    Column("cloud", Short, nullable=False),
    Column("tier", Integer, nullable=False),
    Column("status", State, nullable=False),
    Column("endpoint", Short, nullable=False),
    Column("data", sa.JSON, nullable=False),
    Column(
        "activations",
        Id,
        nullable=False,
        server_default="0",
        comment="jobs activated so far: news for pilots that wait",
    ),
    Column("configured", State, nullable=False, server_default="", comment="status that its source says"),
    Column("source", Short, nullable=False, server_default="file", comment="who describes it: file, cric"),
    Column("more", sa.JSON, comment="of its description what servers of before do not know"),
    Column("removed_at", UTC6, comment="its source does not name it any more"),
)

queue_switches = _table(
    "queue_switches",
    "what operators said of queues: it holds until it is cleared or over",
    Column("queue", Short, primary_key=True),
    Column("status", State, nullable=False),
    Column("reason", String(500), nullable=False),
    Column("by", Name, nullable=False, comment="DN of the operator"),
    Column("by_name", Name, nullable=False),
    Column("at", UTC6, nullable=False),
    Column("until", UTC6),
)

queue_history = _table(
    "queue_history",
    "every change of a queue's status, and every word of an operator about it",
    Column("history_id", Id, primary_key=True, autoincrement=True),
    Column("queue", Short, nullable=False),
    Column("at", UTC6, nullable=False),
    Column("action", State, nullable=False, comment="set, cleared, over, added, changed, removed"),
    Column("from_status", State),
    Column("to_status", State, nullable=False),
    Column("reason", String(500), nullable=False),
    Column("by", Name, nullable=False, comment="DN of an operator, or the source: file, cric"),
    Column("by_name", Name, nullable=False),
    Column("until", UTC6),
    Index("ix_queue_history_queue", "queue", "history_id"),
)

grid_sources = _table(
    "grid_sources",
    "where queues and endpoints are described: what was read last, and what is wrong with it now",
    Column("name", Short, primary_key=True),
    Column("place", String(1024), nullable=False, comment="file or URL"),
    Column("read_at", UTC6, comment="last time that it was good"),
    Column("changed_at", UTC6),
    Column("changes", LongText, comment="what changed then"),
    Column("problem", LongText),
    Column("problem_at", UTC6),
)

endpoints = _table(
    "endpoints",
    "storage endpoints",
    Column("name", Short, primary_key=True),
    Column("site", Short, nullable=False),
    Column("url", String(1024), nullable=False),
    Column("quota_gb", sa.Double, nullable=False, server_default="0", comment="0: no limit"),
    Column("source", Short, nullable=False, server_default="file", comment="who describes it: file, cric"),
    Column("removed_at", UTC6, comment="its source does not name it any more; files lie there still"),
)

queue_activity = _table(
    "queue_activity",
    "how often pilots asked and reported, by hour",
    Column("queue", Short, primary_key=True),
    Column("hour", UTC6, primary_key=True),
    _number("requests"),
    _number("jobs"),
    _number("updates"),
    Column("last_seen", UTC6, nullable=False),
)

# --- background work

work = _table(
    "work",
    "what background threads have to do; a row may be taken at due_at, and is leased until due_at while held",
    Column("work_id", Id, primary_key=True, autoincrement=True),
    Column("kind", Short, nullable=False),
    Column("key", Name, nullable=False),
    Column("payload", sa.JSON, nullable=False),
    Column("version", Integer, nullable=False, server_default="1", comment="grows when the work is asked for again"),
    Column("due_at", UTC6, nullable=False),
    Column("again_at", UTC6, comment="asked for again while held: when it shall run once more"),
    Column("owner", Name),
    _number("tries"),
    Column("first_tried_at", UTC6),
    Column("last_error", Text),
    Column("created_at", UTC6, nullable=False),
    Index("ix_work_due", "kind", "due_at"),
    Index("uq_work_kind_key", "kind", "key", unique=True),
)

duties = _table(
    "duties",
    "periodic duties; one process at a time holds the lease of each",
    Column("name", Short, primary_key=True),
    Column("owner", Name),
    Column("lease_until", UTC6),
    Column("next_run_at", UTC6, nullable=False),
    Column("last_run_at", UTC6),
    Column("last_result", String(500)),
)

# --- datasets and the built-in catalogue

datasets = _table(
    "datasets",
    "datasets the server works with; what is in them stands in the DDM's catalogue",
    Column("name", Name, primary_key=True),
    Column("type", State, nullable=False),
    Column("status", State, nullable=False),
    _text("vo", Short),
    Column("parent", Name),
    Column("endpoint", Short),
    Column("created_at", UTC6, nullable=False),
    Column("modified_at", UTC6, nullable=False),
    Index("ix_datasets_parent", "parent"),
    Index("ix_datasets_status", "type", "status"),
)

ddm_datasets = _table(
    "ddm_datasets",
    "built-in DDM: datasets",
    Column("name", Name, primary_key=True),
    Column("frozen", sa.Boolean, nullable=False, server_default=sa.false()),
    Column("created_at", UTC6, nullable=False),
)

ddm_files = _table(
    "ddm_files",
    "built-in DDM: files and what their bytes must be",
    Column("scope", Short, primary_key=True),
    Column("lfn", Name, primary_key=True),
    Column("guid", Short, nullable=False),
    Column("size_bytes", sa.BigInteger, nullable=False),
    Column("adler32", String(8), nullable=False),
    Column("created_at", UTC6, nullable=False),
)

ddm_contents = _table(
    "ddm_contents",
    "built-in DDM: which files are in which dataset",
    Column("dataset", Name, ForeignKey("ddm_datasets.name", ondelete="CASCADE"), primary_key=True),
    Column("scope", Short, primary_key=True),
    Column("lfn", Name, primary_key=True),
    Index("ix_contents_file", "scope", "lfn"),
)

ddm_replicas = _table(
    "ddm_replicas",
    "built-in DDM: where good copies are",
    Column("scope", Short, primary_key=True),
    Column("lfn", Name, primary_key=True),
    Column("endpoint", Short, primary_key=True),
    Column("created_at", UTC6, nullable=False),
    Index("ix_replicas_endpoint", "endpoint"),
)

ddm_subscriptions = _table(
    "ddm_subscriptions",
    "built-in DDM: datasets that shall be complete at an endpoint",
    Column("dataset", Name, ForeignKey("ddm_datasets.name", ondelete="CASCADE"), primary_key=True),
    Column("endpoint", Short, primary_key=True),
    Column("created_at", UTC6, nullable=False),
)

ddm_transfers = _table(
    "ddm_transfers",
    "built-in DDM: copies to be made and made",
    Column("transfer_id", Id, primary_key=True, autoincrement=True),
    Column("dataset", Name, nullable=False),
    Column("scope", Short, nullable=False),
    Column("lfn", Name, nullable=False),
    Column("destination", Short, nullable=False),
    Column("source", Short),
    Column("state", State, nullable=False, comment="queued, done, failed"),
    Column("size_bytes", sa.BigInteger, nullable=False),
    Column("seconds", sa.Double),
    Column("message", String(500)),
    Column("created_at", UTC6, nullable=False),
    Column("ended_at", UTC6),
    Column("lane", Name, comment="of the link, where it is being copied"),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("first_tried_at", UTC6),
    Column("due_at", UTC6, comment="not to be copied before"),
    Index("uq_transfers_file", "dataset", "scope", "lfn", "destination", unique=True),
    Index("ix_transfers_state", "state", "created_at"),
    Index("ix_transfers_link", "state", "source", "destination", "due_at"),
    Index("ix_transfers_copy", "destination", "scope", "lfn"),
    Index("ix_transfers_lane", "lane"),
)

ddm_containers = _table(
    "ddm_containers",
    "built-in DDM: which datasets are in which container",
    Column("container", Name, primary_key=True),
    Column("dataset", Name, ForeignKey("ddm_datasets.name", ondelete="CASCADE"), primary_key=True),
    Index("ix_containers_dataset", "dataset"),
)

ddm_deletions = _table(
    "ddm_deletions",
    "built-in DDM: copies of files that are in no dataset any more, to be removed from storage",
    Column("scope", Short, primary_key=True),
    Column("lfn", Name, primary_key=True),
    Column("endpoint", Short, primary_key=True),
    Column("size_bytes", sa.BigInteger, nullable=False),
    Column("begun", sa.Boolean, nullable=False, server_default=sa.false(), comment="may be gone already"),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("message", String(500)),
    Column("created_at", UTC6, nullable=False),
    Column("due_at", UTC6, nullable=False),
    Index("ix_deletions_due", "endpoint", "due_at"),
)

ddm_link_hours = _table(
    "ddm_link_hours",
    "built-in DDM: what links carried, by the hour",
    Column("source", Short, primary_key=True),
    Column("destination", Short, primary_key=True),
    Column("hour", UTC6, primary_key=True),
    Column("files", Integer, nullable=False, server_default="0"),
    Column("bytes", sa.BigInteger, nullable=False, server_default="0"),
    Column("seconds", sa.Double, nullable=False, server_default="0", comment="of copying, all lanes together"),
    Column("failures", Integer, nullable=False, server_default="0"),
    Index("ix_link_hours_hour", "hour"),
)

links = _table(
    "links",
    "how links between endpoints may be used, as configured; * stands for any endpoint",
    Column("source", Short, primary_key=True),
    Column("destination", Short, primary_key=True),
    Column("at_once", Integer, nullable=False),
)

# --- the archive, and the care for the tables

archived = schema_archive.mirrors(metadata)

schema_floor = _table(
    "schema_floor",
    "servers that do not know this revision may not work here any more; empty: all may",
    Column("revision", Short, primary_key=True),
)
