"""Whole days of a scheduler in a second: jobs come, pilots take them, things break."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from schedulers.batch.inmemory import InMemoryBatch
from schedulers.batch.protocol import BatchState
from schedulers.config import Config, PilotConfig, QueueConfig, SchedulerConfig
from schedulers.engine import Services, run_once
from schedulers.errors import ServerUnknown
from schedulers.memory import Memory

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Queue:
    config: QueueConfig
    job_s: float = 60
    ask_after_s: float = 2
    idle_s: float = 0
    many_jobs: bool = False
    waiting: deque[int] = field(default_factory=deque)
    done: int = 0
    working: dict[str, float] = field(default_factory=dict)
    free_since: dict[str, float] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)


class Simulation:
    """A server, a batch system and their pilots, one second at a time; a cycle of the scheduler every `interval_s`."""

    def __init__(self, *queues: Queue, slots: int = 1000, interval_s: int = 2, **scheduler: object) -> None:
        self.queues = {queue.config.name: queue for queue in queues}
        self.interval_s, self.time_s, self.silent = interval_s, 0, False
        self.batch = InMemoryBatch(dict.fromkeys(self.queues, slots), self.now)
        self.config = Config(
            SchedulerConfig("https://localhost", Path("/nowhere"), **scheduler),
            PilotConfig(("pilot",)),
            tuple(queue.config for queue in queues),
        )
        self.memory = Memory()
        self.sent: dict[str, list[int]] = {name: [] for name in self.queues}
        self.running: dict[str, list[int]] = {name: [] for name in self.queues}
        self.most_alive = 0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.time_s)

    def job_counts(self) -> dict[str, dict[str, int]]:
        if self.silent:
            raise ServerUnknown("silent")
        return {n: {"activated": len(q.waiting), "running": len(q.working)} for n, q in self.queues.items()}

    def queue_status(self) -> dict[str, str]:
        return dict.fromkeys(self.queues, "online")

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.time_s += 1
            for name, queue in self.queues.items():
                self.move_pilots(name, queue)
            if self.time_s % self.interval_s == 0:
                self.cycle()

    def cycle(self) -> None:
        report = run_once(self.config, Services(self, self.batch, self.now), self.memory)
        counts = self.batch.counts()
        alive = sum(count.alive for count in counts.values())
        self.most_alive = max(self.most_alive, alive)
        assert alive <= self.config.scheduler.max_total
        for queue in report.queues:
            self.sent[queue.queue].append(queue.sent)
            limits = self.queues[queue.queue].config
            assert queue.sent <= limits.per_cycle
            if queue.queue in counts:
                self.running[queue.queue].append(counts[queue.queue].running)
                assert counts[queue.queue].pending <= limits.max_pending
                assert counts[queue.queue].alive <= limits.max_running

    def move_pilots(self, name: str, queue: Queue) -> None:
        for batch_id, pilot in list(self.batch.pilots.items()):
            if pilot.request.queue == name and pilot.status.state is BatchState.RUNNING:
                self.move_pilot(queue, batch_id, pilot.status.lived_s(self.now()))
            elif pilot.status.state not in (BatchState.RUNNING, BatchState.PENDING):
                queue.ended.add(batch_id)
        for batch_id in queue.ended & self.memory.watched.keys() ^ queue.ended:
            self.batch.pilots.pop(batch_id, None)

    def move_pilot(self, queue: Queue, batch_id: str, lived_s: float) -> None:
        if batch_id in queue.working:
            if self.time_s < queue.working[batch_id]:
                return None
            del queue.working[batch_id]
            queue.done += 1
            queue.free_since[batch_id] = self.time_s
            if not queue.many_jobs:
                return self.batch.finish(batch_id)
        if lived_s >= queue.ask_after_s:
            since = queue.free_since.setdefault(batch_id, self.time_s)
            if queue.waiting:
                queue.waiting.popleft()
                queue.working[batch_id] = self.time_s + queue.job_s
            elif self.time_s - since >= queue.idle_s:
                self.batch.finish(batch_id)
        return None

    def pilots_sent(self, name: str = "Q") -> int:
        return sum(self.sent[name])


def jobs(number: int) -> deque[int]:
    return deque(range(number))


def test_a_burst_is_done_in_good_time_with_one_pilot_per_job():
    queue = Queue(QueueConfig("Q"), waiting=jobs(200))
    world = Simulation(queue, max_total=50)
    world.run(4 * 62 + 60)
    assert queue.done == 200
    assert 200 <= world.pilots_sent() <= 210
    assert world.most_alive == 50


@pytest.mark.parametrize("interval_s", [1, 2, 10, 60])
def test_the_number_of_pilots_does_not_depend_on_how_often_the_scheduler_looks(interval_s):
    queue = Queue(QueueConfig("Q", per_cycle=50, max_pending=50), waiting=jobs(40), ask_after_s=5)
    world = Simulation(queue, interval_s=interval_s)
    world.run(400)
    assert queue.done == 40
    assert world.pilots_sent() == 40


def test_pilots_that_wait_in_the_batch_system_are_not_sent_again_for_hours():
    queue = Queue(QueueConfig("Q", max_pending=30), waiting=jobs(20))
    world = Simulation(queue, slots=0)
    world.run(3600)
    assert (queue.done, world.pilots_sent()) == (0, 20)


def test_few_slots_are_kept_busy_without_a_flood():
    queue = Queue(QueueConfig("Q", max_pending=4), job_s=20, waiting=jobs(100))
    world = Simulation(queue, slots=4)
    world.run(100 // 4 * 24 + 40)
    assert queue.done == 100
    assert world.pilots_sent() <= 108


def test_steady_work_gives_steady_pilots():
    """0.5 jobs a second of 60 s each need 30 pilots (and 2 s each to ask); the number must not swing."""
    queue = Queue(QueueConfig("Q"))
    world = Simulation(queue)
    for second in range(1200):
        queue.waiting.extend([second] * (second % 2))
        world.run(1)
    steady = world.running["Q"][150:]
    assert min(steady) >= 28
    assert max(steady) <= 36
    assert max(world.sent["Q"][150:]) <= 3
    assert len(queue.waiting) <= 3


def test_random_work_is_served_and_not_overserved():
    dice = random.Random(7)
    queue = Queue(QueueConfig("Q"), job_s=30)
    world = Simulation(queue)
    made = 0
    for _ in range(900):
        new = dice.choice([0, 0, 0, 0, 0, 0, 1, 4]) if dice.random() < 0.7 else 0
        made += new
        queue.waiting.extend(range(new))
        world.run(1)
    world.run(100)
    assert queue.done == made
    assert world.pilots_sent() <= made * 1.1 + 5


def test_pilots_that_take_many_jobs_are_sent_no_oftener_than_needed():
    queue = Queue(QueueConfig("Q", max_running=10), job_s=10, idle_s=30, many_jobs=True, waiting=jobs(100))
    world = Simulation(queue)
    world.run(240)
    assert queue.done == 100
    assert world.pilots_sent() <= 20
    assert not world.batch.live()


def test_queues_without_work_cost_nothing():
    world = Simulation(Queue(QueueConfig("Q")))
    world.run(600)
    assert world.pilots_sent() == 0


def test_a_big_queue_does_not_starve_a_small_one():
    big = Queue(QueueConfig("BIG", max_pending=100, max_running=1000), waiting=jobs(2000))
    small = Queue(QueueConfig("SMALL"))
    world = Simulation(big, small, max_total=40)
    world.run(200)
    small.waiting.extend(range(10))
    world.run(150)
    assert small.done == 10
    assert big.done >= 140


def test_a_black_hole_gets_a_handful_of_pilots_in_a_day():
    queue = Queue(QueueConfig("Q"), waiting=jobs(500))
    world = Simulation(queue, interval_s=60)
    world.move_pilots = lambda name, q: [world.batch.finish(i, 1) for i in world.batch.live()]
    world.run(24 * 3600)
    # The first load, a probe after each pause of 30 s, 1 min ... and one every half hour from then on.
    assert 10 + 40 <= world.pilots_sent() <= 10 + 60


def test_a_site_that_is_repaired_comes_back_by_itself():
    queue = Queue(QueueConfig("Q"), waiting=jobs(30))
    world = Simulation(queue)
    honest = world.move_pilots
    world.move_pilots = lambda name, q: [world.batch.finish(i, 1) for i in world.batch.live()]
    world.run(100)
    world.move_pilots = honest
    world.run(400)
    assert queue.done == 30


def test_a_server_that_comes_and_goes_neither_floods_nor_starves():
    queue = Queue(QueueConfig("Q"), waiting=jobs(100))
    world = Simulation(queue)
    dice = random.Random(3)
    for _ in range(40):
        world.silent = dice.random() < 0.5
        before = world.pilots_sent()
        world.run(10)
        assert not world.silent or world.pilots_sent() == before
    assert queue.done == 100
    assert world.pilots_sent() <= 105


def test_a_restart_of_the_scheduler_sends_nothing_twice():
    queue = Queue(QueueConfig("Q"), waiting=jobs(60))
    world = Simulation(queue, slots=10)
    for _ in range(40):
        world.run(13)
        world.memory = Memory(watched=world.batch.live())
    assert queue.done == 60
    assert world.pilots_sent() <= 63
