"""Starts load processes, lets them begin together, and adds up what they saw."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.load import Part, Plan, Seen
from benchmark.processes import BenchError, child_environment, stop_session
from benchmark.quantiles import summary_ms

PROCESSES = 2  # more would only push each other aside


@dataclass(frozen=True)
class Load:
    """What all clients saw, and what they cost."""

    seen: Seen
    cpu_s: float

    @property
    def seconds(self) -> float:
        """Give the time from the first request to the last answer."""
        return max(self.seen.ended - self.seen.started, 1e-9)

    @property
    def calls(self) -> dict[str, dict[str, float]]:
        """Sum up the latencies by call."""
        return {name: summary_ms(values) for name, values in sorted(self.seen.latencies.items())}

    def count(self, name: str) -> int:
        """Tell how often a call was made."""
        return len(self.seen.latencies.get(name, ()))

    @property
    def problems(self) -> dict[str, int]:
        """Give what went wrong, the most frequent first."""
        return dict(Counter(self.seen.problems).most_common(5))


def share(plan: Plan, processes: int) -> list[Plan]:
    """Divide the clients of a plan; requests and rates go with the clients."""
    plans, before = [], 0
    for number in range(processes):
        parts = [mine for part in plan.parts if (mine := _share_of(part, number, processes)).clients]
        if parts:
            plans.append(replace(plan, parts=parts, first_client=plan.first_client + before))
            before += max(part.clients for part in parts)
    return plans


def _share_of(part: Part, number: int, processes: int) -> Part:
    clients = part.clients // processes + (number < part.clients % processes)
    requests = part.requests if part.again else part.requests[number :: min(processes, part.clients)]
    return replace(part, clients=clients, requests=requests, rate=part.rate * clients / part.clients)


def run_load(plan: Plan, folder: Path) -> Load:
    """Run the clients of a plan in processes of their own.

    Raises:
        BenchError: a load process died.
    """
    plans = [json.dumps(asdict(mine)) for mine in share(plan, PROCESSES)]
    with children("benchmark.load", plans, folder) as processes:
        return add_up(together(processes))


@contextmanager
def children(module: str, plans: Sequence[str], folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start a process for each plan; they are gone afterwards."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for number, plan in enumerate(plans):
            path = folder / f"plan{number}.json"
            path.write_text(plan, encoding="utf-8")
            processes.append(start_child(module, str(path)))
        yield processes
    finally:
        for process in processes:
            stop_session(process, patience_s=0)
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


def together(processes: Sequence[subprocess.Popen[bytes]]) -> list[dict[str, Any]]:
    """Let processes begin when all are ready; give what each printed.

    Raises:
        BenchError: one of them died.
    """
    for process in processes:
        if _line(process) != "ready":
            raise BenchError(f"a child process does not start: {_last_words(process)}")
    for process in processes:
        _say_go(process)
    return [_result(process) for process in processes]


def start_child(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a module as a process that is spoken to through pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env=child_environment(),
    )  # fmt: skip


def _line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def _say_go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    process.stdin.flush()


def _result(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    line = _line(process)
    if not line:
        raise BenchError(f"a child process died: {_last_words(process)}")
    return dict(json.loads(line))


def _last_words(process: subprocess.Popen[bytes]) -> str:
    stop_session(process, patience_s=1)
    assert process.stderr is not None
    return process.stderr.read().decode(errors="replace")[-2000:]


def add_up(told: Sequence[dict[str, Any]]) -> Load:
    """Add up what load processes told."""
    total, cpu_s = Seen(), 0.0
    for one in told:
        cpu_s += one.pop("cpu_s")
        latencies, problems = defaultdict(list, one.pop("latencies")), Counter(one.pop("problems"))
        total.add(Seen(latencies=latencies, problems=problems, **one))
    return Load(total, cpu_s)
