"""Clients of 2007 to 2012 at the doors: understood where that is wanted, and called by their name where it is not."""

from __future__ import annotations

import pickle
import shutil
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from factories import Clock, Grid, Pki, write_config
from unchanged import unchanged

from pandaserver.app import create_app, read_installation
from pandaserver.web.attributes import FILE_ATTRIBUTES, JOB_ATTRIBUTES


@pytest.fixture
def make(tmp_path: Path, pki: Pki, sqlite_pattern: Path) -> Iterator[Any]:
    made: list[Grid] = []

    def make_one(accept: bool) -> Grid:
        shutil.copyfile(sqlite_pattern, tmp_path / "panda.db")
        installation = read_installation(write_config(tmp_path / "grid", pki, f"sqlite:///{tmp_path / 'panda.db'}"))
        config = installation.config
        config = replace(config, server=replace(config.server, accept_pickles=accept))
        clock = Clock()
        made.append(Grid(tmp_path, pki, clock, create_app(replace(installation, config=config), clock)))
        return made[-1]

    yield make_one
    for grid in made:
        grid.close()


class _Spec:
    """As those clients have it: a list of values is the state, and unset ones are NULL."""

    names: tuple[str, ...]
    last: Any = None

    def __init__(self, **told: Any) -> None:
        self.told = told

    def __getstate__(self) -> list[Any]:
        return [*(self.told.get(name, "NULL") for name in self.names), self.last]

    def __setstate__(self, state: list[Any]) -> None:
        self.told = dict(zip(self.names, state[:-1], strict=False))
        self.last = state[-1]


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """The classes of such a client, with the attributes of 2008."""
    found = {}
    for name, names in (("JobSpec", JOB_ATTRIBUTES[:73]), ("FileSpec", FILE_ATTRIBUTES[:17])):
        path = f"pandaserver.taskbuffer.{name}"
        module = types.ModuleType(path)
        found[name] = type(name, (_Spec,), {"__module__": path, "names": names})
        setattr(module, name, found[name])
        monkeypatch.setitem(sys.modules, path, module)
    return types.SimpleNamespace(**found)


def dumped(data: Any) -> str:
    return pickle.dumps(data, protocol=0).decode("ascii")


def job_of(old: types.SimpleNamespace, number: int) -> Any:
    job = old.JobSpec(
        transformation="run.py", prodSourceLabel="user", computingSite="BNL", jobName=f"n{number}",
        destinationDBlock="user.bob.x", jobDefinitionID=5, assignedPriority=0,
    )  # fmt: skip
    job.last = [old.FileSpec(lfn=f"out.{number}.$PANDAID", type="output", dataset="user.bob.x")]
    job.last[0].last = job
    return job


def ask(grid: Grid, who: str | None, method: str, **fields: Any) -> Any:
    """Make a call and read its answer, as those clients do: whatever comes is unpickled."""
    answer = grid.client(who).post(f"/server/panda/{method}", data=fields)
    assert answer.status_code == 200, answer.text
    return pickle.loads(answer.data)


def test_the_life_of_jobs_of_an_old_client(make: Any, old: types.SimpleNamespace) -> None:
    grid = make(True)
    submitted = ask(grid, "bob", "submitJobs", jobs=dumped([job_of(old, n) for n in (1, 2)]))
    ids = [job_id for job_id, _definition, _rest in submitted]
    assert len(ids) == 2 and all(definition == 5 for _, definition, _ in submitted)
    grid.work()
    for method in ("getJobStatus", "getFullJobStatus"):
        one, nothing, other = ask(grid, None, method, ids=dumped([ids[0], 999, ids[1]]))
        assert nothing is None
        assert [job.told["PandaID"] for job in (one, other)] == ids
        assert (one.told["jobName"], one.told["jobStatus"], one.told["VO"]) == ("n1", "activated", "testvo")
        assert isinstance(one.told["creationTime"], datetime) and one.told["commandToPilot"] == "NULL"
        assert {file.told["lfn"].partition(".")[0] for file in one.last} == {"out", "job"}
    assert ask(grid, "bob", "killJobs", ids=dumped(ids), useMailAsID="False") == [True, True]
    assert {grid.state(job_id) for job_id in ids} == {"cancelled"}


def test_json_is_answered_with_json(make: Any, old: types.SimpleNamespace) -> None:
    grid = make(True)
    (job_id,) = [entry[0] for entry in ask(grid, "bob", "submitJobs", jobs=dumped([job_of(old, 1)]))]
    assert grid.client(None).post("/server/panda/getJobStatus", data={"ids": str(job_id)}).json[0]["PandaID"] == job_id
    assert grid.client(None).get(f"/api/v1/job/get_description?job_ids={job_id}").json["success"]


def test_ownership_holds_for_them_too(make: Any, old: types.SimpleNamespace) -> None:
    grid = make(True)
    (job_id,) = [entry[0] for entry in ask(grid, "bob", "submitJobs", jobs=dumped([job_of(old, 1)]))]
    with unchanged(grid):
        for who, status in (("alice", 403), (None, 401), ("creds/limited", 403)):
            answer = grid.client(who).post("/server/panda/killJobs", data={"ids": dumped([job_id])})
            assert answer.status_code == status and answer.json["message"]


def test_bad_pickles_are_refused_with_words(make: Any) -> None:
    grid = make(True)
    with unchanged(grid):
        for method, field in (("submitJobs", "jobs"), ("killJobs", "ids"), ("getJobStatus", "ids")):
            for text in ("(lp0\ncos\nsystem\na.", "(l", "(hello)", "(lI" + "9" * 5000 + "\na."):
                answer = grid.client("bob").post(f"/server/panda/{method}", data={field: text})
                assert answer.status_code == 400 and answer.json["field"] == field
                assert "the pickle is not read" in answer.json["message"]
            answer = grid.client("bob").post(f"/server/panda/{method}", data={field: dumped([["x"], {"a": None}])})
            assert answer.status_code == 400 and answer.json["field"] in (field, "a", "transformation", "Files")


def test_what_is_not_wanted_is_not_read(make: Any, old: types.SimpleNamespace) -> None:
    grid = make(False)
    with unchanged(grid):
        answer = grid.client("bob").post("/server/panda/submitJobs", data={"jobs": dumped([job_of(old, 1)])})
        assert answer.status_code == 400 and "pickle" in answer.json["message"]
        answer = grid.client("bob").post("/server/panda/getJobStatus", data={"ids": dumped([1])})
        assert answer.status_code == 400 and "pickle" in answer.json["message"]


def test_the_new_dialect_reads_none(make: Any) -> None:
    grid = make(True)
    with unchanged(grid):
        for path, field in (("job/submit", "jobs"), ("job/kill", "job_ids")):
            answer = grid.client("bob").post(f"/api/v1/{path}", json={field: dumped([1])})
            assert answer.json["success"] is False and "pickle" in answer.json["message"]
