"""Each call alone: how many in a second, latencies, CPU."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmark import inside, messages
from benchmark.door import Door
from benchmark.drive import run_load
from benchmark.fill import Crowd, fill, outputs_of
from benchmark.load import Part
from benchmark.processes import Meter, Usage
from benchmark.show import Sheet, say
from benchmark.site import ENDPOINT, Site
from benchmark.wire import Wire

_PREPARED = 6000  # jobs made for each call that uses them up
_BULK, _LOOK_AT = 100, 100
_V1 = "/api/v1"

Requests = list[list[Any]]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One call to be measured; `state` is the state of the jobs that are made for it, `make` its requests for them."""

    name: str
    make: Callable[[Site, range], Requests]
    state: str = ""
    again: bool = False
    person: str = "pilot"
    store: bool = False
    jobs: int = _PREPARED
    hoped_for: bool = False  # perhaps the server does not have it
    brings: int = 0  # a server that answers with fewer jobs than this does not have the call


@dataclass(frozen=True)
class Measured:
    """What one call cost; None for a call that the server does not have."""

    name: str
    told: dict[str, Any] | None
    problems: dict[str, int]


def trials() -> list[Trial]:
    """List the calls, those that the server may have one day too."""
    return [
        Trial(name="isAlive", make=_same("/server/panda/isAlive", None), again=True),
        Trial(name="getAttr", make=_same("/server/panda/getAttr", {}), again=True),
        Trial(name="submitJobs, 1 job", make=_submissions(1, 3000), person="alice"),
        Trial(name=f"submitJobs, {_BULK} jobs", make=_submissions(_BULK, 100), person="alice"),
        Trial(name="getJob", make=_get_jobs, state="activated"),
        Trial(name="getJob, nothing there", make=lambda place, _: _asked(place), again=True),
        Trial(name="updateJob, sent to running", make=_words("running"), state="sent"),
        Trial(name="updateJob, heartbeat", make=_words("running"), state="running", again=True),
        Trial(name="updateJob, finished", make=_last_words, state="running", store=True),
        Trial(name="getJobStatus, 1 job", make=_ids("getJobStatus", 1), state="running", again=True, jobs=500),
        Trial(name=f"getJobStatus, {_LOOK_AT} jobs", make=_ids("getJobStatus", _LOOK_AT), state="running", again=True),
        Trial(name=f"killJobs, {_LOOK_AT} jobs", make=_ids("killJobs", _LOOK_AT), state="activated", person="prodman"),
        Trial(name="getJobStatisticsPerSite", make=_same("/server/panda/getJobStatisticsPerSite", {}), again=True),
        Trial(name="getSiteSpecs", make=_same("/server/panda/getSiteSpecs", {}), again=True),
        *_hoped_for(),
    ]


def _hoped_for() -> list[Trial]:
    """Calls that pilots and users may get: names and forms to be changed when they are there."""
    return [
        Trial(
            name=f"updateJobsInBulk, {_BULK} heartbeats", make=_bulk_words, state="running", again=True, hoped_for=True
        ),
        Trial(name="acquire_jobs, n_jobs 10", make=_many_jobs, state="activated", hoped_for=True, brings=2),
    ]


def _same(path: str, told: dict[str, Any] | None) -> Callable[[Site, range], Requests]:
    return lambda _place, _ids: [[path, told]] * 64


def _submissions(jobs: int, count: int) -> Callable[[Site, range], Requests]:
    return lambda _place, _ids: [[messages.SUBMIT, messages.submission(jobs)] for _ in range(count)]


def _asked(place: Site) -> Requests:
    return [[messages.GET_JOB, messages.request_for(place.queues[n % len(place.queues)])] for n in range(64)]


def _get_jobs(place: Site, ids: range) -> Requests:
    queues = place.queues
    return [[messages.GET_JOB, messages.request_for(queues[n % len(queues)])] for n in range(len(ids))]


def _held(place: Site, ids: range) -> list[dict[str, Any]]:
    """Give jobs as pilots that hold them know them."""
    secret = inside.token_secret(place.url)
    return [{"PandaID": one, "attemptNr": 1, "jobToken": inside.token(secret, one, 1)} for one in ids]


def _words(state: str) -> Callable[[Site, range], Requests]:
    def make(place: Site, ids: range) -> Requests:
        return [[messages.UPDATE_JOB, messages.word(job, state)] for job in _held(place, ids)]

    return make


def _last_words(place: Site, ids: range) -> Requests:
    return [
        [messages.UPDATE_JOB, messages.last_word(job, ENDPOINT, outputs_of(job["PandaID"]))]
        for job in _held(place, ids)
    ]


def _ids(method: str, count: int) -> Callable[[Site, range], Requests]:
    def make(_place: Site, ids: range) -> Requests:
        bunches = [list(ids[first : first + count]) for first in range(0, len(ids), count)]
        return [[f"/server/panda/{method}", {"ids": bunch}] for bunch in bunches]

    return make


def _bulk_words(place: Site, ids: range) -> Requests:
    words = [messages.word(job, "running") for job in _held(place, ids)]
    bunches = [words[first : first + _BULK] for first in range(0, len(words), _BULK)]
    return [["/server/panda/updateJobsInBulk", {"jobList": bunch}] for bunch in bunches]


def _many_jobs(place: Site, ids: range) -> Requests:
    told = [messages.request_for(place.queues[n % len(place.queues)], n_jobs=10) for n in range(len(ids) // 10)]
    return [[f"{_V1}/pilot/acquire_jobs", one] for one in told]


def measure(place: Site, meter: Meter, door: Door, *, clients: int, seconds: float, only: str) -> list[Measured]:
    """Measure one call after the other, each with tables that hold nothing but its own jobs."""
    return [
        _measure(place, meter, door, trial, clients=clients, seconds=seconds)
        for trial in trials()
        if only in trial.name
    ]


def _measure(place: Site, meter: Meter, door: Door, trial: Trial, *, clients: int, seconds: float) -> Measured:
    say(trial.name)
    connection = place.database.connect("panda")
    try:
        inside.wipe(connection, place.storage)
    finally:
        connection.close()
    crowd = Crowd(count=trial.jobs, queues=place.queues, state=trial.state, pilot=place.pilot)
    if trial.state:
        fill(place.database, crowd)
    requests = trial.make(place, crowd.ids())
    if trial.hoped_for and _has_not(place, door, trial, requests.pop(0)):
        return Measured(trial.name, None, {})
    part = Part(
        name=trial.name, clients=clients, seconds=seconds, requests=requests, again=trial.again,
        person=trial.person, store=trial.store,
    )  # fmt: skip
    before = meter.read()
    load = run_load(place.plan(place.address(door), part), place.root)
    used = meter.read() - before
    count = max(load.count(trial.name), 1)
    told: dict[str, Any] = {"per_s": count / load.seconds} | load.calls.get(trial.name, {}) | _costs(used, count)
    said_no = load.seen.empty
    return Measured(trial.name, told | {"client_ms": 1000 * load.cpu_s / count, "empty": said_no}, load.problems)


def _costs(used: Usage, count: int) -> dict[str, float]:
    each = used.per(count)
    parts = {"cpu_ms": each.total_s, "front_ms": each.front_s, "background_ms": each.background_s, "db_ms": each.db_s}
    return {name: 1000 * spent for name, spent in parts.items()}


def _has_not(place: Site, door: Door, trial: Trial, request: list[Any]) -> bool:
    path, told = request
    address = place.address(door)
    wire = Wire(address, trial.person, address.context(trial.person))
    status, answer = wire.post(path, json.dumps(told).encode())
    wire.close()
    return status == 404 or answer.count(b'"PandaID"') < trial.brings


def as_json(done: Sequence[Measured], clients: int) -> dict[str, Any]:
    """Give all calls for machines."""
    calls: dict[str, Any] = {}
    for one in done:
        told = {name: round(value, 3) for name, value in (one.told or {}).items()}
        calls[one.name] = told | {"problems": one.problems} if one.told else inside.NOT_THERE
    return {"clients": clients, "calls": calls}


def sheet(done: Sequence[Measured], clients: int) -> Sheet:
    """Give all calls for people."""
    keys = ("per_s", "p50_ms", "p95_ms", "p99_ms", "cpu_ms", "front_ms", "background_ms", "db_ms", "client_ms")
    rows = [(one.name, *([one.told[key] for key in keys] if one.told else [inside.NOT_THERE])) for one in done]
    rows = [(*row, *[""] * (len(keys) + 1 - len(row))) for row in rows]
    columns = ("call", "per s", "p50 ms", "p95 ms", "p99 ms", "CPU ms", "front", "background", "db", "client's")
    troubles = [f"{one.name}: PROBLEMS {one.problems}" for one in done if one.problems]
    return Sheet(f"Calls, {clients} clients", columns, rows, "; ".join(troubles))
