"""Why a job is where it is, and what would become of jobs that are not submitted. On both databases."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from factories import Grid, analysis_job, production_job

from pandaserver.errors import DDMError
from pandaserver.model.grid import QueueStatus
from pandaserver.taskbuffer import activity, archive, reasons, schema, topology

# --- why


def why(grid: Grid, job_id: int) -> dict[str, Any]:
    return dict(grid.client(None).get(f"/api/v1/job/why?job_id={job_id}").json["data"])


def switch(grid: Grid, queue: str, status: QueueStatus) -> None:
    table = schema.queues
    grid.buffer.run(lambda c: c.execute(sa.update(table).where(table.c.name == queue).values(status=status.value)))
    topology._remembered.forget()


UNRUNNABLE: dict[str, tuple[dict[str, Any], str, str, dict[str, Any]]] = {
    "memory": (
        {"minRamCount": 5000},
        "ask for 4000 MB of memory instead of 5000; then BNL can take the job",
        "memory",
        {"minRamCount": 4000},
    ),
    "release": (
        {"AtlasRelease": "15.0.0\n14.1.0"},
        "leave out the release 15.0.0; then BNL can take the job",
        "release",
        {"AtlasRelease": "14.1.0"},
    ),
    "cores": ({"coreCount": 8}, "ask for 1 core instead of 8; then BNL can take the job", "cores", {"coreCount": 1}),
    "cloud": (
        {"cloud": "DE"},
        "do not ask for the cloud DE; then BNL can take the job",
        "cloud",
        {"cloud": ""},
    ),
    "sites": (
        {"includedSite": "UTA", "minRamCount": 2100},
        "ask for 2000 MB of memory instead of 2100; then UTA can take the job",
        "memory",
        {"minRamCount": 2000},
    ),
    "excluded": (
        {"excludedSite": ["UTA", "BNL"]},
        "do not exclude BNL; then BNL can take the job",
        "excluded sites",
        {"excludedSite": ["UTA"]},
    ),
}


@pytest.mark.parametrize("kind", UNRUNNABLE)
def test_a_job_that_cannot_run_says_why_and_what_would_help(grid: Grid, kind: str) -> None:
    asked, advice, criterion, changes = UNRUNNABLE[kind]
    (job_id,) = grid.submit(production_job(**asked))
    grid.work()
    told = why(grid, job_id)
    assert (told["PandaID"], told["jobStatus"], told["advice"]) == (job_id, "failed", advice)
    (only,) = told["rounds"]
    assert (only["site"], only["changes"]) == (None, changes)
    assert {said["site"] for said in only["reasons"]} == {"BNL", "UTA"}
    assert criterion in {said["criterion"] for said in only["reasons"]}
    assert grid.describe(job_id)["brokerageErrorDiag"].startswith(f"no queue can take the job: {advice}")
    (again,) = grid.submit(production_job(2, **(asked | changes)))
    grid.work()
    assert grid.state(again) == "activated", "the change that was proposed does help"
    assert why(grid, again)["advice"] == ""


def test_a_job_that_waits_for_a_queue_to_open_says_so(grid: Grid) -> None:
    for queue in ("BNL", "UTA"):
        switch(grid, queue, QueueStatus.OFFLINE)
    (job_id,) = grid.submit(production_job())
    grid.work()
    told = why(grid, job_id)
    assert told["jobStatus"] == "defined"
    assert told["advice"] == "wait for BNL: the queue is offline"
    assert told["text"] == "submitted; no queue can take it now, which may change"
    assert [said["limit"] for said in told["rounds"][0]["reasons"]] == ["offline", "offline"]
    grid.clock.forward(61)
    grid.work()
    assert len(why(grid, job_id)["rounds"]) == 1, "rounds that led nowhere are forgotten when another follows"
    switch(grid, "UTA", QueueStatus.ONLINE)
    grid.clock.forward(61)
    grid.work()
    told = why(grid, job_id)
    assert (told["computingSite"], told["advice"], told["rounds"][0]["site"]) == ("UTA", "", "UTA")
    assert told["text"].endswith("it waits for a pilot")


def test_why_before_the_first_look_and_of_a_job_that_is_not_there(grid: Grid) -> None:
    (job_id,) = grid.submit(production_job())
    assert (why(grid, job_id)["rounds"], why(grid, job_id)["text"]) == ([], "submitted")
    answer = grid.client(None).get("/api/v1/job/why?job_id=999").json
    assert (answer["success"], answer["error"]["field"]) == (False, "job_id")


def test_what_servers_of_before_recorded_is_read(grid: Grid) -> None:
    (job_id,) = grid.submit(production_job())
    now = grid.buffer.now()
    rows = [
        {"job_id": job_id, "at": at, "site": site, "verdict": verdict, "reason": "r", "weight": None}
        for at, site, verdict in (
            (now, "A", "rejected"),
            (now, "B", "rejected"),
            (now + timedelta(seconds=1), "A", "chosen"),
        )
    ]
    grid.buffer.run(lambda c: c.execute(sa.insert(schema.brokerage_reasons), rows))
    grid.work()
    rounds = why(grid, job_id)["rounds"]
    assert [(one["site"], len(one["reasons"])) for one in rounds] == [(None, 2), ("A", 1), ("BNL", 2)]


def test_rounds_go_into_the_archive_with_their_job(grid: Grid) -> None:
    (job_id,) = grid.submit(production_job(minRamCount=9999))
    grid.work()
    before = why(grid, job_id)
    assert grid.buffer.run(lambda c: archive.move(c, [job_id])) == 1
    assert grid.buffer.read(lambda c: reasons.of_job(c, job_id)) == []
    assert why(grid, job_id) == before
    assert len(grid.call(None, "getBrokerageReasons", job_id=job_id)) == 2


def test_a_job_keeps_away_from_sites_that_it_excludes(grid: Grid) -> None:
    ids = grid.submit(production_job(1, excludedSite="BNL"), production_job(2, includedSite=["UTA"]), production_job(3))
    grid.work()
    assert [grid.describe(job_id)["computingSite"] for job_id in ids] == ["UTA", "UTA", "BNL"]


@pytest.mark.parametrize("value", ["A B", "A,,B", ["A", "B\n"], "x" * 65, ["y" * 60] * 5, {"A": 1}])
def test_lists_of_sites_are_checked(grid: Grid, value: object) -> None:
    answer = grid.client("alice").post("/api/v1/job/submit", json={"jobs": [production_job(excludedSite=value)]}).json
    assert not answer["success"]
    assert answer["error"]["field"] in ("excludedSite", "includedSite")


# --- pre-flight


def check(grid: Grid, *jobs: dict[str, Any], who: str = "alice") -> list[dict[str, Any]]:
    answer = grid.client(who).post("/api/v1/job/check", json={"jobs": list(jobs)}).json
    assert answer["success"], answer
    return list(answer["data"])


def codes(one: dict[str, Any]) -> set[str]:
    return {warned["code"] for warned in one["warnings"]}


def see_pilots(grid: Grid, *queues: str, jobs: int = 0) -> None:
    for queue in queues:
        grid.buffer.run(lambda c, q=queue: activity.note(c, q, grid.buffer.now(), requests=1, jobs=jobs))
    grid.clock.forward(20)


def test_a_job_that_can_run_is_told_where(grid: Grid) -> None:
    see_pilots(grid, "BNL", "UTA")
    (one,) = check(grid, production_job())
    assert (one["runnable"], one["site"], one["possible"], one["more"]) == (True, "BNL", ["BNL", "UTA"], 0)
    assert (one["warnings"], one["expectedWait"], one["advice"]) == ([], None, "")
    assert grid.work() == 0, "nothing was submitted"
    assert grid.call(None, "getJobStatus", job_ids=[1]) == [None]


def test_a_job_that_cannot_run_is_told_why_and_what_would_help(grid: Grid) -> None:
    good, bad = check(grid, production_job(), production_job(2, minRamCount=5000))
    assert (good["runnable"], bad["runnable"], bad["site"]) == (True, False, None)
    assert "no_queue" in codes(bad) and bad["changes"] == {"minRamCount": 4000}
    assert [(r["sites"], r["value"], r["limit"]) for r in bad["rejected"]] == [
        (["BNL"], 5000, 4000),
        (["UTA"], 5000, 2000),
    ]


def test_a_queue_that_is_off_makes_a_job_wait(grid: Grid) -> None:
    switch(grid, "UTA", QueueStatus.OFFLINE)
    (one,) = check(grid, production_job(computingSite="UTA"))
    assert (one["runnable"], codes(one)) == (False, {"closed_now"})


def test_pilots_that_were_not_seen_are_told(grid: Grid) -> None:
    see_pilots(grid, "UTA")
    free, pinned = check(grid, production_job(), production_job(2, computingSite="BNL"))
    assert (free["site"], codes(free)) == ("UTA", set())
    assert (pinned["runnable"], codes(pinned)) == (True, {"no_pilot"})
    assert pinned["warnings"][0]["text"] == "no pilot was seen at BNL in the last 3 hours"


def test_inputs_that_are_not_there_are_told_and_those_of_the_same_submission_are_not(grid: Grid) -> None:
    see_pilots(grid, "BNL", "UTA")
    grid.register("mc.test.evnt", "BNL_DISK", "there.root")
    maker = production_job(Files=[{"type": "output", "lfn": "made.root", "dataset": "mc.test.evnt"}])
    jobs = [analysis_job("there.root"), analysis_job("gone.root", "there.root"), maker, analysis_job("made.root")]
    told = check(grid, *jobs)
    assert [codes(one) for one in told] == [set(), {"missing_input"}, set(), set()]
    assert [one["runnable"] for one in told] == [True, False, True, True]
    assert "first mc:gone.root" in told[1]["warnings"][0]["text"]


def test_a_catalogue_that_does_not_answer_is_no_reason_to_refuse(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(names: object) -> None:
        raise DDMError("away")

    monkeypatch.setattr(grid.server.rooms.data.ddm, "replicas", away)
    (one,) = check(grid, analysis_job("a.root"))
    assert "inputs_not_checked" in codes(one) and one["runnable"]
    assert grid.submit(analysis_job("a.root")) == [1]


def test_a_priority_that_is_cut_is_told(grid: Grid) -> None:
    see_pilots(grid, "BNL", "UTA")
    lifted, usual, production = check(
        grid, analysis_job(assignedPriority=500), analysis_job(), production_job(assignedPriority=500)
    )
    assert (codes(lifted), codes(usual), codes(production)) == ({"clipped"}, set(), set())
    assert lifted["warnings"][0]["field"] == "assignedPriority"


def test_the_wait_is_expected_from_the_pace_of_the_last_hours(grid: Grid) -> None:
    grid.submit(*(production_job(n, computingSite="BNL") for n in range(9)))
    grid.work()
    see_pilots(grid, "BNL", "UTA", jobs=30)
    (one,) = check(grid, production_job(computingSite="BNL"))
    assert one["expectedWait"] == 10 * 10800 / 30
    grid.submit(*(production_job(n, computingSite="BNL") for n in range(60)))
    grid.work()
    grid.clock.forward(2)
    (one,) = check(grid, production_job(computingSite="BNL"))
    assert one["expectedWait"] == 70 * 10800 / 30
    assert codes(one) == {"long_wait"}


def test_what_a_submission_would_refuse_the_check_refuses_too(grid: Grid) -> None:
    answer = grid.client("alice").post("/api/v1/job/check", json={"jobs": [production_job(computingSite="X")]}).json
    assert (answer["success"], answer["error"]["field"]) == (False, "computingSite")
    assert grid.client(None).post("/server/panda/checkJobs", json={"jobs": [production_job()]}).status_code == 401


def test_a_submission_is_answered_with_the_same_warnings_each_once(grid: Grid) -> None:
    see_pilots(grid, "BNL")
    answer = grid.call(
        "alice", "submitJobs", jobs=[production_job(1), *(production_job(n, minRamCount=5000) for n in range(2, 5))]
    )
    assert [sorted(entry[2]) for entry in answer] == [["jobsetID"], ["jobsetID", "warnings"], *[["jobsetID"]] * 2]
    (warned,) = answer[1][2]["warnings"]
    assert (warned["code"], warned["jobs"]) == ("no_queue", 3)
    assert "ask for 4000 MB of memory instead of 5000" in warned["text"]
