"""Lists of jobs by any mix of attributes, with the attributes' summary as the way to fewer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter

from pandamonitor.query import NO_SITE, PAGE_SIZES, Query
from pandamonitor.tables import table_of
from pandamonitor.views.page import DEFAULT_HOURS, Monitor, Page, View, screen
from pandaserver.model.codes import ErrorFamily
from pandaserver.model.job import Job
from pandaserver.model.states import FINAL, JobState
from pandaserver.taskbuffer import monitoring as reading
from pandaserver.taskbuffer import topology
from pandaserver.taskbuffer.jobs import RecordedError

FILTERS = ("state", "site", "owner", "label", "task", "definition", "dataset", "name", "error", "hours")
HOURS = (1, 3, 12, 24, 72, 168, 720, 8760)
_SHOWN_VALUES = 12
_COLUMNS = (
    "job_id", "state", "site", "owner_name", "label", "name", "task_id", "definition_id", "attempt", "priority",
    "cores", "created_at", "state_since", "started_at", "ended_at", "input_dataset", "output_dataset",
)  # fmt: skip


def job_filter(query: Query, now: datetime) -> reading.JobFilter:
    """Read the filter from the query."""
    family, _, code = query.text("error").partition(":")
    return reading.JobFilter(
        states=tuple(JobState(text) for text in query.texts("state")),
        sites=tuple("" if site == NO_SITE else site for site in query.texts("site")),
        owners=query.texts("owner"),
        labels=query.texts("label"),
        task_id=int(query.text("task")) if query.text("task") else None,
        definition_id=int(query.text("definition")) if query.text("definition") else None,
        dataset=query.text("dataset"),
        name=query.text("name"),
        error=(ErrorFamily(family), int(code)) if family else None,
        since=now - timedelta(hours=query.number("hours", DEFAULT_HOURS)),
    )


@dataclass(frozen=True)
class Value:
    """How often a value occurs among the jobs shown, and the way to those that have it."""

    text: str
    number: int
    href: str
    chosen: bool


@dataclass(frozen=True)
class Summary:
    """The values of one attribute, the most frequent first."""

    name: str
    values: Sequence[Value]
    more: int  # values not shown


def summaries(counted: reading.JobCount, query: Query) -> list[Summary]:
    """Count the jobs by each attribute."""
    return [
        _summary(name, counted, attribute, query)
        for name, attribute in (("state", "state"), ("site", "site"), ("label", "label"), ("owner", "owner_name"))
    ]


def _summary(name: str, counted: reading.JobCount, attribute: str, query: Query) -> Summary:
    numbers: dict[str, int] = defaultdict(int)
    for group in counted.groups:
        numbers[str(attrgetter(attribute)(group)) or (NO_SITE if name == "site" else "")] += group.number
    ranked = sorted(numbers.items(), key=lambda item: (-item[1], item[0]))
    shown = [
        Value(text, number, query.href(**{name: text}), text in query.texts(name))
        for text, number in ranked[:_SHOWN_VALUES]
    ]
    return Summary(name, shown, len(ranked) - len(shown))


def build(monitor: Monitor, query: Query) -> Page:
    """Make the list."""
    chosen = job_filter(query, monitor.clock())
    counted = monitor.database.read(lambda c: reading.count_jobs(c, chosen))
    shown = screen(query, counted.total, partial=counted.partial)
    sort = query.text("sort", "-id")
    found, errors, queues = monitor.database.read(
        lambda c: _rows(c, chosen, sort=sort, limit=shown.size, offset=shown.offset)
    )
    every = summaries(counted, query)
    data = {
        "total": counted.total,
        "partial": counted.partial,
        "summary": {s.name: {v.text: v.number for v in s.values} for s in every},
        "jobs": [{name: getattr(job, name) for name in _COLUMNS} for job in found],
    }
    values = {
        "jobs": found,
        "errors": errors,
        "screen": shown,
        "summaries": every,
        "sort": sort,
        "sites": queues,
        "chips": _chips(query),
        "states": tuple(JobState),
        "final": FINAL,
        "hours": query.number("hours", DEFAULT_HOURS),
        "all_hours": HOURS,
        "sizes": PAGE_SIZES,
    }
    return Page("Jobs", "jobs", values, data, table_of(found, _COLUMNS))


def _rows(
    connection: reading.Snapshot, chosen: reading.JobFilter, *, sort: str, limit: int, offset: int
) -> tuple[list[Job], dict[int, RecordedError], list[str]]:
    found = reading.list_jobs(connection, chosen, sort=sort, limit=limit, offset=offset)
    errors = reading.errors_of(connection, [job.job_id for job in found])
    return found, {job_id: of[-1] for job_id, of in errors.items()}, sorted(topology.load(connection).queues)


@dataclass(frozen=True)
class Chip:
    """A filter that is on, and the page without it."""

    name: str
    text: str
    href: str


def _chips(query: Query) -> list[Chip]:
    return [Chip(n, text, query.without(n, text)) for n in FILTERS if n != "hours" for text in query.texts(n)]


VIEWS = (View("/jobs", (*FILTERS, "sort", "page", "size"), build),)
