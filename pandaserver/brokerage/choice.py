"""The choice of a queue: the least loaded ones that can take the job, then the one that has its data."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pandaserver.brokerage.filters import Refusal, refusal
from pandaserver.model.choice import Choice, Load, Verdict
from pandaserver.model.grid import Queue
from pandaserver.model.job import Job

FINALISTS = 2  # so many least loaded queues are looked at for data
MUCH_WORSE = 2.0  # a finalist whose weight is more than this times the best is dropped
MANY_INPUTS = 4  # with more inputs than this the Tier-1 is preferred ...
TIER1_BONUS = 2.0  # ... by this factor


FAILED_THERE = Refusal("failed there before")


def choose(
    job: Job,
    queues: Mapping[str, Queue],
    loads: Mapping[str, Load],
    inputs_at: Mapping[str, int],
    *,
    avoid: Collection[str] = (),
) -> Choice:
    """Choose a queue for a job.

    Args:
        inputs_at: number of the job's input files at each endpoint.
        avoid: queues that are taken only when no other can take the job.
    """
    refused = {name: refusal(job, queue) for name, queue in queues.items()}
    if any(refused[name] is None for name in queues if name not in avoid):
        refused |= {name: FAILED_THERE for name in avoid if name in queues and refused[name] is None}
    rejected = tuple(Verdict(name, "rejected", r.reason) for name, r in refused.items() if r is not None)
    fit = [queues[name] for name, r in refused.items() if r is None]
    total = max(inputs_at.values(), default=0)
    possible = {queue.name: weight(queue, loads.get(queue.name, Load()), inputs=total) for queue in fit}
    if not possible:
        return Choice(None, rejected, may_pass=any(r.passing for r in refused.values() if r is not None))
    best = _best(possible, {name: inputs_at.get(queues[name].endpoint, 0) for name in possible})
    return Choice(best, (*_said(best, possible, queues, loads, inputs_at), *rejected))


def weight(queue: Queue, load: Load, *, inputs: int) -> float:
    """Weigh a queue by its load: jobs in front of ours per job that runs; smaller is better."""
    value = (1 + load.queued) / (1 + load.running)
    return value / TIER1_BONUS if queue.tier == 1 and inputs > MANY_INPUTS else value


def _best(weights: Mapping[str, float], inputs: Mapping[str, int]) -> str:
    ranked = sorted(weights, key=lambda name: (weights[name], -inputs[name], name))[:FINALISTS]
    finalists = [name for name in ranked if weights[name] <= MUCH_WORSE * weights[ranked[0]]]
    return max(finalists, key=lambda name: (inputs[name], -weights[name]))


def _said(
    best: str,
    weights: Mapping[str, float],
    queues: Mapping[str, Queue],
    loads: Mapping[str, Load],
    inputs_at: Mapping[str, int],
) -> list[Verdict]:
    said = []
    for name in sorted(weights, key=lambda n: (n != best, weights[n])):
        load, local = loads.get(name, Load()), inputs_at.get(queues[name].endpoint, 0)
        reason = f"{load.queued} queued, {load.running} running, {local} input files there"
        said.append(Verdict(name, "chosen" if name == best else "possible", reason, weights[name]))
    return said
