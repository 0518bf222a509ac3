"""The kinds of background work of the data service, and how they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from pandaserver.dataservice.ddm.protocol import DDM
from pandaserver.model.choice import Broker
from pandaserver.model.retry import RULES, RetryRule
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection
from pandaserver.taskbuffer.work import NewWork
from pandaserver.taskbuffer.work import add as add_work

SETUP = "setup"  # choose sites, name datasets
DISPATCH = "dispatch"  # have inputs brought
ACTIVATE = "activate"  # inputs may have arrived
ADD = "add"  # a pilot is done: outputs or failure
FINISH = "finish"  # outputs may have arrived
CLOSE = "close"  # a _sub dataset may be complete

BUNCH = 20  # jobs set up together; more would wait too long for the slowest


@dataclass(frozen=True)
class DataService:
    """What the data service works with."""

    buffer: TaskBuffer
    ddm: DDM
    choose: Broker
    retry_rules: tuple[RetryRule, ...] = RULES


def ask_setup(connection: Connection, job_ids: Sequence[int], now: datetime, *, delay_s: float = 0) -> None:
    """Have sites chosen for jobs, in bunches."""
    bunches = [list(job_ids[i : i + BUNCH]) for i in range(0, len(job_ids), BUNCH)]
    new = [NewWork(kind=SETUP, key=f"{b[0]}-{b[-1]}-{len(b)}", payload={"job_ids": b}) for b in bunches]
    if new:
        add_work(connection, new, now=now, delay_s=delay_s)


def ask_add(connection: Connection, job_id: int, attempt: int, now: datetime) -> None:
    """Have the result of an attempt worked off."""
    payload = {"job_id": job_id, "attempt": attempt}
    add_work(connection, [NewWork(kind=ADD, key=f"{job_id}.{attempt}", payload=payload)], now=now)


def ask_for_datasets(connection: Connection, kind: str, datasets: Iterable[str], now: datetime) -> None:
    """Have a dataset looked at: activate, finish or close."""
    new = [NewWork(kind=kind, key=name, payload={"dataset": name}) for name in sorted(set(datasets))]
    if new:
        add_work(connection, new, now=now)
