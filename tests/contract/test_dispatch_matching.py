"""Matching: who gets which job, however requests are mixed, and when "no job" may be said."""

from __future__ import annotations

import random
from typing import Any

import factories as f
import pytest
import sqlalchemy as sa

from pandaserver.jobdispatcher import matching
from pandaserver.jobdispatcher.dispatcher import Dispatcher
from pandaserver.jobdispatcher.policy import DispatchPolicy
from pandaserver.model.attempt import ClaimRequest
from pandaserver.model.grid import Topology
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import jobs, lanes, schema, topology
from pandaserver.taskbuffer.buffer import TaskBuffer


@pytest.fixture
def dispatcher(buffer: TaskBuffer) -> Dispatcher:
    grid = Topology(queues={name: f.queue(name) for name in ("A", "B")}, endpoints={})
    buffer.run(lambda c: topology.save(c, grid))
    return Dispatcher(buffer, DispatchPolicy())


def activate(
    buffer: TaskBuffer, first: int, count: int = 1, *, owner: str = "/CN=alice", queue: str = "A", **told: Any
):
    priority = told.pop("priority", 0)
    f.accept(buffer, *(f.new_job(**told) for _ in range(count)), first_id=first, owner=owner, priority=priority)
    ids = range(first, first + count)
    buffer.run(
        lambda c: jobs.change_state(
            c, list(jobs.load(c, ids, lock=True).values()), JobState.ACTIVATED, now=buffer.now(), reason="", site=queue
        )
    )


def get(dispatcher: Dispatcher, *requests: dict[str, Any]) -> list[int | None]:
    wanted = [ClaimRequest(**({"queue": "A", "pilot": "/CN=pilot"} | told)) for told in requests]
    return [claim.job.job_id if claim else None for claim in dispatcher.get_jobs(wanted)]


ANY: dict[str, Any] = {}


def test_different_wishes_in_one_call_share_what_is_there(buffer: TaskBuffer, dispatcher: Dispatcher) -> None:
    activate(buffer, 1, memory_mb=1000)
    activate(buffer, 2, memory_mb=4000)
    activate(buffer, 3, memory_mb=1000)
    small = {"memory_mb": 2000}
    assert sorted(get(dispatcher, small, ANY, small, ANY), key=str) == [1, 2, 3, None]
    assert get(dispatcher, small, ANY) == [None, None]


def test_several_wishes_for_one_lane_take_different_jobs(buffer: TaskBuffer, dispatcher: Dispatcher) -> None:
    """All in one class of memory, and so in one lane, but not all for everybody."""
    for job_id, memory in ((1, 1810), (2, 1800), (3, 1850), (4, 1900)):
        activate(buffer, job_id, memory_mb=memory)
    assert buffer.read(lambda c: c.execute(sa.select(sa.func.count()).select_from(schema.lanes)).scalar_one()) == 1
    wishes = [{"memory_mb": 1800}, {"memory_mb": 1805}, {"memory_mb": 1820}, {"memory_mb": 1900}, {"memory_mb": 1950}]
    given = get(dispatcher, *wishes)
    assert sorted(job for job in given if job) == [1, 2, 3, 4] and given.count(None) == 1
    assert given[3] is not None and given[4] is not None


def test_a_lane_that_is_new_is_found_though_others_are_remembered(buffer: TaskBuffer, dispatcher: Dispatcher) -> None:
    activate(buffer, 1)
    assert get(dispatcher, ANY, ANY) == [1, None]
    activate(buffer, 2, owner="/CN=bob")
    assert get(dispatcher, ANY) == [2]
    activate(buffer, 3)
    assert get(dispatcher, ANY) == [3]


def test_two_servers_leave_each_other_nothing_behind(buffer: TaskBuffer, dispatcher: Dispatcher) -> None:
    """Each remembers lanes that the other has emptied."""
    other = Dispatcher(buffer, DispatchPolicy())
    for owner in range(5):
        activate(buffer, 10 * owner + 1, 4, owner=f"/CN=user {owner}")
    taken = [job for _ in range(10) for server in (dispatcher, other) for job in get(server, ANY)]
    assert sorted(taken, key=str) == sorted([10 * u + n for u in range(5) for n in range(1, 5)], key=str)
    assert [get(server, ANY) for server in (dispatcher, other)] == [[None], [None]]


@pytest.mark.mysql
@pytest.mark.parametrize("prepared_url", ["mariadb"], indirect=True)
def test_what_another_holds_is_no_reason_to_wait(buffer: TaskBuffer) -> None:
    buffer.run(lambda c: topology.save(c, Topology(queues={"A": f.queue("A")}, endpoints={})))
    dispatcher = Dispatcher(buffer, DispatchPolicy())
    activate(buffer, 1, 3)
    activate(buffer, 4, owner="/CN=bob")
    with buffer.database.writer.connect() as slow:
        holding = slow.begin()
        (lane_id, *_) = sorted(buffer.read(lambda c: lanes.look(c, ["A"]))["A"].waiting)
        assert [job for job, _ in lanes.take(slow, lane_id, ClaimRequest(queue="A"), 9)] == [1, 2, 3]
        assert set(get(dispatcher, ANY, ANY)) == {4, None}
        holding.rollback()
    assert set(get(dispatcher, ANY, ANY, ANY, ANY)) == {1, 2, 3, None}


@pytest.mark.parametrize("seed", range(5))
def test_nobody_is_sent_away_while_something_fits(buffer: TaskBuffer, dispatcher: Dispatcher, seed: int) -> None:
    """Jobs of many kinds, requests of many kinds in calls of many sizes, against what the jobs themselves say."""
    dice = random.Random(seed)
    waiting: dict[int, dict[str, Any]] = {}
    for job_id in range(1, 41):
        told = {
            "label": dice.choice(["managed", "user"]), "memory_mb": dice.choice([0, 500, 1900, 2000, 2047]),
            "disk_mb": dice.choice([0, 10]), "wall_time_s": dice.choice([0, 3600]), "cores": dice.choice([1, 8]),
        }  # fmt: skip
        owner = dice.choice(["/CN=alice", "/CN=bob"])
        activate(buffer, job_id, owner=owner, priority=dice.randrange(3), **told)
        waiting[job_id] = told | {"owner": owner}
    while waiting:
        wishes = [a_wish(dice) for _ in range(dice.randrange(1, 6))]
        given = get(dispatcher, *wishes)
        for wish, job_id in zip(wishes, given, strict=True):
            if job_id is not None:
                assert fits(wish, waiting.pop(job_id))
        for wish, job_id in zip(wishes, given, strict=True):
            assert job_id is not None or not any(fits(wish, job) for job in waiting.values())
    assert f.ready_ids(buffer) == []


def a_wish(dice: random.Random) -> dict[str, Any]:
    wish = {
        "labels": dice.choice([None, None, ("managed", "test"), ("user",)]),
        "memory_mb": dice.choice([0, 0, 1950, 2000]),
        "disk_mb": dice.choice([0, 5]), "remaining_s": dice.choice([0, 3600, 10]), "cores": dice.choice([0, 8, 1]),
        "owner": dice.choice(["", "", "/CN=bob"]),
    }  # fmt: skip
    return wish if dice.random() < 0.8 else {}


def fits(wish: dict[str, Any], job: dict[str, Any]) -> bool:
    pairs = (("memory_mb", "memory_mb"), ("disk_mb", "disk_mb"), ("remaining_s", "wall_time_s"), ("cores", "cores"))
    within = all(not wish.get(asked) or job[needed] <= wish[asked] for asked, needed in pairs)
    labels, owner = wish.get("labels"), wish.get("owner")
    return within and (labels is None or job["label"] in labels) and owner in (None, "", job["owner"])


def test_the_highest_priority_goes_first_in_a_lane_and_among_lanes(buffer: TaskBuffer, dispatcher: Dispatcher) -> None:
    """Of a lane the first job is known, and that it goes down is learnt from the job taken."""
    for job_id, priority, memory in ((1, 10, 0), (2, 30, 0), (3, 20, 4000), (4, 40, 4000), (5, 40, 4000)):
        activate(buffer, job_id, priority=priority, memory_mb=memory, label="managed")
    assert [get(dispatcher, ANY)[0] for _ in range(5)] == [4, 5, 3, 2, 1]
    for job_id, priority, memory in ((6, 10, 0), (7, 30, 0), (8, 20, 4000)):
        activate(buffer, job_id, priority=priority, memory_mb=memory, label="managed")
    assert [get(Dispatcher(buffer, DispatchPolicy()), ANY)[0] for _ in range(3)] == [7, 8, 6]


def test_a_raised_job_moves_forward(buffer: TaskBuffer, dispatcher: Dispatcher) -> None:
    activate(buffer, 1, 3)
    buffer.run(lambda c: jobs.raise_priority(c, [jobs.load(c, [3], lock=True)[3]], 40, now=buffer.now()))
    assert f.load_job(buffer, 3).priority == 40
    assert f.ready_ids(buffer) == [3, 1, 2]
    assert get(dispatcher, ANY) == [3]


def test_empty_lanes_are_swept_away_and_come_back(buffer: TaskBuffer, dispatcher: Dispatcher) -> None:
    activate(buffer, 1)
    activate(buffer, 2, owner="/CN=bob")
    activate(buffer, 3, owner="/CN=carol", queue="B")
    assert get(dispatcher, ANY) == [1]  # alice's runs, bob's and carol's wait

    def sweep() -> int:
        return buffer.run(lambda c: lanes.sweep(c, buffer.now(), 100))

    assert sweep() == 0
    assert get(dispatcher, ANY, {"queue": "B"}) == [2, 3]
    buffer.run(lambda c: c.execute(schema.attempts.update().values(ended_at=buffer.now())))
    assert (sweep(), sweep()) == (3, 0)
    activate(buffer, 4)
    assert get(dispatcher, ANY) == [4], "what is remembered of the old lane does no harm"


def test_young_lanes_stay(buffer: TaskBuffer) -> None:
    activate(buffer, 1)
    buffer.run(lambda c: lanes.leave(c, [1]))
    assert buffer.run(lambda c: lanes.sweep(c, f.EPOCH, 100)) == 0


def test_what_is_remembered_is_looked_at_again(buffer: TaskBuffer) -> None:
    """A server that only ever finds old lanes would serve them alone."""
    time = [0.0]
    buffer.run(lambda c: topology.save(c, Topology(queues={"A": f.queue("A")}, endpoints={})))
    maker = matching.Matchmaker(matching.Shares(), clock=lambda: time[0])
    activate(buffer, 1, 5, priority=1)

    def match() -> int:
        def first(connection: Any) -> int:
            (taken,) = maker.match(connection, [ClaimRequest(queue="A")])
            assert taken is not None
            jobs.change_state(
                connection, [jobs.load(connection, [taken.job_id], lock=True)[taken.job_id]], JobState.SENT,
                now=buffer.now(), reason="",
            )  # fmt: skip
            return taken.job_id

        return buffer.run(first)

    assert match() == 1
    activate(buffer, 9, owner="/CN=bob", priority=500)
    assert match() == 2
    time[0] += matching.REMEMBER_S
    assert match() == 9
