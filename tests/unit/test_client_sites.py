"""`panda sites`: times as operators write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pandaserver.client.failures import WrongUse
from pandaserver.client.sites import read_until

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("90min", 1.5), ("6h", 6), ("+6h", 6), ("2 d", 48), ("2026-11-22T18:00", 6), ("2026-11-22 18:00:00+00:00", 6),
        ("2026-11-22T18:00+02:00", 4), ("2026-11-23", 12), ("2026-11-22T18:00Z", 6),
    ],
)  # fmt: skip
def test_a_moment_or_how_long_from_now(text: str, hours: float) -> None:
    assert read_until(text, NOW) == NOW + timedelta(hours=hours)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tomorrow", "a moment such as"), ("", "a moment such as"), ("6", "a moment such as"), ("6 weeks", "a"),
        ("9999999d", "a moment such as"), ("-6h", "a moment such as"), ("2026-13-01", "a moment such"), ("0h", "past"),
        ("2026-11-22T11:59", "that was at 2026-11-22 11:59 UTC, in the past"), ("0001-01-01T00:00+14:00", "a moment"),
    ],
)  # fmt: skip
def test_others_are_refused(text: str, words: str) -> None:
    with pytest.raises(WrongUse, match=words):
        read_until(text, NOW)
