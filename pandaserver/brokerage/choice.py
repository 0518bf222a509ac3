"""The choice of a queue: of those that can take the job the least loaded ones, and of these the one with its data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import floor, log

from pandaserver.brokerage.groups import Answer, Key, Scale, answer, key_of
from pandaserver.model.choice import BYTES_PER_MB, Candidate, Choice, Load, Request, Snapshot
from pandaserver.model.grid import Queue

SHOWN = 10  # candidates that are weighed against each other, and told of


def choose_all(requests: Sequence[Request], snapshot: Snapshot) -> list[Choice]:
    """Choose a queue for each job, counting each choice as load for the next.

    Equal snapshots, requests and seeds give equal choices. Jobs with equal wishes are answered once as to which queues
    can take them; jobs with equal wishes and inputs go together, in bunches.
    """
    this = _Round(snapshot)
    return [this.choose(request) for request in requests]


@dataclass
class _Bunch:
    """Jobs that go together since they read the same."""

    choice: Choice
    jobs: int = 1


@dataclass(frozen=True)
class _Group:
    """Jobs that are equal but for their inputs."""

    answer: Answer
    scale: Scale


class _Round:
    """One round of choices over a snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot, self._rules = snapshot, snapshot.rules
        self._loads = dict(snapshot.loads)
        self._chosen: list[str] = []
        self._groups: dict[Key, _Group] = {}
        self._bunches: dict[tuple[Key, object], _Bunch] = {}
        limits = [queue.max_input_mb for queue in snapshot.topology.queues.values() if queue.max_input_mb]
        self._harmless_mb = min(limits, default=None)

    def choose(self, request: Request) -> Choice:
        """Choose for one job."""
        key = key_of(request, self._snapshot, self._harmless_mb)
        bunch = self._bunches.get((key, request.inputs)) if request.inputs else None
        if bunch is not None and bunch.jobs < self._rules.bunch_jobs:
            bunch.jobs += 1
            choice = bunch.choice
        else:
            choice = self._choose(request, self._group(key))
            if request.inputs:
                self._bunches[key, request.inputs] = _Bunch(choice)
        if choice.queue is not None:
            self._count(choice.queue)
        return choice

    def _group(self, key: Key) -> _Group:
        """Give the group of a job, its weights as they are after all that was chosen until now."""
        if key not in self._groups:
            told = answer(key, self._snapshot)
            scale = Scale(told, self._rules.tier1_bonus if key.tier1_bonus else 1.0)
            for name in told.fit:
                scale.weigh(name, self._loads.get(name, _EMPTY))
            self._groups[key], scale.seen = _Group(told, scale), len(self._chosen)
        group = self._groups[key]
        for name in self._chosen[group.scale.seen :]:
            group.scale.weigh(name, self._loads[name])
        group.scale.seen = len(self._chosen)
        return group

    def _count(self, name: str) -> None:
        before = self._loads.get(name, _EMPTY)
        self._loads[name] = Load(queued=before.queued + 1, running=before.running)
        self._chosen.append(name)

    def _choose(self, request: Request, group: _Group) -> Choice:
        told = group.answer
        if not told.fit:
            return Choice(None, rejected=told.rejected, may_pass=told.may_pass, advice=told.advice)
        names = group.scale.lightest(SHOWN, self._rules.spread, self._lot(request.job_id, ""))
        holders = [name for place in sorted(request.bytes_at) for name in told.by_endpoint.get(place, ())]
        ranked = self._ranked(request, group, dict.fromkeys([*names, *holders]))
        best = self._best(request, told, ranked)
        shown = [best, *(one for one in ranked if one is not best)][:SHOWN]
        candidates = tuple(Candidate(name, value, self._told(request, told.fit[name])) for value, name in shown)
        return Choice(best[1], candidates, len(told.fit) - len(candidates), told.rejected)

    def _ranked(self, request: Request, group: _Group, names: Iterable[str]) -> list[tuple[float, str]]:
        """Put queues into the order of their weights; near-equals by the data that they have, then by lot."""
        fit, spread = group.answer.fit, self._rules.spread
        weights = {name: group.scale.weights[name] * self._delay(request, fit[name]) for name in names}
        least, step = min(weights.values()), log(1 + spread)

        def order(name: str) -> tuple[float, int, int, str]:
            local = request.bytes_at.get(fit[name].endpoint, 0)
            if not spread:
                return weights[name], -local, 0, name
            return floor(log(weights[name] / least) / step), -local, self._lot(request.job_id, name), name

        return [(weights[name], name) for name in sorted(weights, key=order)]

    def _lot(self, job_id: int, name: str) -> int:
        drawn = blake2b(f"{self._rules.seed}:{job_id}:{name}".encode(), digest_size=8)
        return int.from_bytes(drawn.digest(), "big")

    def _delay(self, request: Request, queue: Queue) -> float:
        """Say how much heavier a queue is for what waits already to be brought there from where the inputs are."""
        sources, backlog = request.bytes_at, self._snapshot.backlog_mb
        if not backlog or not sources or sources.get(queue.endpoint, 0) >= request.input_bytes:
            return 1.0
        waits = min(backlog.get((source, queue.endpoint), 0.0) for source in sources)
        return 1.0 + waits / self._rules.backlog_mb

    def _best(self, request: Request, told: Answer, ranked: Sequence[tuple[float, str]]) -> tuple[float, str]:
        """Take of the finalists the one with the most bytes of the inputs; of equals the first."""
        most = self._rules.much_worse * min(value for value, _ in ranked)
        finalists = [one for one in ranked[: self._rules.finalists] if one[0] <= most] or ranked[:1]
        return max(finalists, key=lambda one: request.bytes_at.get(told.fit[one[1]].endpoint, 0))

    def _told(self, request: Request, queue: Queue) -> str:
        load = self._loads.get(queue.name, _EMPTY)
        files, size = request.files_at.get(queue.endpoint, 0), request.bytes_at.get(queue.endpoint, 0)
        data = f"{files} input files there" + (f" ({size / BYTES_PER_MB:.4g} MB)" if files else "")
        return f"{load.queued} queued, {load.running} running, {data}"


_EMPTY = Load()
