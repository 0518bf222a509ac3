"""Requests that were good once, mutated in every way at both dialects: no fault, no trace of what is refused, no leak.

PANDA_FUZZ says how many (PANDA_FUZZ=100000 takes some minutes), PANDA_FUZZ_SEED where the chance begins.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import random
import re
import shutil
import sys
import types
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlencode

import psutil
import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet
from factories import Clock, Grid, Pki, analysis_job, production_job, write_config

from pandaserver.app import create_app, read_installation
from pandaserver.config import SecretsSection
from pandaserver.taskbuffer import schema
from pandaserver.web.application import CALLS
from pandaserver.web.attributes import FILE_ATTRIBUTES, JOB_ATTRIBUTES
from pandaserver.web.roles import Role

COUNT = int(os.environ.get("PANDA_FUZZ", "1500"))
SEED = int(os.environ.get("PANDA_FUZZ_SEED", "1"))
MOST_GROWTH_MB = 40  # of the process, between a fifth of the run and its end; a leak of 1 kB per request would be 80
WORK_EVERY = 5000
ALLOWED = {200, 400, 401, 403, 404, 405, 409, 413, 415}
WHO = (None, "alice", "bob", "prodman", "pilot", "ddm", "creds/limited", "creds/foreign")
USUAL = {Role.ANYONE: None, Role.USER: "alice", Role.PILOT: "pilot", Role.DDM: "ddm", Role.OPERATOR: "prodman"}
HOSTILE: tuple[Any, ...] = (
    "", "NULL", "None", "True", "[]", "{}", "[[[[[]]]]]", "'; DROP TABLE jobs; --", "1 OR 1=1", "%' --",
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "../../etc/passwd", "/etc/passwd\x00.tgz", "${jndi:x}",
    "{{7*7}}", "%s%s%n", "\x00", "\ud800", "\u202e", "λ" * 300, "x" * 5000, "\r\nSet-Cookie: a=b", "1e400", "NaN", "-0",
    0, -1, 1, 2**31, 2**63, 10**40, 1.5, float("inf"), True, False, None, [], {}, [[]], [None], {"": ""}, [1] * 200,
    {"__datetime__": "x"}, {"__class__": "os"}, "cos\nsystem\n(S'id'\ntR.", "(lp0\nI1\na.", "\x80\x04]\x94.",
)  # fmt: skip
HEADERS = (
    "Idempotency-Key",
    "X-Request-ID",
    "Content-Encoding",
    "X-Forwarded-For",
    "SSL-Client-S-DN",
    "Host",
    "Origin",
    "X-Job-Id",
    "X-Job-Token",
    "Authorization",
)


# --- a server, and eyes on it


class Watch:
    """Sees which statements that write are committed."""

    def __init__(self, grid: Grid) -> None:
        self._open: list[str] = []
        self.committed: list[str] = []
        engine = grid.buffer.database.writer
        sa.event.listen(engine, "before_cursor_execute", self._statement)
        sa.event.listen(engine, "commit", self._commit)
        sa.event.listen(engine, "rollback", lambda _connection: self._open.clear())
        self._cache = grid.server.rooms.config.cache.directory

    def _statement(self, _connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        # that a queue was asked is counted now and then, whoever asks next
        if not re.match(r"\s*(SELECT|BEGIN|PRAGMA)", statement, re.I) and schema.queue_activity.name not in statement:
            self._open.append(statement)

    def _commit(self, _connection: Any) -> None:
        self.committed += self._open
        self._open.clear()

    def traces(self) -> tuple[list[str], int]:
        """What was committed since the last look, and how many files the cache has."""
        committed, self.committed = self.committed, []
        return committed, sum(1 for _ in self._cache.iterdir())


@pytest.fixture
def fuzzed(tmp_path: Path, pki: Pki, sqlite_pattern: Path) -> Iterator[Grid]:
    """A server that takes everything there is, pickles and users' pilots too."""
    shutil.copyfile(sqlite_pattern, tmp_path / "panda.db")
    installation = read_installation(write_config(tmp_path / "grid", pki, f"sqlite:///{tmp_path / 'panda.db'}"))
    told, key = installation.config, tmp_path / "secrets.key"
    key.write_bytes(Fernet.generate_key())
    key.chmod(0o600)
    config = replace(
        told,
        server=replace(told.server, accept_pickles=True),
        identity=replace(told.identity, user_pilots=True),
        dispatch=replace(told.dispatch, wait_max_s=0),
        cache=replace(told.cache, public=False),
        secrets=SecretsSection(key_file=key),
    )
    clock = Clock()
    grid = Grid(tmp_path, pki, clock, create_app(replace(installation, config=config), clock))
    grid.submit(*[production_job(n, computingSite="BNL") for n in range(1, 20)])
    grid.work()
    yield grid
    grid.close()


# --- good requests


@dataclass(frozen=True)
class Good:
    """A request that is good: who makes it, which call in which dialect, with what."""

    who: str | None
    path: str
    told: dict[str, Any]
    form: str = "json"
    writes: bool = False


def old_job() -> str:
    """A job as clients of 2008 send it."""
    module = "pandaserver.taskbuffer."
    made = {}
    for name in ("JobSpec", "FileSpec"):
        kind = type(name, (), {"__module__": module + name, "__getstate__": lambda self: self.values})
        sys.modules[module + name] = made[name] = types.ModuleType(module + name)  # type: ignore[assignment]
        setattr(sys.modules[module + name], name, kind)
    try:
        job, file = (getattr(made[name], name)() for name in ("JobSpec", "FileSpec"))
        told = analysis_job() | {"computingSite": "BNL"}
        file.values = [told["Files"][0].get(name, "NULL") for name in FILE_ATTRIBUTES[:17]] + [None]
        job.values = [told.get(name, "NULL") for name in JOB_ATTRIBUTES[:73]] + [[file]]
        return pickle.dumps([job], protocol=0).decode("ascii")
    finally:
        for name in made:
            del sys.modules[module + name]


def good_requests(grid: Grid) -> list[Good]:
    job, other = grid.get_job("BNL"), grid.get_job("BNL")
    word = {"jobId": job["PandaID"], "attemptNr": job["attemptNr"], "jobToken": job["jobToken"], "state": "running"}
    output = {"a.root": {"guid": "g", "fsize": 5, "adler32": "0a0b0c0d", "endpoint": "BNL_DISK"}}
    told: dict[str, dict[str, Any]] = {
        "job/submit": {"jobs": [analysis_job("a", computingSite="UTA"), production_job(2)], "clientKey": "k"},
        "job/kill": {"job_ids": [1, 2]},
        "job/get_description": {"job_ids": [1, 2, 3]},
        "job/get_description_incl_archive": {"job_ids": "1,2"},
        "job/get_reasons": {"job_id": 1},
        "job/get_retries": {"job_id": "1"},
        "job/why": {"job_id": 1},
        "job/check": {"jobs": [analysis_job("a", excludedSite="UTA"), production_job(2)]},
        "queue/get": {"queue": "BNL"},
        "queue/history": {"queue": "BNL"},
        "queue/set_status": {"queue": "UTA", "status": "test", "reason": "disks", "until": "2027-01-31T18:00"},
        "queue/clear_status": {"queue": "UTA", "reason": "done"},
        "share/list": {"queue": "BNL"},
        "data/list_files": {"dataset": "mc.test.evnt"},
        "data/get_dataset": {"dataset": "mc.test.evnt"},
        "data/dataset_completed": {"dataset": "mc.test.evnt", "site": "BNL_DISK"},
        "data/ddm_messages": {"messages": [{"id": "1", "event_type": "RULE_OK", "payload": {"name": "mc.test.evnt"}}]},
        "pilot/acquire_jobs": {
            "siteName": "BNL", "node": "wn1", "mem": 4000, "diskSpace": 1000, "prodSourceLabel": "managed", "nJobs": 2,
            "requestId": "r", "coreCount": 1, "vo": "testvo", "wait": 5, "remainingTime": 100,
        },
        "pilot/update_job": word | {
            "xml": json.dumps(output), "pilotTiming": "1|2|3|4|5", "maxRSS": 5, "cpuConsumptionTime": 1.5,
            "pilotErrorCode": 1099, "pilotErrorDiag": "x", "stdout": "y", "metaData": "{}",
        },
        "pilot/update_jobs_bulk": {"jobList": json.dumps([word, word | {"state": "finished"}])},
        "creds/set_user_secrets": {"key": "DB_PASSWORD", "value": "s3cret"},
        "creds/get_user_secrets": {"keys": ["DB_PASSWORD"]},
        "creds/get_job_secrets": {"jobId": other["PandaID"], "jobToken": other["jobToken"]},
    }  # fmt: skip
    made = []
    for call in CALLS:
        for path in (f"/server/panda/{call.legacy}", f"/api/v1/{call.path}"):
            made.append(Good(USUAL[call.role], path, told.get(call.path, {}), writes=call.writes))
    for method in ("getJob", "updateJob"):
        call = next(call for call in CALLS if call.legacy == method)
        made.append(Good("alice", f"/server/panda/{method}", told[call.path], writes=True))
    made += [
        Good("alice", "/server/panda/putFile", {"file": ("sandbox.tgz", b"content")}, "multipart", writes=True),
        Good("alice", "/api/v1/file_server/upload_cache_file", {"file": ("b", b"c")}, "multipart", writes=True),
        Good("bob", "/server/panda/submitJobs", {"jobs": old_job()}, "form", writes=True),
        Good("alice", "/server/panda/killJobs", {"ids": "(lp0\nI1\naL2L\na."}, "form", writes=True),
        Good(None, "/server/panda/getJobStatus", {"ids": "(lp0\nI1\naL2L\na."}, "form"),
    ]
    return made


# --- mutations


@dataclass
class Mutator:
    """Makes bad requests of good ones, always the same from the same seed."""

    good: list[Good]
    chance: random.Random = field(default_factory=lambda: random.Random(SEED))

    def request(self) -> tuple[str | None, dict[str, Any]]:
        """Give who asks, and what Flask's test client needs to ask it."""
        chance, good = self.chance, self.chance.choice(self.good)
        told = dict(good.told)
        for _ in range(chance.choice((0, 1, 1, 2, 4))):
            told = self.told(told)
        who = chance.choice(WHO) if chance.random() < 0.2 else good.who
        path = self.path(good.path) if chance.random() < 0.05 else good.path
        form = chance.choice(("json", "form", "query", "gzip", "multipart")) if chance.random() < 0.3 else good.form
        options = {"path": path, "method": "POST" if good.writes or form != "query" else "GET"} | self.body(told, form)
        if chance.random() < 0.05:
            options["method"] = chance.choice(("GET", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"))
        if chance.random() < 0.1:
            value = str(chance.choice(HOSTILE)).encode("ascii", "ignore").decode().replace("\r", "").replace("\n", "")
            options["headers"] = {chance.choice(HEADERS): value or "x"}
        return who, options

    def told(self, told: dict[str, Any]) -> dict[str, Any]:
        """Take a parameter away, put one in, or change one; deep inside, or by the characters of a text."""
        chance, names = self.chance, list(told)
        if not names or chance.random() < 0.1:
            return told | {str(chance.choice((*HOSTILE, "siteName", "jobs", "ids"))): chance.choice(HOSTILE)}
        name = chance.choice(names)
        if chance.random() < 0.1:
            return {key: value for key, value in told.items() if key != name}
        return told | {name: self.value(told[name])}

    def value(self, value: Any) -> Any:
        chance = self.chance
        if chance.random() < 0.35:
            return chance.choice(HOSTILE)
        if isinstance(value, dict):
            return self.told(value)
        if isinstance(value, list) and value:
            at = chance.randrange(len(value))
            kept = [*value[:at], self.value(value[at]), *value[at + 1 :]]
            return chance.choice((kept, kept, kept[:at], kept + kept[at:]))
        if isinstance(value, tuple):
            return (self.value(value[0]) if chance.random() < 0.5 else value[0], self.bytes(value[1]))
        if isinstance(value, str):
            return self.bytes(value.encode("utf-8", "replace")).decode("latin-1")
        return chance.choice((str(value), [value], -1 if value is None else value, chance.choice(HOSTILE)))

    def bytes(self, content: bytes) -> bytes:
        chance, made = self.chance, bytearray(content)
        for _ in range(chance.choice((1, 1, 2, 5))):
            at = chance.randint(0, len(made))
            to = at + chance.choice((0, 0, 1, 2, 20))
            made[at:to] = chance.choice((b"", chance.randbytes(1), b"\n", b"\x00", b'"', b"[", bytes(made[:at][-9:])))
        return bytes(made)

    def path(self, path: str) -> str:
        chance = self.chance
        other = self.bytes(path.encode()).decode("latin-1").lstrip("/")
        name = quote_plus(clean(str(chance.choice(HOSTILE))))[:200]
        return chance.choice((f"/{other}", f"/cache/{name}", f"{path}/", "/"))

    def body(self, told: dict[str, Any], form: str) -> dict[str, Any]:
        chance = self.chance
        if form == "multipart":
            return {"data": {clean(name): self.part(value) for name, value in told.items() if name}}
        texts = {k: v if isinstance(v, str) else json.dumps(v, default=repr) for k, v in told.items()}
        if form == "query":
            return {"query_string": encoded(texts)}
        body = encoded(texts).encode() if form == "form" else json.dumps(told, default=repr).encode()
        if chance.random() < 0.15:
            body = self.bytes(body)
        if form == "gzip":
            body = gzip.compress(body)
            body = self.bytes(body) if chance.random() < 0.3 else body
        kinds = {"form": "application/x-www-form-urlencoded", "json": "application/json"}
        kind = kinds.get(form, "")
        if chance.random() < 0.05:
            kind = chance.choice(
                ("", "text/xml", "multipart/form-data", "multipart/form-data; boundary=x", *kinds.values())
            )
        return {"data": body, "content_type": kind}

    def part(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return io.BytesIO(value[1]), re.sub(r"[\r\n]", "", str(value[0]).encode("utf-8", "replace").decode())
        return str(value).encode("utf-8", "replace").decode()


def encoded(texts: dict[str, str]) -> str:
    return urlencode({clean(name): clean(text) for name, text in texts.items()})


def clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


# --- what has to hold


def is_refused(answer: Any) -> bool:
    """Say whether a request was answered with no."""
    if answer.status_code != 200:
        return True
    told = answer.get_json(silent=True)  # HEAD has none
    return isinstance(told, dict) and (told.get("success") is False or told.get("StatusCode", 0) not in (0, 20))


def check(answer: Any, request: Any) -> None:
    """Whatever was asked: an answer that says what is wrong, and no page that a browser would run."""
    assert answer.status_code in ALLOWED | {301, 308}, (request, answer.text)
    if answer.status_code in (301, 308):
        return
    assert answer.headers["X-Request-ID"], request
    assert answer.mimetype != "text/html" or request[1]["method"] == "OPTIONS", request
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    if answer.is_json and request[1]["method"] != "HEAD":
        told = json.loads(answer.text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON: {request}"))
        assert "Traceback" not in answer.text, request
        if answer.status_code != 200:
            assert told["message"] and (told.get("requestId") or told["error"]["request_id"]), request


def memory_mb() -> float:
    return float(psutil.Process().memory_info().rss) / 1024 / 1024


@pytest.mark.fuzz
@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_mutated_requests_do_no_harm(fuzzed: Grid) -> None:
    mutator, watch, counts = Mutator(good_requests(fuzzed)), Watch(fuzzed), Counter[str]()
    early_mb, files = 0.0, watch.traces()[1]
    for number in range(COUNT):
        who, options = request = mutator.request()
        with fuzzed.client(who).open(**options) as answer:
            check(answer, request)
            refused = is_refused(answer)
            counts[f"{answer.status_code}{' refused' if refused and answer.status_code == 200 else ''}"] += 1
        committed, files_now = watch.traces()
        if refused:
            assert not committed and files_now == files, (request, answer.text[:300], committed)
            counts["refused"] += 1
        elif committed:
            counts["changed something"] += 1
        files = files_now
        if number % WORK_EVERY == WORK_EVERY - 1:
            fuzzed.work()
            watch.traces()
        if number == COUNT // 5:
            early_mb = memory_mb()
    growth_mb = memory_mb() - early_mb
    print(f"\n{COUNT} mutated requests, seed {SEED}: {dict(counts.most_common())}; memory grew by {growth_mb:.1f} MB")
    assert fuzzed.client(None).get("/server/panda/isAlive").text == "alive=yes"
    assert growth_mb < MOST_GROWTH_MB
    assert counts["200"] > COUNT // 20 and counts["changed something"] > COUNT // 200, "some requests still get through"
    assert counts["refused"] > COUNT // 4 and counts["400"] and counts["403"] and counts["401"]


def test_the_good_requests_are_good(fuzzed: Grid) -> None:
    """Or nothing deep is ever reached by mutating them."""
    mutator = Mutator(good_requests(fuzzed))
    for good in mutator.good:
        if good.path.endswith(("putFile", "upload_cache_file")) and good.form != "multipart":
            continue
        if good.path.endswith(("datasetCompleted", "dataset_completed")):  # nothing was dispatched
            continue
        mutator.chance = random.Random(3)  # for no mutation of what is encoded
        mutator.chance.random = lambda: 0.99  # type: ignore[method-assign]
        answer = fuzzed.client(good.who).post(good.path, **mutator.body(good.told, good.form))
        assert answer.status_code == 200, (good, answer.text)
