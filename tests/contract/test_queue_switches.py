"""Operators switch queues: who may, what is said about it, and what it does to brokerage, pilots and senders."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from factories import Grid, analysis_job, production_job
from unchanged import unchanged

from pandaserver.background import queues as duties
from pandaserver.jobdispatcher.parking import Wait
from pandaserver.model.grid import Source, Topology
from pandaserver.taskbuffer import topology

OPERATOR = "prodman"


def v1(grid: Grid, who: str | None, call: str, **told: Any) -> Any:
    answer = grid.client(who).post(f"/api/v1/queue/{call}", json=told).json
    assert answer["success"], answer
    return answer["data"]


def refused(grid: Grid, who: str | None, code: int, words: str, **told: Any) -> None:
    answer = grid.client(who).post("/server/panda/setQueueStatus", json={"queue": "UTA", "reason": "x"} | told)
    assert answer.status_code == code and words in answer.json["message"], answer.text


def switch(grid: Grid, queue: str, status: str, **told: Any) -> Any:
    return v1(grid, OPERATOR, "set_status", queue=queue, status=status, **({"reason": "broken"} | told))


def lines(grid: Grid, queue: str) -> list[tuple[Any, ...]]:
    keys = ("action", "from", "to", "by", "reason")
    return [tuple(one[key] for key in keys) for one in v1(grid, None, "history", queue=queue)]


def moment(told: dict[str, str]) -> datetime:
    return datetime.fromisoformat(told["__datetime__"]).replace(tzinfo=UTC)


def test_who_switched_a_queue_and_why_is_seen_by_everybody(grid: Grid) -> None:
    until = grid.clock.now + timedelta(hours=6)
    told = switch(grid, "UTA", "offline", reason="cooling – Kühlung", until=until.isoformat())
    assert (told["queue"], told["status"]) == ("UTA", "offline")
    assert told == {"queue": "UTA", "status": "offline", "standing": told["standing"]}
    for call, told_more in (("list", {}), ("get", {"queue": "UTA"})):
        found = v1(grid, None, call, **told_more)
        one = found["UTA"] if call == "list" else found
        standing = one["standing"]
        assert one["status"] == "offline" and one["panda_resource"] == "UTA"
        assert standing["by"] == "Production Manager" and standing["reason"] == "cooling – Kühlung"
        assert (standing["configured"], standing["source"], standing["switched"]) == ("online", "sites file", True)
        assert moment(standing["until"]) == until and moment(standing["since"]) < until
        assert one["pilots"]["requests"] == 0
    assert found["standing"]["by"] == "Production Manager"
    assert lines(grid, "UTA") == [
        ("set", "online", "offline", "Production Manager", "cooling – Kühlung"),
        ("added", None, "online", "sites file", "described by the sites file: online"),
    ]
    other = v1(grid, None, "list")["BNL"]["standing"]
    assert (other["by"], other["switched"], other["until"]) == ("sites file", False, None)
    assert "DC=org" not in str(v1(grid, None, "list")), "whole DNs are not for everybody"


def test_a_word_is_taken_back(grid: Grid) -> None:
    switch(grid, "UTA", "test")
    told = v1(grid, OPERATOR, "clear_status", queue="UTA", reason="well again")
    assert told["status"] == "online" and told["standing"]["by"] == "sites file"
    assert lines(grid, "UTA")[0] == ("cleared", "test", "online", "Production Manager", "well again")


def test_every_call_may_come_twice(grid: Grid) -> None:
    for _ in range(3):
        switch(grid, "UTA", "brokeroff")
    assert len(lines(grid, "UTA")) == 2
    switch(grid, "UTA", "brokeroff", reason="other")
    assert len(lines(grid, "UTA")) == 3
    for _ in range(3):
        v1(grid, OPERATOR, "clear_status", queue="UTA")
    assert len(lines(grid, "UTA")) == 4


@pytest.mark.parametrize(
    ("who", "code", "words", "told"),
    [
        (None, 401, "needs an HTTPS client certificate", {}),
        ("alice", 403, "is no operator identity", {}),
        ("pilot", 403, "is no operator identity", {}),
        (OPERATOR, 404, "there is no queue NOWHERE; known are BNL, UTA", {"queue": "NOWHERE"}),
        (OPERATOR, 400, "known are online, test, brokeroff, offline", {"status": "on"}),
        (OPERATOR, 400, "text is expected", {"status": ["offline"]}),
        (OPERATOR, 400, "a reason is missing", {"reason": "  "}),
        (OPERATOR, 400, "one line of at most 500 printable", {"reason": "x" * 501}),
        (OPERATOR, 400, "one line", {"reason": "a\nb"}),
        (OPERATOR, 400, "one line", {"reason": "\x1b[31m"}),
        (OPERATOR, 400, "a moment such as", {"until": "tomorrow"}),
        (OPERATOR, 400, "a moment in the next 366 days", {"until": "2020-01-01T00:00"}),
        (OPERATOR, 400, "a moment in the next 366 days", {"until": "9999-12-31T23:59:59+00:00"}),
        (OPERATOR, 400, "a moment such as", {"until": "0001-01-01T00:00:00+14:00"}),
        (OPERATOR, 400, "unknown parameter colour", {"colour": "red"}),
    ],
)
def test_what_is_refused_changes_nothing(grid: Grid, who: str | None, code: int, words: str, told: Any) -> None:
    with unchanged(grid):
        refused(grid, who, code, words, **({"status": "offline"} | told))


def test_others_cannot_take_words_back(grid: Grid) -> None:
    switch(grid, "UTA", "offline")
    with unchanged(grid):
        answer = grid.client("alice").post("/server/panda/clearQueueStatus", json={"queue": "UTA"})
        assert answer.status_code == 403
    assert grid.client(None).get("/server/panda/getQueueHistory?queue=NOWHERE").status_code == 404


def test_a_queue_that_is_described_nowhere_is_not_opened(grid: Grid) -> None:
    known = grid.buffer.read(topology.load)
    left = Topology(queues={"BNL": known.queues["BNL"]}, endpoints=known.endpoints)
    grid.buffer.run(lambda c: topology.apply(c, left, source=Source.FILE, now=grid.clock.now))
    topology.forget()
    refused(grid, OPERATOR, 409, "queue UTA is described nowhere any more", status="online")
    assert v1(grid, None, "get", queue="UTA")["standing"]["source"] is None
    assert v1(grid, OPERATOR, "clear_status", queue="UTA")["status"] == "offline"
    grid.clock.forward(7200)
    assert duties.sweep_queues(grid.buffer) == 1
    assert grid.client(None).get("/server/panda/getSiteSpec?queue=UTA").status_code == 404
    assert lines(grid, "UTA")[0][0] == "removed", "what happened is not forgotten"


def test_a_word_ends_by_itself(grid: Grid) -> None:
    switch(grid, "UTA", "offline", until=(grid.clock.now + timedelta(minutes=5)).isoformat())
    grid.watch(60)
    assert v1(grid, None, "get", queue="UTA")["status"] == "offline"
    grid.watch(300)
    assert v1(grid, None, "get", queue="UTA")["status"] == "online"
    assert lines(grid, "UTA")[0][:3] == ("over", "offline", "online")


# --- what it does


def test_pilots_of_an_offline_queue_get_nothing_new(grid: Grid) -> None:
    grid.submit(*(production_job(n, computingSite="UTA") for n in range(4)), who=OPERATOR)
    grid.work()
    first = grid.get_job("UTA", requestId="r1")
    assert first["StatusCode"] == 0
    for status, code in (("offline", 20), ("brokeroff", 0), ("offline", 20), ("test", 0), ("online", 0)):
        switch(grid, "UTA", status)
        assert grid.get_job("UTA")["StatusCode"] == code, status
        assert grid.call(None, "getSiteSpecs")["UTA"]["status"] == status
    switch(grid, "UTA", "offline")
    assert grid.get_job("UTA", requestId="r1")["PandaID"] == first["PandaID"], "a repeated request gets its job"
    assert grid.run_job(first)["command"] == "NULL", "what runs goes on"
    grid.work()
    assert grid.state(first["PandaID"]) in ("finished", "transferring")


def test_jobs_are_sent_elsewhere_at_once(grid: Grid) -> None:
    switch(grid, "BNL", "brokeroff")
    ids = grid.submit(*(production_job(n) for n in range(3)), who=OPERATOR)
    grid.work()
    assert {grid.describe(i)["computingSite"] for i in ids} == {"UTA"}
    switch(grid, "UTA", "test")
    v1(grid, OPERATOR, "clear_status", queue="BNL")
    ids = grid.submit(*(production_job(n) for n in range(3)), who=OPERATOR)
    grid.work()
    assert {grid.describe(i)["computingSite"] for i in ids} == {"BNL"}


def test_a_job_that_finds_all_queues_off_waits_for_one(grid: Grid) -> None:
    for name in ("BNL", "UTA"):
        switch(grid, name, "offline")
    (job,) = grid.submit(analysis_job())
    grid.work()
    assert grid.state(job) == "defined"
    assert "offline" in str(grid.call(None, "getBrokerageReasons", job_id=job))
    v1(grid, OPERATOR, "clear_status", queue="UTA")
    for _ in range(10):
        grid.watch(600)
    assert grid.state(job) == "activated" and grid.describe(job)["computingSite"] == "UTA"


def test_pilots_that_wait_get_the_jobs_of_a_queue_that_opens(grid: Grid) -> None:
    (job,) = grid.submit(production_job(computingSite="UTA"), who=OPERATOR)
    grid.work()
    switch(grid, "UTA", "offline")
    lot, found = grid.server.rooms.parking, list[Any]()

    def attempt() -> list[Any]:
        answer = grid.client("pilot").post("/server/panda/getJob", json={"siteName": "UTA"}).json
        return [answer["PandaID"]] if answer["StatusCode"] == 0 else []

    waiting = threading.Thread(target=lambda: found.extend(lot.wait_for("UTA", attempt, Wait(30))))
    waiting.start()
    end = time.monotonic() + 20
    while lot.parked == 0 and time.monotonic() < end:
        time.sleep(0.01)
    lot.look()
    assert lot.parked == 1 and not found
    v1(grid, OPERATOR, "clear_status", queue="UTA")
    while waiting.is_alive() and time.monotonic() < end:
        lot.look()
        waiting.join(0.1)
    assert found == [job]
