"""Priorities in the database: ageing lifts once, CPU time is summed once, whatever is killed and comes twice."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import factories as f
import pytest
import sqlalchemy as sa

from pandaserver.background.duties import DutyRoster
from pandaserver.background.priorities import priority_duties
from pandaserver.config import PrioritySection
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import ageing, jobs, marks, schema, usage
from pandaserver.taskbuffer.ageing import Ageing
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection
from pandaserver.taskbuffer.marks import Step

S = JobState
DAY = 86400
RULE = Ageing(DAY, 40)


class Killed(Exception):
    """Stands for a process that ends in the middle of a transaction."""


def forward(buffer: TaskBuffer, seconds: float) -> None:
    assert isinstance(buffer.clock, f.Clock)
    buffer.clock.forward(seconds)


def activate(buffer: TaskBuffer, job_id: int, *, label: str = "user", priority: int = 1000) -> None:
    f.accept(buffer, f.new_job(label=label), first_id=job_id, priority=priority)
    f.move(buffer, job_id, S.ACTIVATED, site="A")


def age(buffer: TaskBuffer, limit: int = 100) -> Step:
    return buffer.run(lambda c: ageing.raise_waiting(c, RULE, now=buffer.now(), limit=limit))


def priorities(buffer: TaskBuffer, *job_ids: int) -> list[int]:
    loaded = buffer.read(lambda c: jobs.load(c, job_ids))
    return [loaded[job_id].priority for job_id in job_ids]


def in_order(buffer: TaskBuffer) -> list[tuple[int, int]]:
    """The lane's jobs with their priorities, as pilots get them."""
    table = schema.ready
    rows = buffer.read(lambda c: c.execute(sa.select(table).order_by(table.c.rank, table.c.job_id)).all())
    return [(row.job_id, -row.rank) for row in rows]


# --- marks


def test_a_mark_is_where_it_was_moved_to(buffer: TaskBuffer) -> None:
    now = buffer.now()
    assert buffer.run(lambda c: marks.take(c, "one")) is None

    def move(connection: Connection) -> None:
        marks.take(connection, "one")
        marks.move(connection, "one", now)

    buffer.run(move)
    assert buffer.run(lambda c: marks.take(c, "one")) == now
    assert buffer.run(lambda c: marks.take(c, "two")) is None


# --- ageing


def test_analysis_that_waited_for_a_day_is_lifted(buffer: TaskBuffer) -> None:
    activate(buffer, 1, priority=990)
    activate(buffer, 2, label="managed", priority=990)
    activate(buffer, 3, label="panda", priority=995)
    forward(buffer, DAY - 60)
    activate(buffer, 4, priority=1000)
    assert age(buffer) == Step(0, more=False)
    forward(buffer, 60)
    assert age(buffer) == Step(2, more=False)
    assert priorities(buffer, 1, 2, 3, 4) == [1030, 990, 1035, 1000]
    assert in_order(buffer) == [(3, 1035), (1, 1030), (4, 1000), (2, 990)], "pilots see it at once"


def test_a_job_is_lifted_once(buffer: TaskBuffer) -> None:
    activate(buffer, 1)
    for _ in range(4):
        forward(buffer, DAY + 1)
        age(buffer)
    assert priorities(buffer, 1) == [1040]


def test_what_waits_anew_is_lifted_anew(buffer: TaskBuffer) -> None:
    activate(buffer, 1)
    forward(buffer, DAY + 1)
    age(buffer)
    f.move(buffer, 1, S.SENT, S.ACTIVATED)
    forward(buffer, DAY / 2)
    assert age(buffer) == Step(0, more=False)
    forward(buffer, DAY / 2 + 1)
    assert age(buffer) == Step(1, more=False)
    assert priorities(buffer, 1) == [1080]


@pytest.mark.parametrize("path", [(S.SENT,), (S.SENT, S.RUNNING), (S.CANCELLED,), (S.CLOSED,), (S.THROTTLED,)])
def test_what_does_not_wait_for_a_pilot_is_left_alone(buffer: TaskBuffer, path: tuple[JobState, ...]) -> None:
    activate(buffer, 1)
    f.move(buffer, 1, *path)
    forward(buffer, DAY + 1)
    assert age(buffer) == Step(0, more=False)
    assert priorities(buffer, 1) == [1000]


def test_a_run_that_is_killed_lifts_nothing_and_the_next_one_all(buffer: TaskBuffer) -> None:
    activate(buffer, 1)
    forward(buffer, DAY + 1)

    def die(connection: Connection) -> None:
        ageing.raise_waiting(connection, RULE, now=buffer.now(), limit=100)
        raise Killed

    with pytest.raises(Killed):
        buffer.run(die)
    assert priorities(buffer, 1) == [1000] and in_order(buffer) == [(1, 1000)]
    assert age(buffer) == Step(1, more=False)
    assert age(buffer) == Step(0, more=False)
    assert priorities(buffer, 1) == [1040]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 100])
def test_many_jobs_are_lifted_in_steps_and_each_once(buffer: TaskBuffer, limit: int) -> None:
    for job_id in range(1, 8):
        activate(buffer, job_id, label="managed" if job_id % 3 == 0 else "user")
    forward(buffer, DAY + 1)
    steps = [age(buffer, limit)]
    while steps[-1].more:
        steps.append(age(buffer, limit))
    assert sum(step.done for step in steps) == 5
    assert len(steps) <= 7 // limit + 1
    assert priorities(buffer, *range(1, 8)) == [1040, 1040, 1000, 1040, 1040, 1000, 1040]


@pytest.mark.parametrize("limit", [1, 2, 5, 6])
def test_jobs_activated_at_the_same_moment_are_lifted_together(buffer: TaskBuffer, limit: int) -> None:
    f.accept(buffer, *[f.new_job()] * 5)
    now = buffer.now()

    def activate_all(connection: Connection) -> None:
        locked = list(jobs.load(connection, range(1, 6), lock=True).values())
        jobs.change_state(connection, locked, S.ACTIVATED, now=now, reason="all at once", site="A")

    buffer.run(activate_all)
    forward(buffer, DAY + 1)
    assert age(buffer, limit).done == 5
    assert age(buffer, limit) == Step(0, more=False)
    assert priorities(buffer, *range(1, 6)) == [40] * 5


def test_a_clock_that_goes_back_does_no_harm(buffer: TaskBuffer) -> None:
    activate(buffer, 1)
    forward(buffer, DAY + 3600)
    age(buffer)
    forward(buffer, -3600)
    activate(buffer, 2)
    assert age(buffer) == Step(0, more=False)
    forward(buffer, DAY + 3600)
    assert age(buffer).done == 1
    assert priorities(buffer, 1, 2) == [1040, 1040]


# --- CPU time


def ended(
    buffer: TaskBuffer, job_id: int, cpu_s: float | None, *, owner: str = "/CN=alice", label: str = "user"
) -> None:
    """A job whose only attempt ends now."""
    f.accept(buffer, f.new_job(label=label), first_id=job_id, owner=owner)
    now = buffer.now()
    row = {
        "job_id": job_id, "number": 1, "queue": "A", "claimed_at": now, "lease_until": now, "ended_at": now,
        "outcome": "finished", "cpu_time_s": cpu_s, "usage": {},
    }  # fmt: skip
    buffer.run(lambda c: c.execute(sa.insert(schema.attempts), [row]) and None)


def add_up(buffer: TaskBuffer, limit: int = 100) -> Step:
    return buffer.run(lambda c: usage.add_up(c, now=buffer.now(), limit=limit))


def used(buffer: TaskBuffer, owner: str = "/CN=alice") -> float:
    return buffer.read(lambda c: usage.last_day(c, owner, buffer.now()))


def test_the_cpu_time_of_a_user_is_summed_once(buffer: TaskBuffer) -> None:
    ended(buffer, 1, 100.5)
    ended(buffer, 2, 200)
    ended(buffer, 3, 1000, label="managed")
    ended(buffer, 4, 7, owner="/CN=bob")
    ended(buffer, 5, None)
    assert used(buffer) == 0
    forward(buffer, 120)
    for _ in range(3):
        add_up(buffer)
        assert (used(buffer), used(buffer, "/CN=bob"), used(buffer, "/CN=carol")) == (300.5, 7, 0)


def test_what_has_just_ended_waits_for_the_next_run(buffer: TaskBuffer) -> None:
    ended(buffer, 1, 10)
    forward(buffer, 50)
    ended(buffer, 2, 20)
    forward(buffer, 30)
    add_up(buffer)
    assert used(buffer) == 10
    forward(buffer, 60)
    add_up(buffer)
    assert used(buffer) == 30


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_many_attempts_are_summed_in_steps(buffer: TaskBuffer, limit: int) -> None:
    for job_id in range(1, 7):
        ended(buffer, job_id, 2**job_id)
    forward(buffer, 120)
    steps = [add_up(buffer, limit)]
    while steps[-1].more:
        steps.append(add_up(buffer, limit))
    assert used(buffer) == 126
    assert len(steps) == 6 // limit + 1


def test_only_the_last_day_counts_and_older_is_forgotten(buffer: TaskBuffer) -> None:
    ended(buffer, 1, 100)
    forward(buffer, 120)
    add_up(buffer)
    forward(buffer, DAY - 7200)
    ended(buffer, 2, 10)
    forward(buffer, 120)
    add_up(buffer)
    assert used(buffer) == 110
    forward(buffer, 3 * 3600)
    assert used(buffer) == 10
    forward(buffer, 2 * DAY)
    add_up(buffer)
    rows = buffer.read(lambda c: c.execute(sa.select(schema.cpu_usage.c.cpu_s)).scalars().all())
    assert used(buffer) == 0 and list(rows) == []


def test_a_run_that_is_killed_sums_nothing(buffer: TaskBuffer) -> None:
    ended(buffer, 1, 100)
    forward(buffer, 120)

    def die(connection: Connection) -> None:
        usage.add_up(connection, now=buffer.now(), limit=10)
        raise Killed

    with pytest.raises(Killed):
        buffer.run(die)
    assert used(buffer) == 0
    add_up(buffer)
    assert used(buffer) == 100


# --- the duties


def test_the_duties_are_those_that_are_configured(buffer: TaskBuffer) -> None:
    names: Callable[..., list[str]] = lambda **told: [d.name for d in priority_duties(buffer, PrioritySection(**told))]  # noqa: E731
    assert names() == ["ageing"]
    assert names(daily_cpu_s=1) == ["ageing", "cpu usage"]
    assert names(ageing_points=None) == []


def test_a_duty_does_all_there_is_in_one_run(buffer: TaskBuffer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pandaserver.background.priorities._AT_ONCE", 2)
    for job_id in range(1, 6):
        activate(buffer, job_id)
        ended(buffer, 10 + job_id, 3)
    forward(buffer, DAY / 2)
    found = priority_duties(buffer, PrioritySection(daily_cpu_s=1, ageing_after_s=3600, ageing_points=7))
    DutyRoster(buffer, found).run_due()
    assert priorities(buffer, 1, 2, 3, 4, 5) == [1007] * 5
    assert used(buffer) == 15
    results = buffer.read(lambda c: dict(c.execute(sa.select(schema.duties.c.name, schema.duties.c.last_result)).all()))
    assert results == {"ageing": "5 done", "cpu usage": "3 done"}
    forward(buffer, timedelta(minutes=2).total_seconds())
    DutyRoster(buffer, found).run_due()
    assert priorities(buffer, 1, 5) == [1007, 1007]
