"""Messages of hermes at the door of the server: who may post them, what of them counts; the rest does no harm."""

from __future__ import annotations

import base64
import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest
from factories import Clock, Grid, analysis_job, write_config
from unchanged import unchanged

from pandaserver.app import create_app, read_installation
from pandaserver.externalinterface.ddm_messages import Heard, take_messages
from pandaserver.taskbuffer import schema

URL = "/server/panda/ddmMessages"


@pytest.fixture
def prepared_url(sqlite_pattern: Path, tmp_path: Path) -> str:
    """The database makes no difference here."""
    shutil.copyfile(sqlite_pattern, tmp_path / "panda.db")
    return f"sqlite:///{tmp_path / 'panda.db'}"


@pytest.fixture
def secured(tmp_path: Path, pki: Any, prepared_url: str) -> Grid:
    """A server that knows a password of hermes."""
    path = write_config(tmp_path / "grid", pki, prepared_url)
    (path.parent / "password").write_text("a secret: with a colon\n")
    path.write_text(f"{path.read_text()}\n[rucio]\nhermes_username = hermes\nhermes_password_file = password\n")
    clock = Clock()
    return Grid(path.parent, pki, clock, create_app(read_installation(path), clock, callback=lambda *_: None))


def lines(*messages: dict[str, Any]) -> str:
    return "".join(f'{{ "index":{{ }} }}\n{json.dumps(message)}\n' for message in messages)


RUN = uuid.uuid4().hex  # of this run: a process remembers what it has heard


def arrival(name: str, number: int = 1, event: str = "RULE_OK") -> dict[str, Any]:
    return {
        "id": f"{RUN}{name}{number}",
        "event_type": event,
        "payload": {"scope": "panda", "name": name, "rule_id": "0"},
    }


def basic(text: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


def post(grid: Grid, body: str | bytes, who: str | None = None, **headers: str) -> int:
    return int(grid.client(who).post(URL, data=body, content_type="application/json", headers=headers).status_code)


def assigned(grid: Grid) -> str:
    """Give the dispatch dataset of a job that waits for its input."""
    grid.register("mc.test.evnt", "BNL_DISK", "a.root")
    (job_id,) = grid.submit(analysis_job("a.root", computingSite="UTA"))
    handlers = grid.server.pool._handlers
    grid.server.pool._handlers = {kind: handlers[kind] for kind in ("setup", "dispatch")}
    grid.work()
    grid.server.pool._handlers = handlers
    assert grid.state(job_id) == "assigned"
    return str(grid.describe(job_id)["dispatchDBlock"])


def queued(grid: Grid, kind: str) -> int:
    table = schema.work
    return len(grid.buffer.read(lambda c: c.execute(table.select().where(table.c.kind == kind)).all()))


def test_only_the_ddm_may_post(secured: Grid) -> None:
    body = lines(arrival("nothing"))
    assert post(secured, body, "ddm") == 200
    assert post(secured, body, None, **basic("hermes:a secret: with a colon")) == 200
    for who in ("alice", "pilot", "prodman"):
        assert post(secured, body, who) == 403
    wrong = ["hermes:wrong", "hermes:", ":", "", "other:a secret: with a colon", "hermes:a secret: with a colon "]
    for headers in (*map(basic, wrong), {"Authorization": "Basic ?"}, {"Authorization": "Basic"}, {}):
        assert post(secured, body, None, **headers) == 401


def test_the_password_opens_this_call_only(secured: Grid) -> None:
    known = basic("hermes:a secret: with a colon")
    for method, told in (
        ("datasetCompleted", {"dataset": "d"}),
        ("submitJobs", {"jobs": []}),
        ("killJobs", {"ids": [1]}),
    ):
        answer = secured.client(None).post(f"/server/panda/{method}", json=told, headers=known)
        assert answer.status_code == 401, method


def test_without_a_configured_password_none_is_right(grid: Grid) -> None:
    for text in (":", "hermes:", "hermes:None"):
        assert post(grid, lines(arrival("nothing")), None, **basic(text)) == 401


def test_arrivals_are_looked_at_and_all_else_is_let_be(grid: Grid) -> None:
    name = assigned(grid)
    with unchanged(grid):
        others = [arrival(name, n, event) for n, event in enumerate(("transfer-done", "CREATE_DTS", "RULE_PROGRESS"))]
        strange = [{}, {"event_type": "RULE_OK"}, {"event_type": "RULE_OK", "payload": 5}, {"event_type": ["RULE_OK"]}]
        nobodys = [
            arrival("mc.test.evnt", 7),
            arrival("nothing", 8),
            arrival("", 9),
            {"event_type": "RULE_OK", "id": 5},
        ]
        assert post(grid, lines(*others, *strange, *nobodys), "ddm") == 200
    assert queued(grid, "activate") == 0
    for event, number in (("RULE_OK", 10), ("DATASETLOCK_OK", 11), ("RULE_OK", 10)):
        assert post(grid, lines(arrival(name, number, event)), "ddm") == 200
    assert queued(grid, "activate") == 1


@pytest.mark.parametrize("body", ["{", "[]\n[]", "{}\n[", "5\n6", '{"messages": 5}', '{"messages": [5]}', "\xff\n\xfe"])
def test_what_is_no_message_is_refused(grid: Grid, body: str) -> None:
    with unchanged(grid):
        assert post(grid, body.encode("latin-1"), "ddm") == 400


def test_the_call_of_today_takes_a_list(grid: Grid) -> None:
    name = assigned(grid)
    answer = grid.client("ddm").post("/api/v1/data/ddm_messages", json={"messages": [arrival(name)]})
    assert answer.json["success"] is True and queued(grid, "activate") == 1
    pretty = json.dumps({"messages": [arrival(name, 2)]}, indent=1)
    assert post(grid, pretty, "ddm") == 200, "over several lines"
    assert post(grid, "", "ddm") == 200, "nothing is nothing"


def test_a_message_is_heard_once_and_again_when_nothing_came_of_it(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    name, heard, service = assigned(grid), Heard(), grid.server.rooms.data
    with monkeypatch.context() as patch:
        patch.setattr("pandaserver.externalinterface.ddm_messages.ask_for_datasets", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            take_messages(service, [arrival(name)], heard)
    assert take_messages(service, [arrival(name)], heard) == 1
    assert take_messages(service, [arrival(name)], heard) == 0
    assert take_messages(service, [{**arrival(name), "id": None}] * 2, heard) == 1, "without an id it is always new"


def test_only_the_last_ids_are_remembered() -> None:
    heard = Heard(size=3)
    assert [heard.is_new(text) for text in "abca"] == [True, True, True, False]
    assert [heard.is_new(text) for text in "dbce"] == [True, True, True, True], "b and then c had been forgotten"
