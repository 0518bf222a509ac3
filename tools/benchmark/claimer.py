"""A child process that claims jobs straight from the dispatcher, without web, in threads."""

from __future__ import annotations

import json
import random
import resource
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmark import inside, messages
from benchmark.processes import BenchError
from pandaserver.jobdispatcher.dispatcher import Dispatcher
from pandaserver.web.pilotwire import read_claim

ONE_QUEUE, MIXED, NOTHING = "one queue", "mixed", "nothing matches"


@dataclass(frozen=True, kw_only=True)
class ClaimPlan:
    """What one process does: `claims` in batches, each of one queue or of several."""

    config: str
    queues: list[str]
    kind: str = ONE_QUEUE
    threads: int = 1
    claims: int = 1000
    batch: int = 1
    seconds: float = 5.0
    seed: int = 0
    pilot: str = ""
    owner: str = ""  # of whom there are no jobs


@dataclass
class Claimed:
    """What one thread saw; the latencies are those of whole batches."""

    latencies: list[float] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    empty: int = 0


def filters() -> dict[str, dict[str, Any]]:
    """Give requests that no job fits."""
    return {
        "too little memory": {"mem": 1},
        "other label": {"prodSourceLabel": "nobody"},
        "no time left": {"remainingTime": 1},
    }


def queue_order(queues: Sequence[str], seed: int) -> list[str]:
    """Give each thread its own order, so that the queues are emptied evenly."""
    order = list(queues)
    random.Random(seed).shuffle(order)
    return order


def _claim(dispatcher: Dispatcher, plan: ClaimPlan, thread: int, seen: Claimed) -> None:
    order = queue_order(plan.queues, plan.seed * 1000 + thread)
    end, step = time.perf_counter() + plan.seconds, 0
    for _ in range(plan.claims // (plan.batch * plan.threads)):
        names = [order[(step + n * (plan.kind == MIXED)) % len(order)] for n in range(plan.batch)]
        step += plan.batch if plan.kind == MIXED else 1
        requests = [read_claim(messages.request_for(name), plan.pilot) for name in names]
        begun = time.perf_counter()
        claims = dispatcher.get_jobs(requests)
        now = time.perf_counter()
        seen.latencies.append(now - begun)
        seen.ids += [claim.job.job_id for claim in claims if claim is not None]
        seen.empty += sum(claim is None for claim in claims)
        if now > end:
            break


def claim_all(dispatcher: Dispatcher, plan: ClaimPlan) -> dict[str, Any]:
    """Claim in all threads at once."""
    _claim(dispatcher, ClaimPlan(**asdict(plan) | {"claims": 1, "batch": 1, "threads": 1}), 0, Claimed())  # warm up
    seen = [Claimed() for _ in range(plan.threads)]
    threads = [threading.Thread(target=_claim, args=(dispatcher, plan, n, one)) for n, one in enumerate(seen)]
    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "latencies": [value for one in seen for value in one.latencies],
        "ids": [value for one in seen for value in one.ids],
        "empty": sum(one.empty for one in seen),
        "begun": begun,
        "ended": time.monotonic(),
        "cpu_s": used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime,
    }


def ask_in_vain(dispatcher: Dispatcher, plan: ClaimPlan) -> dict[str, Any]:
    """Ask each queue for what it has not; give the latencies by filter, or text where there is no such filter."""
    told: dict[str, Any] = {}
    for name, more in filters().items():
        told[name] = [_in_vain(dispatcher, plan, queue, more) for queue in plan.queues[: plan.claims]]
    try:
        told["user without jobs"] = [_in_vain(dispatcher, plan, q, {}, plan.owner) for q in plan.queues[: plan.claims]]
    except BenchError as error:
        told["user without jobs"] = str(error)
    return told


def _in_vain(dispatcher: Dispatcher, plan: ClaimPlan, queue: str, more: dict[str, Any], owner: str = "") -> float:
    request = read_claim(messages.request_for(queue, **more), plan.pilot)
    request = inside.asking_for_owner(request, owner) if owner else request
    begun = time.perf_counter()
    (claim,) = dispatcher.get_jobs([request])
    if claim is not None:
        raise AssertionError(f"a job was given that does not fit: {more}")
    return time.perf_counter() - begun


def main() -> None:
    """Read the plan from a file, say ready, wait for go, print what was measured."""
    plan = ClaimPlan(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    dispatcher = inside.dispatcher(Path(plan.config))
    print("ready", flush=True)
    sys.stdin.readline()
    told = ask_in_vain(dispatcher, plan) if plan.kind == NOTHING else claim_all(dispatcher, plan)
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
