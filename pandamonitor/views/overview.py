"""The first page: what is there, what is wrong, and how the last day went."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from markupsafe import Markup

from pandamonitor import svg
from pandamonitor.query import NO_SITE, Query
from pandamonitor.tables import Table
from pandamonitor.views import troubles
from pandamonitor.views.page import DEFAULT_HOURS, Monitor, Page, View
from pandaserver.model.job import Job
from pandaserver.model.states import AFTER_PILOT, FINAL, QUEUED, WITH_PILOT, JobState
from pandaserver.taskbuffer import activity, sources, topology
from pandaserver.taskbuffer import monitoring as reading
from pandaserver.taskbuffer import monitoring_activity as happening
from pandaserver.taskbuffer import monitoring_data as stored

BIN = timedelta(minutes=30)
_BINS = int(timedelta(hours=DEFAULT_HOURS) / BIN)
_RUNNING_SHOWN = 12
_SITES_SHOWN = 6


@dataclass(frozen=True)
class Matrix:
    """Jobs by site and state; only states and sites that there are."""

    states: tuple[JobState, ...]
    rows: tuple[tuple[str, tuple[int, ...]], ...]
    sums: tuple[int, ...]

    @property
    def total(self) -> int:
        """Give the number of all jobs."""
        return sum(self.sums)


def matrix(living: Sequence[happening.Living], ended: Sequence[happening.Ended], sites: Iterable[str]) -> Matrix:
    """Arrange counts; configured sites without jobs are rows too, jobs without a site come last."""
    counts: dict[str, dict[JobState, int]] = {site: defaultdict(int) for site in sorted(sites)}
    for site, state, number in happening.tallies(living, ended):
        counts.setdefault(site, defaultdict(int))[state] += number
    states = tuple(s for s in JobState if any(row[s] for row in counts.values()))
    ordered = sorted(counts, key=lambda site: (site == "", site))
    rows = tuple((site, tuple(counts[site][s] for s in states)) for site in ordered)
    return Matrix(states, rows, tuple(sum(counts[site][s] for site in ordered) for s in states))


@dataclass(frozen=True)
class _Read:
    """All that the page takes from the database."""

    situation: troubles.Situation
    running: Sequence[Job]


def _read(connection: reading.Snapshot, now: datetime) -> _Read:
    day, recent = now - timedelta(hours=DEFAULT_HOURS), now - timedelta(hours=troubles.RECENT_H)
    situation = troubles.Situation(
        now=now,
        queues=topology.load(connection).queues,
        activity=activity.since(connection, now - timedelta(days=7)),
        living=happening.living(connection),
        ended=happening.ended(connection, first_bin(now)),
        silent=happening.silent(connection, now - troubles.NO_WORD_AFTER),
        missing=happening.missing_inputs(connection),
        errors=happening.errors(connection, happening.ErrorFilter(since=recent)).counts,
        work=happening.work_kinds(connection, now - troubles.LATE_AFTER),
        duties=happening.duty_states(connection),
        transfers=stored.count_transfers(connection, stored.TransferFilter(since=day)),
        sources=sources.states(connection),
    )
    chosen = reading.JobFilter(states=(JobState.RUNNING, JobState.STARTING, JobState.SENT))
    return _Read(situation, reading.list_jobs(connection, chosen, sort="-changed", limit=_RUNNING_SHOWN))


def first_bin(now: datetime) -> datetime:
    """Give the start of the first half hour of the last day, such that the running one is the last."""
    this = now.replace(minute=now.minute - now.minute % 30, second=0, microsecond=0)
    return this - BIN * (_BINS - 1)


def build(monitor: Monitor, query: Query) -> Page:
    """Make the page."""
    now = monitor.clock()
    read = monitor.database.read(lambda c: _read(c, now))
    found = read.situation
    table = matrix(found.living, found.ended, found.queues)
    wrong = troubles.find(found, query)
    tiles = _tiles(found, query)
    data = {
        "states": dict(zip(map(str, table.states), table.sums, strict=True)),
        "total": table.total,
        "sites": {site: dict(zip(map(str, table.states), row, strict=True)) for site, row in table.rows},
        "troubles": wrong,
        "transfers": found.transfers,
    }
    values = {
        "tiles": tiles,
        "troubles": wrong,
        "matrix": table,
        "chart": throughput(found.ended, first_bin(now)),
        "success": success_by_site(found.ended),
        "running": read.running,
        "transfers": found.transfers,
        "queues": found.queues,
        "no_site": NO_SITE,
        "final": FINAL,
        "hours": DEFAULT_HOURS,
    }
    rows = [[site or NO_SITE, *row] for site, row in table.rows]
    return Page("Overview", "overview", values, data, Table(("site", *map(str, table.states)), rows))


@dataclass(frozen=True)
class Tile:
    """A number to be seen from across the room."""

    name: str
    number: int
    note: str
    style: str
    href: str


def _tiles(found: troubles.Situation, query: Query) -> list[Tile]:
    sums: dict[JobState, int] = defaultdict(int)
    for _, state, number in happening.tallies(found.living, found.ended):
        sums[state] += number
    parts = (
        ("Queued", "queued", QUEUED, f"{sums[JobState.ACTIVATED]:,} ready, {sums[JobState.WAITING]:,} wait for data"),
        ("With pilots", "pilot", WITH_PILOT, f"{sums[JobState.RUNNING]:,} running"),
        ("Finishing", "after", AFTER_PILOT, f"{sums[JobState.TRANSFERRING]:,} transferring"),
        ("Finished", "finished", {JobState.FINISHED}, f"in the last {DEFAULT_HOURS} h"),
        ("Failed", "failed", {JobState.FAILED}, f"in the last {DEFAULT_HOURS} h"),
        ("Given up", "cancelled", {JobState.CANCELLED, JobState.CLOSED}, "cancelled or closed"),
    )
    tiles = []
    for name, style, states, note in parts:
        href = query.link("/jobs", state=sorted(s.value for s in states))
        tiles.append(Tile(name, sum(sums[s] for s in states), note, style, href))
    return tiles


@dataclass(frozen=True)
class Success:
    """How well a site did."""

    site: str
    finished: int
    failed: int

    @property
    def bar(self) -> Markup:
        """Draw it."""
        parts = [svg.Segment(n, v, f"{v} {n}") for n, v in (("finished", self.finished), ("failed", self.failed)) if v]
        return svg.bar(f"{self.finished} finished, {self.failed} failed", parts)


def success_by_site(ended: Sequence[happening.Ended]) -> list[Success]:
    """Give the sites with most failures, worst first."""
    numbers: dict[tuple[str, JobState], int] = defaultdict(int)
    for one in ended:
        numbers[one.site, one.state] += one.number
    sites = {site for site, state in numbers if site and state in (JobState.FINISHED, JobState.FAILED)}
    found = [Success(site, numbers[site, JobState.FINISHED], numbers[site, JobState.FAILED]) for site in sites]
    return sorted(found, key=lambda one: (-one.failed, one.site))[:_SITES_SHOWN]


def throughput(ended: Sequence[happening.Ended], start: datetime) -> Markup:
    """Draw what ended in the last day, by half hours."""
    wanted = (JobState.FINISHED, JobState.FAILED)
    numbers = {state: [0.0] * _BINS for state in wanted}
    for one in ended:
        number = int((one.at - start) / BIN)
        if one.state in wanted and 0 <= number < _BINS:
            numbers[one.state][number] += one.number
    labels = [f"{start + BIN * i:%H:%M}" for i in range(_BINS)]
    series = [svg.Series(str(state), tuple(numbers[state])) for state in wanted]
    return svg.stacked_bars("Jobs that finished and failed, by half hours of the last day, UTC", labels, series)


VIEW = View("/", (), build)
