"""Data goes first: jobs at three sites that share inputs, with real copies between the sites' storage."""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from benchmark import messages
from benchmark.door import GUNICORN, HTTPS, Door
from benchmark.fronts import last_words, server
from benchmark.processes import BenchError
from benchmark.show import Sheet, say
from benchmark.site import Site
from benchmark.wire import Wire
from pandaserver.dataservice.ddm.local import LocalDDM
from pandaserver.dataservice.ddm.storage import below_root
from pandaserver.model.file import Replica, staged_name
from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection, Database

SITES = ("T1", "T2A", "T2B")  # the Tier-1, where the inputs are and the outputs end, and two others
INPUTS, OUTPUTS = "data.in", "data.out"
_SCOPE = "data"
_BUNCH = 100
_INPUTS_EACH = 2
_PILOTS_EACH = 8
_SAMPLE_S, _LOOK_S, _MOST_S = 0.05, 0.2, 150.0
_EMPTY_PAUSE_S, _CLOSE_S = 0.1, 15.0
_BLOCK = 1024 * 1024

_QUEUE = """[queue {name}]
site = {name}
cloud = US
tier = {tier}
endpoint = {name}_DISK

[endpoint {name}_DISK]
site = {name}
url = file://{storage}/{name}_DISK

"""


@dataclass(frozen=True)
class DataWish:
    """How many jobs over how many shared files, of which size, and how long a job runs."""

    jobs: int = 1000
    files: int = 200
    file_kb: int = 1024
    payload_s: float = 0.25


@dataclass
class _Run:
    """What pilots and the sampler see while all goes on."""

    place: Site
    wish: DataWish
    running: int = 0
    read: int = 0  # inputs that a pilot has read and found to be right
    problems: Counter[str] = field(default_factory=Counter)
    samples: list[tuple[bool, bool]] = field(default_factory=list)  # something is copied, some job runs
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def one_running(self) -> Iterator[None]:
        with self.lock:
            self.running += 1
        try:
            yield
        finally:
            with self.lock:
                self.running -= 1

    def path(self, endpoint: str, scope: str, lfn: str) -> Any:
        return self.place.storage / endpoint / below_root(scope, lfn)


def measure(place: Site, wish: DataWish) -> dict[str, Any]:
    """Let all jobs be done.

    Raises:
        BenchError: they do not end in time.
    """
    text = "".join(_QUEUE.format(name=s, tier=1 if s == "T1" else 2, storage=place.storage) for s in SITES)
    (place.root / "sites.cfg").write_text(text)
    run, door = _Run(place, wish), Door(GUNICORN, HTTPS)
    with server(place, door):
        database = Database(place.url)
        try:
            buffer = TaskBuffer(database)
            say(f"{wish.files} files at the Tier-1")
            _make_inputs(run, LocalDDM(buffer))
            say(f"{wish.jobs} jobs at {len(SITES)} sites")
            begun = time.monotonic()
            _live(run, buffer, door)
            return _told(run, buffer, time.monotonic() - begun)
        finally:
            database.close()


def _make_inputs(run: _Run, ddm: LocalDDM) -> None:
    dice, replicas = random.Random(1), list[Replica]()
    for number in range(run.wish.files):
        content, lfn = dice.randbytes(run.wish.file_kb * 1024), _input(number)
        path = run.path("T1_DISK", _SCOPE, lfn)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        adler32 = f"{zlib.adler32(content):08x}"
        replicas.append(Replica(scope=_SCOPE, lfn=lfn, endpoint="T1_DISK", guid=str(uuid.uuid4()),
                                size_bytes=len(content), adler32=adler32))  # fmt: skip
    ddm.register({INPUTS: replicas})


def _input(number: int) -> str:
    return f"in.{number:05d}.root"


def new_job(number: int, files: int) -> dict[str, Any]:
    """Describe a job; in turn for each site, whose jobs go through all files."""
    turn = number // len(SITES)
    wanted = sorted({(turn + step * 7) % files for step in range(_INPUTS_EACH)})
    inputs = [{"type": "input", "lfn": _input(n), "dataset": INPUTS} for n in wanted]
    return {
        "jobName": f"data-{number:05d}",
        "prodSourceLabel": "managed",
        "transformation": "https://localhost/cache/read.py",
        "computingSite": SITES[number % len(SITES)],
        "prodDBlock": INPUTS,
        "destinationDBlock": OUTPUTS,
        "Files": [*inputs, {"type": "output", "lfn": f"out.$PANDAID._{number:05d}.root", "dataset": OUTPUTS}],
    }


# --- while it goes on


def _live(run: _Run, buffer: TaskBuffer, door: Door) -> None:
    sampler = threading.Thread(target=_sample, args=(run, buffer))
    pilots = [threading.Thread(target=_pilot, args=(run, door, name)) for name in SITES for _ in range(_PILOTS_EACH)]
    for thread in (sampler, *pilots):
        thread.start()
    try:
        _submit(run, door)
        _wait(run, buffer)
    finally:
        run.over.set()
        for thread in (sampler, *pilots):
            thread.join()


def _submit(run: _Run, door: Door) -> None:
    wire = _wire(run, door, "prodman")
    jobs = [new_job(number, run.wish.files) for number in range(run.wish.jobs)]
    for first in range(0, len(jobs), _BUNCH):
        body = {"jobs": jobs[first : first + _BUNCH], "clientKey": str(uuid.uuid4())}
        status, answer = wire.post(messages.SUBMIT, json.dumps(body).encode())
        if status != 200:
            raise BenchError(f"jobs are not accepted: {status} {answer[:300].decode(errors='replace')}")
    wire.close()


def _wire(run: _Run, door: Door, person: str) -> Wire:
    address = run.place.address(door)
    return Wire(address, person, address.context(person))


def _wait(run: _Run, buffer: TaskBuffer) -> None:
    give_up, going_on = time.monotonic() + _MOST_S, -1
    while going_on:
        if time.monotonic() > give_up:
            raise BenchError(f"{going_on} jobs have not ended; {dict(run.problems)}\n{last_words(run.place)}")
        time.sleep(_LOOK_S)
        counts = buffer.read(_counts)
        going_on = sum(number for state, number in counts.items() if state not in ("finished", "failed"))


def _counts(connection: Connection) -> dict[str, int]:
    table = schema.jobs
    rows = connection.execute(sa.select(table.c.state, sa.func.count()).group_by(table.c.state))
    return {row[0]: row[1] for row in rows}


def _sample(run: _Run, buffer: TaskBuffer) -> None:
    """Look again and again whether bytes are moving, and whether jobs run."""
    table = schema.ddm_transfers
    statement = sa.select(table.c.transfer_id).where(table.c.lane.is_not(None)).limit(1)
    while not run.over.wait(_SAMPLE_S):
        moving = buffer.read(lambda c: c.execute(statement).first()) is not None
        run.samples.append((moving, run.running > 0))


def _pilot(run: _Run, door: Door, queue: str) -> None:
    """Take jobs of one queue until all is over."""
    wire = _wire(run, door, "pilot")
    while not run.over.is_set():
        try:
            job = _ask(wire, messages.GET_JOB, messages.request_for(queue))
            if job["StatusCode"] == 0:
                _do(run, wire, job)
            else:
                run.over.wait(_EMPTY_PAUSE_S)
        except Exception as error:  # noqa: BLE001 - told at the end; the others go on
            run.problems[f"{error!r}"[:200]] += 1
            run.over.wait(_EMPTY_PAUSE_S)
    wire.close()


def _ask(wire: Wire, path: str, told: dict[str, Any]) -> dict[str, Any]:
    status, answer = wire.post(path, json.dumps(told).encode())
    if status != 200:
        raise BenchError(f"{path}: {status} {answer[:200].decode(errors='replace')}")
    return dict(json.loads(answer))


def _do(run: _Run, wire: Wire, job: dict[str, Any]) -> None:
    """Be the pilot of one job: read and verify the inputs, compute, store the outputs, say so."""
    _ask(wire, messages.UPDATE_JOB, messages.word(job, "running"))
    with run.one_running():
        digest = _read_inputs(run, job)
        time.sleep(run.wish.payload_s)
        stored = _store(run, job, digest)
    answer = _ask(wire, messages.UPDATE_JOB, messages.word(job, "finished", xml=json.dumps(stored)))
    if answer["StatusCode"] != 0:
        raise BenchError(f"job {job['PandaID']} was not taken back: {answer}")


def _read_inputs(run: _Run, job: dict[str, Any]) -> str:
    digest = ""
    names = zip(*(job[name].split(",") for name in ("ddmEndPointIn", "scopeIn", "inFiles", "checksum")), strict=True)
    for endpoint, scope, lfn, checksum in names:
        found = _adler32(run.path(endpoint, scope, lfn))
        if f"ad:{found}" != checksum:
            raise BenchError(f"input {lfn} at {endpoint} has {found}, {checksum} was announced")
        digest += found
        with run.lock:
            run.read += 1
    return digest


def _adler32(path: Any) -> str:
    value = 1
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            value = zlib.adler32(block, value)
    return f"{value:08x}"


def _store(run: _Run, job: dict[str, Any], digest: str) -> dict[str, Any]:
    scopes = [*filter(None, job["scopeOut"].split(",")), job["scopeLog"]]
    endpoint, stored = job["ddmEndPointOut"].split(",")[0], dict[str, Any]()
    for scope, lfn in zip(scopes, job["outFiles"].split(","), strict=True):
        content = f"{lfn} of {digest}\n".encode() * 500
        place = run.path(endpoint, scope, lfn)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.with_name(staged_name(lfn, job["outSuffix"])).write_bytes(content)
        facts = {"fsize": len(content), "adler32": f"{zlib.adler32(content):08x}", "guid": str(uuid.uuid4())}
        stored[lfn] = facts | {"endpoint": endpoint, "staged": True}
    return stored


# --- afterwards


def _told(run: _Run, buffer: TaskBuffer, seconds: float) -> dict[str, Any]:
    wish, counts = run.wish, buffer.read(_counts)
    carried = buffer.read(_carried)
    jobs = [new_job(number, wish.files) for number in range(wish.jobs)]
    wanted = [(job["computingSite"], f["lfn"]) for job in jobs for f in job["Files"] if f["type"] == "input"]
    away = [one for one in wanted if one[0] != "T1"]
    busy = [jobs_run for moving, jobs_run in run.samples if moving]
    return {
        "jobs": wish.jobs,
        "finished": counts.get("finished", 0),
        "sites": len(SITES),
        "input_files": wish.files,
        "input_mb": round(wish.files * wish.file_kb / 1024, 1),
        "inputs_wanted_at_other_sites": len(away),
        "inputs_needed_at_other_sites": len(set(away)),
        "inputs_copied": sum(number for (_, target), number in carried.items() if target != "T1_DISK"),
        "inputs_read_and_verified": run.read,
        "outputs_copied_to_tier1": sum(number for (_, target), number in carried.items() if target == "T1_DISK"),
        **_outputs(run, buffer),
        "seconds": round(seconds, 1),
        "seconds_with_transfers": round(len(busy) * seconds / max(len(run.samples), 1), 1),
        "of_it_with_running_jobs": round(sum(busy) / max(len(busy), 1), 3),
        "problems": dict(run.problems),
    }


def _carried(connection: Connection) -> dict[tuple[str, str], int]:
    """Count the files that were really copied, by link."""
    table = schema.ddm_link_hours
    columns = (table.c.source, table.c.destination)
    statement = sa.select(*columns, sa.func.sum(table.c.files)).group_by(*columns)
    return {(row[0], row[1]): int(row[2]) for row in connection.execute(statement)}


def _outputs(run: _Run, buffer: TaskBuffer) -> dict[str, int]:
    """Look at each output at the Tier-1, with its size and checksum."""
    facts = {row.lfn: row for row in buffer.read(_of_outputs)}
    right = 0
    for row in facts.values():
        path = run.path("T1_DISK", row.scope, row.lfn)
        right += path.is_file() and path.stat().st_size == row.size_bytes and _adler32(path) == row.adler32
    beside = list(run.place.storage.rglob("*.a?-*"))
    parts = _closed_parts(buffer)
    return {
        "outputs_and_logs_at_tier1": len(facts),
        "of_them_with_the_right_bytes": right,
        "sub_datasets_frozen": parts.get("completed", 0),
        "sub_datasets_open": sum(parts.values()) - parts.get("completed", 0),
        "files_left_beside_their_place": len(beside),
    }


def _closed_parts(buffer: TaskBuffer) -> dict[str, int]:
    """Count the parts of the outputs by status, when they have been closed or should have been."""
    give_up = time.monotonic() + _CLOSE_S
    while True:
        parts = buffer.read(lambda c: dict(_parts(c)))
        if set(parts) == {"completed"} or time.monotonic() > give_up:
            return parts
        time.sleep(_LOOK_S)


def _of_outputs(connection: Connection) -> Sequence[Any]:
    contents, files, copies = schema.ddm_contents, schema.ddm_files, schema.ddm_replicas
    same = sa.and_(contents.c.scope == files.c.scope, contents.c.lfn == files.c.lfn)
    there = sa.and_(copies.c.scope == files.c.scope, copies.c.lfn == files.c.lfn, copies.c.endpoint == "T1_DISK")
    statement = sa.select(files).select_from(contents.join(files, same).join(copies, there))
    return connection.execute(statement.where(contents.c.dataset.in_([OUTPUTS, f"{OUTPUTS}.log"]))).all()


def _parts(connection: Connection) -> list[tuple[str, int]]:
    table = schema.datasets
    statement = sa.select(table.c.status, sa.func.count()).where(table.c.type == "sub").group_by(table.c.status)
    return [(row[0], row[1]) for row in connection.execute(statement)]


def sheets(told: dict[str, Any]) -> list[Sheet]:
    """Give what `measure` gave for people."""
    rows = [(name.replace("_", " "), value) for name, value in told.items() if name != "problems"]
    once = told["inputs_copied"] == told["inputs_needed_at_other_sites"]
    note = "each input was copied once to each site that needed it" if once else "INPUTS WERE COPIED MORE THAN ONCE"
    return [Sheet("Data goes first", ("what", "number"), rows, f"{note}. {told['problems'] or ''}".strip())]
