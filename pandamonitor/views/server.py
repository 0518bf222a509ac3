"""The server itself: background work, duties, and the clocks of all states."""

from __future__ import annotations

from datetime import timedelta

from pandamonitor.meanings import meaning
from pandamonitor.query import Query
from pandamonitor.tables import Table, table_of
from pandamonitor.views.page import Monitor, Page, View
from pandamonitor.views.troubles import LATE_AFTER
from pandaserver.model.grid import SOURCES
from pandaserver.model.retry import RULES
from pandaserver.taskbuffer import monitoring_activity as happening
from pandaserver.taskbuffer import sources


def build_server(monitor: Monitor, query: Query) -> Page:
    """Make the page of work and duties."""
    now = monitor.clock()
    work = monitor.database.read(lambda c: happening.work_kinds(c, now - LATE_AFTER))
    failing = monitor.database.read(happening.failing_work)
    duties = monitor.database.read(happening.duty_states)
    described = monitor.database.read(sources.states)
    late = {d.name for d in duties if d.next_run_at < now - LATE_AFTER and not (d.lease_until and d.lease_until > now)}
    values = {
        "work": work,
        "failing": failing,
        "duties": duties,
        "late": late,
        "sources": described,
        "source_names": SOURCES,
        "late_after_s": LATE_AFTER / timedelta(seconds=1),
        "database": monitor.database.shown_url,
        "settings": monitor.settings,
    }
    data = {"total": sum(kind.number for kind in work), "work": work, "failing": failing, "duties": duties}
    data |= {"sources": described}
    columns = ("kind", "number", "held", "late", "retried", "max_tries", "oldest")
    return Page("Server", "server", values, data, table_of(work, columns))


def build_timeouts(monitor: Monitor, query: Query) -> Page:
    """Make the page of the timeouts."""
    rules = monitor.settings.timeouts
    columns = ("state", "subject", "after_s", "action", "heartbeat", "family", "code")
    rows = [(rule, meaning(rule.family, rule.code).text) for rule in rules]
    values = {"rows": rows, "from_server": monitor.settings.server_config is not None, "retry_rules": RULES}
    data = [{name: getattr(rule, name) for name in columns} for rule in rules]
    table = Table(columns, [[getattr(rule, name) for name in columns] for rule in rules])
    return Page("Timeouts", "timeouts", values, data, table)


VIEWS = (View("/server", (), build_server), View("/timeouts", (), build_timeouts))
