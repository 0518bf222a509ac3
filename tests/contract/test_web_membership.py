"""Who shows VOMS attributes may name only the organisation and working groups that they prove."""

from __future__ import annotations

from typing import Any

import pytest
from factories import Grid, analysis_job, production_job
from unchanged import unchanged


def submit(grid: Grid, who: str, **told: Any) -> Any:
    return grid.client(who).post("/server/panda/submitJobs", json={"jobs": [analysis_job(**told)]})


def described(grid: Grid, answer: Any) -> tuple[str, str]:
    assert answer.status_code == 200, answer.text
    job = grid.describe(answer.json[0][0])
    return job["VO"], job["workingGroup"]


def test_without_attributes_everything_may_be_said(grid: Grid):
    assert described(grid, submit(grid, "alice", VO="anything", workingGroup="any")) == ("anything", "any")
    assert described(grid, submit(grid, "alice"))[0] == "testvo"


@pytest.mark.parametrize(
    ("who", "told", "expected"),
    [
        ("voms/default", {}, ("testvo", "")),
        ("voms/default", {"VO": "testvo"}, ("testvo", "")),
        ("voms/group", {}, ("testvo", "")),
        ("voms/group", {"workingGroup": "higgs"}, ("testvo", "higgs")),
        ("voms/two_vos", {}, ("testvo", "")),
        ("voms/two_vos", {"VO": "physics", "workingGroup": "higgs"}, ("physics", "higgs")),
    ],
)
def test_what_attributes_prove(grid: Grid, who: str, told: dict[str, str], expected: tuple[str, str]):
    vo, group = described(grid, submit(grid, who, **told))
    assert (vo, group or "") == expected


@pytest.mark.parametrize(
    ("who", "told", "field"),
    [
        ("voms/default", {"VO": "physics"}, "VO"),
        ("voms/default", {"VO": "TESTVO"}, "VO"),
        ("voms/default", {"workingGroup": "higgs"}, "workingGroup"),
        ("voms/two_vos", {"workingGroup": "higgs"}, "workingGroup"),  # which he has, in the other organisation
        ("voms/group", {"workingGroup": "higg"}, "workingGroup"),
    ],
)
def test_what_they_do_not_prove(grid: Grid, who: str, told: dict[str, str], field: str):
    with unchanged(grid):
        answer = submit(grid, who, **told)
        assert (answer.status_code, answer.json["field"]) == (403, field), answer.text
        assert "job 0" in answer.json["message"] and answer.json["value"] == told[field]


def test_one_job_too_many_spoils_the_submission(grid: Grid):
    with unchanged(grid):
        jobs = [analysis_job(), analysis_job(VO="physics")]
        answer = grid.client("voms/default").post("/server/panda/submitJobs", json={"jobs": jobs})
        assert answer.status_code == 403 and "job 1" in answer.json["message"]


def test_production_in_the_role_of_a_group_is_the_groups(grid: Grid):
    answer = grid.client("voms/group").post("/server/panda/submitJobs", json={"jobs": [production_job()]})
    assert described(grid, answer) == ("testvo", "higgs")


def test_attributes_are_shown_to_their_owner(grid: Grid):
    seen = grid.call("voms/prod", "getAttr")
    assert seen["identity"]["fqans"] == ["/testvo/Role=production", "/testvo/Role=NULL"]


@pytest.mark.parametrize("name", ["expired_ac", "wrong_holder", "untrusted_signer", "sha1", "other_vo"])
def test_bad_attributes_give_nothing_at_all(grid: Grid, name: str):
    with unchanged(grid):
        answer = submit(grid, f"voms/{name}")
        assert (answer.status_code, answer.json["StatusCode"]) == (401, 40)
        assert "VOMS attributes refused" in answer.json["message"]


def test_where_no_issuer_is_known_tokens_are_not_looked_at(grid: Grid):
    headers = {"Authorization": "Bearer nonsense"}
    client = grid.client("alice")
    assert client.get("/server/panda/getAttr", headers=headers).json["identity"]["dn"] == grid.pki.dn("alice")
    assert grid.client(None).get("/server/panda/getAttr", headers=headers).json["identity"] == {}
