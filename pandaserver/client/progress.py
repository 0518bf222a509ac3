"""Shows how far jobs are while somebody waits: a bar on a terminal, else a line for each change."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pandaserver.client.answers import JobInfo
from pandaserver.client.waiting import Report


@contextmanager
def progress(total: int) -> Iterator[Report]:
    """Give the function to report to; what it shows goes to standard error, the result has standard output."""
    if sys.stderr.isatty():
        with _bar(total) as report:
            yield report
    else:
        yield _Lines(total)


@contextmanager
def _bar(total: int) -> Iterator[Report]:
    columns = (
        BarColumn(complete_style="cyan", finished_style="green"),
        MofNCompleteColumn(),
        TextColumn("ended"),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)

        def report(jobs: Sequence[JobInfo]) -> None:
            bar.update(task, completed=ended(jobs), description=states(jobs))

        yield report


class _Lines:
    """Prints a line when something has changed since the last one."""

    def __init__(self, total: int) -> None:
        self._total, self._last = total, ""

    def __call__(self, jobs: Sequence[JobInfo]) -> None:
        line = f"{ended(jobs)}/{self._total} ended: {states(jobs)}"
        if line != self._last:
            print(line, file=sys.stderr, flush=True)
        self._last = line


def ended(jobs: Sequence[JobInfo]) -> int:
    """Count the jobs that have ended."""
    return sum(job.ended for job in jobs)


def states(jobs: Sequence[JobInfo]) -> str:
    """Count jobs by state, in words."""
    counts = Counter(job.state for job in jobs)
    return ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
