"""Finds the back end named in the configuration, so that a site can add its own by an entry point."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

from schedulers.batch.fork import open_batch as open_fork
from schedulers.batch.protocol import BatchSettings, BatchSystem
from schedulers.errors import ConfigError

GROUP = "panda.batch"
BUILT_IN: dict[str, Callable[[BatchSettings], BatchSystem]] = {"fork": open_fork}


def known_back_ends() -> tuple[str, ...]:
    """Name every back end that can be used here."""
    return tuple(sorted({*BUILT_IN, *(entry.name for entry in entry_points(group=GROUP))}))


def open_batch_system(name: str, settings: BatchSettings) -> BatchSystem:
    """Open the batch system called `name`, a built-in one before one from an entry point."""
    if name in BUILT_IN:
        return BUILT_IN[name](settings)
    for entry in entry_points(group=GROUP, name=name):
        opener: Callable[[BatchSettings], BatchSystem] = entry.load()
        return opener(settings)
    raise ConfigError(f"[scheduler] back_end = {name}: no such back end; known here: {', '.join(known_back_ends())}")
