"""What a person sees at the end of the demonstration."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from demonstration.run import files_moved, seconds_running, seconds_waiting
from pandaserver.client.answers import JobInfo


def table(jobs: Sequence[JobInfo]) -> Table:
    """Sum up jobs by what they are and where they ran."""
    shown = Table(title="The jobs", title_justify="left")
    shown.add_column("what")
    shown.add_column("site")
    for title in ("jobs", "finished", "failed", "waiting s", "running s", "files moved"):
        shown.add_column(title, justify="right")
    groups: dict[tuple[str, str], list[JobInfo]] = defaultdict(list)
    for job in jobs:
        groups[job.name.partition(".")[0], job.site].append(job)
    for (what, site), members in groups.items():
        shown.add_row(what, site, *_numbers(members))
    shown.add_section()
    shown.add_row("all", "", *_numbers(jobs))
    return shown


def _numbers(jobs: Sequence[JobInfo]) -> list[str]:
    return [
        str(len(jobs)),
        str(sum(job.finished for job in jobs)),
        str(sum(not job.finished for job in jobs)),
        _mean([seconds_waiting(job) for job in jobs]),
        _mean([seconds_running(job) for job in jobs]),
        str(files_moved(jobs)),
    ]


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.1f}" if known else "-"


def show(console: Console, jobs: Sequence[JobInfo], summary: dict[str, Any]) -> None:
    """Print the table and the result."""
    console.print(table(jobs))
    for job in jobs:
        if not job.finished:
            console.print(
                f"[red]job {job.job_id} {job.name} is {job.state}[/]: {'; '.join(job.errors)}", highlight=False
            )
    if summary["z_mass_gev"] is not None:
        mass, error = summary["z_mass_gev"], summary["z_mass_error_gev"]
        console.print(f"mass of the Z boson: [bold]{mass:.2f} ± {error:.2f} GeV[/] (the world's average is 91.19)")
    if summary["plot"]:
        console.print(f"plot: {summary['plot']}", soft_wrap=True)
    first = summary["first_job_seconds"]
    console.print(
        f"{summary['seconds']} s from start to end" + (f", the first job finished after {first} s" if first else "")
    )
