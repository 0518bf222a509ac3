from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

import pytest

from schedulers.batch.inmemory import InMemoryBatch
from schedulers.batch.protocol import BatchState, PilotRequest
from schedulers.config import Config, PilotConfig, QueueConfig, SchedulerConfig
from schedulers.engine import Services, adopt, run_forever, run_once, stop_pilots
from schedulers.errors import BatchUnknown, ServerUnknown
from schedulers.memory import Memory


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def tick(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class StubServer:
    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, int]] = {}
        self.statuses = {"Q": "online"}
        self.answers = True

    def job_counts(self) -> dict[str, dict[str, int]]:
        if not self.answers:
            raise ServerUnknown("the server is silent")
        return self.jobs

    def queue_status(self) -> dict[str, str]:
        return self.statuses


class World:
    """One scheduler with everything round it in memory."""

    def __init__(self, *queues: QueueConfig, slots: int = 100, **scheduler: object) -> None:
        self.clock = Clock()
        self.server = StubServer()
        queues = queues or (QueueConfig("Q"),)
        self.config = Config(
            SchedulerConfig("https://localhost", Path("/nowhere"), **scheduler), PilotConfig(("pilot",)), queues
        )
        self.batch = InMemoryBatch({queue.name: slots for queue in queues}, self.clock)
        self.memory = Memory()

    def cycle(self, **options: bool):
        return run_once(self.config, Services(self.server, self.batch, self.clock), self.memory, **options)

    def sent(self) -> int:
        return sum(report.sent for report in self.cycle().queues)


def test_pilots_are_sent_for_the_jobs_that_wait_and_only_once():
    world = World(slots=0)
    world.server.jobs = {"Q": {"activated": 3, "running": 5, "finished": 900}}
    report = world.cycle().queues[0]
    assert (report.status, report.activated, report.pending, report.running, report.sent) == ("online", 3, 0, 0, 3)
    assert world.batch.counts()["Q"].pending == 3
    assert world.sent() == 0


def test_the_pilot_knows_its_queue_and_its_own_name():
    world = World()
    world.server.jobs = {"Q": {"activated": 1}}
    world.cycle()
    (batch_id, pilot), *_ = world.batch.pilots.items()
    assert pilot.request.argv[:5] == ("pilot", "--server", "https://localhost", "--queue", "Q")
    assert pilot.request.argv[pilot.request.argv.index("--pilot-id") + 1] == batch_id


def test_a_pilot_that_runs_and_has_no_job_yet_is_not_sent_again():
    world = World(QueueConfig("Q", starting_s=30))
    world.server.jobs = {"Q": {"activated": 2}}
    assert world.sent() == 2
    world.clock.tick(2)
    assert world.sent() == 0, "both run, neither has asked yet"
    world.server.jobs = {"Q": {"activated": 2, "running": 2}}
    assert world.sent() == 2, "both have got a job: the two that wait are others"


def test_a_pilot_that_begins_to_run_in_the_middle_of_a_cycle_is_not_sent_again():
    world = World(slots=0)
    world.server.jobs = {"Q": {"activated": 2}}
    assert world.sent() == 2
    honest = world.batch

    class Moving(InMemoryBatch):
        """Its pilots begin to run as soon as somebody has asked for anything."""

        def __init__(self) -> None:
            super().__init__({"Q": 100}, world.clock)
            self.pilots, self.asked = honest.pilots, False

        def _move_on(self) -> None:
            if self.asked:
                super()._move_on()
            self.asked = True

    world.batch = Moving()
    assert world.sent() == 0
    assert world.batch.counts()["Q"].running == 2


def test_a_pilot_that_never_gets_a_job_is_not_waited_for_without_end():
    world = World(QueueConfig("Q", starting_s=30))
    world.server.jobs = {"Q": {"activated": 1}}
    assert world.sent() == 1
    world.clock.tick(31)
    assert world.sent() == 1


@pytest.mark.parametrize("silent", ["server", "batch"])
def test_no_answer_means_that_nothing_is_sent(silent):
    world = World(QueueConfig("Q", min_pending=5))
    world.server.jobs = {"Q": {"activated": 3}}
    getattr(world, silent).answers = False
    report = world.cycle()
    assert report.problem
    queue = report.queues[0]
    assert (queue.sent, queue.status, queue.activated, queue.pending, queue.running) == (0, None, None, None, None)
    assert queue.decision.reason == report.problem
    getattr(world, silent).answers = True
    assert world.sent() == 5


def test_a_queue_that_the_server_does_not_know_gets_nothing_while_others_do():
    world = World(QueueConfig("Q"), QueueConfig("NEW"))
    world.server.jobs = {"Q": {"activated": 1}, "NEW": {"activated": 1}}
    known, unknown = world.cycle().queues
    assert (known.sent, unknown.sent) == (1, 0)
    assert "no status for a queue NEW" in unknown.decision.steps[0].reason


def test_a_queue_without_jobs_is_zero_and_not_unknown():
    world = World()
    report = world.cycle().queues[0]
    assert (report.activated, report.sent, world.cycle().problem) == (0, 0, "")


def test_a_batch_system_that_takes_from_one_queue_only_is_told_of():
    world = World(QueueConfig("Q"), QueueConfig("R"))
    world.server.statuses["R"] = "online"
    world.server.jobs = {"Q": {"activated": 1}, "R": {"activated": 1}}
    submit = world.batch.submit

    def picky(count: int, request: PilotRequest):
        if request.queue == "Q":
            raise BatchUnknown("queue Q is closed")
        return submit(count, request)

    world.batch.submit = picky
    first, second = world.cycle().queues
    assert (first.sent, first.problem, second.sent, second.problem) == (0, "queue Q is closed", 1, "")


def test_a_dry_run_sends_nothing_and_says_what_it_would():
    world = World()
    world.server.jobs = {"Q": {"activated": 3}}
    report = world.cycle(dry_run=True)
    assert (report.queues[0].sent, report.queues[0].decision.n, world.batch.pilots) == (0, 3, {})
    assert "(3)" in report.as_table()


def test_all_queues_together_stay_below_the_global_cap():
    queues = [QueueConfig(f"Q{number}") for number in range(5)]
    world = World(*queues, max_total=12)
    world.server.statuses = {queue.name: "online" for queue in queues}
    world.server.jobs = {queue.name: {"activated": 50} for queue in queues}
    assert sorted(report.sent for report in world.cycle().queues) == [2, 2, 2, 3, 3]
    assert world.sent() == 0


def test_pilots_of_queues_no_longer_configured_count_for_the_global_cap():
    world = World(max_total=5)
    world.batch.submit(4, PilotRequest("OLD", ("pilot",)))
    world.server.jobs = {"Q": {"activated": 50}}
    assert world.sent() == 1


def test_pilots_that_die_young_stop_the_queue_then_one_at_a_time(caplog):
    world = World(QueueConfig("Q", per_cycle=2), bad_pilots=4)
    world.server.jobs = {"Q": {"activated": 50}}
    sent = []
    for _ in range(40):
        sent.append(world.sent())
        world.clock.tick(2)
        for batch_id in world.batch.live():
            world.batch.finish(batch_id, 1)
    # Two cycles until four are dead, 30 s of pause, one, 60 s of pause.
    assert [number for number in sent if number] == [2, 2, 1]
    assert sent.index(1) == 17
    assert "Q: 4 pilots in a row died young; nothing is sent for 30 s" in caplog.text
    assert "exit code 1 ; see pilot-4/stderr" in caplog.text
    assert "pilots die young here: pause for" in world.cycle().queues[0].decision.reason


def test_a_healthy_pilot_ends_the_punishment():
    world = World(QueueConfig("Q", per_cycle=5), bad_pilots=5)
    world.server.jobs = {"Q": {"activated": 50}}
    world.cycle()
    for batch_id in world.batch.live():
        world.batch.finish(batch_id, 1)
    assert world.sent() == 0
    world.clock.tick(31)
    assert world.sent() == 1
    world.clock.tick(10)
    assert world.sent() == 0, "the one is too young to be trusted"
    world.clock.tick(11)
    assert world.sent() == 5


def test_lessons_are_learnt_while_the_server_is_silent():
    world = World(bad_pilots=3)
    world.server.jobs = {"Q": {"activated": 3}}
    world.cycle()
    for batch_id in world.batch.live():
        world.batch.finish(batch_id, 1)
    world.server.answers = False
    world.cycle()
    assert world.memory.breakers["Q"].probing
    assert world.memory.watched == {}


def test_pilots_that_the_batch_system_forgot_are_neither_good_nor_bad():
    world = World(bad_pilots=1)
    world.server.jobs = {"Q": {"activated": 3}}
    world.cycle()
    world.batch.pilots.clear()
    assert world.sent() == 3
    assert not world.memory.breakers["Q"].probing


def test_a_new_scheduler_adopts_the_pilots_it_finds():
    world = World(bad_pilots=2)
    world.server.jobs = {"Q": {"activated": 2}}
    world.cycle()
    world.memory = Memory()
    adopt(world.batch, world.memory)
    assert list(world.memory.watched.values()) == ["Q", "Q"]
    assert world.sent() == 0
    for batch_id in world.batch.live():
        world.batch.finish(batch_id, 1)
    world.cycle()
    assert world.memory.breakers["Q"].probing


def test_stopping_cancels_all_and_waits_until_they_are_gone():
    world = World(slots=2)
    world.server.jobs = {"Q": {"activated": 4}}
    world.cycle()
    assert stop_pilots(world.batch, wait=world.clock.tick, patience_s=10) == 0
    assert {pilot.status.state for pilot in world.batch.pilots.values()} == {BatchState.REMOVED}


def test_stopping_has_an_end_even_when_pilots_do_not_go():
    world = World()
    world.server.jobs = {"Q": {"activated": 4}}
    world.cycle()
    world.batch.cancel = lambda ids: None
    assert stop_pilots(world.batch, wait=world.clock.tick, patience_s=10) == 4
    assert world.clock() - datetime(2026, 1, 1, tzinfo=UTC) < timedelta(seconds=11)


def test_the_loop_survives_an_accident_and_ends_when_told(caplog):
    stop = Event()
    turns = []

    def cycle() -> None:
        turns.append(1)
        if len(turns) == 1:
            raise RuntimeError("an accident")
        stop.set()

    run_forever(cycle, interval_s=0.001, stop=stop)
    assert len(turns) == 2
    assert "an accident" in caplog.text


def test_the_loop_does_nothing_when_stopped_before_it_began():
    stop = Event()
    stop.set()
    run_forever(lambda: pytest.fail("no cycle is wanted"), interval_s=60, stop=stop)


def test_a_cycle_as_json_has_every_step():
    world = World(QueueConfig("Q", per_cycle=2))
    world.server.jobs = {"Q": {"activated": 3}}
    content = json.loads(json.dumps(world.cycle().as_json()))
    queue = content["queues"][0]
    assert (content["at"], content["problem"], content["dry_run"]) == ("2026-01-01T00:00:00+00:00", None, False)
    assert {key: queue[key] for key in ("queue", "activated", "pending", "running", "wanted", "sent", "problem")} == {
        "queue": "Q",
        "activated": 3,
        "pending": 0,
        "running": 0,
        "wanted": 2,
        "sent": 2,
        "problem": None,
    }
    assert [step["policy"] for step in queue["reasons"]][-2:] == ["PerCycle", "GlobalCap"]
    assert queue["reasons"][-2]["reason"] == "at most 2 in one cycle"


def test_a_cycle_as_table_is_aligned():
    world = World(QueueConfig("Q"), QueueConfig("LONG_NAME"))
    world.server.statuses["LONG_NAME"] = "offline"
    world.server.jobs = {"Q": {"activated": 12}, "LONG_NAME": {"activated": 7}}
    title, first, second = world.cycle().as_table().splitlines()
    assert title.split() == ["QUEUE", "STATUS", "ACTIVATED", "PENDING", "RUNNING", "SENT", "REASON"]
    assert first.split()[:6] == ["Q", "online", "12", "0", "0", "10"]
    assert second.split()[:6] == ["LONG_NAME", "offline", "7", "0", "0", "0"]
    assert title.index("REASON") == first.index("at most 10 pending") == second.index("queue is offline")


def test_a_table_shows_what_nobody_knows_as_a_question_mark():
    world = World()
    world.server.answers = False
    assert world.cycle().as_table().splitlines()[1].split()[:6] == ["Q", "?", "?", "?", "?", "0"]


def test_config_weight_reaches_the_policy():
    world = World(replace(QueueConfig("Q"), weight=2.0))
    world.server.jobs = {"Q": {"activated": 3}}
    assert world.sent() == 6
