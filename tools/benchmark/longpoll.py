"""Pilots that wait for a job with an open request: how soon they get one, and what their waiting costs."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from benchmark import inside, messages
from benchmark.door import Door
from benchmark.drive import Load, run_load
from benchmark.load import COME_WITHIN_S, GIVEN, LATER, Part
from benchmark.processes import Meter, Usage
from benchmark.profiler import Watch, nobody
from benchmark.quantiles import quantile
from benchmark.show import Sheet, say
from benchmark.site import Site
from benchmark.wire import Wire

_SETTLE_S = COME_WITHIN_S + 4.0  # clients have started, have come, and are parked or sent away
_MOST_BURSTS, _BURST, _PAUSE_S = 12, 5, 1.0  # jobs, after the quiet time: fewer at a time than places to wait


@dataclass(frozen=True, kw_only=True)
class LongPollWish:
    """How many pilots wait, for how long a pilot asks at a time, and how long it is looked what that costs."""

    pilots: int
    wait_s: float
    seconds: float

    @property
    def bursts(self) -> int:
        """Give how often jobs are submitted: for fewer pilots than there are."""
        return min(_MOST_BURSTS, max(1, self.pilots // (2 * _BURST)))


@dataclass(frozen=True)
class Quiet:
    """The time in which nothing happens: its beginning and end by the wall clock, and what was used."""

    begin: float
    end: float
    used: Usage

    def percent(self, spent_s: float) -> float:
        """Give the share of one core."""
        return round(100 * spent_s / (self.end - self.begin), 2)


def measure(place: Site, meter: Meter, door: Door, wish: LongPollWish, watch: Watch = nobody) -> dict[str, Any]:
    """Let pilots wait while nothing happens, then submit jobs for some of them."""
    say(f"{door}: {wish.pilots} pilots wait")
    total_s = _SETTLE_S + wish.seconds + wish.bursts * _PAUSE_S + 2
    part = Part(name="getJob", clients=wish.pilots, seconds=total_s, wait_s=wish.wait_s)
    with closing(place.database.connect("panda")) as connection:
        inside.wipe(connection, place.storage)
        with ThreadPoolExecutor(1) as executor:
            waiting = executor.submit(run_load, place.plan(place.address(door), part), place.root)
            time.sleep(_SETTLE_S)
            with watch(wish.seconds):
                quiet = _quiet(meter, wish.seconds)
            _submit(place, door, wish.bursts)
            load = waiting.result()
        delays = _delays(load.seen.got, inside.activated_at(connection))
    return as_json(wish, quiet, load, delays)


def _quiet(meter: Meter, seconds: float) -> Quiet:
    begin, before = time.time(), meter.read()
    time.sleep(seconds)
    return Quiet(begin, time.time(), meter.read() - before)


def _submit(place: Site, door: Door, bursts: int) -> None:
    """Submit some jobs at a time."""
    address = place.address(door)
    wire = Wire(address, "alice", address.context("alice"))
    for _ in range(bursts):
        wire.post(messages.SUBMIT, json.dumps(messages.submission(_BURST)).encode())
        time.sleep(_PAUSE_S)
    wire.close()


def _delays(got: Sequence[Sequence[float]], activated: dict[int, float]) -> list[float]:
    """Give the seconds between a job's activation and its being in a pilot's hands."""
    return sorted(at - activated[int(job_id)] for job_id, at in got if int(job_id) in activated)


def as_json(wish: LongPollWish, quiet: Quiet, load: Load, delays: Sequence[float]) -> dict[str, Any]:
    """Give what was measured for machines."""
    waits, used = load.seen.waits, quiet.used
    meanwhile = Counter(how for _, end, how in waits if quiet.begin <= end <= quiet.end)
    parked = sum(begin <= quiet.end < end for begin, end, _ in waits)
    told = {f"p{percent}_ms": round(1000 * quantile(delays, percent / 100), 1) for percent in (50, 95, 99)}
    return {
        "pilots": wish.pilots,
        "wait_s": wish.wait_s,
        "parked": parked,
        "told_to_come_later": wish.pilots - parked,
        "quiet_s": round(quiet.end - quiet.begin, 2),
        "retry_after_answers": meanwhile[LATER],
        "waited_in_vain": meanwhile.total() - meanwhile[LATER] - meanwhile[GIVEN],
        "idle_core_percent": quiet.percent(used.total_s),
        "idle_web_percent": quiet.percent(used.web_s),
        "idle_db_percent": quiet.percent(used.db_s),
        "idle_threads_percent": {name: quiet.percent(spent) for name, spent in used.threads.items() if spent > 1e-3},
        "jobs": wish.bursts * _BURST,
        "given": len(delays),
        **told,
        "reconnects": load.seen.reconnects,
        "problems": load.problems,
    }


def sheets(told: dict[str, Any]) -> list[Sheet]:
    """Give what was measured for people."""
    cost = {
        "pilots": "pilots",
        "wait_s": "wait s",
        "parked": "parked",
        "told_to_come_later": "told to come later",
        "retry_after_answers": "such answers",
        "quiet_s": "in s",
        "idle_core_percent": "% of a core",
        "idle_web_percent": "web",
        "idle_db_percent": "db",
    }
    speed = {"jobs": "jobs", "given": "given", "p50_ms": "p50 ms", "p95_ms": "p95 ms", "p99_ms": "p99 ms"}
    threads = ", ".join(f"{name} {percent:.2f}" for name, percent in told["idle_threads_percent"].items())
    note = "\n".join(filter(None, [f"% of a core by threads: {threads}", str(told["problems"] or "")]))
    return [_sheet("Long poll, nothing happens", cost, told, note), _sheet("Activated to given", speed, told, "")]


def _sheet(title: str, columns: dict[str, str], told: dict[str, Any], note: str) -> Sheet:
    return Sheet(title, list(columns.values()), [tuple(told[key] for key in columns)], note)
