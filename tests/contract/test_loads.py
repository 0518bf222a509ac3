"""The loads of queues: counted now and then, with what was chosen since."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from factories import Clock, accept, move, new_job

from pandaserver.dataservice.loads import Loads
from pandaserver.model.choice import Load
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import jobs
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection

S = JobState


@pytest.fixture
def queued(buffer: TaskBuffer) -> TaskBuffer:
    """Two jobs wait at A, one of them runs, and one has no queue yet."""
    accept(buffer, *(new_job() for _ in range(4)))
    move(buffer, 1, S.ACTIVATED, site="A")
    move(buffer, 2, S.ASSIGNED, site="A")
    move(buffer, 3, S.ACTIVATED, S.SENT, S.RUNNING, site="A")
    return buffer


def test_loads_are_counted_by_queue(queued: TaskBuffer) -> None:
    assert Loads().now(queued)["A"] == Load(queued=2, running=1)


def test_what_was_chosen_counts_at_once_and_what_others_did_a_little_later(queued: TaskBuffer) -> None:
    loads = Loads()
    loads.now(queued)
    loads.chosen({"A": 3, "B": 2})
    move(queued, 4, S.ACTIVATED, site="A")
    assert loads.now(queued)["A"] == Load(queued=5, running=1)
    assert loads.now(queued)["B"] == Load(queued=2, running=0)
    assert isinstance(queued.clock, Clock)
    queued.clock.forward(1.1)
    assert loads.now(queued)["A"] == Load(queued=3, running=1)
    assert "B" not in loads.now(queued)


def test_what_is_given_may_be_changed_freely(queued: TaskBuffer) -> None:
    loads = Loads()
    loads.now(queued)["A"] = Load(queued=1000)
    assert loads.now(queued)["A"].queued == 2


def test_a_count_that_takes_long_is_used_for_long(buffer: TaskBuffer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(buffer.clock, Clock)
    clock, counts = buffer.clock, list[datetime]()

    def count_slowly(connection: Connection) -> dict[str, dict[str, int]]:
        counts.append(clock.now)
        clock.forward(3)
        return {}

    monkeypatch.setattr(jobs, "count_by_queue_and_state", count_slowly)
    loads = Loads()
    for _ in range(200):
        loads.now(buffer)
        clock.forward(1)
    assert all(after - before >= timedelta(seconds=60) for before, after in pairwise(counts))
    assert 3 <= len(counts) <= 4
