"""Roles, limits and bans at the doors of a server: who gets in, what they get there, and what they are told."""

from __future__ import annotations

import io
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from factories import Clock, Grid, Pki, analysis_job, production_job, write_config
from unchanged import unchanged

from pandaserver.app import create_app, read_installation
from pandaserver.taskbuffer import users
from pandaserver.web import bans
from pandaserver.web.callers import Callers
from pandaserver.web.identity import Identity

Maker = Callable[..., Grid]
BOTH = ("/server/panda/{0}", "/api/v1/{1}")
GET_JOB, UPDATE = ("getJob", "pilot/acquire_jobs"), ("updateJob", "pilot/update_job")
SUBMIT, PUT = ("submitJobs", "job/submit"), ("putFile", "file_server/upload_cache_file")


@pytest.fixture
def make(tmp_path: Path, pki: Pki, sqlite_pattern: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make servers with sections of the configuration changed, which believe the identity that a test tells."""
    made: list[Grid] = []
    original = Callers.identify

    def told_or_shown(callers: Callers, environ: Any) -> Identity | None:
        return environ["test.identity"] if "test.identity" in environ else original(callers, environ)

    def make_one(**sections: dict[str, Any]) -> Grid:
        shutil.copyfile(sqlite_pattern, tmp_path / "panda.db")
        installation = read_installation(write_config(tmp_path / "grid", pki, f"sqlite:///{tmp_path / 'panda.db'}"))
        config = installation.config
        changed = {name: replace(getattr(config, name), **values) for name, values in sections.items()}
        clock = Clock()
        server = create_app(replace(installation, config=replace(config, **changed)), clock)
        made.append(Grid(tmp_path, pki, clock, server))
        return made[-1]

    monkeypatch.setattr(Callers, "identify", told_or_shown)
    yield make_one
    for grid in made:
        grid.close()


def somebody(name: str, *fqans: str, limited: bool = False) -> Identity:
    end = datetime(2030, 1, 1, tzinfo=UTC)
    return Identity(dn=f"/DC=org/CN={name}", limited=limited, depth=1, not_after=end, fqans=fqans)


def ask(grid: Grid, who: Identity | None, call: tuple[str, str], **told: Any) -> Any:
    """Make a call in the old dialect."""
    environ = {"test.identity": who}
    return grid.client(None).post(f"/server/panda/{call[0]}", json=told, environ_overrides=environ)


def ids(answer: Any) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [entry[0] for entry in answer.json]


def refused(answer: Any, status: int, words: str) -> None:
    assert answer.status_code == status and words in answer.json["message"], answer.text
    assert answer.json["requestId"] == answer.headers["X-Request-ID"]


# --- VOs and working groups

ALICE, BOB = somebody("Alice", "/testvo/Role=NULL"), somebody("Bob", "/cms")
PRODUCER, GROUP = somebody("Pat", "/cms/Role=production"), somebody("Gus", "/cms/higgs/Role=production", "/cms")
BOTH_VOS = somebody("Vic", "/cms/Role=production", "/testvo")
VO_PILOT, OTHER_PILOT = somebody("Cmspilot", "/cms/Role=pilot"), somebody("Vopilot", "/testvo/Role=pilot")
BY_ATTRIBUTE = {"pilots": ("/*/Role=pilot",), "producers": ("/cms/Role=production", "/cms/*/Role=production")}


def at_bnl(**more: Any) -> dict[str, Any]:
    return production_job(1, computingSite="BNL", **more)


def test_a_pilot_of_a_vo_gets_and_updates_jobs_of_its_vo(make: Maker) -> None:
    grid = make(identity=BY_ATTRIBUTE)
    (mine,) = ids(ask(grid, PRODUCER, SUBMIT, jobs=[at_bnl()]))
    grid.work()
    assert grid.describe(mine)["VO"] == "cms", "the VO of whoever submits, where the job names none"
    assert ask(grid, OTHER_PILOT, GET_JOB, siteName="BNL").json["StatusCode"] == 20
    refused(ask(grid, OTHER_PILOT, GET_JOB, siteName="BNL", vo="cms"), 403, "a pilot for jobs of testvo, not of cms")
    got = ask(grid, VO_PILOT, GET_JOB, siteName="BNL").json
    assert got["PandaID"] == mine
    told = {"jobId": mine, "attemptNr": got["attemptNr"], "state": "running"}
    with unchanged(grid):
        refused(ask(grid, VO_PILOT, UPDATE, **told), 403, "jobToken is missing")
        refused(ask(grid, OTHER_PILOT, UPDATE, **told), 403, "jobToken is missing")
        assert ask(grid, OTHER_PILOT, UPDATE, **told, jobToken="0" * 64).json["command"] == "tobekilled"
        (one, other) = ask(
            grid, OTHER_PILOT, ("updateJobsInBulk", ""), jobList=[told, told | {"jobToken": "0" * 64}]
        ).json
        assert one["StatusCode"] == 70 and other["command"] == "tobekilled"
    assert ask(grid, VO_PILOT, UPDATE, **told, jobToken=got["jobToken"]).json == {"StatusCode": 0, "command": "NULL"}


def test_production_is_for_those_of_the_vo_and_group(make: Maker) -> None:
    grid = make(identity=BY_ATTRIBUTE)
    with unchanged(grid):
        refused(ask(grid, BOB, SUBMIT, jobs=[at_bnl()]), 403, "may not submit production jobs of VO cms")
        refused(ask(grid, PRODUCER, SUBMIT, jobs=[at_bnl(VO="atlas")]), 403, "VO atlas")
        refused(ask(grid, GROUP, SUBMIT, jobs=[at_bnl(workingGroup="top")]), 403, "working group top")
        refused(ask(grid, GROUP, SUBMIT, jobs=[at_bnl(), at_bnl(VO="atlas")]), 403, "VO atlas")
        refused(ask(grid, BOTH_VOS, SUBMIT, jobs=[at_bnl(VO="testvo")]), 403, "production jobs of VO testvo")
    assert ids(ask(grid, BOB, SUBMIT, jobs=[analysis_job("a")]))
    (job,) = ids(ask(grid, GROUP, SUBMIT, jobs=[at_bnl()]))
    assert grid.describe(job)["workingGroup"] == "higgs"


def test_users_may_be_those_of_a_vo(make: Maker) -> None:
    grid = make(identity={"users": ("/cms", "/cms/*")})
    assert ids(ask(grid, BOB, SUBMIT, jobs=[analysis_job("a")]))
    with unchanged(grid):
        refused(ask(grid, ALICE, SUBMIT, jobs=[analysis_job("a")]), 403, "with attributes /testvo/Role=NULL is no user")
        refused(ask(grid, somebody("Nat"), PUT), 403, "is no user")


def test_limited_proxies_submit_and_kill_nothing(make: Maker) -> None:
    grid = make(identity=BY_ATTRIBUTE | {"operators": ("/cms/Role=operator",)})
    (job,) = ids(ask(grid, BOB, SUBMIT, jobs=[analysis_job("a")]))
    operator = somebody("Otto", "/cms/Role=operator")
    with unchanged(grid):
        for who in (replace(BOB, limited=True), replace(operator, limited=True)):
            refused(ask(grid, who, SUBMIT, jobs=[analysis_job("a")]), 403, "use a full proxy")
            refused(ask(grid, who, ("killJobs", ""), ids=[job]), 403, "use a full proxy")
        refused(ask(grid, ALICE, ("killJobs", ""), ids=[job]), 403, "belongs to")
    assert ask(grid, operator, ("killJobs", ""), ids=[job]).json == [True]


# --- users who run their own pilots


def test_users_run_pilots_for_their_own_jobs(make: Maker) -> None:
    grid = make(identity={"user_pilots": True, "producers": ()})
    (alices,) = ids(ask(grid, ALICE, SUBMIT, jobs=[at_bnl()]))
    (bobs,) = ids(ask(grid, BOB, SUBMIT, jobs=[at_bnl()]))
    grid.work()
    worker = replace(BOB, limited=True)
    refused(ask(grid, worker, GET_JOB, siteName="BNL", prodUserID=ALICE.dn), 403, "gets its own jobs only")
    got = ask(grid, worker, GET_JOB, siteName="BNL", nJobs=5).json["jobs"]
    assert [job["PandaID"] for job in got] == [bobs] and grid.state(alices) == "activated"
    told = {"jobId": bobs, "attemptNr": 1, "state": "running"}
    with unchanged(grid):
        refused(ask(grid, worker, UPDATE, **told), 403, "jobToken is missing")
        refused(ask(grid, ALICE, UPDATE, **told), 403, "jobToken is missing")
        assert ask(grid, ALICE, UPDATE, **told, jobToken="x").json["command"] == "tobekilled"
    assert ask(grid, worker, UPDATE, **told, jobToken=got[0]["jobToken"]).json["StatusCode"] == 0
    assert grid.state(bobs) == "running"
    assert ask(grid, worker, GET_JOB, siteName="BNL").json["StatusCode"] == 20
    assert grid.get_job("BNL")["PandaID"] == alices, "and pilots of the installation go on"


def test_users_run_no_pilots_unless_that_is_wanted(make: Maker) -> None:
    grid = make()
    with unchanged(grid):
        refused(ask(grid, BOB, GET_JOB, siteName="BNL"), 403, "is no pilot identity")
        refused(ask(grid, BOB, UPDATE, jobId=1, state="running"), 403, "is no pilot identity")


# --- bans


def test_who_is_banned_makes_no_calls_and_may_read(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the seconds for which a process remembers; on both databases."""
    monkeypatch.setattr(bans, "REMEMBER_S", 0)
    (job,) = grid.submit(at_bnl(), who="bob")
    grid.work()
    dns = {name: grid.pki.dn(name) for name in ("bob", "pilot", "alice")}
    for dn in dns.values():
        grid.buffer.run(lambda c, dn=dn: users.ban(c, dn, "x", grid.clock()))
    assert grid.buffer.read(users.banned) == sorted(dns.values())
    with unchanged(grid):
        for who, path in (("bob", "killJobs"), ("bob", "submitJobs"), ("alice", "putFile"), ("pilot", "getJob")):
            refused(grid.client(who).post(f"/server/panda/{path}", json={}), 403, "banned by the server's operators")
        answer = grid.client("pilot").post("/api/v1/pilot/acquire_jobs", json={"siteName": "BNL"})
        assert answer.status_code == 200 and answer.json["error"]["status"] == 403
    assert grid.client("bob").post("/server/panda/getJobStatus", json={"ids": [job]}).status_code == 200
    assert grid.buffer.run(lambda c: users.set_enabled(c, dns["bob"], True))
    assert grid.call("bob", "killJobs", ids=[job]) == [True]


def test_bans_are_looked_up_every_few_seconds(grid: Grid) -> None:
    now = [0.0]
    known = bans.Bans(grid.buffer, lambda: now[0])
    dn = grid.pki.dn("bob")
    known.check(dn)
    grid.buffer.run(lambda c: users.ban(c, dn, "Bob", grid.clock()))
    now[0] = bans.REMEMBER_S - 0.1
    known.check(dn)
    now[0] = bans.REMEMBER_S + 0.1
    with pytest.raises(bans.NotAllowed):
        known.check(dn)
    grid.buffer.run(lambda c: users.set_enabled(c, dn, True))
    now[0] += bans.REMEMBER_S + 0.1
    known.check(dn)


# --- limits


def test_too_many_requests_are_told_when_to_come_again(make: Maker) -> None:
    grid = make(limits={"user_rate": 0.01, "user_burst": 3, "pilot_rate": None}, identity=BY_ATTRIBUTE)
    for _ in range(3):
        ids(ask(grid, BOB, SUBMIT, jobs=[analysis_job("a")]))
    with unchanged(grid):
        answer = ask(grid, BOB, SUBMIT, jobs=[analysis_job("a")])
        refused(answer, 429, f"too many requests from {BOB.dn}")
        assert 90 <= int(answer.headers["Retry-After"]) <= 100 and answer.json["StatusCode"] == 30
        answer = grid.client(None).post("/api/v1/job/submit", json={}, environ_overrides={"test.identity": BOB})
        assert answer.status_code == 429 and answer.json["error"]["status"] == 429 and answer.headers["Retry-After"]
        refused(ask(grid, BOB, ("getJobStatus", ""), ids=[1]), 429, "too many")
    assert ask(grid, None, ("getJobStatus", ""), ids=[1]).status_code == 200, "strangers are not counted together"
    assert ids(ask(grid, ALICE, SUBMIT, jobs=[analysis_job("a")]))
    for _ in range(10):
        assert ask(grid, VO_PILOT, GET_JOB, siteName="BNL").status_code == 200, "pilots have a limit of their own"


def test_pilots_have_a_limit_of_their_own(make: Maker) -> None:
    grid = make(limits={"user_rate": None, "pilot_rate": 0.5, "pilot_burst": 2}, identity=BY_ATTRIBUTE)
    statuses = [ask(grid, VO_PILOT, GET_JOB, siteName="BNL").status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    assert ask(grid, VO_PILOT, ("getJobStatus", ""), ids=[1]).status_code == 200
    for _ in range(5):  # who is no pilot does not use up anything of pilots by trying
        assert ask(grid, BOB, GET_JOB, siteName="BNL").status_code == 403


def test_readers_who_are_not_known_count_by_address(make: Maker) -> None:
    grid = make(limits={"anonymous_rate": 0.5, "anonymous_burst": 3})
    ask_from = lambda address, who=None: grid.client(None).get(  # noqa: E731
        "/server/panda/isAlive", environ_overrides={"REMOTE_ADDR": address, "test.identity": who}
    )
    assert [ask_from("192.0.2.1").status_code for _ in range(4)] == [200, 200, 200, 429]
    refused(ask_from("192.0.2.1"), 429, "too many requests without a certificate from 192.0.2.1: 0.5 a second")
    assert ask_from("192.0.2.1").headers["Retry-After"] == "2"
    assert ask_from("192.0.2.1", BOB).status_code == 200, "who shows a certificate counts for himself"
    assert ask_from("192.0.2.2").status_code == 200
    assert [ask_from(f"2001:db8::{n}").status_code for n in range(4)] == [200, 200, 200, 429], (
        "a host has many of these"
    )
    assert [ask_from("").status_code for _ in range(9)] == [200] * 9, "a socket has no address"
    headers = {"X-Forwarded-For": "192.0.2.9", "Forwarded": "for=192.0.2.9"}
    told = grid.client(None).get(
        "/server/panda/isAlive", headers=headers, environ_overrides={"REMOTE_ADDR": "192.0.2.1"}
    )
    assert told.status_code == 429, "headers say nothing"
    told = grid.client(None).get("/api/v1/system/is_alive", environ_overrides={"REMOTE_ADDR": "192.0.2.1"})
    assert told.status_code == 429 and told.json["success"] is False


def test_refused_calls_count_too(make: Maker) -> None:
    grid = make(limits={"user_rate": 0.5, "user_burst": 2})
    assert [ask(grid, BOB, GET_JOB, siteName="BNL").status_code for _ in range(3)] == [403, 403, 429]


def test_jobs_in_a_submission(make: Maker) -> None:
    grid = make(limits={"jobs_per_submission": 2})
    assert len(ids(ask(grid, BOB, SUBMIT, jobs=[analysis_job("a")] * 2))) == 2
    with unchanged(grid):
        refused(ask(grid, BOB, SUBMIT, jobs=[analysis_job("a")] * 3), 400, "3 jobs submitted, 1 to 2 are accepted")


def test_sandboxes_of_a_day(make: Maker) -> None:
    grid = make(limits={"sandbox_mb_per_day": 1})

    def put(who: Identity, name: str, size: int) -> Any:
        file = {"file": (io.BytesIO(b"x" * size), name)}
        return grid.client(None).post("/server/panda/putFile", data=file, environ_overrides={"test.identity": who})

    for name in ("a.tgz", "b.tgz"):
        assert put(BOB, name, 450_000).text == "True"
    with unchanged(grid):
        answer = put(BOB, "c.tgz", 450_000)
        refused(answer, 429, "may upload 1 MB a day")
        assert 20_000 < int(answer.headers["Retry-After"]) < 86_400
    assert put(BOB, "d.tgz", 50_000).text == "True" and put(ALICE, "e.tgz", 450_000).text == "True"


# --- what people see


def test_refusals_are_logged_with_reason_and_request_id(make: Maker, caplog: pytest.LogCaptureFixture) -> None:
    grid = make(limits={"user_rate": 0.5, "user_burst": 2})
    with caplog.at_level(logging.INFO, "pandaserver.web"):
        answers = [ask(grid, BOB, GET_JOB, siteName="BNL") for _ in range(3)] + [ask(grid, None, SUBMIT, jobs=[])]
    assert [answer.status_code for answer in answers] == [403, 403, 429, 401]
    said = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    for answer, line in zip(answers, said, strict=True):
        assert answer.json["message"][:400] in line and str(answer.status_code) in line


def test_everybody_can_see_the_table_and_their_own_part_of_it(make: Maker) -> None:
    grid = make(identity=BY_ATTRIBUTE)
    both = somebody("Both", "/cms/higgs/Role=production", "/testvo/Role=pilot")
    for who, roles, verdicts in (
        (None, {"anyone": ["all"]}, {"job/submit": None, "job/get_reasons": "all"}),
        (BOB, {"anyone": ["all"], "user": ["all"]}, {"job/submit": "own", "job/kill": "own", "pilot/update_job": None}),
        (
            both,
            {"anyone": ["all"], "user": ["all"], "production": ["cms/higgs"], "pilot": ["testvo"]},
            {"job/submit": "vo", "pilot/acquire_jobs": "vo", "data/dataset_completed": None},
        ),
    ):
        told = ask(grid, who, ("getRoles", "")).json
        assert told["you"] == {"dn": who.dn if who else None, "roles": roles}
        seen = {row["call"]: row["you"] and row["you"]["reach"] for row in told["calls"]}
        assert seen | verdicts == seen and "system/get_roles" in seen


def test_the_calls_are_described_for_tools(make: Maker) -> None:
    grid = make()
    told = grid.client(None).get("/api/v1/openapi.json").json
    assert told["openapi"].startswith("3.1") and told["info"]["title"] == "PanDA"
    rules = {str(rule): rule.methods for rule in grid.server.application.url_map.iter_rules()}
    for path, operations in told["paths"].items():
        rule = path.translate(str.maketrans("{}", "<>"))
        assert {method.upper() for method in operations} == rules[rule] - {"HEAD", "OPTIONS"}
    assert (
        sum(path.startswith("/api/v1/") for path in told["paths"]) == sum(r.startswith("/api/v1/") for r in rules) - 1
    )
    submit = told["paths"]["/api/v1/job/submit"]["post"]
    assert submit["security"] == [{"certificate": []}, {"token": []}]
    assert submit["x-allows"] == {"user": "own", "production": "vo"}
    body = submit["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["jobs"] and set(body["properties"]) == {"jobs", "clientKey"}
    names = [op["operationId"] for operations in told["paths"].values() for op in operations.values()]
    assert len(set(names)) == len(names) and all(op["summary"] for ops in told["paths"].values() for op in ops.values())
