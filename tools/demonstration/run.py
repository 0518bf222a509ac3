"""The demonstration itself: submit production and analysis, follow them to the end, fetch the plot, sum up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from demonstration import physics
from demonstration.grid import Grid
from pandaserver.client.answers import JobInfo
from pandaserver.client.api import PandaClient
from pandaserver.client.waiting import Pace, wait_for

PAYLOADS = Path(__file__).resolve().parent.parent / "payloads"
LOOK_S = 0.5


@dataclass(frozen=True)
class Size:
    """How much physics."""

    jobs: int = 20
    events: int = 300  # per job
    files_per_job: int = 5  # of the analysis


@dataclass
class Outcome:
    """What came out."""

    started: float
    jobs: Sequence[JobInfo] = ()
    first_job_seconds: float | None = None
    seconds: float = 0.0
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Say whether every job finished and the plot is there."""
        return bool(self.jobs) and all(job.finished for job in self.jobs) and "zpeak.png" in self.files

    def note_first(self, jobs: Sequence[JobInfo]) -> None:
        """Remember when the first job had finished."""
        if self.first_job_seconds is None and any(job.finished for job in jobs):
            self.first_job_seconds = time.monotonic() - self.started

    def summary(self, monitor_url: str) -> dict[str, Any]:
        """Give the outcome as one JSON object."""
        peak = json.loads(self.files["zpeak.json"].read_text()) if "zpeak.json" in self.files else {}
        return {
            "submitted": len(self.jobs),
            "finished": sum(job.finished for job in self.jobs),
            "failed": sum(job.ended and not job.finished for job in self.jobs),
            "seconds": round(self.seconds, 1),
            "first_job_seconds": None if self.first_job_seconds is None else round(self.first_job_seconds, 1),
            "z_mass_gev": peak.get("z_mass_gev"),
            "z_mass_error_gev": peak.get("z_mass_error_gev"),
            "files_moved": files_moved(self.jobs),
            "plot": str(self.files["zpeak.png"].resolve()) if "zpeak.png" in self.files else None,
            "monitor": monitor_url,
        }


def submit_all(grid: Grid, size: Size) -> list[int]:
    """Submit the production as its manager, and the analysis as a user; the analysis will wait for its inputs."""
    with _client(grid, "prodman") as manager, _client(grid, "alice") as alice:
        script = manager.upload(PAYLOADS / "zmumu.py")
        scripts = {name: alice.upload(PAYLOADS / name) for name in ("dimuon.py", "fit.py")}
        produced = manager.submit(physics.production(size.jobs, size.events, script))
        analysed = alice.submit(physics.analysis(size.jobs, size.files_per_job, scripts))
    return [one.job_id for one in (*produced, *analysed)]


def follow(
    grid: Grid, ids: Sequence[int], outcome: Outcome, *, report: Callable[[Sequence[JobInfo]], None], limit_s: float
) -> None:
    """Wait until all jobs have ended; a program of the grid that dies ends the waiting."""

    def look(jobs: Sequence[JobInfo]) -> None:
        grid.services.check()
        outcome.note_first(jobs)
        report(jobs)

    with _client(grid, "alice") as alice:
        outcome.jobs = wait_for(alice, ids, pace=Pace(interval_s=LOOK_S, limit_s=limit_s), report=look)
    outcome.seconds = time.monotonic() - outcome.started


def fetch(grid: Grid, outcome: Outcome, directory: Path) -> None:
    """Bring the results to a folder of the user."""
    if not all(job.finished for job in outcome.jobs):
        return
    directory.mkdir(parents=True, exist_ok=True)
    with _client(grid, "alice") as alice:
        for found in alice.download(physics.RESULT, directory):
            if found.path is not None:
                outcome.files[found.path.name] = found.path


def files_moved(jobs: Sequence[JobInfo]) -> int:
    """Count the files that were brought to a site for jobs, or from the site of a job to another."""
    return sum(_was_moved(job, file) for job in jobs for file in job.files)


def _was_moved(job: JobInfo, file: dict[str, Any]) -> bool:
    if file.get("type") == "input":
        return bool(file.get("dispatchDBlock"))
    return file.get("status") == "ready" and file.get("destinationSE") != f"{job.site}_DISK"


def seconds_waiting(job: JobInfo) -> float | None:
    """Give the time from submission to the start of the payload."""
    return _between(job.attributes.get("creationTime"), job.attributes.get("startTime"))


def seconds_running(job: JobInfo) -> float | None:
    """Give the time from the start of the payload to the end of the job, its outputs in place."""
    return _between(job.attributes.get("startTime"), job.attributes.get("endTime"))


def _between(start: object, end: object) -> float | None:
    return (end - start).total_seconds() if isinstance(start, datetime) and isinstance(end, datetime) else None


def _client(grid: Grid, who: str) -> PandaClient:
    return PandaClient(grid.url, grid.proxy(who), grid.ca_dir)
