"""Who may fetch a sandbox: everybody, or where the configuration says so, those whom it concerns."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import Clock, Grid, Pki, analysis_job, write_config
from unchanged import unchanged

from pandaserver.app import create_app, read_installation
from pandaserver.taskbuffer import users
from pandaserver.web import bans

NAME, OTHER = "job.6f1c.tgz", "other.93aa.tgz"
CONTENT = b"\x1f\x8b what alice's job needs"
CLOSED = {"public": False}
Maker = Callable[..., Grid]


@pytest.fixture
def make(tmp_path: Path, pki: Pki, sqlite_pattern: Path) -> Iterator[Maker]:
    """Make servers with sections of the configuration changed."""
    made: list[Grid] = []

    def make_one(**sections: dict[str, Any]) -> Grid:
        shutil.copyfile(sqlite_pattern, tmp_path / "panda.db")
        installation = read_installation(write_config(tmp_path / "grid", pki, f"sqlite:///{tmp_path / 'panda.db'}"))
        config = installation.config
        changed = {name: replace(getattr(config, name), **values) for name, values in sections.items()}
        clock = Clock()
        server = create_app(replace(installation, config=replace(config, **changed)), clock)
        made.append(Grid(tmp_path, pki, clock, server))
        return made[-1]

    yield make_one
    for grid in made:
        grid.close()


def put(grid: Grid, name: str = NAME, who: str = "alice", content: bytes = CONTENT) -> None:
    told = {"file": (io.BytesIO(content), name)}
    assert grid.client(who).post("/server/panda/putFile", data=told).status_code == 200


def fetch(grid: Grid, name: str = NAME, who: str | None = None, **headers: str) -> tuple[int, bytes]:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    with grid.client(who).get(f"/cache/{name}", headers=told) as answer:
        assert answer.headers["X-Request-ID"]
        return answer.status_code, bytes(answer.data)


def running(grid: Grid, who: str = "alice", **told: Any) -> dict[str, Any]:
    """Submit a job, and let a pilot have it."""
    grid.submit(analysis_job(computingSite="BNL", dataset="", **told), who=who)
    grid.work()
    job = grid.get_job("BNL", prodSourceLabel="user")
    assert job["StatusCode"] == 0
    return job


def proof(job: dict[str, Any]) -> dict[str, str]:
    return {"X_Job_Id": str(job["PandaID"]), "X_Job_Token": job["jobToken"]}


def as_bearer(job: dict[str, Any]) -> dict[str, str]:
    return {"X_Job_Id": str(job["PandaID"]), "Authorization": f"Bearer {job['jobToken']}"}


def test_everybody_who_knows_the_name_where_that_is_wanted(make: Maker) -> None:
    """Old pilots, payloads and clients show nothing."""
    grid = make()
    assert grid.server.rooms.config.cache.public, "the default"
    put(grid)
    for who in (None, "alice", "bob", "pilot", "creds/limited"):
        assert fetch(grid, who=who) == (200, CONTENT)
    assert fetch(grid, X_Job_Id="nonsense", X_Job_Token="x") == (200, CONTENT), "nobody looks"


@pytest.mark.parametrize(
    ("who", "status"),
    [(None, 401), ("alice", 200), ("creds/limited", 200), ("pilot", 200), ("prodman", 200), ("bob", 403), ("ddm", 403)],
)
def test_those_whom_it_concerns(make: Maker, who: str | None, status: int) -> None:
    """Of the limited proxy the owner is the same."""
    grid = make(cache=CLOSED)
    put(grid)
    with unchanged(grid):
        found, content = fetch(grid, who=who)
    assert found == status and (content == CONTENT) is (status == 200)


@pytest.mark.parametrize("shown", [proof, as_bearer])
@pytest.mark.parametrize(
    "told",
    [
        {"transformation": f"https://localhost:25443/cache/{NAME}"},
        {"transformation": f"https://localhost:25443/cache/{NAME}?v=1"},
        {"jobParameters": f"--sourceURL https://localhost:25443 -r . -a {NAME} -p x"},
        {"jobParameters": f"-p https%3A%2F%2Flocalhost%2Fcache%2F{NAME}"},
        {"homepackage": f"cache/{NAME}"},
    ],
    ids=lambda told: next(iter(told)),
)
def test_the_pilot_of_a_job_that_uses_it(make: Maker, told: dict[str, Any], shown: Any) -> None:
    grid = make(cache=CLOSED)
    put(grid)
    assert fetch(grid, **shown(running(grid, **told))) == (200, CONTENT)


def test_a_token_opens_nothing_else(make: Maker) -> None:
    grid = make(cache=CLOSED)
    put(grid)
    put(grid, OTHER, content=b"another")
    put(grid, f"x{NAME}", content=b"with its name in the name")
    job = running(grid, transformation=f"https://localhost/cache/{NAME}")
    with unchanged(grid):
        for name in (OTHER, f"x{NAME}"):
            assert fetch(grid, name, **proof(job))[0] == 403
        assert fetch(grid, **proof(job))[0] == 200


def test_a_job_that_names_the_file_of_somebody_else(make: Maker) -> None:
    """Or a name that was overheard would be worth the file."""
    grid = make(cache=CLOSED)
    put(grid)
    job = running(grid, who="bob", transformation=f"https://localhost/cache/{NAME}")
    status, said = fetch(grid, **proof(job))
    assert status == 403 and b"belongs to somebody else" in said


@pytest.mark.parametrize(
    "headers",
    [
        {"X_Job_Id": "1", "X_Job_Token": "0" * 64},
        {"X_Job_Id": "1", "X_Job_Token": "caf\xe9"},
        {"X_Job_Id": "77", "X_Job_Token": "0" * 64},
        {"X_Job_Id": "1"},
        {"X_Job_Id": "one", "X_Job_Token": "0" * 64},
        {"X_Job_Id": "9" * 30, "X_Job_Token": "0" * 64},
        {"X_Job_Id": "1", "X_Job_Token": ""},
        {"X_Job_Token": "0" * 64},
        {"X_Job_Id": "1", "Authorization": "Basic eDp5"},
    ],
    ids=str,
)
def test_proofs_that_are_none(make: Maker, headers: dict[str, str]) -> None:
    """A proof decides alone: not even the owner's certificate helps a wrong one."""
    grid = make(cache=CLOSED)
    put(grid)
    running(grid, transformation=f"https://localhost/cache/{NAME}")
    with unchanged(grid):
        for who in (None, "alice"):
            status, content = fetch(grid, who=who, **headers)
            assert status in (400, 403) and CONTENT not in content and b"0000" not in content


def test_a_bearer_token_alone_is_nobody(make: Maker) -> None:
    grid = make(cache=CLOSED)
    put(grid)
    job = running(grid, transformation=f"https://localhost/cache/{NAME}")
    status, said = fetch(grid, Authorization=f"Bearer {job['jobToken']}")
    assert status == 401 and b"X-Job-Id" in said and job["jobToken"].encode() not in said


def test_without_tls_no_token_counts(make: Maker) -> None:
    grid = make(cache=CLOSED)
    put(grid)
    job = running(grid, transformation=f"https://localhost/cache/{NAME}")
    told = {"X-Job-Id": str(job["PandaID"])}
    plain = grid.server.application.test_client()
    for headers in ({"Authorization": f"Bearer {job['jobToken']}"}, {"X-Job-Token": job["jobToken"]}):
        answer = plain.get(f"/cache/{NAME}", headers=told | headers)
        assert answer.status_code == 401 and "https" in answer.json["message"]


def test_the_token_ends_with_the_attempt(make: Maker) -> None:
    grid = make(cache=CLOSED)
    put(grid)
    job = running(grid, transformation=f"https://localhost/cache/{NAME}")
    for state in ("starting", "running"):
        grid.update(job, state)
        assert fetch(grid, **proof(job))[0] == 200
    grid.update(job, "failed", pilotErrorCode=1099)
    assert fetch(grid, **proof(job))[0] == 403
    grid.work()
    assert fetch(grid, **proof(job))[0] == 403


def test_what_operators_put_there_is_for_everybody(make: Maker) -> None:
    grid = make(cache=CLOSED)
    (grid.server.rooms.config.cache.directory / "run.sh").write_bytes(b"#!/bin/sh")
    assert fetch(grid, "run.sh") == (200, b"#!/bin/sh")
    assert fetch(grid, "none.sh")[0] == 404
    assert fetch(grid, "none.sh", X_Job_Id="1", X_Job_Token="x")[0] == 404


@pytest.mark.parametrize(
    "path",
    ["../panda.db", "..%2fpanda.db", "%2e%2e/sites.cfg", "%00", "x%00y", ".hid.part", "%ff%fe", "x" * 3000, "%0a"],
)
@pytest.mark.parametrize("who", [None, "alice", "pilot"])
def test_no_name_leads_elsewhere(make: Maker, who: str | None, path: str) -> None:
    grid = make(cache=CLOSED)
    with unchanged(grid), grid.client(who).get(f"/cache/{path}", follow_redirects=True) as answer:
        assert answer.status_code in (400, 404) and answer.is_json


def test_an_upload_is_its_owners_before_it_is_there(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed in between leaves a name without a file, not a file without an owner."""

    def killed(*_places: Any) -> None:
        raise KeyboardInterrupt

    grid = make(cache=CLOSED)
    with monkeypatch.context() as patch:
        patch.setattr("os.link", killed)
        with pytest.raises(KeyboardInterrupt):
            put(grid)
    assert [fetch(grid, who=who)[0] for who in (None, "bob", "alice")] == [401, 403, 404]
    put(grid)
    assert fetch(grid, who="alice") == (200, CONTENT)


def test_grid_information_is_for_everybody(make: Maker) -> None:
    grid = make(cache=CLOSED)
    for path in ("/cache/schedconfig/BNL.all.json", "/cache/ddmendpoints.json"):
        assert grid.client(None).get(path).status_code == 200
    assert grid.client(None).get("/cache/schedconfig/none.all.json").status_code == 404


def test_a_banned_user_fetches_nothing(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bans, "REMEMBER_S", -1.0)
    grid = make(cache=CLOSED)
    put(grid)
    grid.submit(analysis_job(dataset=""))
    grid.buffer.run(lambda c: users.set_enabled(c, grid.pki.dn("alice"), False))
    assert fetch(grid, who="alice")[0] == 403


@pytest.mark.parametrize("public", [True, False])
def test_fetching_counts_by_address(make: Maker, public: bool) -> None:
    grid = make(cache={"public": public}, limits={"anonymous_rate": 0.001, "anonymous_burst": 3})
    put(grid)
    paths = [f"/cache/{NAME}", "/cache/ddmendpoints.json", "/cache/schedconfig/BNL.all.json", f"/cache/{NAME}"]
    found = []
    for path in paths:
        with grid.client(None).get(path) as answer:
            found.append(answer.status_code)
            hint, said = answer.headers.get("Retry-After"), answer.data
    assert found == [200 if public else 401, 200, 200, 429]
    assert int(hint or 0) > 100 and b"show one" in said
    assert fetch(grid, who="alice")[0] == 200
    elsewhere = {"REMOTE_ADDR": "192.0.2.7"}
    assert grid.client(None).get("/cache/ddmendpoints.json", environ_overrides=elsewhere).status_code == 200
