"""Calls that users make: submit, look, kill."""

from __future__ import annotations

from typing import Any

from pandaserver.errors import BadInput
from pandaserver.userinterface import manage
from pandaserver.userinterface.submit import User, submit
from pandaserver.web import values
from pandaserver.web.calls import Call, Caller, Param
from pandaserver.web.describe import describe
from pandaserver.web.identity import compact_name
from pandaserver.web.newjobs import priority_rules, read_new
from pandaserver.web.pickle_answers import job_spec
from pandaserver.web.roles import OWN, OWN_OR_OPERATOR, READ, SUBMIT, Reach
from pandaserver.web.why_calls import warnings_about

_MAX_KEY = 64
_IDS = Param("job_ids", values.job_ids, also=("ids",))


def submit_jobs(caller: Caller, jobs: Any, clientKey: str) -> list[Any]:  # noqa: N803 - its name on the wire
    """Accept jobs; answer [PandaID, jobDefinitionID, {"jobsetID": n}] for each.

    What the submitter should know stands as `warnings` beside the jobsetID of the first job that it is about.
    """
    new = read_new(caller, jobs)
    user, key = User(caller.dn, compact_name(caller.dn)), clientKey or _key_of_header(caller.client_key)
    submitted = submit(caller.rooms.buffer, user, new, client_key=key, rules=priority_rules(caller))
    warnings = warnings_about(caller, new)
    told = ({"warnings": warnings[place]} if place in warnings else {} for place in range(len(submitted)))
    return [[s.job_id, s.definition_id, {"jobsetID": s.jobset_id} | w] for s, w in zip(submitted, told, strict=True)]


def _client_key(value: Any) -> str:
    key = values.text(value)
    if len(key) > _MAX_KEY:
        raise ValueError(f"a client key has at most {_MAX_KEY} characters, this one {len(key)}")
    return key


def _key_of_header(value: str) -> str:
    try:
        return _client_key(value)
    except ValueError as error:
        raise BadInput(f"header Idempotency-Key: {error}", field="Idempotency-Key", value=value) from error


def describe_jobs(caller: Caller, job_ids: list[int]) -> list[Any]:
    """Describe jobs in the order asked, null for unknown ones."""
    return [None if d is None else describe(d) for d in manage.describe(caller.rooms.buffer, job_ids)]


def kill_jobs(caller: Caller, job_ids: list[int], **_old: Any) -> list[bool]:
    """Kill jobs."""
    operator = caller.permit.reach is Reach.ALL
    return manage.kill(caller.rooms.buffer, job_ids, dn=caller.dn, operator=operator)


def get_retries(caller: Caller, job_id: int) -> list[dict[str, Any]]:
    """Tell what was decided after each failed attempt."""
    found = manage.retries_of(caller.rooms.buffer, job_id)
    return [
        {
            "attempt": r.attempt,
            "site": r.queue,
            "rule": r.rule,
            "action": r.action.value,
            "passive": r.passive,
            "done": r.done,
            "reason": r.reason,
            "time": r.at,
        }
        for r in found
    ]


_HOW_TO_SEND = "no file came: send it as the part `file` of a multipart form (curl -F file=@NAME)"


def _no_file(_value: Any) -> None:
    """Refuse text where a file is meant."""
    raise ValueError(_HOW_TO_SEND)


def upload(caller: Caller, **_text: Any) -> str:
    """Keep an uploaded sandbox file."""
    if caller.upload is None:
        raise BadInput(_HOW_TO_SEND, field="file")
    kept = caller.rooms.sandbox.put(caller.upload.name, caller.dn, caller.upload.stream)
    return f"{caller.rooms.config.server.public_url}/cache/{kept.name}"


def _specs(described: list[Any]) -> list[Any]:
    return [job_spec(each) for each in described]


USER_CALLS = (
    Call(
        "job/submit", "submitJobs", SUBMIT, submit_jobs,
        (Param("jobs", values.from_json), Param("clientKey", _client_key, required=False, default="")), writes=True,
        pickled="jobs",
    ),
    Call(
        "job/get_description", "getJobStatus", READ, describe_jobs, (_IDS,),
        pickled="ids", pickled_answer=_specs,
    ),
    Call(
        "job/get_description_incl_archive", "getFullJobStatus", READ, describe_jobs, (_IDS,),
        pickled="ids", pickled_answer=_specs,
    ),
    Call(
        "job/kill", "killJobs", OWN_OR_OPERATOR, kill_jobs,
        (
            _IDS,
            Param("code", values.text, required=False),
            Param("use_email_as_id", lambda value: value, required=False, also=("useMailAsID",)),
            Param("kill_options", lambda value: value, required=False, also=("killOpts",)),
        ),
        writes=True, pickled="ids",
    ),
    Call("job/get_retries", "getRetries", READ, get_retries, (Param("job_id", values.whole_number),)),
    Call(
        "file_server/upload_cache_file", "putFile", OWN, upload,
        (Param("file", _no_file, required=False),), writes=True, takes_file=True, legacy_answer=lambda _data: "True",
    ),
)  # fmt: skip
