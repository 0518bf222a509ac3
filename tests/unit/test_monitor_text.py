"""Words, numbers and diagnostics as the monitor writes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandamonitor import text
from pandamonitor.meanings import UNKNOWN, meaning
from pandapilot.codes import ErrorCode
from pandaserver.model.codes import BrokerageError, DDMError, DispatcherError, ErrorFamily, TaskBufferError


@pytest.mark.parametrize(
    ("given_bytes", "shown"),
    [(None, "–"), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_234_567, "1.2 MB"), (99_960_000, "100 MB"),
     (999_600, "1.0 MB"), (5 * 10**12, "5.0 TB"), (10**30, "1000000000000 EB")],
)  # fmt: skip
def test_sizes(given_bytes: int | None, shown: str) -> None:
    assert text.size(given_bytes) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "–"), (0, "0 s"), (-5, "0 s"), (59.4, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (3600, "1 h"),
     (3_660, "1 h 1 min"), (90_000, "1 d 1 h"), (86_400 * 7, "7 d")],
)  # fmt: skip
def test_durations(seconds: float | None, shown: str) -> None:
    assert text.duration(seconds) == shown


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [(0, 0, "–"), (0, 5, "0 %"), (5, 5, "100 %"), (999, 1000, "> 99 %"), (1, 1000, "< 1 %"), (1, 3, "33 %")],
)
def test_a_share_is_whole_only_when_nothing_is_missing(part: int, whole: int, shown: str) -> None:
    assert text.percent(part, whole) == shown


@pytest.mark.parametrize(("number", "shown"), [(1, "1 hour"), (24, "24 hours"), (72, "72 hours"), (168, "7 days")])
def test_spans_of_time(number: int, shown: str) -> None:
    assert text.hours(number) == shown


def test_moments_are_written_in_utc() -> None:
    moment = datetime(2026, 11, 22, 1, 2, 3, tzinfo=timezone(timedelta(hours=2)))
    assert text.utc(moment) == "2026-11-21 23:02:03"
    assert text.iso(moment) == "2026-11-21T23:02:03.000Z"
    assert datetime.fromisoformat(text.iso(moment)) == moment.astimezone(UTC)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("copy of out.17.root failed after 30 s", "copy of out.4711.root failed after 31.5 s"),
        ("cannot read /srv/a/b/file.1", "cannot read /data/zz/other"),
        ("GET https://a.example/x?y=1 gave 500", "GET https://b.example:8443/q gave 502"),
        ("guid 01234567-89AB-cdef-0123-456789abcdef is lost", "guid ffffffff-ffff-ffff-ffff-ffffffffffff is lost"),
        ("adler32 0a1b2c3d, not 99ffee00", "adler32 deadbee1, not 12345abc"),
        ("owner /DC=org/CN=Alice has no quota", "owner /DC=org/CN=Bob has no quota"),
        ("fault at 0xdeadbeef\n  now", "fault at 0x1 now"),
    ],
)
def test_what_differs_by_numbers_ids_and_paths_is_equal(one: str, other: str) -> None:
    assert text.normal_diagnostic(one) == text.normal_diagnostic(other)


def test_different_errors_stay_different() -> None:
    said = ["stage-in timed out", "stage-out timed out", "no space left", "and/or wrong", "feedface without digits"]
    assert len({text.normal_diagnostic(one) for one in said}) == len(said)
    assert text.normal_diagnostic("and/or wrong") == "and/or wrong"


@given(st.text(max_size=600))
def test_a_normal_form_is_short_and_its_own_normal_form(diagnostic: str) -> None:
    normal = text.normal_diagnostic(diagnostic)
    assert len(normal) <= 200
    assert "\n" not in normal


def test_log_text_shows_what_hides() -> None:
    assert text.log_text("a\x1b[31mred\x1b[0m\r\nb\x07\u202ec\tд") == "ared\nb\\x07\\x202ec\tд"


@given(st.text())
def test_log_text_has_no_control_characters(foreign: str) -> None:
    assert all(c in "\n\t" or ord(c) >= 32 for c in text.log_text(foreign))


def test_every_code_of_server_and_pilot_has_a_meaning() -> None:
    families = {
        ErrorFamily.DDM: DDMError,
        ErrorFamily.BROKERAGE: BrokerageError,
        ErrorFamily.DISPATCHER: DispatcherError,
        ErrorFamily.TASKBUFFER: TaskBufferError,
        ErrorFamily.PILOT: ErrorCode,
    }
    without = [(f, c) for f, codes in families.items() for c in codes if c and meaning(f, int(c)) is UNKNOWN]
    assert without == []
    assert meaning(ErrorFamily.PAYLOAD, 65) is not UNKNOWN
    assert meaning(ErrorFamily.PILOT, 9999) is UNKNOWN
