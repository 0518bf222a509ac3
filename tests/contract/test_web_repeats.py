"""Every request may come twice, also at the same moment: no second jobs, no second answer. On both databases."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest
from factories import Grid, analysis_job, production_job
from unchanged import contents, unchanged

from pandaserver.taskbuffer import jobs, submissions

PATHS = ("/server/panda/submitJobs", "/api/v1/job/submit")
VOLATILE = ("counters",)  # numbers may be skipped


def submit(grid: Grid, key: str, *, who: str = "alice", header: bool = False, path: str = PATHS[0], **more: Any) -> Any:
    told: dict[str, Any] = {"jobs": [production_job(1), production_job(2, **more)]}
    headers = {"Idempotency-Key": key} if header else {}
    return grid.client(who).post(path, json=told if header else told | {"clientKey": key}, headers=headers)


def at_once(works: list[Callable[[], Any]]) -> list[Any]:
    """Do all at the same moment, each in a thread, and give what they gave."""
    given: list[Any] = []
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], Any]) -> None:
        barrier.wait()
        given.append(work())

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return given


def rows(grid: Grid) -> dict[str, int]:
    return {name: len(found) for name, found in contents(grid).items() if name not in VOLATILE}


@pytest.mark.parametrize("header", [False, True], ids=["clientKey", "Idempotency-Key"])
def test_a_repeated_submission_gets_the_first_answer(grid: Grid, header: bool):
    first = submit(grid, "key-1", header=header)
    before = rows(grid)
    assert submit(grid, "key-1", header=header).json == first.json
    assert submit(grid, "key-1", header=not header).json == first.json, "both are names of one thing"
    assert submit(grid, "key-1", header=header, path=PATHS[1]).json["data"] == first.json
    assert submit(grid, "key-1", header=header, jobName="changed").json == first.json
    assert rows(grid) == before and before["jobs"] == 2
    assert submit(grid, "key-2", header=header).json != first.json


def test_a_key_is_its_owners(grid: Grid):
    mine, theirs = submit(grid, "key"), submit(grid, "key", who="bob")
    assert mine.json[0][0] != theirs.json[0][0] and rows(grid)["jobs"] == 4


def test_without_a_key_every_submission_is_a_new_one(grid: Grid):
    for key in ("", "None"):
        assert submit(grid, key).json != submit(grid, key).json
    assert rows(grid)["jobs"] == 8 and rows(grid)["submissions"] == 0


def test_a_key_in_the_body_counts_more_than_the_header(grid: Grid):
    told = {"jobs": [production_job()], "clientKey": "body"}
    first = grid.client("alice").post(PATHS[0], json=told, headers={"Idempotency-Key": "one"}).json
    assert grid.client("alice").post(PATHS[0], json=told, headers={"Idempotency-Key": "two"}).json == first


def test_a_refused_submission_leaves_its_key_free(grid: Grid):
    with unchanged(grid):
        assert submit(grid, "key", computingSite="NOWHERE").status_code == 400
    assert submit(grid, "key").status_code == 200 and rows(grid)["jobs"] == 2


@pytest.mark.parametrize("key", ["x" * 65, "a\x00b", 5, ["a"], {"a": 1}, True, "\ud800"], ids=str)
def test_wrong_keys(grid: Grid, key: Any):
    with unchanged(grid):
        answer = grid.client("alice").post(PATHS[0], json={"jobs": [production_job()], "clientKey": key})
        assert (answer.status_code, answer.json["field"]) == (400, "clientKey")


def test_a_key_in_the_header_is_taken_whole_or_not_at_all(grid: Grid):
    assert submit(grid, "x" * 64, header=True).status_code == 200
    with unchanged(grid):
        answer = submit(grid, "x" * 65, header=True)
        assert (answer.status_code, answer.json["field"]) == (400, "Idempotency-Key")


def test_equal_submissions_at_the_same_moment_are_one(grid: Grid):
    answers = at_once([lambda: submit(new_client(grid), "key") for _ in range(8)])
    assert [a.status_code for a in answers] == [200] * 8
    assert all(a.json == answers[0].json for a in answers)
    assert (rows(grid)["jobs"], rows(grid)["submissions"]) == (2, 1)


class Slow:
    """A step of the server that waits, the first time, until a second request had time to come to the same point."""

    def __init__(self, step: Callable[..., Any]) -> None:
        self.step, self.reached, self.go_on = step, threading.Event(), threading.Event()

    def __call__(self, *arguments: Any) -> Any:
        first = not self.reached.is_set()
        self.reached.set()
        assert not first or self.go_on.wait(20)
        return self.step(*arguments)

    def meet(self, request: Callable[[], Any]) -> list[Any]:
        """Send a request, and another in the middle of it."""
        with ThreadPoolExecutor(2) as threads:
            one = threads.submit(request)
            assert self.reached.wait(20)
            other = threads.submit(request)
            wait([other], timeout=0.3)
            self.go_on.set()
            return [one.result(), other.result()]


def test_a_submission_in_the_middle_of_its_equal_waits_for_the_answer(grid: Grid, monkeypatch):
    slow = Slow(jobs.insert)
    monkeypatch.setattr(jobs, "insert", slow)
    one, other = slow.meet(lambda: submit(new_client(grid), "key"))
    assert (one.status_code, other.status_code) == (200, 200), other.text
    assert one.json == other.json and rows(grid)["jobs"] == 2


def test_an_upload_in_the_middle_of_its_equal_waits_too(grid: Grid, monkeypatch):
    slow = Slow(submissions.add_sandbox)
    monkeypatch.setattr(submissions, "add_sandbox", slow)
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.tgz"\r\n\r\nbytes\r\n--b--\r\n'
    told: dict[str, Any] = {"data": body, "content_type": "multipart/form-data; boundary=b"}
    one, other = slow.meet(lambda: new_client(grid).client("alice").post("/server/panda/putFile", **told))
    assert (one.status_code, other.status_code) == (200, 200), other.text
    assert rows(grid)["sandbox_files"] == 1


def new_client(grid: Grid) -> Grid:
    """The same server with clients of its own: a test client is for one thread."""
    return Grid(grid.root, grid.pki, grid.clock, grid.server)


def test_different_submissions_at_the_same_moment_are_all_accepted(grid: Grid):
    works = [lambda n=n: submit(new_client(grid), f"key-{n}", who="alice" if n % 2 else "bob") for n in range(8)]
    answers = at_once(works)
    assert [a.status_code for a in answers] == [200] * 8
    ids = [entry[0] for a in answers for entry in a.json]
    assert len(set(ids)) == 16 == rows(grid)["jobs"]
    definitions = {(i % 2, a.json[0][1]) for i, a in enumerate(answers)}
    assert all(len({entry[1] for entry in a.json}) == 1 for a in answers) and definitions


def test_a_question_asked_twice_at_the_same_moment_claims_one_job(grid: Grid):
    grid.submit(*[production_job(n, computingSite="BNL") for n in range(1, 5)])
    grid.work()
    got = at_once([lambda n=n: new_client(grid).get_job("BNL", requestId=f"r{n}")["PandaID"] for n in range(4)])
    assert sorted(got) == [1, 2, 3, 4]
    assert [grid.get_job("BNL", requestId=f"r{n}")["PandaID"] for n in range(4)].count(got[0]) == 1


def test_words_of_a_pilot_may_come_twice(grid: Grid):
    grid.submit(production_job(computingSite="BNL"))
    grid.work()
    job = grid.get_job("BNL")
    for state in ("starting", "starting", "running", "running", "running", "failed", "failed"):
        assert grid.update(job, state)["StatusCode"] == 0
    before = rows(grid)
    assert grid.update(job, "failed")["StatusCode"] == 0
    assert grid.update(job, "running") | {"message": ""} == {"StatusCode": 30, "command": "tobekilled", "message": ""}
    assert rows(grid) == before
    grid.work()
    assert grid.state(1) == "failed"


def test_killing_twice_is_killing_once(grid: Grid):
    (job_id,) = grid.submit(analysis_job("a"))
    assert (
        at_once([lambda: new_client(grid).call("alice", "killJobs", ids=[job_id]) for _ in range(4)]).count([True]) == 1
    )
    with unchanged(grid):
        assert grid.call("alice", "killJobs", ids=[job_id, job_id]) == [False, False]


def test_the_ddm_may_say_it_twice(grid: Grid):
    grid.register("mc.test.evnt", "BNL_DISK", "a.root")
    (job_id,) = grid.submit(analysis_job("a.root", computingSite="UTA"))
    grid.work()
    block = grid.describe(job_id)["dispatchDBlock"]
    for _ in range(3):
        assert grid.client("ddm").post("/server/panda/datasetCompleted", data={"vuid": block}).text == "True"
    grid.work()
    assert grid.state(job_id) == "activated"
    history = [row for row in contents(grid)["job_history"] if "'activated'" in row.split(", ", 5)[-1]]
    assert len([row for row in history if "'assigned', 'activated'" in row]) == 1
