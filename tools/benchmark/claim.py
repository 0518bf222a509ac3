"""Claims with very many jobs waiting: does a claim cost the same, however long the queues are?"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmark.claimer import MIXED, NOTHING, ClaimPlan
from benchmark.drive import children, together
from benchmark.fill import OWNER, Crowd, fill
from benchmark.processes import Meter
from benchmark.quantiles import quantile, summary_ms
from benchmark.show import Sheet, say
from benchmark.site import Site

_PASSES = 4  # that use jobs up
_IN_VAIN = 20  # queues that are asked for what they have not


@dataclass(frozen=True, kw_only=True)
class ClaimWish:
    """How many jobs wait, and who takes them."""

    waiting: int
    seconds: float = 5.0  # for each pass
    claims: int = 5000  # at most, in each pass
    batch: int = 10
    processes: int = 2
    threads: int = 4

    @property
    def most_claims(self) -> int:
        """Take no more than leaves the queues as they are."""
        return max(min(self.claims, self.waiting // 10), self.batch * self.processes * self.threads)


@dataclass(frozen=True)
class Pass:
    """One pass of claims."""

    title: str
    batch: int
    latencies: list[float]
    ids: list[int]
    empty: int
    seconds: float
    client_s: float
    db_s: float

    @property
    def rate(self) -> float:
        """Give the jobs claimed per second."""
        return len(self.ids) / max(self.seconds, 1e-9)

    def cpu_ms(self, spent_s: float) -> float:
        """Share CPU time out over the claims."""
        return 1000 * spent_s / max(len(self.ids), 1)


def crowd(place: Site, wish: ClaimWish) -> Crowd:
    """Give the jobs that wait; those that may be claimed have files and parameters."""
    complete = 2 * _PASSES * wish.most_claims // len(place.queues) + 50
    return Crowd(count=wish.waiting, queues=place.queues, complete=complete)


def measure(place: Site, wish: ClaimWish) -> dict[str, Any]:
    """Fill the tables and claim: one by one, by many at once, in batches, and in vain."""
    fill(place.database, crowd(place, wish))
    plan = ClaimPlan(
        config=str(place.config), queues=place.queues, pilot=place.pilot, seconds=wish.seconds, owner=f"{OWNER}nobody"
    )
    _pass(place, "warm-up", replace(plan, claims=100, seed=99), 1)
    many = replace(plan, threads=wish.threads)
    in_batches = replace(many, batch=wish.batch)
    per_process = wish.most_claims // wish.processes
    done = [
        _pass(place, "one connection", replace(plan, claims=wish.most_claims), 1),
        _pass(place, "one by one", replace(many, claims=per_process, seed=1), wish.processes),
        _pass(place, "batches, one queue", replace(in_batches, claims=per_process, seed=11), wish.processes),
        _pass(place, "batches, mixed", replace(in_batches, claims=per_process, seed=21, kind=MIXED), wish.processes),
    ]
    say("asking for what is not there")
    (in_vain,) = _run(place, [replace(plan, kind=NOTHING, claims=_IN_VAIN)])
    return as_json(wish, done, in_vain)


def _pass(place: Site, title: str, plan: ClaimPlan, processes: int) -> Pass:
    say(f"claims: {title}")
    meter = Meter(web=0, db=place.database.pid)
    before = meter.read()
    told = _run(place, [replace(plan, seed=plan.seed + number) for number in range(processes)])
    used = meter.read() - before
    seconds = max(one["ended"] for one in told) - min(one["begun"] for one in told)
    return Pass(
        title,
        plan.batch,
        sorted(value for one in told for value in one["latencies"]),
        [value for one in told for value in one["ids"]],
        sum(one["empty"] for one in told),
        seconds,
        sum(one["cpu_s"] for one in told),
        used.db_s,
    )


def _run(place: Site, plans: Sequence[ClaimPlan]) -> list[dict[str, Any]]:
    with children("benchmark.claimer", [json.dumps(asdict(plan)) for plan in plans], place.root) as processes:
        return together(processes)


def as_json(wish: ClaimWish, done: Sequence[Pass], in_vain: dict[str, Any]) -> dict[str, Any]:
    """Give what was measured for machines."""
    single, many, batches, mixed = done
    found = {name: _median_ms(told) for name, told in in_vain.items()}
    given = Counter(job_id for one in done for job_id in one.ids)
    return {
        "waiting": wish.waiting,
        "p50_ms": summary_ms(single.latencies)["p50_ms"],
        "p99_ms": summary_ms(single.latencies)["p99_ms"],
        "claims_per_s": round(many.rate, 1),
        "batched_claims_per_s": round(batches.rate, 1),
        "mixed_batches_claims_per_s": round(mixed.rate, 1),
        "nothing_matches_ms": max(value for value in found.values() if isinstance(value, float)),
        "nothing_matches": found,
        "given_twice": sum(times - 1 for times in given.values()),
        "no_job_answers": sum(one.empty for one in done),
        "claims": sum(len(one.ids) for one in done),
        "passes": [_pass_json(one) for one in done],
    }


def _median_ms(told: Any) -> float | str:
    return str(told) if isinstance(told, str) else round(1000 * quantile(sorted(told), 0.5), 3)


def _pass_json(one: Pass) -> dict[str, Any]:
    costs = {"cpu_ms": one.cpu_ms(one.client_s + one.db_s), "python_ms": one.cpu_ms(one.client_s)}
    told = {name: round(value, 3) for name, value in (costs | {"db_ms": one.cpu_ms(one.db_s)}).items()}
    return {"title": one.title, "batch": one.batch, "per_s": round(one.rate, 1)} | summary_ms(one.latencies) | told


def sheets(told: dict[str, Any]) -> list[Sheet]:
    """Give what was measured for people."""
    keys = ("title", "batch", "per_s", "p50_ms", "p95_ms", "p99_ms", "cpu_ms", "python_ms", "db_ms")
    columns = ("claims", "batch", "per s", "p50 ms", "p95 ms", "p99 ms", "CPU ms each", "Python", "mariadbd")
    rows = [tuple(one[key] for key in keys) for one in told["passes"]]
    note = (
        f"{told['claims']} claims, {told['given_twice']} jobs given twice, {told['no_job_answers']} times no job "
        "although jobs wait; latencies are those of a batch"
    )
    vain = Sheet("Asked in vain", ("filter", "p50 ms"), list(told["nothing_matches"].items()))
    return [Sheet(f"Claims with {told['waiting']:,} waiting jobs", columns, rows, note), vain]
