"""Heartbeats, lease, pauses and signals, on a clock that the tests turn by hand."""

from __future__ import annotations

import itertools
import signal

import pytest

from pandapilot.clock import SystemClock, delays, pause
from pandapilot.failures import AttemptStale, Interrupted, JobFailure, LeaseExpired, ServerRefused, ServerUnreachable
from pandapilot.heartbeat import Heartbeat, Lease
from pandapilot.server import UpdateAnswer
from pandapilot.signals import Signals

OK = UpdateAnswer(accepted=True)
KILL = UpdateAnswer(accepted=True, commands=frozenset({"tobekilled", "debug"}))
STALE = UpdateAnswer(accepted=False, commands=frozenset({"tobekilled"}))
UNHEARD = UpdateAnswer(accepted=False)


class FakeClock:
    def __init__(self, time=1000.0):
        self.time = time

    def now(self):
        return self.time

    def epoch(self):
        return self.time + 1e9

    def sleep(self, seconds):
        self.time += seconds


class Line:
    """A line to the server: gives prepared answers, then OK for ever; exceptions are raised."""

    def __init__(self, clock, *answers):
        self.clock, self.answers, self.sent = clock, list(answers), []

    def __call__(self):
        self.sent.append(self.clock.now())
        answer = self.answers.pop(0) if self.answers else OK
        if isinstance(answer, Exception):
            raise answer
        return answer


def make(*answers, interval_s=100.0, length_s=600.0, grace_s=10.0):
    clock = FakeClock()
    line = Line(clock, *answers)
    lease = Lease.of(clock.now(), length_s=length_s, interval_s=interval_s, kill_grace_s=grace_s)
    return Heartbeat(line, lease, clock), line, clock


def run(heartbeat, clock, seconds):
    for _ in range(seconds):
        heartbeat.tick()
        clock.time += 1


def test_first_beat_comes_at_once_and_the_next_in_the_interval():
    heartbeat, line, clock = make()
    run(heartbeat, clock, 301)
    assert line.sent == [1000, 1100, 1200, 1300]


def test_interval_leaves_room_for_three_beats_in_a_lease():
    assert Lease.of(0, length_s=60, interval_s=300, kill_grace_s=10).interval_s == 20


def test_work_stops_early_enough_to_end_the_payload_within_the_lease():
    assert Lease.of(0, length_s=600, interval_s=60, kill_grace_s=10).stop_s == 15
    assert Lease.of(0, length_s=20, interval_s=60, kill_grace_s=10).stop_s == 5


def test_news_is_sent_soon():
    heartbeat, line, clock = make()
    run(heartbeat, clock, 10)
    heartbeat.soon()
    run(heartbeat, clock, 1)
    assert line.sent == [1000, 1010]


@pytest.mark.parametrize("error", [ServerUnreachable("down"), ServerRefused(400, "what?")])
def test_failed_beat_is_soon_repeated_with_growing_delays(error):
    heartbeat, line, clock = make(*[error] * 7)
    run(heartbeat, clock, 60)
    assert line.sent == [1000, 1001, 1003, 1007, 1015, 1025, 1035, 1045]


def test_after_a_good_beat_the_delays_start_small_again():
    down = ServerUnreachable("down")
    heartbeat, line, clock = make(down, down, OK, down, OK, interval_s=50)
    run(heartbeat, clock, 100)
    assert line.sent == [1000, 1001, 1003, 1053, 1054]


def test_lease_is_lost_when_nothing_gets_through():
    heartbeat, _line, clock = make(*[ServerUnreachable("down")] * 1000)
    with pytest.raises(LeaseExpired, match="600 s"):
        run(heartbeat, clock, 1000)
    assert clock.now() == 1000 + 600 - 15


def test_lease_counts_from_the_last_beat_that_was_accepted_as_it_was_sent():
    heartbeat, line, clock = make(length_s=600, interval_s=100)
    run(heartbeat, clock, 150)
    line.answers = [UNHEARD] * 1000
    with pytest.raises(LeaseExpired):
        run(heartbeat, clock, 1000)
    assert clock.now() == 1100 + 600 - 15


def test_kill_command_is_obeyed_or_not():
    heartbeat, _, _ = make(KILL)
    with pytest.raises(JobFailure) as caught:
        heartbeat.tick()
    assert caught.value.code == 1144
    heartbeat, _, _ = make(KILL)
    heartbeat.tick(obey=False)


def test_stale_attempt_is_told_apart_from_a_kill():
    heartbeat, _, _ = make(STALE)
    with pytest.raises(AttemptStale):
        heartbeat.tick(obey=False)


def test_delays_double_up_to_the_cap():
    assert list(itertools.islice(delays(), 6)) == [1, 2, 4, 8, 10, 10]
    assert list(itertools.islice(delays(0.5, 1), 3)) == [0.5, 1, 1]


def test_pause_ticks_all_the_time_and_takes_its_time():
    clock, ticks = FakeClock(), []
    pause(clock, 2.1, lambda: ticks.append(clock.now()))
    assert clock.now() == pytest.approx(1002.1)
    assert len(ticks) >= 9
    assert max(b - a for a, b in itertools.pairwise(ticks)) <= 0.26


def test_pause_ends_by_what_tick_raises():
    clock, signals = FakeClock(), Signals()
    signals.received = signal.SIGTERM
    with pytest.raises(Interrupted, match="SIGTERM"):
        pause(clock, 100, signals.check)
    assert clock.now() == 1000


def test_signal_is_raised_once_and_the_first_one_counts():
    signals = Signals()
    signals.check()
    signals._note(signal.SIGUSR1, None)
    signals._note(signal.SIGTERM, None)
    with pytest.raises(Interrupted) as caught:
        signals.check()
    assert caught.value.number == signal.SIGUSR1
    signals.check()


def test_system_clock_runs_forward():
    clock = SystemClock()
    first = clock.now()
    clock.sleep(-1)
    clock.sleep(0.001)
    assert clock.now() > first
    assert clock.epoch() > 1.7e9
