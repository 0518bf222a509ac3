"""Words of pilots: who may say them, and what they change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from pandaserver.dataservice.service import ask_add
from pandaserver.errors import Conflict, InvalidTransition, NotFound, PandaError, StaleAttempt
from pandaserver.jobdispatcher.tokens import TOKEN_SECRET, is_token
from pandaserver.model.attempt import PilotReport
from pandaserver.model.job import InState, PlacedJob
from pandaserver.model.states import QUEUED, WITH_PILOT, JobState, allowed
from pandaserver.taskbuffer import archive, attempts, counters, jobs
from pandaserver.taskbuffer.attempts import Word
from pandaserver.taskbuffer.database import Connection

Said = tuple[PlacedJob, PilotReport]


def take_words(
    connection: Connection, reports: Sequence[PilotReport], *, now: datetime, lease_s: float
) -> list[PlacedJob | PandaError]:
    """Apply words; give each its job as it is then, or why it is refused. Those of one job come one after the other."""
    secret = counters.secret(connection, TOKEN_SECRET)
    known = jobs.lock_placed(connection, [report.job_id for report in reports])
    answers: dict[int, PlacedJob | PandaError] = {}
    for places in _rounds(reports):
        said: list[Said] = []
        for place in places:
            answers[place] = answer = _answer(connection, known.get(reports[place].job_id), reports[place], secret)
            if isinstance(answer, PlacedJob) and answer.state in WITH_PILOT:
                said.append((answer, reports[place]))
        known |= _record(connection, said, now=now, lease_s=lease_s)
        answers |= {p: known[reports[p].job_id] for p in places if isinstance(answers[p], PlacedJob)}
    return [answers[place] for place in range(len(reports))]


def _rounds(reports: Sequence[PilotReport]) -> list[list[int]]:
    """Put the places of reports into rounds, so that none has two words about the same job."""
    rounds: list[list[int]] = []
    times: dict[int, int] = {}
    for place, report in enumerate(reports):
        number = times[report.job_id] = times.get(report.job_id, -1) + 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(place)
    return rounds


# --- who may speak


def _answer(connection: Connection, job: PlacedJob | None, report: PilotReport, secret: str) -> PlacedJob | PandaError:
    """Let only the current attempt's pilot speak, and never against what it said before.

    A pilot without a token (an old one) is believed by its attempt number; its DN was checked by the web.
    """
    if job is None:
        return _gone(connection, report)
    current = report.attempt in (None, job.attempt)
    if report.token is not None:
        current = current and is_token(report.token, secret, job.job_id, job.attempt)
    given_up = job.state in QUEUED or (job.state not in WITH_PILOT and not report.last_word)
    if not current or job.attempt == 0 or given_up:
        return _stale(job, report)
    if job.state not in WITH_PILOT:
        return _repeated(attempts.outcome(connection, job), job, report)
    return _checked_state(job, report)


def _gone(connection: Connection, report: PilotReport) -> PandaError:
    """A job of the archive has ended, and whatever pilot still has it shall stop."""
    ended = archive.find(connection, [report.job_id]).jobs.get(report.job_id)
    if ended is not None:
        return _stale(ended, report)
    return NotFound(f"there is no job {report.job_id}", field="jobId", value=report.job_id)


def _repeated(outcome: str | None, job: PlacedJob, report: PilotReport) -> PlacedJob | PandaError:
    """A last word may be repeated, not changed, and not said of an attempt that was ended without it."""
    if outcome in (None, attempts.LOST):
        return _stale(job, report)
    if outcome != report.state:
        text = f"attempt {job.attempt} of job {job.job_id} was reported {outcome}; it cannot become {report.state}"
        return Conflict(text, field="state", value=report.state)
    return job


def _checked_state(job: PlacedJob, report: PilotReport) -> PlacedJob | PandaError:
    new = _state_of(report)
    if new is not job.state and not allowed(job.state, new):
        text = f"job {job.job_id} is {job.state} and may not become {new}"
        return InvalidTransition(text, field="jobStatus", value=new)
    return job


def _stale(job: InState, report: PilotReport) -> StaleAttempt:
    text = f"job {job.job_id} is {job.state} in attempt {job.attempt}: this attempt is over"
    return StaleAttempt(text, field="attemptNr", value=report.attempt)


# --- what it changes


def _state_of(report: PilotReport) -> JobState:
    if report.last_word:
        return JobState.HOLDING
    return JobState.STARTING if report.state == "starting" else JobState.RUNNING


def _record(connection: Connection, said: Sequence[Said], *, now: datetime, lease_s: float) -> dict[int, PlacedJob]:
    """Write what pilots said of different jobs; give the jobs as they are then."""
    jobs.save_details(connection, {job.job_id: _texts(report) for job, report in said})
    last = [one for one in said if one[1].last_word]
    others = [one for one in said if not one[1].last_word]
    attempts.renew(connection, [Word(j, attempts.usage_columns(r)) for j, r in others], now=now, lease_s=lease_s)
    jobs.touch(connection, [job.job_id for job, report in others if job.state is _state_of(report)], now)
    for state in (JobState.STARTING, JobState.RUNNING):
        _move(connection, [one for one in others if _state_of(one[1]) is state is not one[0].state], state, now)
    _end(connection, last, now)
    return {job.job_id: replace(job, state=_state_of(report)) for job, report in said}


def _texts(report: PilotReport) -> dict[str, str]:
    told = {"log_extract": report.log_extract, "stdout_tail": report.stdout_tail, "metadata": report.metadata}
    return {name: text for name, text in told.items() if text}


def _move(connection: Connection, said: Sequence[Said], state: JobState, now: datetime) -> None:
    started: dict[str, Any] = {"started_at": now} if state is JobState.RUNNING else {}
    jobs.change_states(connection, [(j, f"pilot says {r.state}") for j, r in said], state, now=now, **started)


def _end(connection: Connection, said: Sequence[Said], now: datetime) -> None:
    words = [Word(job, attempts.usage_columns(report) | _last_columns(report)) for job, report in said]
    attempts.end(connection, words, now=now)
    for job, report in said:
        jobs.add_errors(connection, job, report.errors, now)
    reasons = [(job, f"pilot says {report.state}") for job, report in said]
    jobs.change_states(connection, reasons, JobState.HOLDING, now=now, ended_at=now)
    ask_add(connection, [(job.job_id, job.attempt) for job, _ in said], now)


def _last_columns(report: PilotReport) -> dict[str, object]:
    kept = {"state": report.state, "outputs": [asdict(output) for output in report.outputs]}
    return {"outcome": report.state, "report": kept}
