"""The pilot's life without processes: a server made of plain functions and a clock that jumps."""

from __future__ import annotations

import pytest

from pandapilot.failures import CannotWork, Interrupted, NotAuthorised, ServerRefused, ServerUnreachable, TlsFailed
from pandapilot.logs import PilotLog
from pandapilot.pilot import Pilot
from pandapilot.report import Sender
from pandapilot.runner import Tools
from pandapilot.server import JobAnswer, UpdateAnswer
from pandapilot.settings import Identity, Settings
from pandapilot.signals import Signals

DOWN = ServerUnreachable("down")


class FakeClock:
    def __init__(self):
        self.time = 0.0

    def now(self):
        return self.time

    def epoch(self):
        return 1.8e9 + self.time

    def sleep(self, seconds):
        self.time += seconds


class FakeServer:
    """Plays prepared answers; an exception among them is raised, and without any left there is no job."""

    def __init__(self):
        self.queue = {"status": "online"}
        self.queue_errors, self.answers, self.update_errors = [], [], []
        self.requests, self.updates = [], []

    def queue_data(self, name):
        if self.queue_errors:
            raise self.queue_errors.pop(0)
        return self.queue

    def storage_data(self):
        return {}

    def get_job(self, request):
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, JobAnswer) else JobAnswer(answer)

    def update_job(self, update):
        self.updates.append(update)
        if update["state"] in ("finished", "failed") and self.update_errors:
            raise self.update_errors.pop(0)
        return UpdateAnswer(accepted=True)

    def finals(self):
        return [update for update in self.updates if update["state"] in ("finished", "failed")]


@pytest.fixture
def make(tmp_path):
    logs = []

    def build(**more):
        settings = Settings("https://s", "Q", Identity(None, None), tmp_path, "P", "S", **more)
        clock = FakeClock()
        logs.append(PilotLog(tmp_path / "pilot.log"))
        tools = Tools(
            settings, FakeServer(), clock, Signals(), logs[0], Sender("Q", "n", "P", "S"), tmp_path, settings.lifetime_s
        )
        return Pilot(tools), tools

    yield build
    for log in logs:
        log.close()


def bad_job(number=1, **more):
    """A job that fails before anything is started."""
    return {"PandaID": number, "attemptNr": 0, "jobToken": "t", "transformation": "no-such-program", **more}


def test_idle_pilot_asks_until_its_patience_ends(make):
    pilot, tools = make(idle_s=60, poll_interval_s=10)
    pilot.run()
    assert len(tools.server.requests) == 7
    assert len({request["requestId"] for request in tools.server.requests}) == 7


def waited(request, tools):
    """Be a server that lets the pilot wait as long as it would, and has nothing."""
    tools.server.requests.append(request)
    tools.clock.time += request.get("wait", 0)
    return JobAnswer()


def test_pilot_lets_the_server_wait_as_long_as_its_own_patience(make):
    pilot, tools = make(idle_s=70, poll_interval_s=10, wait_s=30)
    tools.server.get_job = lambda request: waited(request, tools)
    pilot.run()
    assert [request.get("wait") for request in tools.server.requests] == [30, 30, 10, None]
    assert tools.clock.now() == 70
    assert len({request["requestId"] for request in tools.server.requests}) == 4


@pytest.mark.parametrize("more", [{"wait_s": 0}, {"idle_s": 0}, {"idle_s": 0.9}])
def test_pilot_without_time_to_wait_does_not_ask_for_it(make, more):
    pilot, tools = make(**more)
    pilot.run()
    assert tools.server.requests and not [request for request in tools.server.requests if "wait" in request]


def test_pilot_waits_no_longer_than_it_may_take_jobs(make):
    pilot, tools = make(lifetime_s=100, idle_s=60)
    tools.clock.time = 75  # 10 s are kept for the end
    tools.server.get_job = lambda request: waited(request, tools)
    pilot.run()
    assert tools.server.requests[0]["wait"] == 15


def test_server_that_does_not_know_waiting_is_asked_in_the_usual_interval(make):
    pilot, tools = make(idle_s=30, poll_interval_s=10, wait_s=30)
    pilot.run()
    assert (len(tools.server.requests), tools.clock.now()) == (4, 30)


def test_pilot_comes_again_when_the_server_says(make):
    pilot, tools = make(idle_s=30, poll_interval_s=10)
    tools.server.answers = [JobAnswer(retry_after_s=3), JobAnswer(retry_after_s=4), bad_job()]
    times = []
    ask = tools.server.get_job
    tools.server.get_job = lambda request: times.append(tools.clock.now()) or ask(request)
    pilot.run()
    assert times[:3] == pytest.approx([0, 3, 7])


@pytest.mark.parametrize(("waits", "code"), [(True, None), (False, 1201)])
def test_signal_breaks_off_waiting_and_nothing_else(make, waits, code):
    """A waiting request is given up at once; an answer that comes without waiting is still heard."""
    pilot, tools = make(wait_s=30 if waits else 0)

    def get_job(request):
        tools.signals._note(15, None)
        return JobAnswer(bad_job())

    tools.server.get_job = get_job
    if waits:
        with pytest.raises(Interrupted, match="SIGTERM"):
            pilot.run()
    else:
        pilot.run()
    assert [final["pilotErrorCode"] for final in tools.server.finals()] == ([code] if code else [])


def test_unanswered_question_is_repeated_as_it_was(make):
    pilot, tools = make(idle_s=0)
    tools.server.answers = [DOWN, DOWN, DOWN, bad_job()]
    pilot.run()
    assert len({request["requestId"] for request in tools.server.requests[:4]}) == 1
    assert tools.server.finals()[0]["pilotErrorCode"] == 1146


def test_time_of_unanswered_questions_counts_for_the_lease(make):
    pilot, tools = make(idle_s=0)
    tools.server.answers = [DOWN] * 5 + [bad_job(leaseTime=20)]

    def update(wire):
        tools.server.updates.append(wire)
        if wire["state"] == "starting":
            raise DOWN
        return UpdateAnswer(accepted=True)

    tools.server.update_job = update
    pilot.run()
    assert tools.server.finals()[0]["pilotErrorCode"] == 1144
    assert "lease lost" in tools.server.finals()[0]["pilotErrorDiag"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TlsFailed("x", certain=True), 67),
        (NotAuthorised(403, "x"), 69),
        (ServerRefused(404, "x"), 70),
        (ServerRefused(400, "x"), 72),
    ],
)
def test_errors_that_stay_end_the_pilot_at_once(make, error, code):
    for where in ("queue_errors", "answers"):
        pilot, tools = make()
        setattr(tools.server, where, [error])
        with pytest.raises(CannotWork) as caught:
            pilot.run()
        assert caught.value.exit_code == code
        assert tools.clock.now() == 0


@pytest.mark.parametrize(("error", "code"), [(DOWN, 68), (TlsFailed("EOF", certain=False), 67)])
def test_errors_that_may_pass_are_waited_for(make, error, code):
    pilot, tools = make(idle_s=60)
    tools.server.queue_errors = [error] * 1000
    with pytest.raises(CannotWork) as caught:
        pilot.run()
    assert caught.value.exit_code == code
    assert 45 <= tools.clock.now() <= 60


def test_no_job_is_taken_when_life_is_nearly_over(make):
    pilot, tools = make(lifetime_s=100)
    tools.clock.time = 90
    tools.server.answers = [bad_job()]
    pilot.run()
    assert tools.server.requests == []


def test_no_more_jobs_are_taken_than_allowed(make):
    pilot, tools = make(max_jobs=2)
    tools.server.answers = [bad_job(1), bad_job(2), bad_job(3)]
    pilot.run()
    assert [update["jobId"] for update in tools.server.finals()] == ["1", "2"]


def test_label_is_sent_only_when_chosen(make):
    for label in (None, "user"):
        pilot, tools = make(label=label, idle_s=0)
        pilot.run()
        assert tools.server.requests[0].get("prodSourceLabel") == label


def test_queue_data_is_read_anew_for_each_job_and_the_old_kept_without_an_answer(make, caplog):
    pilot, tools = make(idle_s=0)
    tools.server.answers = [bad_job()]
    original = tools.server.update_job

    def update(wire):
        tools.server.queue_errors = [DOWN]
        return original(wire)

    tools.server.update_job = update
    pilot.run()
    assert "not read anew" in caplog.text
    assert len(tools.server.requests) == 2


def test_final_report_is_repeated_until_it_is_heard(make):
    pilot, tools = make(idle_s=0)
    tools.server.answers = [bad_job()]
    tools.server.update_errors = [DOWN] * 50
    pilot.run()
    assert len(tools.server.finals()) == 51
    assert 400 < tools.clock.now() < 600


def test_final_report_is_repeated_also_when_authorisation_fails_for_a_while(make):
    pilot, tools = make(idle_s=0)
    tools.server.answers = [bad_job()]
    tools.server.update_errors = [NotAuthorised(403, "x")] * 3
    pilot.run()
    assert len(tools.server.finals()) == 4


def test_final_report_that_is_refused_is_sent_once_more_with_less(make):
    pilot, tools = make(idle_s=0)
    tools.server.answers = [bad_job()]
    tools.server.update_errors = [ServerRefused(400, "x"), ServerRefused(400, "y")]
    pilot.run()
    full, less = tools.server.finals()
    assert "metaData" in full and "metaData" not in less


def test_unexpected_error_is_reported_and_the_pilot_goes_on(make, monkeypatch):
    pilot, tools = make(idle_s=0)
    tools.server.answers = [bad_job(1), bad_job(2)]

    def burst(*arguments):
        raise RuntimeError("a bug")

    monkeypatch.setattr("pandapilot.transfers.Mover.stage_in", burst)
    pilot.run()
    assert [(final["jobId"], final["pilotErrorCode"]) for final in tools.server.finals()] == [("1", 1112), ("2", 1112)]
    assert "a bug" in tools.server.finals()[0]["pilotErrorDiag"]
    assert [path.name for path in tools.directory.iterdir()] == ["pilot.log"]


def test_signal_while_waiting_ends_the_pilot(make):
    pilot, tools = make(idle_s=60)

    def get_job(request):
        tools.signals.received = 15
        return JobAnswer()

    tools.server.get_job = get_job
    with pytest.raises(Interrupted, match="SIGTERM"):
        pilot.run()
    assert tools.clock.now() == 0


def test_signal_that_comes_with_a_job_fails_it_without_starting_anything(make):
    pilot, tools = make()

    def get_job(request):
        tools.signals.received = 15
        return JobAnswer(bad_job())

    tools.server.get_job = get_job
    pilot.run()
    (final,) = tools.server.finals()
    assert (final["pilotErrorCode"], final["transExitCode"]) == (1201, 0)
