"""An attempt: one pilot's try at a job, under a lease."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from pandaserver.model.codes import JobError


@dataclass(frozen=True, kw_only=True)
class ClaimRequest:
    """What a pilot asks for. Zero and empty mean: not said, anything fits."""

    queue: str
    labels: tuple[str, ...] | None = None  # None: any
    memory_mb: int = 0
    disk_mb: int = 0
    remaining_s: int = 0
    cores: int = 0
    vo: str = ""
    owner: str = ""  # DN; jobs of this user only
    working_group: str = ""
    pilot: str = ""  # DN
    node: str = ""
    computing_element: str = ""
    scheduler_id: str = ""
    pilot_id: str = ""
    request_id: str = ""  # the same request gets the same job


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try, as recorded."""

    job_id: int
    number: int
    queue: str
    pilot: str
    node: str
    computing_element: str = ""
    pilot_id: str
    scheduler_id: str
    claimed_at: datetime
    lease_until: datetime
    ended_at: datetime | None = None
    outcome: str | None = None  # finished, failed, lost
    exit_code: str | None = None
    cpu_time_s: float | None = None
    max_rss_kb: int | None = None
    timing: str | None = None  # getjob|stagein|payload|stageout|setup, seconds
    usage: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class OutputReport:
    """What the pilot says of one output file it stored."""

    lfn: str
    guid: str
    size_bytes: int
    adler32: str
    endpoint: str
    staged: bool = False  # stored beside its place, under the name of this attempt


@dataclass(frozen=True, kw_only=True)
class PilotReport:
    """One word of a pilot about one attempt."""

    job_id: int
    attempt: int | None
    token: str | None
    pilot: str  # DN
    state: str  # starting, running, finished, failed
    node: str = ""
    cpu_time_s: float | None = None
    max_rss_kb: int | None = None
    timing: str | None = None
    exit_code: str | None = None
    errors: tuple[JobError, ...] = ()
    outputs: tuple[OutputReport, ...] = ()
    metadata: str = ""
    log_extract: str = ""
    stdout_tail: str = ""
    usage: dict[str, object] = field(default_factory=dict)

    @property
    def last_word(self) -> bool:
        """Say whether the pilot is done with the job."""
        return self.state in ("finished", "failed")
