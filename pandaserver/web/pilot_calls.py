"""Calls that pilots make: get jobs, tell what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pandaserver.errors import BadInput, NotAllowed, PandaError, StaleAttempt
from pandaserver.jobdispatcher.claims import Claim
from pandaserver.jobdispatcher.parking import LotFull, Wait
from pandaserver.model.attempt import PilotReport
from pandaserver.model.job import KILL_COMMAND
from pandaserver.web import pilotwire
from pandaserver.web.access import check_token, within
from pandaserver.web.calls import Call, Caller
from pandaserver.web.dialects import refusal_of
from pandaserver.web.peer import is_still_there
from pandaserver.web.pilotwire import FAILED, OK, write_claim, write_claims, write_no_job
from pandaserver.web.roles import PILOTS


def get_job(caller: Caller, told: dict[str, Any]) -> dict[str, Any]:
    """Give a pilot a job or several, or say that there is none, at once or after it has waited."""
    request = within(pilotwire.read_claim(told, caller.dn), caller.permit, caller.dn)
    number = pilotwire.read_number_of_jobs(told)
    requests = pilotwire.for_each_job(request, number)
    wait = _wait(caller, told, f"{caller.dn} {request.request_id}" if request.request_id else "")
    dispatcher = caller.rooms.dispatcher

    def attempt() -> list[Claim]:
        return [claim for claim in dispatcher.get_jobs(requests) if claim is not None]

    try:
        claims = caller.rooms.parking.wait_for(request.queue, attempt, wait)
    except LotFull as full:
        return write_no_job(full.retry_after_s)
    if not claims:
        return write_no_job()
    return write_claims(claims) if number > 1 else write_claim(claims[0])


def _wait(caller: Caller, told: Mapping[str, Any], key: str) -> Wait:
    seconds = min(pilotwire.read_wait(told), caller.rooms.config.dispatch.wait_max_s)
    return Wait(seconds, key, still_there=lambda: is_still_there(caller.environ.get("gunicorn.socket")))


def update_job(caller: Caller, told: dict[str, Any]) -> dict[str, Any]:
    """Take a pilot's word; a pilot whose attempt is over is told to stop, and nothing changes."""
    (answer,) = caller.rooms.dispatcher.update_jobs([_report(told, caller)])
    if isinstance(answer, PandaError) and not isinstance(answer, StaleAttempt):
        raise answer
    return _answer(answer)


def update_jobs_bulk(caller: Caller, told: dict[str, Any]) -> list[dict[str, Any]]:
    """Take many words in one request, in their order; each has its own answer, and a bad one does no harm to others."""
    updates = pilotwire.read_list_of_updates(told)
    read = [_report_or_refusal(update, caller) for update in updates]
    answers = iter(caller.rooms.dispatcher.update_jobs([one for one in read if isinstance(one, PilotReport)]))
    return [_answer(next(answers)) if isinstance(one, PilotReport) else one for one in read]


def _report(told: Mapping[str, Any], caller: Caller) -> PilotReport:
    report = pilotwire.read_report(told, caller.dn)
    check_token(report, caller.permit)
    return report


def _report_or_refusal(update: Any, caller: Caller) -> PilotReport | dict[str, Any]:
    try:
        if not isinstance(update, dict):
            raise BadInput(f"an update is an object, not {type(update).__name__}", field="jobList", value=update)
        return _report(update, caller)
    except (BadInput, NotAllowed) as error:
        return refusal_of(error, pilot=True)


def _answer(answer: str | PandaError | None) -> dict[str, Any]:
    """Say what became of a word: taken, with a command for the pilot; of an attempt that is over; or refused."""
    if isinstance(answer, StaleAttempt):
        return {"StatusCode": FAILED, "command": KILL_COMMAND, "message": answer.message}
    if isinstance(answer, PandaError):
        return refusal_of(answer, pilot=True)
    return {"StatusCode": OK, "command": answer or "NULL"}


PILOT_CALLS = (
    Call("pilot/acquire_jobs", "getJob", PILOTS, get_job, writes=True, raw=True),
    Call("pilot/update_job", "updateJob", PILOTS, update_job, writes=True, raw=True),
    Call("pilot/update_jobs_bulk", "updateJobsInBulk", PILOTS, update_jobs_bulk, writes=True, raw=True),
)
