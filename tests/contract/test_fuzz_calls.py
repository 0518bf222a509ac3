"""Anything at any door, from anybody: an answer with a fitting status, in JSON, and never a fault of the server."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import Grid, Pki, make_grid, production_job
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from pandaserver.web.application import CALLS
from pandaserver.web.attributes import FILE_ATTRIBUTES, JOB_ATTRIBUTES
from pandaserver.web.roles import Role

ALLOWED = {200, 400, 401, 403, 404, 405, 409, 413}
WHO = [None, "alice", "bob", "prodman", "pilot", "ddm", "creds/limited", "creds/foreign"]
TEXTS = {"alive=yes", "True"}
PATHS = [path for call in CALLS for path in (f"/server/panda/{call.legacy}", f"/api/v1/{call.path}")]
NAMES = sorted({name for call in CALLS for p in call.params for name in (p.name, *p.also)})
PILOT_NAMES = """
    siteName prodSourceLabel node computingElement mem diskSpace schedulerID pilotID requestId remainingTime jobId state
    attemptNr jobToken cpuConsumptionTime cpuConsumptionUnit maxRSS coreCount jobMetrics pilotTiming pilotLog stdout
    pilotErrorCode pilotErrorDiag exeErrorCode exeErrorDiag transExitCode xml metaData jobSubStatus nEvents
""".split()
SENSIBLE = [
    "BNL",
    "running",
    "finished",
    "failed",
    "NULL",
    "None",
    "",
    "1",
    "[]",
    "{}",
    "[1]",
    "../x",
    "\x00",
    "\ud800",
    "λ" * 300,
]

numbers = st.integers() | st.sampled_from([0, 1, -1, 2**31, 2**63, 10**30]) | st.floats()
scalars = st.none() | st.booleans() | numbers | st.text(max_size=20) | st.sampled_from(SENSIBLE)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=6,
)
files = (
    st.dictionaries(st.sampled_from(FILE_ATTRIBUTES), scalars, max_size=6) | st.lists(scalars, max_size=24) | anything
)
jobs = (
    st.dictionaries(st.sampled_from([*JOB_ATTRIBUTES, "Files"]), scalars | st.lists(files, max_size=2), max_size=6)
    | st.lists(scalars | st.lists(files, max_size=2), max_size=130)
    | st.builds(lambda name, value: production_job() | {name: value}, st.sampled_from(JOB_ATTRIBUTES), anything)
)
parameters = st.dictionaries(st.sampled_from([*NAMES, *PILOT_NAMES]), anything | st.lists(jobs, max_size=2), max_size=6)
outputs = st.dictionaries(
    st.text(max_size=8),
    st.dictionaries(st.sampled_from(["fsize", "adler32", "guid", "endpoint"]), scalars) | anything,
    max_size=2,
)
told = parameters | st.builds(lambda p, x: p | {"xml": x}, parameters, outputs | outputs.map(lambda o: dumps(o)))

usual = settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
thorough = settings(usual, max_examples=3000)


def dumps(value: Any) -> str:
    """JSON that may hold half characters and numbers without end, as hostile clients write it."""
    return json.dumps(value)


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory, pki: Pki, sqlite_pattern: Path) -> Iterator[Grid]:
    """A server that gets everything; it is never made anew, so that trouble can pile up."""
    root = tmp_path_factory.mktemp("doors")
    shutil.copyfile(sqlite_pattern, root / "panda.db")
    grid = make_grid(root / "grid", pki, f"sqlite:///{root / 'panda.db'}")
    grid.submit(*[production_job(n, computingSite="BNL") for n in range(1, 4)])
    grid.work()
    yield grid
    grid.close()


def check(answer: Any, path: str) -> None:
    """Whatever was asked, this is how answers look."""
    assert answer.status_code in ALLOWED, (answer.status_code, path, answer.text)
    assert "Traceback" not in answer.text and answer.headers["X-Request-ID"]
    if answer.text in TEXTS:
        return
    told = json.loads(answer.text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    if path.startswith("/api/"):
        assert {"success", "message", "data"} <= set(told) and isinstance(told["success"], bool)
        assert told["success"] or (told["error"]["status"] in ALLOWED and told["message"])
    elif answer.status_code != 200:
        assert told["message"] and told["StatusCode"] in (30, 40, 70)


def send(doors: Grid, who: str | None, path: str, told: Any, form: str) -> None:
    client, body = doors.client(who), dumps(told).encode()
    if form == "json":
        answer = client.post(path, data=body, content_type="application/json")
    elif form == "gzip":
        answer = client.post(path, data=gzip.compress(body))
    else:
        fields = {name: clean(value if isinstance(value, str) else dumps(value)) for name, value in told.items()}
        options = {"query_string": fields} if form == "query" else {"data": fields}
        answer = client.get(path, **options) if form == "query" else client.post(path, **options)
    check(answer, path)


def clean(text: str) -> str:
    """What a client library can put into a form."""
    return text.encode("utf-8", "replace").decode()


def fuzz(doors: Grid, *, path: str, who: str | None, told: Any, form: str) -> None:
    send(doors, who, path, told, form)
    assert doors.client(None).get("/server/panda/isAlive").text == "alive=yes"


forms = st.sampled_from(["json", "gzip", "form", "query"])
hostile = {"path": st.sampled_from(PATHS), "who": st.sampled_from(WHO), "told": told, "form": forms}


@usual
@given(**hostile)
@example(path=PATHS[0], who=None, told={"\ud800": "\udfff"}, form="json")
def test_anything_gets_an_answer(doors: Grid, path: str, who: str | None, told: Any, form: str):
    fuzz(doors, path=path, who=who, told=told, form=form)


@pytest.mark.fuzz
@pytest.mark.slow
@thorough
@given(**hostile)
def test_anything_gets_an_answer_for_long(doors: Grid, path: str, who: str | None, told: Any, form: str):
    fuzz(doors, path=path, who=who, told=told, form=form)


RIGHT = {Role.ANYONE: None, Role.USER: "alice", Role.PILOT: "pilot", Role.DDM: "ddm", Role.OPERATOR: "prodman"}


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.legacy)
def test_the_right_caller_with_wrong_values(doors: Grid, call: Any):
    """Past the guard at the door, where mistakes would show."""
    who = {Role.ANYONE: None, Role.USER: "alice", Role.PILOT: "pilot", Role.DDM: "ddm", Role.OPERATOR: "prodman"}[
        call.role
    ]
    names = PILOT_NAMES if call.raw else [name for p in call.params for name in (p.name, *p.also)]

    @settings(usual, max_examples=40)
    @given(
        st.dictionaries(st.sampled_from(names or ["none"]), anything | st.lists(jobs, max_size=2), max_size=5), forms
    )
    def run(told: Any, form: str) -> None:
        for path in (f"/server/panda/{call.legacy}", f"/api/v1/{call.path}"):
            send(doors, who, path, told, form)

    run()


@pytest.mark.fuzz
@pytest.mark.slow
@pytest.mark.parametrize("call", [c for c in CALLS if c.params or c.raw], ids=lambda call: call.legacy)
def test_the_right_caller_with_wrong_values_for_long(doors: Grid, call: Any):
    who = {Role.ANYONE: None, Role.USER: "alice", Role.PILOT: "pilot", Role.DDM: "ddm", Role.OPERATOR: "prodman"}[
        call.role
    ]
    names = PILOT_NAMES if call.raw else [name for p in call.params for name in (p.name, *p.also)]
    required = {"getJob": {"siteName": "BNL"}, "updateJob": {"jobId": 1, "state": "running"}}.get(call.legacy, {})

    @settings(usual, max_examples=600)
    @given(st.dictionaries(st.sampled_from(names), anything | st.lists(jobs, max_size=2), max_size=5), forms)
    def run(told: Any, form: str) -> None:
        send(doors, who, f"/server/panda/{call.legacy}", required | told, form)

    run()


@usual
@given(st.lists(jobs, min_size=1, max_size=3))
def test_jobs_that_are_accepted_are_accepted_whole(doors: Grid, new: list[Any]):
    answer = doors.client("alice").post("/server/panda/submitJobs", data=dumps({"jobs": new}))
    check(answer, "/server/panda/submitJobs")
    if answer.status_code == 200:
        ids = [entry[0] for entry in answer.json]
        assert len(ids) == len(new)
        described = doors.client(None).post("/server/panda/getJobStatus", json={"ids": ids}).json
        assert [job["PandaID"] for job in described] == ids
        assert all(job["jobStatus"] == "defined" and job["Files"] for job in described)


@usual
@given(
    st.binary(max_size=200),
    st.sampled_from(PATHS),
    st.sampled_from(
        [
            "",
            "application/json",
            "text/xml",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "multipart/form-data; boundary=b",
            "\xff/x; charset=none",
        ]
    ),
)
@example(b"--b\r\n\r\n--b--", PATHS[-1], "multipart/form-data; boundary=b")
@example(b"\x1f\x8b\x08", PATHS[-1], "")
def test_any_bytes_get_an_answer(doors: Grid, body: bytes, path: str, content_type: str):
    for who in ("alice", "pilot"):
        check(doors.client(who).post(path, data=body, content_type=content_type), path)


@usual
@given(
    st.text(st.characters(codec="utf-8"), max_size=30),
    st.sampled_from(["/", "/cache/", "/server/panda/", "/api/v1/", "/api/v1/job/"]),
)
@example("schedconfig/\x00.all.json", "/cache/")
@example("%2e%2e%2fpanda_server.cfg", "/cache/")
def test_any_path_gets_an_answer(doors: Grid, text: str, start: str):
    assume(not (start + text).startswith("//"))  # the test client takes what follows for a host
    for method in ("GET", "POST", "DELETE"):
        with doors.client(None).open(path=start + text, method=method) as answer:
            assert answer.status_code in {*ALLOWED, 301, 308}, (method, start + text, answer.status_code)
            assert "[database]" not in answer.text and "Traceback" not in answer.text


@usual
@given(
    st.dictionaries(
        st.sampled_from(["SSL_CLIENT_VERIFY", "SSL_CLIENT_CERT", "SSL_CLIENT_CERT_CHAIN_0", "SSL_CLIENT_S_DN"]),
        st.text(max_size=60)
        | st.sampled_from(
            ["SUCCESS", "NONE", "FAILED:x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
        ),
    )
)
def test_any_certificate_gets_an_answer(doors: Grid, environ: dict[str, str]):
    client = doors.server.application.test_client()
    for path in ("/server/panda/submitJobs", "/api/v1/pilot/acquire_jobs", "/server/panda/getAttr"):
        answer = client.post(path, json={"siteName": "BNL"}, environ_overrides=environ)
        check(answer, path)
        assert path.endswith("getAttr") or answer.status_code in (200, 401, 403)
        assert not path.endswith("submitJobs") or answer.status_code == 401
