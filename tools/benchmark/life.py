"""Whole lives of jobs: submitted, activated, got, running, finished, outputs added, archived."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmark import inside, messages
from benchmark.door import CONNECTIONS, Door
from benchmark.drive import Load, run_load
from benchmark.floor import Floor
from benchmark.fronts import last_words
from benchmark.load import Part
from benchmark.mariadb import DBConnection
from benchmark.processes import HTTPD, BenchError, Meter, Usage
from benchmark.profiler import Watch, nobody
from benchmark.show import Sheet, say
from benchmark.site import Site
from benchmark.wire import Address

BULK = 100
_WARM_UP = 100  # jobs
_SLOWEST, _FASTEST = 100, 10_000  # jobs of a round
_HEADROOM = 1.6  # more jobs than the last round's rate lets expect
_SETTLE_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be measured: rounds with so many clients, each for some seconds or with so many jobs."""

    door: Door
    clients: Sequence[int]
    seconds: float
    jobs: int = 0  # 0: as many as the time allows


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round: what was used until activation, while pilots lived, and afterwards."""

    door: Door
    clients: int
    submitted: int
    submit: Load
    pilots: Load
    before: Usage  # submission, set-up
    during: Usage
    after: Usage  # outputs added, archived
    before_s: float
    after_s: float
    finished: int

    @property
    def lives(self) -> int:
        """Count the jobs that pilots got, ran and finished."""
        return self.pilots.seen.lives

    @property
    def per_job(self) -> Usage:
        """Give the CPU of one job's whole life."""
        return self.before.per(self.submitted) + (self.during + self.after).per(self.lives)

    @property
    def rate(self) -> float:
        """Give the pilots' lives per second."""
        return self.lives / self.pilots.seconds

    @property
    def jobs_per_s(self) -> float:
        """Give whole lives per second, one phase after the other."""
        return 1 / (self.before_s / self.submitted + (self.pilots.seconds + self.after_s) / max(self.lives, 1))


def rounds(place: Site, meter: Meter, wish: Wish, watch: Watch = nobody) -> list[Round]:
    """Measure one round after the other, with empty tables at the beginning of each.

    Raises:
        BenchError: jobs get stuck.
    """
    address = place.address(wish.door)
    connection = place.database.connect("panda")
    done: list[Round] = []
    try:
        inside.wipe(connection, place.storage)
        say(f"{wish.door}: warming up")
        first = replace(wish, clients=[4], seconds=2.0, jobs=min(_WARM_UP, wish.jobs or _WARM_UP))
        rate = _round(place, meter, address, connection, first).rate
        for clients in wish.clients:
            inside.wipe(connection, place.storage)
            jobs = wish.jobs or jobs_for(rate, wish.seconds)
            say(f"{wish.door}: {clients} clients, {jobs} jobs")
            asked = replace(wish, clients=[clients], jobs=jobs)
            done.append(_round(place, meter, address, connection, asked, watch))
            rate = max(rate, done[-1].rate)
    finally:
        connection.close()
    return done


def jobs_for(rate: float, seconds: float) -> int:
    """Choose how many jobs a round needs, in whole submissions."""
    wanted = int(rate * seconds * _HEADROOM)
    return min(max(-(-wanted // BULK) * BULK, _SLOWEST), _FASTEST)


def _round(
    place: Site, meter: Meter, address: Address, connection: DBConnection, wish: Wish, watch: Watch = nobody
) -> Round:
    (clients,) = wish.clients
    start = meter.read()
    submit, before_s = _submit(place, address, connection, wish.jobs)
    activated = meter.read()
    part = Part(name="life", clients=clients, seconds=wish.seconds, lives=True)
    with watch(wish.seconds):
        pilots = run_load(place.plan(address, part), place.root)
    lived = meter.read()
    if not pilots.seen.lives:
        raise BenchError(f"no pilot finished a job: {pilots.problems}\n{last_words(place)}")
    after_s = _settle(place, connection)
    return Round(
        door=wish.door, clients=clients, submitted=wish.jobs, submit=submit, pilots=pilots,
        before_s=before_s, after_s=after_s,
        before=activated - start, during=lived - activated, after=meter.read() - lived,
        finished=inside.count_in_state(connection, "finished"),
    )  # fmt: skip


def _submit(place: Site, address: Address, connection: DBConnection, jobs: int) -> tuple[Load, float]:
    """Submit in bulk, and wait until all are activated."""
    sizes = [min(BULK, jobs - begin) for begin in range(0, jobs, BULK)]
    requests: list[list[Any]] = [[messages.SUBMIT, messages.submission(size)] for size in sizes]
    name = f"submitJobs ({BULK})"
    load = run_load(
        place.plan(address, Part(name=name, clients=1, seconds=_SETTLE_S, requests=requests, person="alice")),
        place.root,
    )
    if load.problems:
        raise BenchError(f"jobs are not accepted: {load.problems}\n{last_words(place)}")
    return load, load.seconds + _wait(place, connection, inside.BEFORE_PILOT)


def _settle(place: Site, connection: DBConnection) -> float:
    """Wait until all outputs are added and, where there is an archive, nothing final is left outside."""
    spent = _wait(place, connection, inside.AFTER_PILOT)
    return spent + (_wait(place, connection, inside.FINAL) if inside.archive_tables() else 0.0)


def _wait(place: Site, connection: DBConnection, states: Sequence[str]) -> float:
    spent = inside.wait_until_settled(connection, states, seconds=_SETTLE_S)
    if spent is None:
        text = f"after {_SETTLE_S:.0f} s there are still jobs in {', '.join(states)}"
        raise BenchError(f"{text}:\n{last_words(place)}")
    return spent


# --- results


def round_json(one: Round) -> dict[str, Any]:
    """Give a round for machines."""
    cost = one.per_job
    return {
        "cpu_ms_per_job": _ms(cost.total_s),
        "web_ms": _ms(cost.web_s),
        "db_ms": _ms(cost.db_s),
        "front_ms": _ms(cost.front_s),
        "background_ms": _ms(cost.background_s),
        "pilot_lives_per_s": round(one.rate, 2),
        "jobs_per_s": round(one.jobs_per_s, 2),
        "jobs": one.submitted,
        "lives": one.lives,
        "finished": one.finished,
        "no_job_answers": one.pilots.seen.empty,
        "phases_ms": {
            "submit_to_activated": _ms(one.before.per(one.submitted).total_s),
            "get_to_finished": _ms(one.during.per(one.lives).total_s),
            "added_archived": _ms(one.after.per(one.lives).total_s),
        },
        "seconds": {
            "submit_to_activated": round(one.before_s, 2),
            "get_to_finished": round(one.pilots.seconds, 2),
            "added_archived": round(one.after_s, 2),
        },
        "calls": one.submit.calls | one.pilots.calls,
        "client_cpu_ms_per_life": _ms(one.pilots.cpu_s / max(one.lives, 1)),
        "threads_ms": {name: _ms(spent) for name, spent in cost.threads.items() if spent > 1e-5},
        "problems": one.pilots.problems,
    }


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)


def as_json(done: Sequence[Round], floor: Floor) -> dict[str, Any]:
    """Give all rounds for machines; the first keys are those of the last round."""
    rows: list[dict[str, Any]] = [
        {"front": one.door.front, "connection": one.door.connection, "clients": one.clients} | round_json(one)
        for one in done
    ]
    for told in rows:
        told["floor_ratio"] = round(told["cpu_ms_per_job"] / floor.life_ms, 2)
    last = rows[-1]
    first_keys = ("cpu_ms_per_job", "web_ms", "db_ms", "pilot_lives_per_s", "floor_ratio")
    of_last_door = [one for one in rows if (one["front"], one["connection"]) == (last["front"], last["connection"])]
    return {key: last[key] for key in (*first_keys, "front", "connection", "clients")} | {
        "archive": bool(inside.archive_tables()) or inside.NOT_THERE,
        "by_clients": {str(one["clients"]): one for one in of_last_door},
        "rows": rows,
        "floor": floor.as_json(),
    }


def sheets(told: dict[str, Any]) -> list[Sheet]:
    """Give what `as_json` gave for people."""
    rows = told["rows"]
    costs = [
        (*_name(one), one["pilot_lives_per_s"], one["jobs_per_s"], one["cpu_ms_per_job"], one["web_ms"],
         one["threads_ms"].get(HTTPD, 0.0), one["background_ms"], one["db_ms"], *one["phases_ms"].values(),
         one["floor_ratio"], one["client_cpu_ms_per_life"])
        for one in rows
    ]  # fmt: skip
    calls = [
        (*_name(one), name, call["count"], call["p50_ms"], call["p95_ms"], call["p99_ms"])
        for one in rows
        for name, call in one["calls"].items()
    ]
    door = ("front", "connection", "clients")
    return [
        Sheet(
            "Whole lives",
            (*door, "lives/s", "jobs/s", "CPU", "web", "of web: httpd", "background", "db", "until activated",
             "get to finished", "added, archived", "x floor", "client's"),
            costs, _note(told),
        ),
        Sheet("Latencies of calls", (*door, "call", "count", "p50 ms", "p95 ms", "p99 ms"), calls),
    ]  # fmt: skip


def _name(one: dict[str, Any]) -> tuple[str, str, int]:
    return one["front"], one["connection"], one["clients"]


def _note(told: dict[str, Any]) -> str:
    archive = "there" if told["archive"] is True else told["archive"]
    kinds = dict.fromkeys(one["connection"] for one in told["rows"])
    lines = [
        f"CPU in ms per job; web is all of the server, its background threads and httpd included. archive: {archive}.",
        *(f"{kind}: {CONNECTIONS[kind]}" for kind in kinds),
        *filter(None, map(_trouble, told["rows"])),
    ]
    return "\n".join(lines)


def _trouble(one: dict[str, Any]) -> str:
    name = "{} {}, {} clients".format(*_name(one))
    if one["problems"]:
        return f"{name}: PROBLEMS {one['problems']}"
    lost = one["lives"] - one["finished"]
    return f"{name}: {lost} of {one['lives']} jobs did not end as finished" if lost else ""
