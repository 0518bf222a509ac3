"""Which job a pilot gets: the filters of its request, fair share between users and groups, and who may ask for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import factories as f
import pytest
import sqlalchemy as sa

from pandaserver.app import create_app
from pandaserver.config import IdentitySection, PrioritySection
from pandaserver.model.share import read_shares
from pandaserver.taskbuffer import schema

numbers = count(1)


def submit(grid: f.Grid, who: str = "alice", times: int = 1, **told: Any) -> list[int]:
    """Activated jobs without inputs."""
    jobs = [f.production_job(next(numbers), **({"computingSite": "BNL"} | told)) for _ in range(times)]
    submitted = grid.submit(*jobs, who=who)
    grid.work()
    assert {grid.state(job_id) for job_id in submitted} == {"activated"}
    return submitted


def analyse(grid: f.Grid, who: str = "alice", times: int = 1, **told: Any) -> list[int]:
    return submit(grid, who, times, prodSourceLabel="user", **told)


def all_got(grid: f.Grid, **told: Any) -> list[int]:
    """All jobs that a pilot gets with such requests, in order."""

    def one_by_one() -> Iterator[int]:
        while (answer := grid.get_job("BNL", **told))["StatusCode"] == 0:
            yield answer["PandaID"]
        assert answer["StatusCode"] == 20

    return list(one_by_one())


@pytest.fixture
def grid(grid: f.Grid) -> f.Grid:
    """A queue whose nodes have eight cores."""
    sites = grid.server.installation.config.grid.sites
    sites.write_text(sites.read_text().replace("[queue BNL]", "[queue BNL]\ncores = 8"))
    configure(grid)
    return grid


def configure(grid: f.Grid, **sections: Any) -> None:
    """Let a server with another configuration take over."""
    shares = read_shares(sections.pop("shares", {}))
    old = grid.server.installation
    grid.close()
    grid.clients.clear()
    installation = replace(old, shares=shares, config=replace(old.config, **sections))
    grid.server = create_app(installation, grid.clock, callback=grid.called_back)


# --- filters


LARGE = {"coreCount": 8, "minRamCount": 3000, "maxDiskCount": 5000, "maxWalltime": 7200}


@pytest.mark.parametrize(
    ("wishes", "too_little", "enough"),
    [
        ({"coreCount": 8}, {"coreCount": 7}, {"coreCount": 8}),
        ({"coreCount": 8}, {"nCores": 1}, {"nCores": "8"}),
        ({"coreCount": 8}, {"cores": 4}, {"cores": 64}),
        ({"minRamCount": 2500}, {"mem": 2499.9}, {"mem": 2500}),
        ({"minRamCount": 2500}, {"mem": 2048}, {"mem": 2501.5}),
        ({"maxDiskCount": 5000}, {"diskSpace": 4999}, {"diskSpace": 5000}),
        ({"maxWalltime": 7200}, {"remainingTime": 7199}, {"remainingTime": 7200}),
        ({"VO": "atlas"}, {"vo": "cms"}, {"vo": "atlas"}),
        ({"VO": "atlas"}, {"VO": "atla"}, {"VO": "atlas"}),
        ({"workingGroup": "higgs"}, {"workingGroup": "top"}, {"workingGroup": "higgs"}),
        ({"prodSourceLabel": "user"}, {"prodSourceLabel": "managed"}, {"prodSourceLabel": "user"}),
        ({"prodSourceLabel": "panda"}, {"prodSourceLabel": "managed"}, {"prodSourceLabel": "user"}),
        (LARGE, {"mem": 3000, "diskSpace": 5000, "remainingTime": 7200, "coreCount": 7}, {}),
        (LARGE, {"mem": 3000, "diskSpace": 5000, "remainingTime": 7199, "coreCount": 8}, {"coreCount": 8}),
        (LARGE, {"mem": 2999}, {"mem": 3000, "diskSpace": 5000, "remainingTime": 7200, "coreCount": 8}),
    ],
)
def test_a_pilot_gets_no_job_that_does_not_fit(
    grid: f.Grid, wishes: dict[str, Any], too_little: dict[str, Any], enough: dict[str, Any]
) -> None:
    job_ids = submit(grid, times=2, **wishes)
    assert all_got(grid, **too_little) == []
    assert all_got(grid, **enough) == job_ids


@pytest.mark.parametrize("unset", ["", None, "NULL", "None"])
def test_what_a_pilot_does_not_say_is_no_filter(grid: f.Grid, unset: str | None) -> None:
    job_ids = submit(grid, VO="atlas", workingGroup="higgs", **LARGE) + submit(grid)
    names = ("coreCount", "mem", "diskSpace", "remainingTime", "vo", "prodUserID", "workingGroup", "prodSourceLabel")
    assert sorted(all_got(grid, **dict.fromkeys(names, unset))) == job_ids


def test_a_pilot_gets_the_jobs_of_one_user(grid: f.Grid) -> None:
    of_alice, of_bob = submit(grid, times=3), submit(grid, who="bob", times=2)
    assert all_got(grid, prodUserID=grid.pki.dn("bob")) == of_bob
    assert all_got(grid, prodUserID=grid.pki.dn("bob")) == []
    assert all_got(grid, prodUserID=grid.pki.dn("alice").lower()) == []
    assert all_got(grid, prodUserID=grid.pki.dn("prodman")) == []
    assert all_got(grid, prodUserID=grid.pki.dn("alice")) == of_alice


def test_exact_sizes_decide_among_jobs_of_one_class(grid: f.Grid) -> None:
    small, middle, large = (submit(grid, minRamCount=mb, currentPriority=0)[0] for mb in (1800, 1900, 2000))
    assert all_got(grid, mem=1799) == []
    assert all_got(grid, mem=1950) == [small, middle]
    assert all_got(grid, mem=2000) == [large]


def test_a_better_job_that_does_not_fit_holds_nothing_up(grid: f.Grid) -> None:
    large = submit(grid, assignedPriority=900, minRamCount=2000)
    small = submit(grid, assignedPriority=1, minRamCount=1900)
    assert all_got(grid, mem=1950) == small
    assert all_got(grid) == large


def test_several_filters_and_jobs_at_once(grid: f.Grid) -> None:
    fitting = submit(grid, times=3, VO="atlas", workingGroup="higgs", coreCount=4)
    submit(grid, times=2, VO="atlas", workingGroup="top", coreCount=4)
    submit(grid, times=2, VO="cms", workingGroup="higgs", coreCount=4)
    submit(grid, times=2, VO="atlas", workingGroup="higgs", coreCount=8)
    answer = grid.get_job("BNL", vo="atlas", workingGroup="higgs", coreCount=4, nJobs=10)
    assert [job["PandaID"] for job in answer["jobs"]] == fitting


# --- fair share


def forget(grid: f.Grid) -> None:
    """Let another process serve: what one remembers of a queue is a few seconds old."""
    grid.restart()


def owners(grid: f.Grid, number: int, **told: Any) -> list[str]:
    """Whose jobs the next pilots get."""
    names = {dn: name for name, dn in grid.pki.dns.items()}
    return [names[grid.get_job("BNL", **told)["prodUserID"]] for _ in range(number)]


def test_a_user_with_many_jobs_does_not_starve_one_with_few(grid: f.Grid) -> None:
    analyse(grid, "alice", times=60)
    assert owners(grid, 20) == ["alice"] * 20
    analyse(grid, "bob", times=5)
    forget(grid)
    assert Counter(owners(grid, 7))["bob"] == 5, "what alice runs and what she has submitted counts against her"
    assert owners(grid, 3) == ["alice"] * 3


def test_with_several_jobs_in_a_request_the_share_is_the_same(grid: f.Grid) -> None:
    analyse(grid, "alice", times=60)
    analyse(grid, "bob", times=5)
    got = grid.get_job("BNL", nJobs=20)["jobs"]
    assert Counter(job["prodUserID"] for job in got)[grid.pki.dn("bob")] == 5


def test_shares_have_their_parts(grid: f.Grid) -> None:
    configure(grid, shares={"production": "3 label=production", "analysis": "1 label=analysis"})
    analyse(grid, "alice", times=10)
    submit(grid, "bob", times=20, assignedPriority=-100)
    assert Counter(owners(grid, 8)) == {"bob": 6, "alice": 2}
    assert Counter(owners(grid, 8)) == {"bob": 6, "alice": 2}


def test_cores_count_in_shares(grid: f.Grid) -> None:
    configure(grid, shares={"atlas": "1 vo=atlas", "cms": "1 vo=cms"})
    submit(grid, "alice", times=2, VO="atlas", coreCount=4)
    submit(grid, "bob", times=10, VO="cms")
    got = owners(grid, 6)
    assert sorted(got[:5]) == ["alice", *["bob"] * 4], "a job with four cores is as much as four jobs"


def test_groups_have_their_parts_and_what_they_leave_goes_to_the_others(grid: f.Grid) -> None:
    configure(grid, shares={"higgs": "3 working_group=phys-higgs*", "top": "1 working_group=phys-top"})
    analyse(grid, "alice", times=4, workingGroup="phys-higgs-zz")
    analyse(grid, "bob", times=10, workingGroup="phys-top")
    assert Counter(owners(grid, 4)) == {"alice": 3, "bob": 1}
    assert owners(grid, 8, workingGroup="phys-top") == ["bob"] * 8, "a filter does not wait for its share"
    assert Counter(owners(grid, 2)) == {"alice": 1, "bob": 1}


def test_what_has_ended_does_not_count_any_more(grid: f.Grid) -> None:
    configure(grid, shares={"atlas": "1 vo=atlas", "cms": "1 vo=cms"})
    submit(grid, "alice", times=6, VO="atlas")
    running = [grid.get_job("BNL") for _ in range(3)]
    for job in running:
        grid.run_job(job)
    forget(grid)
    submit(grid, "bob", times=6, VO="cms")
    assert Counter(owners(grid, 4)) == {"alice": 2, "bob": 2}


def test_production_of_higher_priority_goes_first(grid: f.Grid) -> None:
    middle, high, low = (submit(grid, assignedPriority=p)[0] for p in (500, 900, 100))
    highest = submit(grid, "bob", assignedPriority=901)[0]
    assert all_got(grid) == [highest, high, middle, low]


def test_what_each_share_has_of_a_queue(grid: f.Grid) -> None:
    configure(grid, shares={"production": "60 label=production", "higgs": "39 vo=atlas working_group=phys-higgs*"})
    submit(grid, times=3, coreCount=4)
    analyse(grid, "bob")
    owners(grid, 3)
    told = grid.call(None, "getShares", queue="BNL")
    assert [(s["name"], s["target"], s["runningCores"], s["waiting"]) for s in told] in (
        [("production", 0.6, 8, True), ("higgs", 0.39, 0, False), ("others", 0.01, 1, False)],
        [("production", 0.6, 12, False), ("higgs", 0.39, 0, False), ("others", 0.01, 0, True)],
    )
    assert told[1] | {"vo": "atlas", "workingGroup": "phys-higgs*", "label": "*", "weight": 39.0} == told[1]
    assert told == grid.client(None).get("/api/v1/share/list?queue=BNL").json["data"]
    assert [s["runningCores"] for s in grid.call(None, "getShares", queue="UTA")] == [0, 0, 0]
    assert grid.client(None).get("/server/panda/getShares?queue=NOWHERE").status_code == 404


# --- priorities at submission


def priority(grid: f.Grid, job_id: int) -> int:
    return int(grid.describe(job_id)["currentPriority"])


def test_a_user_lowers_his_jobs_and_does_not_lift_them(grid: f.Grid) -> None:
    usual, low, high = (analyse(grid, assignedPriority=wish)[0] for wish in (0, -50, 5000))
    assert [priority(grid, job_id) for job_id in (usual, low, high)] == [1000, 950, 1000]
    assert all_got(grid) == [usual, high, low]


def test_a_user_lifts_his_jobs_as_far_as_is_allowed(grid: f.Grid) -> None:
    configure(grid, priority=PrioritySection(raise_max=30))
    assert [priority(grid, analyse(grid, assignedPriority=wish)[0]) for wish in (20, 5000, -5)] == [1020, 1030, 995]


def test_production_has_what_it_asks_for_and_does_not_weigh(grid: f.Grid) -> None:
    job_ids = submit(grid, times=12, assignedPriority=5000)
    assert {priority(grid, job_id) for job_id in job_ids} == {5000}


def test_who_has_used_up_the_daily_quota_stands_back(grid: f.Grid) -> None:
    configure(grid, priority=PrioritySection(daily_cpu_s=100))
    (job_id,) = analyse(grid)
    grid.run_job(grid.get_job("BNL"), cpuConsumptionTime=250)
    assert priority(grid, analyse(grid)[0]) == 1000, "not yet summed up"
    grid.watch(120)
    used = grid.buffer.read(lambda c: c.execute(sa.select(schema.cpu_usage.c.cpu_s)).scalars().all())
    assert list(used) == [250], job_id
    assert priority(grid, analyse(grid)[0]) == 1000 - 250
    assert priority(grid, analyse(grid, who="bob")[0]) == 1000
    assert priority(grid, submit(grid, assignedPriority=7)[0]) == 7
    grid.watch(2 * 86400)
    assert priority(grid, analyse(grid)[0]) == 1000


def test_who_waits_for_a_day_moves_forward_once(grid: f.Grid) -> None:
    analyse(grid, times=2)
    produced = submit(grid, assignedPriority=1020)
    waiting = analyse(grid, who="bob", assignedPriority=-1)
    grid.watch(86400 - 600)
    assert priority(grid, waiting[0]) == 999
    for _ in range(3):
        grid.watch(700)
        assert (priority(grid, waiting[0]), priority(grid, produced[0])) == (1039, 1020)
    assert all_got(grid)[2] == waiting[0], "after two of 1040"


# --- who may ask for what


def test_a_user_is_no_pilot_not_even_for_his_own_jobs(grid: f.Grid) -> None:
    submit(grid)
    told = {"siteName": "BNL", "prodUserID": grid.pki.dn("alice")}
    for who in ("alice", "bob"):
        answer = grid.client(who).post("/server/panda/getJob", json=told)
        assert (answer.status_code, answer.json["StatusCode"]) == (403, 70)


def test_where_producers_are_named_others_submit_analysis_only(grid: f.Grid) -> None:
    named = replace(grid.server.installation.config.identity, producers=(grid.pki.dn("bob"),))
    configure(grid, identity=named)
    assert isinstance(named, IdentitySection)
    submit(grid, "bob")
    analyse(grid, "alice")
    for label in ("managed", "test", "rc_test", "ptest", "regional"):
        jobs = [f.analysis_job(), f.production_job(prodSourceLabel=label)]
        answer = grid.client("alice").post("/server/panda/submitJobs", json={"jobs": jobs})
        assert answer.status_code == 403
        assert answer.json["field"] == "prodSourceLabel" and "producers" in answer.json["message"]
    assert len(all_got(grid)) == 2, "all of a submission is refused"
