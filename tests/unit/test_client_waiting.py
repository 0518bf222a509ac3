"""Waiting: how often is looked, what outages do, and when it ends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from pandaserver.client.answers import JobInfo
from pandaserver.client.failures import JobsNotEnded, Refused, Unreachable
from pandaserver.client.waiting import Pace, wait_for


@dataclass
class Clock:
    """Time that passes only in sleep."""

    now: float = 1000.0
    pauses: list[float] = field(default_factory=list)

    def sleep(self, pause_s: float) -> None:
        self.pauses.append(pause_s)
        self.now += pause_s


@dataclass
class Server:
    """Gives one prepared answer after the other; a job's states, None for unknown, or an outage."""

    looks: list[dict[int, str | None] | None]
    asked: list[list[int]] = field(default_factory=list)
    url: str = "https://x"

    def status(self, ids: Iterable[int]) -> list[JobInfo | None]:
        wanted = list(ids)
        self.asked.append(wanted)
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if look is None:
            raise Unreachable("cannot reach x")
        return [None if (state := look[i]) is None else JobInfo(i, state, {}) for i in wanted]


def wait(server: Server, ids: list[int], clock: Clock, **pace: Any) -> tuple[list[JobInfo], list[int]]:
    reports: list[int] = []
    pace_ = Pace(interval_s=10, clock=lambda: clock.now, sleep=clock.sleep, **pace)
    found = wait_for(server, ids, pace=pace_, report=lambda jobs: reports.append(len(jobs)))  # type: ignore[arg-type]
    return found, reports


def test_jobs_that_have_ended_need_one_look() -> None:
    clock = Clock()
    found, reports = wait(Server([{2: "failed", 1: "finished"}]), [2, 1], clock)
    assert [(job.job_id, job.state) for job in found] == [(2, "failed"), (1, "finished")]
    assert (clock.pauses, reports) == ([], [2])


def test_only_those_that_go_on_are_looked_at_again() -> None:
    clock = Clock()
    server = Server([{1: "running", 2: "finished", 3: "running"}, {1: "finished", 3: "running"}, {3: "closed"}])
    found, _ = wait(server, [1, 2, 3], clock)
    assert server.asked == [[1, 2, 3], [1, 3], [3]]
    assert [job.state for job in found] == ["finished", "finished", "closed"]
    assert clock.pauses == [10, 10]


def test_one_id_twice() -> None:
    found, _ = wait(Server([{1: "running"}, {1: "finished"}]), [1, 1], Clock())
    assert [job.job_id for job in found] == [1, 1]


def test_outages_are_waited_out() -> None:
    clock = Clock()
    found, reports = wait(Server([None, {1: "running"}, None, None, {1: "finished"}]), [1], clock)
    assert [job.state for job in found] == ["finished"]
    assert (len(clock.pauses), reports) == (4, [1, 1])


def test_endless_outage_ends_the_waiting() -> None:
    clock = Clock()
    with pytest.raises(Unreachable):
        wait(Server([{1: "running"}, None]), [1], clock, outage_s=35)
    assert clock.now == 1000 + 40


def test_limit_with_a_last_look_at_its_end() -> None:
    clock = Clock()
    server = Server([{1: "running", 2: "finished"}, {1: "running"}])
    with pytest.raises(JobsNotEnded, match="1 of 2 jobs have not ended after 25 s") as caught:
        wait(server, [1, 2], clock, limit_s=25)
    assert caught.value.exit_code == 1
    assert clock.pauses == [10, 10, 5]
    assert len(server.asked) == 4


def test_job_that_ends_with_the_limit_counts() -> None:
    found, _ = wait(Server([{1: "running"}, {1: "running"}, {1: "finished"}]), [1], Clock(), limit_s=15)
    assert found[0].finished


def test_limit_holds_in_an_outage() -> None:
    with pytest.raises(JobsNotEnded, match="1 of 1"):
        wait(Server([None]), [1], Clock(), limit_s=25)


def test_unknown_jobs() -> None:
    with pytest.raises(Refused, match="https://x knows no job 2, 3") as caught:
        wait(Server([{1: "running", 2: None, 3: None}]), [1, 2, 3], Clock())
    assert caught.value.status == 404
