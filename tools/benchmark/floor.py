"""The floor: what three HTTP calls with a transaction each must cost, whatever a server does in them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark import bare
from benchmark.door import Door
from benchmark.drive import run_load, start_child
from benchmark.fronts import server
from benchmark.load import Part
from benchmark.processes import BenchError, Meter, stop_session
from benchmark.quantiles import summary_ms
from benchmark.show import Sheet, say
from benchmark.site import Site

CALLS_OF_A_LIFE = 3


@dataclass(frozen=True)
class Floor:
    """Bare claims and empty requests: how many in a second, latencies, CPU each."""

    claim: dict[str, float]
    route: dict[str, float]

    @property
    def life_ms(self) -> float:
        """Give the CPU of a pilot's life that does nothing: a claim and an empty request for each of its calls."""
        return CALLS_OF_A_LIFE * (self.claim["cpu_ms"] + self.route["cpu_ms"])

    def as_json(self) -> dict[str, Any]:
        """Give all of it for machines."""
        return {"bare_claim": self.claim, "empty_route": self.route, "life_ms": round(self.life_ms, 3)}

    def sheet(self) -> Sheet:
        """Give all of it for people."""
        rows = [
            _row("SELECT SKIP LOCKED + UPDATE + COMMIT", self.claim, self.claim["client_ms"], self.claim["db_ms"]),
            _row("empty Flask route", self.route, self.route["web_ms"], 0.0),
        ]
        columns = ("floor", "per s", "p50 ms", "p95 ms", "p99 ms", "CPU ms", "Python ms", "mariadbd ms")
        note = f"three of each, the floor of a pilot's life: {self.life_ms:.2f} ms CPU"
        return Sheet("Floor", columns, rows, note)


def _row(name: str, told: dict[str, float], python_ms: float, db_ms: float) -> tuple[str | float, ...]:
    latencies = (told[f"p{percent}_ms"] for percent in (50, 95, 99))
    return (name, told["per_s"], *latencies, told["cpu_ms"], python_ms, db_ms)


def measure(place: Site, *, seconds: float, connections: int = 4, clients: int = 16) -> Floor:
    """Measure both; no other server may be running here."""
    say("measuring the floor: bare claims, an empty route")
    return Floor(_bare_claims(place, seconds, connections), _empty_route(place, seconds, clients))


def _bare_claims(place: Site, seconds: float, connections: int) -> dict[str, float]:
    place.database.execute("CREATE DATABASE bare", "USE bare", bare.TABLE)
    plan = place.root / "bare.json"
    _write(plan, place, seconds, connections)
    meter = Meter(web=0, db=place.database.pid)
    before = meter.read()
    told = run_child("benchmark.bare", plan)
    used = meter.read() - before
    place.database.execute("DROP DATABASE bare")
    count = max(len(told["latencies"]), 1)
    client_ms, db_ms = 1000 * told["cpu_s"] / count, 1000 * used.db_s / count
    return summary_ms(told["latencies"]) | {
        "per_s": count / told["seconds"],
        "cpu_ms": client_ms + db_ms,
        "client_ms": client_ms,
        "db_ms": db_ms,
    }


def _write(plan: Path, place: Site, seconds: float, connections: int) -> None:
    told = {"socket": f"{place.database.directory}/db.sock", "password": place.database.password}
    plan.write_text(json.dumps(told | {"seconds": seconds, "connections": connections}), encoding="utf-8")


def run_child(module: str, plan: Path) -> dict[str, Any]:
    """Run a child that prints one JSON object.

    Raises:
        BenchError: it failed.
    """
    with start_child(module, str(plan)) as process:
        try:
            output, errors = process.communicate()
        finally:
            stop_session(process, patience_s=0)
    if process.returncode:
        raise BenchError(f"{module} failed:\n{errors.decode(errors='replace')[-2000:]}")
    return dict(json.loads(output))


def _empty_route(place: Site, seconds: float, clients: int) -> dict[str, float]:
    request = ["/empty", {"siteName": "BENCH", "node": "wn001.bench.org", "mem": 4000}]
    part = Part(name="empty", clients=clients, seconds=seconds, requests=[request] * clients, again=True)
    with server(place, Door(), empty=True) as meter:
        before = meter.read()
        load = run_load(place.plan(place.address(Door()), part), place.root)
        used = meter.read() - before
    count = max(load.count("empty"), 1)
    web_ms = 1000 * used.web_s / count
    told = summary_ms(load.seen.latencies["empty"])
    return told | {"per_s": count / load.seconds, "cpu_ms": web_ms, "web_ms": web_ms}
