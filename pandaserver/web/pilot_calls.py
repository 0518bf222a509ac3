"""Calls that pilots make: get a job, tell what becomes of it."""

from __future__ import annotations

from typing import Any

from pandaserver.errors import StaleAttempt
from pandaserver.model.job import KILL_COMMAND
from pandaserver.web.calls import Call, Caller, Role
from pandaserver.web.pilotwire import FAILED, OK, read_claim, read_report, write_claim


def get_job(caller: Caller, told: dict[str, Any]) -> dict[str, Any]:
    """Give a pilot a job, or say that there is none."""
    (claim,) = caller.rooms.dispatcher.get_jobs([read_claim(told, caller.dn)])
    return write_claim(claim)


def update_job(caller: Caller, told: dict[str, Any]) -> dict[str, Any]:
    """Take a pilot's word; a pilot whose attempt is over is told to stop, and nothing changes."""
    try:
        (command,) = caller.rooms.dispatcher.update_jobs([read_report(told, caller.dn)])
    except StaleAttempt as error:
        return {"StatusCode": FAILED, "command": KILL_COMMAND, "message": error.message}
    return {"StatusCode": OK, "command": command or "NULL"}


PILOT_CALLS = (
    Call("pilot/acquire_jobs", "getJob", Role.PILOT, get_job, writes=True, raw=True),
    Call("pilot/update_job", "updateJob", Role.PILOT, update_job, writes=True, raw=True),
)
