"""Pilots that wait for a job with an open request: how soon they get one, and what their waiting costs."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmark import inside, messages
from benchmark.drive import run_load
from benchmark.load import Part
from benchmark.processes import Meter
from benchmark.quantiles import quantile
from benchmark.show import Sheet, say
from benchmark.site import Site
from benchmark.wire import Wire

_WAIT = "wait"  # the parameter of getJob, seconds
_PROBE_S, _LONG_S = 2, 8
_JOBS = 20


def measure(place: Site, meter: Meter, *, parked: int, https: bool) -> dict[str, Any] | str:
    """Park pilots, then submit jobs for some of them; text where the server answers at once."""
    say("long poll")
    connection = place.database.connect("panda")
    try:
        inside.wipe(connection, place.storage)
        if not _is_there(place, https):
            return inside.NOT_THERE
        requests = [[messages.GET_JOB, _request(place, number, _LONG_S)] for number in range(parked)]
        part = Part(name="getJob", clients=parked, seconds=_LONG_S, requests=requests)
        address = place.address(https=https)
        with ThreadPoolExecutor(1) as executor:
            waiting = executor.submit(run_load, place.plan(address, part), place.root)
            time.sleep(_LONG_S / 4)  # all have been parked by then
            idle = _used(meter, _LONG_S / 4)
            _submit(place, https)
            load = waiting.result()
        delays = _delays(load.seen.got, inside.activated_at(connection))
    finally:
        connection.close()
    return as_json(parked, idle, delays, load.problems)


def _request(place: Site, number: int, wait_s: int) -> dict[str, Any]:
    return messages.request_for(place.queues[number % len(place.queues)]) | {_WAIT: wait_s}


def _is_there(place: Site, https: bool) -> bool:
    begun = time.monotonic()
    address = place.address(https=https)
    wire = Wire(address, "pilot", address.context("pilot"))
    wire.post(messages.GET_JOB, json.dumps(_request(place, 0, _PROBE_S)).encode())
    wire.close()
    return time.monotonic() - begun > _PROBE_S / 2


def _used(meter: Meter, seconds: float) -> float:
    """Give the share of one core that is used while nothing happens."""
    before = meter.read()
    time.sleep(seconds)
    return (meter.read() - before).total_s / seconds


def _submit(place: Site, https: bool) -> None:
    address = place.address(https=https)
    wire = Wire(address, "alice", address.context("alice"))
    wire.post(messages.SUBMIT, json.dumps(messages.submission(_JOBS)).encode())
    wire.close()


def _delays(got: Sequence[Sequence[float]], activated: dict[int, float]) -> list[float]:
    """Give the seconds between a job's activation and its being in a pilot's hands."""
    return sorted(at - activated[int(job_id)] for job_id, at in got if int(job_id) in activated)


def as_json(parked: int, idle: float, delays: Sequence[float], problems: dict[str, int]) -> dict[str, Any]:
    """Give what was measured for machines."""
    told = {f"p{percent}_ms": round(1000 * quantile(delays, percent / 100), 1) for percent in (50, 95, 99)}
    counts = {"parked": parked, "jobs": _JOBS, "given": len(delays)}
    return counts | told | {"idle_core_percent": round(100 * idle, 2), "problems": problems}


def sheet(told: dict[str, Any] | str) -> Sheet:
    """Give what was measured for people."""
    if isinstance(told, str):
        return Sheet("Long poll", ("getJob with wait",), [(told,)])
    keys = ("parked", "jobs", "given", "p50_ms", "p95_ms", "p99_ms", "idle_core_percent")
    columns = ("parked", "jobs", "given", "activated to given, p50 ms", "p95 ms", "p99 ms", "% of a core, idle")
    return Sheet("Long poll", columns, [tuple(told[key] for key in keys)], str(told["problems"] or ""))
