"""Pilots that wait for a job with an open request, through the web, on both databases."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from factories import Grid, production_job

from pandaserver.jobdispatcher.parking import ParkingLot
from pandaserver.taskbuffer import lanes

ASK = {"siteName": "BNL", "node": "wn1", "wait": 20}
ANSWER = Callable[..., Future[Any]]


@pytest.fixture
def lot(grid: Grid) -> Iterator[ParkingLot]:
    made = grid.server.rooms.parking
    made.start()
    yield made
    made.stop()


@pytest.fixture
def ask(grid: Grid, lot: ParkingLot) -> Iterator[ANSWER]:
    """Ask for a job in a thread; gives back when the request has been parked or answered."""
    environ = grid.pki.environ("pilot")
    with ThreadPoolExecutor(40) as pool:

        def send(told: dict[str, Any]) -> Any:
            client = grid.server.application.test_client()
            path = told.pop("path", "/server/panda/getJob")
            return client.post(path, json=told, environ_base={**environ, **told.pop("environ", {})})

        def sent(*, instead_of: Future[Any] | None = None, **told: Any) -> Future[Any]:
            parked = lot.parked
            future = pool.submit(send, ASK | told)
            eventually(lambda: future.done() or lot.parked > parked or (instead_of and instead_of.done()))
            return future

        yield sent
        lot.stop()


def eventually(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def activate(grid: Grid, *queues: str, **more: Any) -> list[int]:
    ids = grid.submit(*(production_job(n, computingSite=queue, **more) for n, queue in enumerate(queues)))
    grid.work()
    return ids


def given(*asked: Future[Any]) -> list[int | None]:
    return [future.result(10).json.get("PandaID") for future in asked]


def test_a_job_that_is_there_is_given_at_once(grid: Grid, ask: ANSWER, lot: ParkingLot):
    (job_id,) = activate(grid, "BNL")
    assert given(ask()) == [job_id] and lot.parked == 0


def test_a_waiting_pilot_gets_the_job_when_it_is_activated(grid: Grid, ask: ANSWER):
    asked = ask()
    begun = time.monotonic()
    (job_id,) = activate(grid, "BNL")
    answer = asked.result(10)
    assert answer.json["PandaID"] == job_id and answer.json["StatusCode"] == 0
    assert time.monotonic() - begun < 5 and grid.state(job_id) == "sent"


def test_each_waiting_pilot_gets_another_job_of_its_queue(grid: Grid, ask: ANSWER, lot: ParkingLot):
    at_bnl, at_uta = [ask() for _ in range(4)], [ask(siteName="UTA") for _ in range(2)]
    assert lot.parked == 6
    ids = activate(grid, "BNL", "UTA", "BNL", "BNL")
    eventually(lambda: lot.parked == 2)
    got = [future for future in (*at_bnl, *at_uta) if future.done()]
    assert sorted(filter(None, given(*got))) == ids
    assert [future.done() for future in at_uta].count(True) == 1


def test_a_job_goes_to_the_one_whom_it_fits(grid: Grid, ask: ANSWER):
    small, large = ask(mem=500), ask(mem=4000)
    (job_id,) = activate(grid, "BNL", minRamCount=2000)
    assert given(large) == [job_id]
    assert not small.done()


def test_waiting_in_vain_ends_as_no_job(ask: ANSWER):
    begun = time.monotonic()
    answer = ask(wait=0.3).result(10)
    assert answer.json["StatusCode"] == 20 and "retryAfter" not in answer.json
    assert 0.3 <= time.monotonic() - begun < 5


def test_the_wait_has_a_limit(grid: Grid, ask: ANSWER):
    rooms = grid.server.rooms
    dispatch = replace(rooms.config.dispatch, wait_max_s=0.2)
    object.__setattr__(rooms, "config", replace(rooms.config, dispatch=dispatch))
    assert ask(wait=1e9).result(10).json["StatusCode"] == 20


@pytest.mark.parametrize("wait", [-1, "soon", [1]])
def test_a_wait_that_is_none_is_refused(ask: ANSWER, wait: Any):
    answer = ask(wait=wait).result(10)
    assert answer.status_code == 400 and answer.json["field"] == "wait"


def test_an_unknown_queue_is_not_waited_for(ask: ANSWER, lot: ParkingLot):
    assert ask(siteName="NOWHERE").result(10).status_code == 404
    assert lot.parked == 0


@pytest.mark.parametrize("path", ["/server/panda/getJob", "/api/v1/pilot/acquire_jobs"])
def test_a_full_lot_sends_pilots_away_with_a_time_to_come_again(ask: ANSWER, lot: ParkingLot, path: str):
    parked = [ask() for _ in range(16)]  # half of the 32 threads
    answers = [ask(path=path).result(10) for _ in range(8)]
    told = [answer.json.get("data") or answer.json for answer in answers]
    assert {one["StatusCode"] for one in told} == {20} and {answer.status_code for answer in answers} == {200}
    assert [answer.headers["Retry-After"] for answer in answers] == [str(one["retryAfter"]) for one in told]
    assert {5 <= one["retryAfter"] <= 15 for one in told} == {True}
    assert len({one["retryAfter"] for one in told}) > 1, "not all at the same moment"
    assert not [future for future in parked if future.done()]


def test_a_repeated_request_takes_the_place_of_the_first_and_gets_one_job(grid: Grid, ask: ANSWER, lot: ParkingLot):
    first = ask(requestId="r1")
    second = ask(requestId="r1", instead_of=first)
    assert first.result(10).json["StatusCode"] == 20
    ids = activate(grid, "BNL", "BNL")
    assert given(second) == ids[:1]
    assert given(ask(requestId="r1")) == ids[:1], "and has its answer again"
    assert grid.state(ids[1]) == "activated"


def test_a_pilot_that_has_gone_gets_no_job(grid: Grid, ask: ANSWER):
    here, there = socket.socketpair()
    gone = ask(environ={"gunicorn.socket": here})
    there.close()
    (job_id,) = activate(grid, "BNL")
    assert gone.result(10).json["StatusCode"] == 20
    assert grid.state(job_id) == "activated"
    here.close()


def test_a_pilot_that_is_there_gets_one(grid: Grid, ask: ANSWER):
    here, there = socket.socketpair()
    asked = ask(environ={"gunicorn.socket": here})
    ids = activate(grid, "BNL")
    assert given(asked) == ids
    here.close(), there.close()


def test_a_job_that_comes_back_from_a_lost_pilot_is_seen(grid: Grid, ask: ANSWER):
    (job_id,) = activate(grid, "BNL")
    grid.get_job("BNL")
    asked = ask()
    grid.watch(2 * 3600)
    assert given(asked) == [job_id]


def test_several_jobs_for_one_waiting_request(grid: Grid, ask: ANSWER):
    asked = ask(nJobs=3, requestId="r")
    ids = activate(grid, "BNL", "BNL")
    jobs = asked.result(10).json["jobs"]
    assert {job["PandaID"] for job in jobs} <= set(ids) and jobs


def test_the_end_of_the_server_answers_all(ask: ANSWER, grid: Grid):
    asked = [ask() for _ in range(5)]
    grid.server.stop()
    assert {future.result(10).json["StatusCode"] for future in asked} == {20}
    late = ask().result(10)
    assert late.json["StatusCode"] == 20 and late.json["retryAfter"] > 0


def test_what_the_watcher_reads(grid: Grid):
    def seen() -> tuple[dict[str, int], set[str]]:
        queues = ["BNL", "UTA", "NOWHERE"]
        return grid.buffer.read(lambda c: (lanes.news(c, queues), lanes.with_jobs(c, queues)))

    assert seen() == ({"BNL": 0, "UTA": 0}, set())
    activate(grid, "BNL", "UTA", "BNL", "BNL")
    assert seen() == ({"BNL": 3, "UTA": 1}, {"BNL", "UTA"})
    grid.get_job("UTA")
    assert seen() == ({"BNL": 3, "UTA": 1}, {"BNL"})
    assert grid.buffer.read(lambda c: (lanes.news(c, []), lanes.with_jobs(c, []))) == ({}, set())
