"""What it costs to choose queues for many jobs, in CPU of this process: the choosing, and the writing down of why."""

from __future__ import annotations

import random
import time
from dataclasses import asdict, dataclass
from typing import Any

from benchmark.show import Sheet
from pandaserver.brokerage.choice import choose_all
from pandaserver.model.choice import BrokerRules, Choice, Load, Request, Snapshot, Wish
from pandaserver.model.grid import Endpoint, Queue, QueueStatus, Topology
from pandaserver.taskbuffer.reasons import packed

_SEED = 7
_GB = 1024**3


@dataclass(frozen=True)
class Size:
    """How much is brokered."""

    jobs: int = 10_000
    queues: int = 200
    datasets: int = 500  # of which each job reads one
    kinds: int = 50  # of jobs, by what they ask for


@dataclass(frozen=True)
class Measured:
    """CPU seconds, and what came of it."""

    choosing_s: float
    writing_s: float
    written_mb: float
    placed: int
    queues_used: int

    def as_json(self) -> dict[str, Any]:
        """Give it by name."""
        return asdict(self)

    def sheet(self, size: Size) -> Sheet:
        """Show it."""
        columns = ("jobs", "queues", "choosing, CPU s", "writing why, CPU s", "why, KB a job", "placed", "queues used")
        row = (size.jobs, size.queues, self.choosing_s, self.writing_s, self.written_mb * 1000 / size.jobs)
        return Sheet("Brokerage of one round", columns, [(*row, self.placed, self.queues_used)])


def measure(size: Size) -> Measured:
    """Choose for all jobs in one round."""
    chance = random.Random(_SEED)
    snapshot, requests = _snapshot(size, chance), _requests(size, chance)
    begun = time.process_time()
    choices = choose_all(requests, snapshot)
    chosen = time.process_time()
    written = packed(choices)
    done = time.process_time()
    return _told(choices, chosen - begun, done - chosen, sum(map(len, written)) / 1e6)


def _told(choices: list[Choice], choosing_s: float, writing_s: float, written_mb: float) -> Measured:
    used = [choice.queue for choice in choices if choice.queue is not None]
    return Measured(choosing_s, writing_s, written_mb, len(used), len(set(used)))


def _snapshot(size: Size, chance: random.Random) -> Snapshot:
    names = [f"SITE_{n:03d}" for n in range(size.queues)]
    queues = {name: _queue(name, n, chance) for n, name in enumerate(names)}
    loads = {name: Load(chance.randrange(2000), chance.randrange(2000)) for name in names}
    ends = {q.endpoint: Endpoint(name=q.endpoint, site=q.site, url="file:///data") for q in queues.values()}
    busy = chance.sample(sorted(ends), min(20, len(ends)))
    backlog = {(a, b): chance.random() * 1e5 for a in busy for b in ends if a != b}
    return Snapshot(
        topology=Topology(queues=queues, endpoints=ends),
        loads=loads,
        pilots={name: 100 for name in names if chance.random() < 0.9},
        free_mb={end: chance.randrange(10**7) for end in ends},
        backlog_mb=backlog,
        rules=BrokerRules(seed="bench"),
    )


def _queue(name: str, number: int, chance: random.Random) -> Queue:
    status = chance.choice([QueueStatus.ONLINE] * 9 + [QueueStatus.BROKEROFF])
    return Queue(
        name=name,
        site=name,
        cloud=f"C{number % 10}",
        tier=1 if number < 10 else 2,
        status=status,
        endpoint=f"{name}_DISK",
        memory_mb=chance.choice([2000, 3000, 4000, 8000]),
        cores=chance.choice([1, 8]),
        max_wall_time_s=chance.choice([86400, 172800]),
        max_input_mb=chance.choice([0, 14000, 30000]),
        releases=tuple(sorted(chance.sample([f"{n}.0" for n in range(20)], 12))),
    )


def _requests(size: Size, chance: random.Random) -> list[Request]:
    kinds = [_wish(chance) for _ in range(size.kinds)]
    return [_request(number, kinds, size, chance) for number in range(1, size.jobs + 1)]


def _wish(chance: random.Random) -> Wish:
    return Wish(
        owner="/CN=somebody",
        label=chance.choice(["user", "managed"]),
        memory_mb=chance.choice([0, 2000, 3500]),
        cores=chance.choice([1, 1, 8]),
        releases=(f"{chance.randrange(20)}.0",),
        wall_time_s=chance.choice([0, 80000, 100000]),
    )


def _request(number: int, kinds: list[Wish], size: Size, chance: random.Random) -> Request:
    dataset = chance.randrange(size.datasets)
    files = tuple((f"d{dataset}", f"file{n}.root") for n in chance.sample(range(40), 4))
    places = [f"SITE_{(dataset * 7 + n * 31) % size.queues:03d}_DISK" for n in range(3)]
    return Request(
        job_id=number,
        wish=chance.choice(kinds),
        inputs=files,
        input_bytes=4 * _GB,
        bytes_at={place: (n + 1) * _GB for n, place in enumerate(places)},
        files_at={place: n + 1 for n, place in enumerate(places)},
    )
