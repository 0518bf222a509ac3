"""What is wrong now: rules that turn numbers into sentences, the worst first, each with a link to the evidence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pandamonitor.meanings import meaning
from pandamonitor.query import NO_SITE, Query
from pandamonitor.text import count, duration
from pandaserver.model.codes import ErrorFamily
from pandaserver.model.grid import SOURCES, Queue, QueueStatus
from pandaserver.model.states import WITH_PILOT, JobState
from pandaserver.taskbuffer.activity import QueueActivity
from pandaserver.taskbuffer.monitoring_activity import (
    DutyState,
    Ended,
    ErrorCount,
    Living,
    MissingInput,
    Silent,
    WorkKind,
)
from pandaserver.taskbuffer.monitoring_data import TransferCount
from pandaserver.taskbuffer.sources import SourceState

RECENT_H = 3  # failures older than this are history
NO_PILOT_AFTER = timedelta(minutes=30)
NO_SITE_AFTER = timedelta(minutes=10)
NO_WORD_AFTER = timedelta(hours=1)
LATE_AFTER = timedelta(minutes=10)
_MANY_ENDED = 5  # fewer tell nothing about a site
_GROUPS = 6


@dataclass(frozen=True)
class Trouble:
    """One thing that is wrong, or may be soon."""

    level: str  # bad, warning
    text: str
    detail: str
    href: str


@dataclass(frozen=True, kw_only=True)
class Situation:
    """All that the rules look at."""

    now: datetime
    queues: dict[str, Queue]
    activity: dict[str, QueueActivity]
    living: Sequence[Living]
    ended: Sequence[Ended]
    silent: Sequence[Silent]
    missing: Sequence[MissingInput]
    errors: Sequence[ErrorCount]
    work: Sequence[WorkKind]
    duties: Sequence[DutyState]
    transfers: Sequence[TransferCount]
    sources: Sequence[SourceState] = ()


def find(found: Situation, query: Query) -> list[Trouble]:
    """Apply all rules; the bad comes before the doubtful."""
    servers = (_dead_server, _wrong_sources, _stuck)
    rules = (*servers, _failing_sites, _failures, _unserved, _without_word, _copies, _homeless, _waiting)
    troubles = [trouble for rule in rules for trouble in rule(found, query)]
    return sorted(troubles, key=lambda t: t.level != "bad")


def _dead_server(found: Situation, query: Query) -> Iterator[Trouble]:
    for duty in found.duties:
        held = duty.lease_until is not None and duty.lease_until > found.now
        if not held and duty.next_run_at < found.now - LATE_AFTER:
            text = f"No server does the duty “{duty.name}”"
            late = duration((found.now - duty.next_run_at).total_seconds())
            yield Trouble("bad", text, f"it is late by {late}: is a server running?", query.link("/server"))


def _wrong_sources(found: Situation, query: Query) -> Iterator[Trouble]:
    for one in found.sources:
        if one.problem:
            text = f"The {SOURCES[one.name]} {one.place} is wrong, what it said before goes on to hold"
            yield Trouble("warning", text, one.problem.splitlines()[0], query.link("/server"))


def _failing_sites(found: Situation, query: Query) -> Iterator[Trouble]:
    since = found.now - timedelta(hours=RECENT_H)
    ends: dict[str, dict[JobState, int]] = defaultdict(lambda: defaultdict(int))
    for one in found.ended:
        if one.at >= since and one.site:
            ends[one.site][one.state] += one.number
    for site, by_state in sorted(ends.items(), key=lambda item: -item[1][JobState.FAILED]):
        good, bad = by_state[JobState.FINISHED], by_state[JobState.FAILED]
        if good + bad >= _MANY_ENDED and bad > good:
            text = f"{site}: {count(bad)} of {count(good + bad)} jobs failed"
            yield Trouble(
                "bad", text, f"in the last {RECENT_H} hours", query.link("/errors", site=site, hours=RECENT_H)
            )


def _failures(found: Situation, query: Query) -> Iterator[Trouble]:
    by_code: dict[tuple[ErrorFamily, int], list[ErrorCount]] = defaultdict(list)
    for one in found.errors:
        by_code[one.family, one.code].append(one)
    ranked = sorted(by_code.items(), key=lambda item: -sum(e.number for e in item[1]))
    for (family, code), errors in ranked[:_GROUPS]:
        number = sum(e.number for e in errors)
        text = f"{count(number)} × {family} {code}: {meaning(family, code).text}"
        href = query.link("/jobs", error=f"{family}:{code}", hours=RECENT_H)
        yield Trouble("warning", text, _where((e.site, e.number) for e in errors), href)


def _where(numbers: Iterable[tuple[str, int]]) -> str:
    by_site: dict[str, int] = defaultdict(int)
    for site, number in numbers:
        by_site[site or "no site"] += number
    ranked = sorted(by_site.items(), key=lambda item: (-item[1], item[0]))
    more = f" and {len(ranked) - 3} more" if len(ranked) > 3 else ""
    return "at " + ", ".join(f"{site} ({count(number)})" for site, number in ranked[:3]) + more


def _unserved(found: Situation, query: Query) -> Iterator[Trouble]:
    """Find queues with jobs that pilots could take, if only there were pilots."""
    for one in found.living:
        queue = found.queues.get(one.site)
        if one.state is not JobState.ACTIVATED or (queue and queue.status is QueueStatus.OFFLINE):
            continue
        seen = found.activity.get(one.site)
        quiet_since = max(seen.last_seen, one.oldest) if seen else one.oldest
        if quiet_since < found.now - NO_PILOT_AFTER:
            text = f"{one.site}: {count(one.number)} jobs are ready and no pilot comes"
            quiet = f"last seen {duration((found.now - seen.last_seen).total_seconds())} ago" if seen else "none seen"
            yield Trouble("bad", text, quiet, query.link(f"/sites/{one.site}"))


def _without_word(found: Situation, query: Query) -> Iterator[Trouble]:
    for one in found.silent:
        text = f"{one.site}: {count(one.number)} jobs whose pilots say nothing"
        detail = f"the first for {duration((found.now - one.last_word).total_seconds())}"
        states = sorted(s.value for s in WITH_PILOT)
        yield Trouble("warning", text, detail, query.link("/jobs", state=states, site=one.site, sort="changed"))


def _stuck(found: Situation, query: Query) -> Iterator[Trouble]:
    for kind in found.work:
        if kind.late or kind.max_tries >= 3:
            text = f"Background work “{kind.kind}” is stuck: {count(kind.late or kind.retried)} of {count(kind.number)}"
            detail = f"oldest since {duration((found.now - kind.oldest).total_seconds())}, {kind.max_tries} tries"
            yield Trouble("bad" if kind.late else "warning", text, detail, query.link("/server"))


def _copies(found: Situation, query: Query) -> Iterator[Trouble]:
    failed: dict[str, int] = defaultdict(int)
    for one in found.transfers:
        if one.state == "failed":
            failed[one.destination] += one.number
    for destination, number in sorted(failed.items()):
        href = query.link("/transfers", transfer="failed", destination=destination)
        yield Trouble("warning", f"{count(number)} transfers to {destination} failed", "in the last 24 hours", href)


def _homeless(found: Situation, query: Query) -> Iterator[Trouble]:
    for one in found.living:
        if one.state is JobState.DEFINED and one.oldest < found.now - NO_SITE_AFTER:
            detail = f"the first for {duration((found.now - one.oldest).total_seconds())}"
            href = query.link("/jobs", state="defined", site=one.site or NO_SITE)
            yield Trouble("warning", f"{count(one.number)} jobs have no site yet", detail, href)


def _waiting(found: Situation, query: Query) -> Iterator[Trouble]:
    for one in found.missing:
        text = f"{count(one.jobs)} jobs wait for files of {one.dataset}"
        href = query.link("/jobs", state="waiting", dataset=one.dataset)
        yield Trouble("warning", text, "that do not exist yet", href)
