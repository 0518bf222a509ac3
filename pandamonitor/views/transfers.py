"""Copies between endpoints: queued, made, failed, and how fast."""

from __future__ import annotations

from pandamonitor.query import Query
from pandamonitor.tables import table_of
from pandamonitor.views.jobs import HOURS
from pandamonitor.views.page import DEFAULT_HOURS, Monitor, Page, View, screen
from pandaserver.taskbuffer import monitoring_data as stored

_STATES = ("queued", "done", "failed")


def build(monitor: Monitor, query: Query) -> Page:
    """Make the page."""
    hours = query.number("hours", DEFAULT_HOURS)
    chosen = stored.TransferFilter(
        states=query.texts("transfer"),
        destination=query.text("destination"),
        source=query.text("source"),
        dataset=query.text("dataset"),
        since=monitor.hours_ago(hours),
    )
    counts = monitor.database.read(lambda c: stored.count_transfers(c, chosen))
    total = sum(one.number for one in counts)
    shown = screen(query, total)
    rows = monitor.database.read(lambda c: stored.list_transfers(c, chosen, limit=shown.size, offset=shown.offset))
    by_state = {state: sum(one.number for one in counts if one.state == state) for state in _STATES}
    data = {"total": total, "states": by_state, "links": counts, "transfers": rows}
    values = {
        "rows": rows,
        "screen": shown,
        "links": sorted(counts, key=lambda one: (one.destination, one.source, one.state)),
        "by_state": by_state,
        "hours": hours,
        "all_hours": HOURS,
    }
    columns = (
        "transfer_id", "state", "source", "destination", "dataset", "scope", "lfn", "size_bytes", "seconds",
        "created_at", "ended_at", "message",
    )  # fmt: skip
    return Page("Transfers", "transfers", values, data, table_of(rows, columns))


PARAMETERS = ("transfer", "destination", "source", "dataset", "hours", "page", "size")
VIEWS = (View("/transfers", PARAMETERS, build),)
