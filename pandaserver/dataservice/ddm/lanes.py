"""How copies are asked for: a piece of background work for each lane of a link, one for each callback."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from pandaserver.model.grid import Topology, at_once
from pandaserver.taskbuffer import catalogue, transfers
from pandaserver.taskbuffer.database import Connection
from pandaserver.taskbuffer.transfers import Lane, Link, Transfer
from pandaserver.taskbuffer.work import NewWork
from pandaserver.taskbuffer.work import add as add_work

COPY = "ddm_copy"  # a copy without a source: servers of before ask for each by itself
LINK = "ddm_link"  # a lane of a link has copies to make
CALLBACK = "ddm_callback"


def ask_copies(connection: Connection, waiting: Sequence[Transfer], grid: Topology, now: datetime) -> None:
    """Give copies their sources, and have them made."""
    copies = catalogue.replicas(connection, {one.name for one in waiting})
    sites = {name: endpoint.site for name, endpoint in grid.endpoints.items()}
    ask_lanes(connection, transfers.plan(connection, waiting, copies, sites, now), grid.links, now)


def ask_lanes(connection: Connection, waiting: Mapping[Link, int], limits: Mapping[Link, int], now: datetime) -> None:
    """Have as many lanes of links looked after as there are copies for."""
    for (source, destination), files in sorted(waiting.items()):
        numbers = range(min(files, at_once(limits, source, destination)))
        ask_lane(connection, [Lane(source, destination, number, "") for number in numbers], now)


def ask_lane(connection: Connection, lanes: Iterable[Lane], now: datetime, *, delay_s: float = 0) -> None:
    """Have lanes looked after, now or later."""
    new = [
        NewWork(kind=LINK, key=lane.slot, payload={"link": [lane.source, lane.destination], "lane": lane.number})
        for lane in lanes
    ]
    if new:
        add_work(connection, new, now=now, delay_s=delay_s)


def ask_callbacks(connection: Connection, complete: Iterable[tuple[str, str]], now: datetime) -> None:
    """Have told that datasets are complete at endpoints."""
    new = [
        NewWork(kind=CALLBACK, key=f"{dataset}@{endpoint}"[:255], payload={"dataset": dataset, "endpoint": endpoint})
        for dataset, endpoint in complete
    ]
    if new:
        add_work(connection, new, now=now)
