"""Queues: what they take, what runs there, whether pilots come, and how well it goes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from markupsafe import Markup

from pandamonitor import svg
from pandamonitor.query import Query
from pandamonitor.tables import Table, table_of
from pandamonitor.views.page import DEFAULT_HOURS, Monitor, Page, View
from pandaserver.errors import NotFound
from pandaserver.model.grid import SOURCES, Queue
from pandaserver.model.states import AFTER_PILOT, QUEUED, WITH_PILOT, JobState
from pandaserver.taskbuffer import activity, switches, topology
from pandaserver.taskbuffer import monitoring as reading
from pandaserver.taskbuffer import monitoring_activity as happening
from pandaserver.taskbuffer import monitoring_data as stored
from pandaserver.taskbuffer.activity import QueueActivity
from pandaserver.taskbuffer.switches import Standing

_HISTORY = 50


@dataclass(frozen=True)
class SiteRow:
    """A queue in numbers."""

    queue: Queue
    states: dict[JobState, int]
    requests: int
    given: int
    updates: int
    last_seen: datetime | None
    bytes_in: int
    bytes_out: int
    standing: Standing | None = None

    @property
    def told(self) -> bool:
        """Say whether an operator's word holds here, or nobody describes the queue any more."""
        return self.standing is not None and bool(self.standing.switch or self.standing.removed_at)

    def number(self, *states: JobState) -> int:
        """Count jobs in some states."""
        return sum(self.states.get(state, 0) for state in states)

    @property
    def queued(self) -> int:
        """Count jobs that wait here."""
        return self.number(*QUEUED)

    @property
    def with_pilot(self) -> int:
        """Count jobs that pilots have."""
        return self.number(*WITH_PILOT)

    @property
    def after_pilot(self) -> int:
        """Count jobs that the server is finishing."""
        return self.number(*AFTER_PILOT)

    @property
    def success(self) -> Markup:
        """Draw how many of those that ended were finished."""
        good, bad = self.number(JobState.FINISHED), self.number(JobState.FAILED)
        parts = [("finished", good), ("failed", bad)]
        segments = [svg.Segment(n, size, f"{size} {n}") for n, size in parts if size]
        return svg.bar(f"{good} finished, {bad} failed", segments, least=2) if segments else Markup()


def _rows(connection: reading.Snapshot, now: datetime) -> list[SiteRow]:
    day = now - timedelta(hours=DEFAULT_HOURS)
    states: dict[str, dict[JobState, int]] = defaultdict(lambda: defaultdict(int))
    for site, state, number in happening.tallies(happening.living(connection), happening.ended(connection, day)):
        states[site][state] += number
    pilots = activity.since(connection, now - timedelta(days=7))
    today = activity.since(connection, day)
    moved = stored.count_transfers(connection, stored.TransferFilter(states=("done",), since=day))
    queues, standings = topology.load(connection).queues, switches.standings(connection)
    return [
        replace(
            _row(queue, dict(states[name]), pilots.get(name), today.get(name), moved=moved),
            standing=standings.get(name),
        )
        for name, queue in sorted(queues.items())
    ]


def _row(
    queue: Queue,
    states: dict[JobState, int],
    week: QueueActivity | None,
    day: QueueActivity | None,
    *,
    moved: Sequence[stored.TransferCount],
) -> SiteRow:
    return SiteRow(
        queue=queue,
        states=states,
        requests=day.requests if day else 0,
        given=day.jobs if day else 0,
        updates=day.updates if day else 0,
        last_seen=week.last_seen if week else None,
        bytes_in=sum(t.size_bytes for t in moved if t.destination == queue.endpoint),
        bytes_out=sum(t.size_bytes for t in moved if t.source == queue.endpoint),
    )


_COLUMNS = (
    "name", "site", "cloud", "tier", "status", "endpoint", "queued", "with_pilot", "after_pilot", "finished", "failed",
    "requests", "jobs_given", "updates", "last_seen", "bytes_in", "bytes_out", "set_by", "set_at",
    "set_until", "reason",
)  # fmt: skip


def _plain(row: SiteRow) -> list[object]:
    queue, told = row.queue, row.standing
    said = (told.by_name, told.since, told.until, told.reason) if told else (None, None, None, None)
    return [
        queue.name, queue.site, queue.cloud, queue.tier, queue.status, queue.endpoint, row.queued, row.with_pilot,
        row.after_pilot, row.number(JobState.FINISHED), row.number(JobState.FAILED), row.requests, row.given,
        row.updates, row.last_seen, row.bytes_in, row.bytes_out, *said,
    ]  # fmt: skip


def build_list(monitor: Monitor, query: Query) -> Page:
    """Make the list of queues."""
    now = monitor.clock()
    rows = monitor.database.read(lambda c: _rows(c, now))
    table = Table(_COLUMNS, [_plain(row) for row in rows])
    data = {"total": len(rows), "sites": [dict(zip(_COLUMNS, row, strict=True)) for row in table.rows]}
    values = {"rows": rows, "hours": DEFAULT_HOURS, **_WORDS, "groups": _groups()}
    return Page("Sites", "sites", values, data, table)


_WORDS: dict[str, object] = {"finished": JobState.FINISHED, "failed": JobState.FAILED}


def _groups() -> dict[str, list[str]]:
    parts = {"queued": QUEUED, "with_pilot": WITH_PILOT, "after_pilot": AFTER_PILOT}
    return {name: sorted(s.value for s in states) for name, states in parts.items()}


def build_one(monitor: Monitor, query: Query, *, name: str) -> Page:
    """Make the page of one queue."""
    now = monitor.clock()
    day = now - timedelta(hours=DEFAULT_HOURS)
    row = next((r for r in monitor.database.read(lambda c: _rows(c, now)) if r.queue.name == name), None)
    if row is None:
        raise NotFound(f"There is no queue {name}.", field="site", value=name)
    endpoint = monitor.database.read(topology.load).endpoints.get(row.queue.endpoint)
    hours = monitor.database.read(lambda c: happening.pilot_hours(c, name, day))
    nodes = monitor.database.read(lambda c: happening.nodes(c, name, day))
    data = {"site": dict(zip(_COLUMNS, _plain(row), strict=True)), "queue": row.queue, "pilots": hours, "nodes": nodes}
    history = monitor.database.read(lambda c: switches.history(c, name, _HISTORY))
    data |= {"states": {str(s): n for s, n in row.states.items()}, "history": history}
    values = {
        "row": row,
        "queue": row.queue,
        "endpoint": endpoint,
        "chart": _pilot_chart(hours, now),
        "nodes": nodes,
        "history": history,
        "source_names": SOURCES,
        "hours": DEFAULT_HOURS,
        "states": [s for s in JobState if row.states.get(s)],
        **_WORDS,
    }
    columns = ("node", "running", "finished", "failed", "lost", "last_claim")
    return Page(f"Site {name}", "site", values, data, table_of(nodes, columns))


def _pilot_chart(hours: Sequence[happening.PilotHour], now: datetime) -> Markup:
    """Draw how often pilots asked, and how often they got a job."""
    this = now.replace(minute=0, second=0, microsecond=0)
    wanted = [this - timedelta(hours=back) for back in range(DEFAULT_HOURS - 1, -1, -1)]
    told = {hour.hour: hour for hour in hours}
    jobs = tuple(float(told[h].jobs) if h in told else 0.0 for h in wanted)
    empty = tuple(float(max(0, told[h].requests - told[h].jobs)) if h in told else 0.0 for h in wanted)
    series = [svg.Series("given", jobs), svg.Series("empty", empty)]
    return svg.stacked_bars(
        "Requests of pilots by hours of the last day, UTC: answered with a job, and without",
        [f"{h:%H:%M}" for h in wanted],
        series,
    )


VIEWS = (View("/sites", (), build_list), View("/sites/<path:name>", (), build_one))
