"""A child process that is some of the clients: it does what its plan says, and prints what it saw as JSON."""

from __future__ import annotations

import itertools
import json
import os
import resource
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark import messages
from benchmark.wire import Address, Wire, WireError
from pandaserver.dataservice.ddm import storage
from pandaserver.model.grid import Endpoint

_MOST_PROBLEMS = 20  # kinds of problems told
COME_WITHIN_S = 4.0  # pilots that wait do not come all at once
GIVEN, LATER, IN_VAIN = "given", "later", "in vain"  # how a request that may wait ends


@dataclass(frozen=True, kw_only=True)
class Part:
    """What some clients do; made of one of the three.

    `lives`: take jobs, run and finish them until there are no more.
    `requests`: send these, [path, body] each, once over or again and again.
    `wait_s`: wait for one job with an open request, so long at a time, and come back when the server says so.
    """

    name: str
    clients: int
    seconds: float
    lives: bool = False
    requests: list[list[Any]] = field(default_factory=list)  # [path, body as an object] or [path, null] to GET
    again: bool = False
    wait_s: float = 0.0
    person: str = "pilot"
    rate: float = 0.0  # calls (or lives) per second of all clients together; 0: as fast as they can
    store: bool = False  # put the outputs that a request tells of where the server looks for them


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one load process does, and where."""

    address: Address
    parts: list[Part]
    queues: list[str]
    endpoint: str
    storage: str
    first_client: int = 0


@dataclass
class Seen:
    """What one client saw."""

    latencies: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    problems: Counter[str] = field(default_factory=Counter)
    lives: int = 0
    empty: int = 0  # times that a pilot was told that there is no job
    started: float = 0.0
    ended: float = 0.0
    reconnects: int = 0
    got: list[list[float]] = field(default_factory=list)  # [job id, wall clock] of jobs that requests brought
    waits: list[list[Any]] = field(default_factory=list)  # [begin, end, how it ended] of requests that may wait

    def add(self, other: Seen) -> None:
        """Add what another client saw."""
        for name, values in other.latencies.items():
            self.latencies[name] += values
        self.problems.update(other.problems)
        self.lives, self.empty = self.lives + other.lives, self.empty + other.empty
        self.reconnects, self.got = self.reconnects + other.reconnects, self.got + other.got
        self.waits += other.waits
        self.started = min(self.started or other.started, other.started)
        self.ended = max(self.ended, other.ended)


class Refusal(Exception):
    """The server said no."""


@dataclass
class Client:
    """One connection, and what is done over it."""

    plan: Plan
    part: Part
    number: int
    wire: Wire
    seen: Seen = field(default_factory=Seen)
    moved: int = 0  # queues that were found empty

    def ask(self, name: str, path: str, told: Mapping[str, Any] | None) -> Any:
        """Make a call and note how long it took; raises Refusal."""
        body = b"" if told is None else json.dumps(told).encode()
        begun = time.perf_counter()
        status, answer = self.wire.get(path) if told is None else self.wire.post(path, body)
        self.seen.latencies[name].append(time.perf_counter() - begun)
        read = json.loads(answer) if answer[:1] in b"{[" else None
        code = read.get("StatusCode", 0) if isinstance(read, dict) else 0
        if status != 200 or code not in (0, 20):
            raise Refusal(f"{name}: {status} {answer[:150].decode(errors='replace')}")
        return read

    def live(self) -> bool:
        """Be a pilot for one job; False when no queue has one."""
        job = self._get_job()
        if job is None:
            return False
        self.ask("updateJob running", messages.UPDATE_JOB, messages.word(job, "running"))
        endpoint, lfns = job["ddmEndPointOut"].split(",")[0], job["outFiles"].split(",")
        scopes = [*filter(None, job["scopeOut"].split(",")), job["scopeLog"]]
        for scope, lfn in zip(scopes, lfns, strict=True):
            self.store(scope, lfn)
        self.ask("updateJob finished", messages.UPDATE_JOB, messages.last_word(job, endpoint, lfns))
        self.seen.lives += 1
        return True

    def _get_job(self) -> dict[str, Any] | None:
        for _ in self.plan.queues:
            queue = self.plan.queues[(self.number + self.moved) % len(self.plan.queues)]
            told = messages.request_for(queue, node=f"wn{self.number:03d}.bench.org")
            answer = self.ask("getJob", messages.GET_JOB, told)
            if answer["StatusCode"] == 0:
                return dict(answer) | {"siteName": queue}
            self.seen.empty += 1
            self.moved += 1
        return None

    def store(self, scope: str, lfn: str) -> None:
        """Put an output file where the server will look for it."""
        endpoint = Endpoint(name=self.plan.endpoint, site="BENCH", url=f"file://{self.plan.storage}")
        path = storage.file_path(endpoint, scope, lfn)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(messages.CONTENT)

    def send(self, request: list[Any]) -> None:
        """Send one of the plan's requests."""
        path, told = request
        if self.part.store:
            for lfn in json.loads(told["xml"]):
                self.store(messages.DATASET.split(".")[0], lfn)
        answer = self.ask(self.part.name, path, told)
        if isinstance(answer, dict) and "PandaID" in answer:
            self.seen.got.append([answer["PandaID"], time.time()])

    def wait(self) -> bool:
        """Be a pilot that waits for a job; False when it has one."""
        left_s = self.seen.started + self.part.seconds - time.monotonic()
        told = messages.request_for(self.plan.queues[self.number % len(self.plan.queues)])
        begin = time.time()
        answer = self.ask("getJob", messages.GET_JOB, told | {"wait": min(self.part.wait_s, left_s)})
        later_s = answer.get("retryAfter", 0)
        end, given = time.time(), answer["StatusCode"] == 0
        self.seen.waits.append([begin, end, GIVEN if given else LATER if later_s else IN_VAIN])
        if given:
            self.seen.got.append([answer["PandaID"], end])
            return False
        time.sleep(max(0.0, min(later_s, left_s - (end - begin))))
        return True

    def run(self) -> Seen:
        """Do the part of this client until its end."""
        pace = self.part.clients / self.part.rate if self.part.rate else 0.0
        self.seen.started = time.monotonic()
        end, due = self.seen.started + self.part.seconds, self.seen.started + pace * _spread(self.number)
        time.sleep(COME_WITHIN_S * _spread(self.number) if self.part.wait_s else 0.0)
        for act in self._acts():
            if max(due, time.monotonic()) >= end:
                break
            if pace:
                time.sleep(max(0.0, due - time.monotonic()))
                due += pace
            if not self._tried(act):
                break
        self.seen.ended = time.monotonic()
        self.seen.reconnects = max(self.wire.reconnects, 0)
        self.wire.close()
        return self.seen

    def _acts(self) -> Any:
        if self.part.lives:
            return itertools.repeat(self.live)
        if self.part.wait_s:
            return itertools.repeat(self.wait)
        mine = self.part.requests[self.number % self.part.clients :: self.part.clients]
        return (self._sender(request) for request in (itertools.cycle(mine) if self.part.again else mine))

    def _sender(self, request: list[Any]) -> Callable[[], bool]:
        def send() -> bool:
            self.send(request)
            return True

        return send

    def _tried(self, act: Callable[[], bool]) -> bool:
        try:
            return act()
        except (Refusal, WireError, OSError, ValueError, KeyError) as error:
            self.seen.problems[f"{error!r}"[:250]] += 1
            return sum(self.seen.problems.values()) < _MOST_PROBLEMS


def _spread(number: int) -> float:
    """Let clients with a pace begin at different moments."""
    return (number * 0.618034) % 1.0


def clients_of(plan: Plan) -> list[Client]:
    """Make the clients of all parts; those of one person share what TLS needs."""
    contexts = {part.person: plan.address.context(part.person) for part in plan.parts}
    return [
        Client(plan, part, plan.first_client + n, Wire(plan.address, part.person, contexts[part.person]))
        for part in plan.parts
        for n in range(part.clients)
    ]


def perform(plan: Plan, *, ready: Callable[[], None]) -> dict[str, Any]:
    """Run all clients at the same time, each in a thread; `ready` returns when they shall begin."""
    clients = clients_of(plan)
    threads = [threading.Thread(target=client.run) for client in clients]
    ready()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = Seen()
    for client in clients:
        total.add(client.seen)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return vars(total) | {"cpu_s": used.ru_utime + used.ru_stime}


def read_plan(told: dict[str, Any]) -> Plan:
    """Read what `asdict` made of a plan."""
    parts = [Part(**part) for part in told.pop("parts")]
    return Plan(address=Address(**told.pop("address")), parts=parts, **told)


def _wait_for_go() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def main() -> None:
    """Read the plan from the file that is named, run it, print what was seen."""
    os.umask(0o007)  # the server may have another user, of the group that the storage belongs to
    plan = read_plan(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    seen = perform(plan, ready=_wait_for_go)
    print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    main()
