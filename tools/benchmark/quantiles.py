"""Latencies summed up: exact, by sorting all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence


def quantile(ordered: Sequence[float], share: float) -> float:
    """Give the smallest value that is not below `share` of all; 0 for no values. The values are in order."""
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def summary_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Sum up latencies: how many, and p50, p95, p99 in milliseconds."""
    ordered = sorted(seconds)
    told = {f"p{percent}_ms": round(1000 * quantile(ordered, percent / 100), 3) for percent in (50, 95, 99)}
    return {"count": len(ordered), **told}
