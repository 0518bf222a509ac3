"""The kinds of background work of the data service, and how they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pandaserver.dataservice.ddm.protocol import DDM
from pandaserver.dataservice.loads import Loads
from pandaserver.model.choice import Broker, BrokerRules
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
RELEASE = "release"  # a dispatch dataset may be needed no more
SWEEP = "sweep"  # an attempt may have left files behind
NOTIFY = "notify"  # a user's set of jobs is complete

BUNCH = 100  # jobs in one piece of work; more would wait too long for the slowest


@dataclass(frozen=True)
class DataService:
    """What the data service works with."""

    buffer: TaskBuffer
    ddm: DDM
    choose: Broker
    retry_rules: tuple[RetryRule, ...] = RULES
    loads: Loads = field(default_factory=Loads)
    broker_rules: BrokerRules = field(default_factory=BrokerRules)


def ask_setup(connection: Connection, job_ids: Sequence[int], now: datetime, *, delay_s: float = 0) -> None:
    """Have sites chosen for jobs, in bunches."""
    bunches = [list(job_ids[i : i + BUNCH]) for i in range(0, len(job_ids), BUNCH)]
    new = [NewWork(kind=SETUP, key=_key(bunch), payload={"job_ids": bunch}) for bunch in bunches]
    if new:
        add_work(connection, new, now=now, delay_s=delay_s)


def _key(job_ids: list[int]) -> str:
    """Name a bunch so that people see which it is, and no two that differ are taken for one."""
    digest = hashlib.blake2b(repr(job_ids).encode(), digest_size=8).hexdigest()
    return f"{job_ids[0]}-{job_ids[-1]}-{digest}"


def ask_add(connection: Connection, attempts: Iterable[tuple[int, int]], now: datetime) -> None:
    """Have the results of attempts, as (job id, number), worked off."""
    new = [
        NewWork(kind=ADD, key=f"{job_id}.{number}", payload={"job_id": job_id, "attempt": number})
        for job_id, number in sorted(attempts)
    ]
    if new:
        add_work(connection, new, now=now)


def ask_for_datasets(connection: Connection, kind: str, datasets: Iterable[str], now: datetime) -> None:
    """Have a dataset looked at: activate, finish or close."""
    new = [NewWork(kind=kind, key=name, payload={"dataset": name}) for name in sorted(set(datasets))]
    if new:
        add_work(connection, new, now=now)
