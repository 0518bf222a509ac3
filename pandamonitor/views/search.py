"""One box for all: the number of a job, or the name of a dataset, site, user or file."""

from __future__ import annotations

from pandamonitor.query import LARGEST_ID, Query
from pandamonitor.views.datasets import JOB_HOURS
from pandamonitor.views.page import Elsewhere, Monitor, Page, View
from pandaserver.taskbuffer import monitoring as reading
from pandaserver.taskbuffer import monitoring_data as stored
from pandaserver.taskbuffer import topology

_SHOWN = 25


def build(monitor: Monitor, query: Query) -> Page:
    """Go to what bears exactly this name, or show what is like it."""
    wanted = query.text("q").strip()
    target = monitor.database.read(lambda c: _exactly(c, query, wanted)) if wanted else None
    if target:
        raise Elsewhere(target)
    alike = stored.DatasetFilter(name=wanted)
    datasets = monitor.database.read(lambda c: stored.list_datasets(c, alike, limit=_SHOWN)) if wanted else []
    named = reading.JobFilter(name=wanted, since=monitor.hours_ago(720))
    jobs = monitor.database.read(lambda c: reading.list_jobs(c, named, limit=_SHOWN)) if wanted else []
    values = {"wanted": wanted, "datasets": datasets, "jobs": jobs, "limit": _SHOWN}
    data = {"datasets": [d.name for d in datasets], "jobs": [j.job_id for j in jobs]}
    return Page("Search", "search", values, data)


def _exactly(connection: reading.Snapshot, query: Query, wanted: str) -> str | None:
    number = int(wanted) if wanted.isascii() and wanted.isdecimal() and len(wanted) < 20 else 0
    if 0 < number <= LARGEST_ID and reading.load_jobs(connection, [number]):
        return query.link(f"/jobs/{number}")
    if wanted in topology.load(connection).queues:
        return query.link(f"/sites/{wanted}")
    if stored.find_dataset(connection, wanted):
        return query.link(f"/datasets/{wanted}")
    if reading.user_named(connection, wanted):
        return query.link("/jobs", owner=wanted, hours=JOB_HOURS)
    return _maker(connection, query, wanted)


def _maker(connection: reading.Snapshot, query: Query, lfn: str) -> str | None:
    """Find the job that made a file of this name."""
    found = reading.makers_by_name(connection, lfn)
    return query.link(f"/jobs/{found[0].job_id}") if found else None


VIEWS = (View("/search", ("q",), build),)
