"""A job: what the user asked for, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from pandaserver.model.file import File, FileStatus, FileType, NewFile
from pandaserver.model.states import JobState

PRODUCTION_LABELS = frozenset({"managed", "test", "regional", "ptest", "rc_test"})
BUILD_LABEL = "panda"
KILL_COMMAND = "tobekilled"


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job as a user asks for it. Zero and empty mean: not said."""

    name: str = ""
    label: str = "user"
    processing_type: str = ""
    transformation: str
    parameters: str = ""
    definition_id: int = 0
    jobset_id: int = 0
    task_id: int = 0
    parent_id: int = 0
    vo: str = ""
    working_group: str = ""
    assigned_priority: int = 0
    max_attempt: int = 0
    site: str | None = None  # queue chosen by the user
    cloud: str = ""
    release: str = ""
    platform: str = ""
    input_dataset: str = ""
    output_dataset: str = ""
    destination: str = ""
    cores: int = 1
    memory_mb: int = 0
    disk_mb: int = 0
    cpu_time_s: int = 0
    wall_time_s: int = 0
    site_wishes: str = ""  # queues or sites that it may go to, or must not, as model.choice writes them
    files: tuple[NewFile, ...] = ()
    attributes: dict[str, object] = field(default_factory=dict)  # wire attributes kept for the user, unused here

    @property
    def production(self) -> bool:
        """Say whether this is production rather than analysis."""
        return self.label in PRODUCTION_LABELS


@dataclass(frozen=True, kw_only=True)
class Job:
    """An accepted job, as all rooms of the server see it."""

    job_id: int
    state: JobState
    owner: str  # DN
    owner_name: str
    name: str
    label: str
    processing_type: str
    transformation: str
    definition_id: int
    jobset_id: int
    task_id: int
    parent_id: int
    vo: str
    working_group: str
    assigned_priority: int
    priority: int
    attempt: int  # claims so far; the fence of the current attempt
    failed_attempts: int
    max_attempt: int
    site: str | None
    pinned: bool
    cloud: str
    release: str
    platform: str
    input_dataset: str
    dispatch_dataset: str | None
    output_dataset: str
    destination: str
    cores: int
    memory_mb: int
    disk_mb: int
    cpu_time_s: int
    wall_time_s: int
    command: str | None
    created_at: datetime
    state_since: datetime
    modified_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    site_wishes: str = ""

    @property
    def production(self) -> bool:
        """Say whether this is production rather than analysis."""
        return self.label in PRODUCTION_LABELS

    @property
    def kill_requested(self) -> bool:
        """Say whether somebody wants this job dead."""
        return self.command == KILL_COMMAND

    def may_retry(self, most: int = 0) -> bool:
        """Say whether a failed attempt may be followed by another: `most`, maxAttempt, or twice where nobody said."""
        return not self.kill_requested and self.failed_attempts + 1 < (most or self.max_attempt or 2)


class InState(Protocol):
    """What must be known of a job to change its state."""

    @property
    def job_id(self) -> int:
        """PandaID."""

    @property
    def state(self) -> JobState:
        """Where it is."""

    @property
    def attempt(self) -> int:
        """The fence of the current attempt."""


@dataclass(frozen=True)
class PlacedJob:
    """The little that matters when a pilot speaks of a job; it is read for every heartbeat."""

    job_id: int
    state: JobState
    attempt: int
    site: str | None
    command: str | None


@dataclass(frozen=True, kw_only=True)
class JobWithFiles:
    """A job and its files."""

    job: Job
    files: tuple[File, ...]

    def of_type(self, *types: FileType) -> list[File]:
        """Pick files by what they are to the job."""
        return [f for f in self.files if f.type in types]

    def inputs_in(self, status: FileStatus) -> list[File]:
        """Pick inputs by status."""
        return [f for f in self.files if f.type is FileType.INPUT and f.status is status]
