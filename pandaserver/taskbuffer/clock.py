"""One place that tells the time, so that tests can."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Tell the time now, aware UTC."""
    return datetime.now(UTC)
