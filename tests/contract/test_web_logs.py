"""The log: every request has an id that its answer carries, and secrets never get there."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
from factories import Grid, production_job

from pandaserver import log as logs
from pandaserver.externalinterface import information

ID = re.compile(r"[0-9a-f]{12}")


class Lines(logging.Handler):
    """Keeps the lines as they would stand in the file."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(logs.FORMAT))
        self.addFilter(logs._ContextFilter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def text(self) -> str:
        return "\n".join(self.lines)


@pytest.fixture
def lines():
    handler, root = Lines(), logging.getLogger("pandaserver")
    level = root.level
    root.addHandler(handler)
    root.setLevel("DEBUG")
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.mark.parametrize(
    "path",
    ["/server/panda/isAlive", "/api/v1/queue/list", "/cache/none", "/none", "/api/v1/none", "/server/panda/killJobs"],
)
def test_every_answer_carries_an_id_of_its_own(grid: Grid, path: str):
    ids = [grid.client(None).get(path).headers.getlist("X-Request-ID") for _ in range(3)]
    assert all(len(found) == 1 and ID.fullmatch(found[0]) for found in ids)
    assert len({found[0] for found in ids}) == 3


def test_a_refusal_can_be_found_in_the_log(grid: Grid, lines: Lines):
    for path in ("/server/panda/killJobs", "/api/v1/job/kill"):
        answer = grid.client(None).post(path, json={"job_ids": [1]})
        request_id = answer.headers["X-Request-ID"]
        assert answer.json.get("requestId") == request_id or answer.json["error"]["request_id"] == request_id
        (line,) = [line for line in lines.lines if request_id in line]
        assert "refused with 401" in line and re.search(rf"\[(killJobs|job/kill) {request_id}\]", line)


@pytest.mark.parametrize(
    ("who", "method", "path", "told", "status", "reason"),
    [
        (None, "POST", "/server/panda/killJobs", {"ids": [1]}, 401, "certificate"),
        ("creds/legacy", "POST", "/server/panda/killJobs", {"ids": [1]}, 401, "legacy"),
        ("alice", "POST", "/api/v1/pilot/acquire_jobs", {"siteName": "BNL"}, 403, "no pilot identity"),
        ("alice", "POST", "/api/v1/job/kill", {"job_ids": "x"}, 400, "job_ids"),
        ("alice", "POST", "/api/v1/job/kill", b"{", 400, "no JSON"),
        (None, "GET", "/server/panda/noSuchCall", None, 404, "not found"),
        (None, "GET", "/cache/none", None, 404, "not found"),
        (None, "GET", "/cache/schedconfig/none.all.json", None, 404, "there is no queue none"),
        (None, "PUT", "/api/v1/job/kill", None, 405, "not allowed"),
        (None, "GET", "/server/panda/querySubmissions?job=%00", None, 404, "not found"),
    ],
)
def test_every_refusal_is_in_the_log_with_its_reason(
    grid: Grid, lines: Lines, who: str | None, method: str, path: str, told: Any, status: int, reason: str
):
    body = {"data": told} if isinstance(told, bytes) else {"json": told}
    with grid.client(who).open(path, method=method, **body) as answer:
        said = [line for line in lines.lines if answer.headers["X-Request-ID"] in line and "refused with" in line]
    assert len(said) == 1 and f"refused with {status}: " in said[0] and reason in said[0]


def test_what_is_done_can_be_found_in_the_log(grid: Grid, lines: Lines):
    answer = grid.client("alice").post("/server/panda/submitJobs", json={"jobs": [production_job()]})
    (line,) = [line for line in lines.lines if answer.headers["X-Request-ID"] in line]
    assert grid.pki.dn("alice") in line and "submitted 1 jobs" in line


@pytest.mark.parametrize("path", ["/server/panda/isAlive", "/api/v1/system/is_alive", "/cache/ddmendpoints.json"])
def test_a_fault_of_the_server_tells_nothing_and_is_in_the_log(grid: Grid, lines: Lines, monkeypatch, path: str):
    def broken(_buffer: Any) -> None:
        raise RuntimeError("the secret is 4711")

    monkeypatch.setattr(information, "grid", broken)
    answer = grid.client(None).get(path)
    assert answer.status_code == 500 and answer.is_json and "the server has a fault" in answer.json["message"]
    assert "4711" not in answer.text and "RuntimeError" not in answer.text and "Traceback" not in answer.text
    request_id = answer.headers["X-Request-ID"]
    assert request_id in answer.text
    assert any(request_id in line and "the secret is 4711" in line and "Traceback" in line for line in lines.lines)


def test_tokens_keys_and_certificates_are_never_logged(grid: Grid, lines: Lines):
    logging.getLogger("pandaserver").setLevel("DEBUG")
    grid.submit(production_job(computingSite="BNL"), clientKey="my-own-key")
    grid.work()
    job = grid.get_job("BNL")
    token = job["jobToken"]
    grid.update(job, "starting")
    grid.update(job, "running", jobToken=token[:-1] + "0", stdout="my-own-output")
    client = grid.client("pilot")
    for wrong in (
        {"state": "nonsense"},
        {"jobId": "x"},
        {"jobId": 99, "state": "running"},
        {"state": "failed", "xml": "<x/>"},
    ):
        client.post("/server/panda/updateJob", json={"jobId": 1, "attemptNr": 1, "jobToken": token} | wrong)
    client.post("/server/panda/updateJob", data=b'{"jobToken": "' + token.encode())
    client.post(f"/server/panda/isAlive?jobToken={token}")
    client.post(f"/server/panda/none?jobToken={token}")
    grid.run_job(job)
    grid.work()
    assert len(lines.lines) > 5
    secret = grid.server.rooms.buffer.read(lambda c: c.exec_driver_sql("SELECT value FROM secrets").scalar())
    for hidden in (token, token[:-1], str(secret), "my-own-key", "my-own-output", "BEGIN CERTIFICATE", "PRIVATE KEY"):
        assert hidden not in lines.text()


def test_a_token_in_a_body_that_cannot_be_read_is_not_repeated_beyond_its_start(grid: Grid, lines: Lines):
    answer = grid.client("pilot").post(
        "/server/panda/updateJob", data=b'{"jobId": 1, "state": ' + b" " * 50 + b'"jobToken": "secret'
    )
    assert answer.status_code == 400 and "secret" not in answer.text and "secret" not in lines.text()


@pytest.mark.parametrize("path", ["/server/panda/%0aFORGED%20line", "/%0d%0aFORGED", "/server/panda/%1b[31mFORGED"])
def test_no_request_can_forge_a_line(grid: Grid, lines: Lines, path: str):
    grid.client(None).get(path)
    told = {"jobs": [{"transformation": "t", "\nFORGED line": "\nFORGED"}]}
    assert grid.client("alice").post("/server/panda/submitJobs", json=told).status_code == 400
    assert lines.lines and not [line for line in lines.text().splitlines() if line.lstrip().startswith("FORGED")]


def test_hostile_paths_are_harmless_in_headers(grid: Grid):
    answer = grid.client(None).get("/server/panda/%0d%0aSet-Cookie:%20a=b")
    assert answer.status_code == 404 and "Set-Cookie" not in answer.headers
