"""Very many running jobs: their heartbeats at a steady rate, next to some lives of other jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmark import inside, messages
from benchmark.door import Door
from benchmark.drive import Load, run_load
from benchmark.fill import Crowd, fill
from benchmark.load import Part
from benchmark.processes import Meter, Usage
from benchmark.show import Sheet, say
from benchmark.site import Site

_CLIENTS, _LIFE_CLIENTS = 32, 8
_FIRST_LIFE = 500_000_001  # ids of the jobs that live
_SPARE = 1.3


@dataclass(frozen=True, kw_only=True)
class HeartbeatWish:
    """How many jobs run, and how often pilots speak."""

    running: int
    rate: float  # heartbeats per second
    lives: float  # per second
    seconds: float


def prepare(place: Site, wish: HeartbeatWish) -> None:
    """Fill the tables: jobs that run, and jobs for the lives."""
    fill(place.database, Crowd(count=wish.running, queues=place.queues, state="running", complete=0, pilot=place.pilot))
    waiting = int(wish.lives * wish.seconds * _SPARE) + 50
    fill(place.database, Crowd(count=waiting, queues=place.queues, first_id=_FIRST_LIFE))


def measure(place: Site, meter: Meter, wish: HeartbeatWish, door: Door) -> dict[str, Any]:
    """Send heartbeats and lead lives at the wished rates."""
    say(f"{wish.rate:g} heartbeats/s and {wish.lives:g} lives/s for {wish.seconds:g} s")
    parts = [
        Part(
            name="heartbeat", clients=_CLIENTS, seconds=wish.seconds, rate=wish.rate, again=True,
            requests=_heartbeats(place, wish),
        ),
        Part(name="life", clients=_LIFE_CLIENTS, seconds=wish.seconds, rate=wish.lives, lives=True),
    ]  # fmt: skip
    before = meter.read()
    load = run_load(place.plan(place.address(door), *(part for part in parts if part.rate)), place.root)
    return as_json(wish, load, meter.read() - before)


def _heartbeats(place: Site, wish: HeartbeatWish) -> list[list[Any]]:
    """Make as many heartbeats as will be sent, of jobs from all over the table."""
    ids = Crowd(count=wish.running, queues=place.queues).ids()
    wanted = min(len(ids), max(int(wish.rate * wish.seconds * _SPARE), _CLIENTS))
    secret = inside.token_secret(place.url)
    chosen = [ids[number * len(ids) // wanted] for number in range(wanted)]
    jobs = [{"PandaID": one, "attemptNr": 1, "jobToken": inside.token(secret, one, 1)} for one in chosen]
    return [[messages.UPDATE_JOB, messages.word(job, "running")] for job in jobs]


def as_json(wish: HeartbeatWish, load: Load, used: Usage) -> dict[str, Any]:
    """Give what was measured for machines."""
    sent = load.count("heartbeat")
    return {
        "running": wish.running,
        "wished_per_s": wish.rate,
        "heartbeats_per_s": round(sent / load.seconds, 1),
        "lives_per_s": round(load.seen.lives / load.seconds, 1),
        "sustained": sent >= 0.97 * wish.rate * wish.seconds,
        "cores_web": round(used.web_s / load.seconds, 3),
        "cores_background": round(used.background_s / load.seconds, 3),
        "cores_db": round(used.db_s / load.seconds, 3),
        "cores_client": round(load.cpu_s / load.seconds, 3),
        "calls": load.calls,
        "problems": load.problems,
    }


def sheets(told: dict[str, Any]) -> list[Sheet]:
    """Give what was measured for people."""
    names = ("count", "p50_ms", "p95_ms", "p99_ms")
    calls = [(name, *(call[key] for key in names)) for name, call in told["calls"].items()]
    keys = ("running", "wished_per_s", "heartbeats_per_s", "lives_per_s", "cores_web", "cores_background", "cores_db")
    columns = ("running", "wished/s", "heartbeats/s", "lives/s", "cores: web", "of that background", "mariadbd")
    note = f"PROBLEMS {told['problems']}" if told["problems"] else ""
    rows = [tuple(told[key] for key in keys)]
    return [
        Sheet("Heartbeats", (*columns, "client's"), [(*row, told["cores_client"]) for row in rows], note),
        Sheet("Latencies of calls", ("call", "count", "p50 ms", "p95 ms", "p99 ms"), calls),
    ]
