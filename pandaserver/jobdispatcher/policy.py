"""The numbers of the dispatcher, as configured."""

from __future__ import annotations

from dataclasses import dataclass

# Which labels a pilot gets for the label it asks for.
LABEL_GROUPS: dict[str, tuple[str, ...]] = {
    "user": ("user", "panda"),
    "managed": ("managed", "test"),
}


@dataclass(frozen=True)
class DispatchPolicy:
    """Leases in seconds, which must be several heartbeats long; and where outputs are stored at first."""

    lease_s: float = 7200
    sent_lease_s: float = 1800
    stage_outputs: bool = False  # beside their place, under names of their attempt


def labels_for(label: str) -> tuple[str, ...] | None:
    """Resolve the label of a getJob request; empty or `any` asks for everything."""
    if label in ("", "any"):
        return None
    return LABEL_GROUPS.get(label, (label,))
