"""The loads of queues: counted now and then, with what was chosen since."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa
from factories import Clock, accept, move, new_job

from pandaserver.dataservice.loads import Loads
from pandaserver.model.choice import BYTES_PER_MB, BrokerRules, Load, Snapshot
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import activity, jobs, links, schema
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


# --- what changes slowly


def snapshot(buffer: TaskBuffer, **rules: Any) -> Snapshot:
    return Loads().snapshot(buffer, BrokerRules(**rules))


def test_pilots_count_as_long_as_the_rules_say(buffer: TaskBuffer) -> None:
    assert isinstance(buffer.clock, Clock)
    for queue, told in (("A", {"requests": 2}), ("B", {"updates": 3})):
        buffer.run(lambda c, q=queue, t=told: activity.note(c, q, buffer.now(), **t))  # type: ignore[misc]
    assert snapshot(buffer).pilots == {"A": 2, "B": 3}
    assert snapshot(buffer, pilots_within_s=None).pilots == {}
    buffer.clock.forward(10801)
    buffer.run(lambda c: activity.note(c, "B", buffer.now(), requests=1))
    assert set(snapshot(buffer).pilots) == {"B"}


def test_free_space_is_known_where_there_is_a_quota(buffer: TaskBuffer) -> None:
    def fill(connection: Connection) -> None:
        rows = [{"name": n, "site": "S", "url": "file:///x", "quota_gb": q} for n, q in (("A", 2), ("B", 0), ("C", 1))]
        connection.execute(sa.insert(schema.endpoints), rows)
        size = {"guid": "g", "size_bytes": 1000**3, "adler32": "00000001", "created_at": buffer.now()}
        connection.execute(sa.insert(schema.ddm_files), [{"scope": "s", "lfn": "f"} | size])
        at = [{"scope": "s", "lfn": "f", "endpoint": name, "created_at": buffer.now()} for name in "AB"]
        connection.execute(sa.insert(schema.ddm_replicas), at)

    buffer.run(fill)
    assert snapshot(buffer).free_mb == {"A": 953, "C": 953}


def test_what_waits_on_links_is_known(buffer: TaskBuffer, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = {("A", "B"): links.Backlog(3, 5 * BYTES_PER_MB, None), ("B", "A"): links.Backlog(0, 0, 1.0)}
    monkeypatch.setattr(links, "backlog", lambda _connection: waits)
    assert snapshot(buffer).backlog_mb == {("A", "B"): 5.0}


def test_surroundings_are_looked_at_now_and_then(buffer: TaskBuffer) -> None:
    assert isinstance(buffer.clock, Clock)
    loads, rules = Loads(), BrokerRules()
    assert loads.snapshot(buffer, rules).pilots == {}
    buffer.run(lambda c: activity.note(c, "A", buffer.now(), requests=1))
    assert loads.snapshot(buffer, rules).pilots == {}
    buffer.clock.forward(16)
    assert loads.snapshot(buffer, rules).pilots == {"A": 1}
