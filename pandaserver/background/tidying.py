"""Duties that clear away what has served its time, and see to it that nothing stays open by mistake."""

from __future__ import annotations

from datetime import timedelta

from pandaserver.background.duties import Duty
from pandaserver.dataservice.service import CLOSE, ask_for_datasets
from pandaserver.taskbuffer import datasets, lanes, links
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection

_AT_ONCE = 500
_LANES_PERIOD_S, _LANE_AGE = 3600.0, timedelta(days=1)
# A _sub dataset is closed by the work that decides on its last file; this is for work that was given up.
_DATASETS_PERIOD_S, _DATASET_AGE = 600.0, timedelta(hours=1)
_LINKS_PERIOD_S = 86400.0


def tidying_duties(buffer: TaskBuffer) -> list[Duty]:
    """Give these duties."""
    return [
        Duty("sweep lanes", _LANES_PERIOD_S, lambda: sweep_lanes(buffer)),
        Duty("close datasets", _DATASETS_PERIOD_S, lambda: close_datasets(buffer)),
        Duty("forget link hours", _LINKS_PERIOD_S, lambda: forget_link_hours(buffer)),
    ]


def sweep_lanes(buffer: TaskBuffer) -> int:
    """Remove lanes in which nothing waits or runs; tell how many."""
    before = buffer.now() - _LANE_AGE
    swept = found = buffer.run(lambda c: lanes.sweep(c, before, _AT_ONCE))
    while found == _AT_ONCE:
        found = buffer.run(lambda c: lanes.sweep(c, before, _AT_ONCE))
        swept += found
    return swept


def forget_link_hours(buffer: TaskBuffer) -> int:
    """Forget what links carried long ago; tell how many hours of links."""
    return buffer.run(lambda c: links.forget(c, buffer.now() - links.KEPT))


def close_datasets(buffer: TaskBuffer) -> int:
    """Ask for the closing of _sub datasets that have been complete for long; tell how many."""

    def ask(connection: Connection) -> int:
        now = buffer.now()
        names = datasets.left_open(connection, before=now - _DATASET_AGE, limit=_AT_ONCE)
        ask_for_datasets(connection, CLOSE, names, now)
        return len(names)

    return buffer.run(ask)
