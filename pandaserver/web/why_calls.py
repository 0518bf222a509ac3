"""Calls about where jobs may run: why one is where it is, and what would become of jobs that are not submitted yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pandaserver.model.job import NewJob
from pandaserver.taskbuffer import topology
from pandaserver.taskbuffer.reasons import RecordedReason, RecordedRound
from pandaserver.userinterface import manage, preflight
from pandaserver.userinterface.preflight import Checked, Submitter, Warned
from pandaserver.userinterface.submit import check as check_job
from pandaserver.userinterface.why import explain
from pandaserver.web import values
from pandaserver.web.calls import Call, Caller, Param
from pandaserver.web.newjobs import priority_rules, read_new
from pandaserver.web.roles import READ, SUBMIT

_LOCAL = "local"


def get_reasons(caller: Caller, job_id: int) -> list[dict[str, Any]]:
    """Tell what was said of queues, in all rounds."""
    return [_reason(reason) for told in manage.why(caller.rooms.buffer, job_id) for reason in told.reasons]


def _reason(said: RecordedReason) -> dict[str, Any]:
    return {
        "site": said.site,
        "verdict": said.verdict,
        "reason": said.reason,
        "weight": said.weight,
        "time": said.at,
        "criterion": said.criterion,
        "value": said.value,
        "limit": said.limit,
    }


def why(caller: Caller, job_id: int) -> dict[str, Any]:
    """Tell why a job is where it is, and what would help."""
    found = explain(caller.rooms.buffer, job_id)
    return {
        "PandaID": found.job.job_id,
        "jobStatus": found.job.state.value,
        "computingSite": found.job.site,
        "since": found.job.state_since,
        "text": found.text,
        "advice": found.advice,
        "rounds": [_round(told) for told in found.rounds],
    }


def _round(told: RecordedRound) -> dict[str, Any]:
    return {
        "time": told.at,
        "site": told.queue,
        "more": told.more,
        "advice": told.advice,
        "changes": _on_the_wire(told.changes or {}),
        "reasons": [_reason(said) for said in told.reasons],
    }


_WIRE_NAMES = {
    "memory_mb": "minRamCount",
    "disk_mb": "maxDiskCount",
    "cores": "coreCount",
    "wall_time_s": "maxWalltime",
    "releases": "AtlasRelease",
    "platform": "cmtConfig",
    "site": "computingSite",
    "cloud": "cloud",
    "only": "includedSite",
    "without": "excludedSite",
    "input_mb": "inputMB",
}


def _on_the_wire(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Name what should be changed as it is named in a submission."""
    told = {_WIRE_NAMES[field]: value for field, value in changes.items()}
    return told | ({"AtlasRelease": "\n".join(told["AtlasRelease"])} if "AtlasRelease" in told else {})


def check_jobs(caller: Caller, jobs: Any) -> list[dict[str, Any]]:
    """Tell of each job what would become of it; nothing is submitted."""
    new = read_new(caller, jobs)
    queues = set(topology.of(caller.rooms.buffer).queues)
    for number, job in enumerate(new):
        check_job(job, number, queues)
    return [_checked(one) for one in _check(caller, new, look_for_inputs=True)]


def _check(caller: Caller, new: Sequence[NewJob], *, look_for_inputs: bool) -> list[Checked]:
    submitter = Submitter(caller.dn, priority_rules(caller))
    return preflight.check(caller.rooms.data, submitter, new, look_for_inputs=look_for_inputs)


def _checked(one: Checked) -> dict[str, Any]:
    choice = one.choice
    changes = {change.field: change.value for change in choice.advice.changes} if choice.advice else {}
    return {
        "runnable": one.runnable,
        "site": choice.queue,
        "possible": [candidate.queue for candidate in choice.candidates],
        "more": choice.more,
        "expectedWait": None if one.expected_wait_s is None else round(one.expected_wait_s),
        "advice": choice.advice.text if choice.advice else "",
        "changes": _on_the_wire(changes),
        "warnings": [_warning(warned) for warned in one.warnings],
        "rejected": [
            {"sites": list(r.queues), "criterion": r.criterion, "reason": r.reason, "value": r.value, "limit": r.limit}
            for r in choice.rejected
        ],
    }


def _warning(warned: Warned) -> dict[str, Any]:
    return {"code": warned.code, "text": warned.text, "field": warned.field}


def warnings_about(caller: Caller, new: Sequence[NewJob]) -> dict[int, list[dict[str, Any]]]:
    """Give what the submitter of jobs should know, by their places: each once, with the number of jobs it is about.

    Inputs are looked for where the catalogue is the server's own; another's might be slow.
    """
    local = caller.rooms.config.ddm.backend == _LOCAL
    places: dict[Warned, list[int]] = {}
    for place, one in enumerate(_check(caller, new, look_for_inputs=local)):
        for warned in one.warnings:
            places.setdefault(warned, []).append(place)
    found: dict[int, list[dict[str, Any]]] = {}
    for warned, where in places.items():
        found.setdefault(where[0], []).append(_warning(warned) | {"jobs": len(where)})
    return found


_JOB_ID = Param("job_id", values.whole_number)
WHY_CALLS = (
    Call("job/get_reasons", "getBrokerageReasons", READ, get_reasons, (_JOB_ID,)),
    Call("job/why", "whyJob", READ, why, (_JOB_ID,)),
    Call("job/check", "checkJobs", SUBMIT, check_jobs, (Param("jobs", values.from_json),)),
)
