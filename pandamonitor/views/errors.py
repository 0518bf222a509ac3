"""Errors in groups: what differs only by numbers, ids and paths is one thing that went wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pandamonitor.meanings import Meaning, meaning
from pandamonitor.query import Query
from pandamonitor.tables import Table
from pandamonitor.text import normal_diagnostic
from pandamonitor.views.jobs import HOURS
from pandamonitor.views.page import DEFAULT_HOURS, Monitor, Page, View
from pandaserver.model.codes import ErrorFamily
from pandaserver.taskbuffer import monitoring_activity as happening

_SHOWN = 200


@dataclass(frozen=True)
class Group:
    """Errors that are one thing."""

    family: ErrorFamily
    code: int
    diagnostic: str
    number: int
    sites: tuple[tuple[str, int], ...]
    last_at: datetime
    last_job: int

    @property
    def meaning(self) -> Meaning:
        """Explain the code."""
        return meaning(self.family, self.code)

    @property
    def error(self) -> str:
        """Give the error as links have it."""
        return f"{self.family}:{self.code}"


def grouped(errors: Sequence[happening.ErrorCount]) -> list[Group]:
    """Group errors by family, code and normal form of the diagnostic, the most frequent first."""
    same: dict[tuple[ErrorFamily, int, str], list[happening.ErrorCount]] = defaultdict(list)
    for one in errors:
        same[one.family, one.code, normal_diagnostic(one.diagnostic)].append(one)
    groups = [_group(*key, members) for key, members in same.items()]
    return sorted(groups, key=lambda g: (-g.number, g.family, g.code, g.diagnostic))


def _group(family: ErrorFamily, code: int, diagnostic: str, members: Sequence[happening.ErrorCount]) -> Group:
    last = max(members, key=lambda one: (one.last_at, one.last_job))
    number = sum(one.number for one in members)
    return Group(family, code, diagnostic, number, by_site(members), last.last_at, last.last_job)


def by_site(errors: Sequence[happening.ErrorCount]) -> tuple[tuple[str, int], ...]:
    """Count errors by site, the worst first."""
    numbers: dict[str, int] = defaultdict(int)
    for one in errors:
        numbers[one.site] += one.number
    return tuple(sorted(numbers.items(), key=lambda item: (-item[1], item[0])))


def build(monitor: Monitor, query: Query) -> Page:
    """Make the page."""
    hours = query.number("hours", DEFAULT_HOURS)
    family, _, code = query.text("error").partition(":")
    chosen = happening.ErrorFilter(
        since=monitor.hours_ago(hours),
        family=ErrorFamily(family) if family else _family(query),
        code=int(code) if code else None,
        site=next(iter(query.texts("site")), ""),
    )
    found = monitor.database.read(lambda c: happening.errors(c, chosen))
    groups = grouped(found.counts)
    total = sum(group.number for group in groups)
    sites = by_site(found.counts)
    values = {
        "groups": groups[:_SHOWN],
        "hidden": len(groups) - len(groups[:_SHOWN]),
        "total": total,
        "partial": found.partial,
        "sites": sites,
        "hours": hours,
        "all_hours": HOURS,
        "families": tuple(ErrorFamily),
        "worst": max((g.number for g in groups), default=1),
    }
    data = {"total": total, "partial": found.partial, "groups": groups, "sites": dict(sites)}
    columns = ("family", "code", "number", "diagnostic", "meaning", "sites", "last_at", "last_job")
    rows = [
        [g.family, g.code, g.number, g.diagnostic, g.meaning.text, "; ".join(f"{s} {n}" for s, n in g.sites), g.last_at,
         g.last_job] for g in groups
    ]  # fmt: skip
    return Page("Errors", "errors", values, data, Table(columns, rows))


def _family(query: Query) -> ErrorFamily | None:
    return ErrorFamily(query.text("family")) if query.text("family") else None


VIEWS = (View("/errors", ("hours", "family", "error", "site"), build),)
