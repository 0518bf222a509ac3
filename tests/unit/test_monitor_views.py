"""How pages arrange what was read: matrix, timeline, groups, screens, and what is wrong now."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandamonitor.query import Query, read_query
from pandamonitor.views import troubles
from pandamonitor.views.errors import grouped
from pandamonitor.views.job import stays, timeline
from pandamonitor.views.jobs import summaries
from pandamonitor.views.overview import BIN, first_bin, matrix, success_by_site, throughput
from pandamonitor.views.page import View, screen
from pandaserver.model.codes import ErrorFamily
from pandaserver.model.grid import Queue, QueueStatus
from pandaserver.model.states import FINAL, JobState
from pandaserver.taskbuffer.activity import QueueActivity
from pandaserver.taskbuffer.jobs import HistoryRow
from pandaserver.taskbuffer.monitoring import JobCount, JobGroup
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

NOW = datetime(2026, 11, 22, 12, 7, tzinfo=UTC)
S = JobState


def ago(**told: float) -> datetime:
    return NOW - timedelta(**told)


def query(path: str = "/jobs", **values: str) -> Query:
    return read_query("", path, {n: [v] for n, v in values.items()}, allowed=tuple(values))


# --- numbers ---------------------------------------------------------------------------------------------------------

sites = st.sampled_from(["", "BNL", "UTA", "gone"])
living = st.builds(Living, sites, st.sampled_from([s for s in S if s not in FINAL]), st.integers(1, 99), st.just(NOW))
ended = st.builds(Ended, sites, st.sampled_from(sorted(FINAL)), st.just(NOW), st.integers(1, 99))


@given(st.lists(living), st.lists(ended))
def test_a_matrix_loses_no_job(some: list[Living], others: list[Ended]) -> None:
    found = matrix(some, others, ["BNL", "empty"])
    total = sum(x.number for x in some) + sum(x.number for x in others)
    assert found.total == total == sum(sum(row) for _, row in found.rows)
    assert {"BNL", "empty"} <= {site for site, _ in found.rows}
    assert [site for site, _ in found.rows if not site] == [""] * (found.rows[-1][0] == "")
    assert all(found.sums), "no column is empty"


def test_throughput_has_every_half_hour_of_the_day() -> None:
    start = first_bin(NOW)
    assert start == datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
    assert start + 48 * BIN > NOW
    told = [Ended("A", S.FINISHED, ago(minutes=7), 3), Ended("A", S.FAILED, start, 2), Ended("A", S.CLOSED, start, 9)]
    drawing = str(throughput([*told, Ended("A", S.FINISHED, ago(days=2), 4711)], start))
    assert drawing.count("<title>") == 48
    assert "12:30: 2 failed" in drawing
    assert "12:00: 3 finished" in drawing
    assert "4711" not in drawing


def test_the_worst_site_comes_first() -> None:
    told = [Ended("A", S.FINISHED, NOW, 9), Ended("B", S.FAILED, NOW, 2), Ended("B", S.FINISHED, NOW, 1)]
    assert [(o.site, o.finished, o.failed) for o in success_by_site(told)] == [("B", 1, 2), ("A", 9, 0)]


@given(st.integers(1, 10**6), st.sampled_from([25, 100, 500]), st.integers(0, 10**6))
def test_a_screen_is_never_behind_the_end(page: int, size: int, total: int) -> None:
    found = screen(query(page=str(page), size=str(size)), total)
    assert 1 <= found.page <= found.pages
    assert found.first <= found.last <= total
    assert found.offset < max(1, min(total, 200_000))


def test_a_summary_counts_every_job_and_leads_to_fewer() -> None:
    groups = (JobGroup(S.RUNNING, "BNL", "user", "Al", 3), JobGroup(S.FAILED, "", "user", "Bo", 4))
    by_name = {s.name: s for s in summaries(JobCount(groups, partial=False), query(site="BNL"))}
    assert {name: sum(v.number for v in s.values) for name, s in by_name.items()} == dict.fromkeys(by_name, 7)
    assert [(v.text, v.number, v.chosen) for v in by_name["site"].values] == [("none", 4, False), ("BNL", 3, True)]
    assert by_name["owner"].values[0].href == "/jobs?owner=Bo&site=BNL"


def test_a_view_bounds_how_long_its_pages_are_kept() -> None:
    view = View("/", (), lambda: None, at_most_s=5)  # type: ignore[arg-type,return-value]
    assert (view.keep_s(20), view.keep_s(2)) == (5, 2)


# --- one job ---------------------------------------------------------------------------------------------------------


def row(minutes: float, old: S | None, new: S, attempt: int = 0) -> HistoryRow:
    return HistoryRow(1, ago(minutes=minutes), old, new, attempt, "because")


def test_stays_are_the_times_between_changes() -> None:
    told = [row(30, None, S.DEFINED), row(20, S.DEFINED, S.ACTIVATED), row(5, S.ACTIVATED, S.SENT, 1)]
    assert [(s.state, s.seconds, s.attempt) for s in stays(told, NOW)] == [
        (S.DEFINED, 600, 0), (S.ACTIVATED, 900, 0), (S.SENT, 300, 1),
    ]  # fmt: skip
    done = stays([*told, row(1, S.SENT, S.FAILED, 1)], NOW)
    assert (done[-1].state, done[-1].seconds) == (S.FAILED, None)
    assert str(timeline(done)).count("<rect") == 3
    assert stays([], NOW) == []
    assert not timeline([])


# --- errors ----------------------------------------------------------------------------------------------------------


def error(code: int, diagnostic: str, site: str, number: int, job: int = 1) -> ErrorCount:
    return ErrorCount(ErrorFamily.PILOT, code, diagnostic, site, number, ago(hours=1) + timedelta(seconds=job), job)


def test_errors_that_differ_by_numbers_are_one_group() -> None:
    told = [
        error(1137, "copy 1 failed", "A", 2, 5),
        error(1137, "copy 2 failed", "B", 3, 9),
        error(1099, "copy 1", "A", 1),
    ]
    (first, second) = grouped(told)
    assert (first.number, first.sites, first.last_job, first.error) == (5, (("B", 3), ("A", 2)), 9, "pilot:1137")
    assert second.number == 1


# --- what is wrong now -----------------------------------------------------------------------------------------------

CALM = troubles.Situation(
    now=NOW, queues={}, activity={}, living=(), ended=(), silent=(), missing=(), errors=(), work=(), duties=(),
    transfers=(),
)  # fmt: skip


def queue(name: str, status: str = "online") -> dict[str, Queue]:
    return {name: Queue(name=name, site=name, cloud="X", tier=2, status=QueueStatus(status), endpoint="E")}


def found(**told: object) -> list[troubles.Trouble]:
    return troubles.find(replace(CALM, **told), query("/"))  # type: ignore[arg-type]


def test_when_all_is_well_nothing_is_said() -> None:
    assert found() == []
    seen = {"A": QueueActivity(9, 9, 9, ago(minutes=2))}
    assert found(queues=queue("A"), activity=seen, living=[Living("A", S.ACTIVATED, 5, ago(hours=9))]) == []


@pytest.mark.parametrize(
    ("told", "level", "words"),
    [
        ({"duties": [DutyState("watch", None, None, ago(minutes=11), None, None)]}, "bad", "No server does the duty"),
        ({"ended": [Ended("A", S.FAILED, ago(hours=1), 4), Ended("A", S.FINISHED, NOW, 1)]}, "bad", "A: 4 of 5 jobs"),
        ({"errors": [error(1137, "x", "A", 7)]}, "warning", "7 × pilot 1137: an output file"),
        ({"living": [Living("A", S.ACTIVATED, 2, ago(hours=1))], "queues": queue("A")}, "bad", "A: 2 jobs are ready"),
        ({"silent": [Silent("A", 3, ago(hours=2))]}, "warning", "A: 3 jobs whose pilots say nothing"),
        ({"work": [WorkKind("add", 4, 0, 2, 1, 1, ago(hours=1))]}, "bad", "“add” is stuck: 2 of 4"),
        ({"work": [WorkKind("add", 4, 0, 0, 1, 3, ago(hours=1))]}, "warning", "“add” is stuck: 1 of 4"),
        ({"transfers": [TransferCount("", "E", "failed", 2, 9, 0, NOW)]}, "warning", "2 transfers to E failed"),
        ({"living": [Living("", S.DEFINED, 1, ago(minutes=11))]}, "warning", "1 jobs have no site"),
        ({"missing": [MissingInput("d<s>", 5, 1)]}, "warning", "5 jobs wait for files of d<s>"),
    ],
)
def test_every_rule_speaks_and_links(told: dict[str, object], level: str, words: str) -> None:
    (trouble,) = found(**told)
    assert trouble.level == level
    assert words in trouble.text
    assert trouble.href.startswith("/")


@pytest.mark.parametrize(
    "told",
    [
        {"duties": [DutyState("watch", "x", NOW + timedelta(seconds=9), ago(hours=1), None, None)]},
        {"ended": [Ended("A", S.FAILED, ago(hours=4), 40)]},
        {"ended": [Ended("A", S.FAILED, NOW, 4)]},
        {"ended": [Ended("A", S.FAILED, NOW, 5), Ended("A", S.FINISHED, NOW, 5)]},
        {"living": [Living("A", S.ACTIVATED, 2, ago(hours=1))], "queues": queue("A", "offline")},
        {"living": [Living("A", S.ACTIVATED, 2, ago(minutes=20))], "queues": queue("A")},
        {"living": [Living("", S.DEFINED, 1, ago(minutes=9))]},
        {"work": [WorkKind("add", 4, 4, 0, 1, 2, ago(hours=1))]},
        {"transfers": [TransferCount("", "E", "queued", 2, 9, 0, NOW)]},
    ],
)
def test_no_rule_cries_too_early(told: dict[str, object]) -> None:
    assert found(**told) == []


def test_the_bad_comes_before_the_doubtful() -> None:
    told = found(silent=[Silent("A", 3, ago(hours=2))], work=[WorkKind("add", 1, 0, 1, 0, 0, ago(hours=1))])
    assert [t.level for t in told] == ["bad", "warning"]
