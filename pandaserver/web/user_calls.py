"""Calls that users make: submit, look, kill, ask why."""

from __future__ import annotations

from typing import Any

from pandaserver.errors import BadInput
from pandaserver.model.priority import PriorityRules
from pandaserver.userinterface import manage
from pandaserver.userinterface.submit import User, submit
from pandaserver.web import values
from pandaserver.web.access import as_produced
from pandaserver.web.calls import Call, Caller, Param
from pandaserver.web.describe import describe
from pandaserver.web.identity import compact_name
from pandaserver.web.jobwire import read_jobs
from pandaserver.web.membership import as_member
from pandaserver.web.pickle_answers import job_spec
from pandaserver.web.roles import OWN, OWN_OR_OPERATOR, READ, SUBMIT, Reach, Role, scopes_of

_MAX_KEY = 64
_IDS = Param("job_ids", values.job_ids, also=("ids",))


def submit_jobs(caller: Caller, jobs: Any, clientKey: str) -> list[Any]:  # noqa: N803 - its name on the wire
    """Accept jobs; answer [PandaID, jobDefinitionID, {"jobsetID": n}] for each."""
    config, identity = caller.rooms.config, caller.known
    _check_number(jobs, config.limits.jobs_per_submission)
    new = as_member(read_jobs(jobs, "" if identity.fqans else config.identity.default_vo), identity)
    scopes = scopes_of(identity, Role.PRODUCTION, config.identity)
    new = [as_produced(job, scopes, caller.dn) if job.production else job for job in new]
    user, key = User(caller.dn, compact_name(caller.dn)), clientKey or _key_of_header(caller.client_key)
    rules = PriorityRules(config.priority.raise_max or 0, config.priority.daily_cpu_s)
    submitted = submit(caller.rooms.buffer, user, new, client_key=key, rules=rules)
    return [[s.job_id, s.definition_id, {"jobsetID": s.jobset_id}] for s in submitted]


def _check_number(jobs: Any, most: int) -> None:
    if isinstance(jobs, list) and len(jobs) > most:
        raise BadInput(f"{len(jobs)} jobs submitted, 1 to {most} are accepted", field="jobs", value=len(jobs))


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


def get_reasons(caller: Caller, job_id: int) -> list[dict[str, Any]]:
    """Tell why a job went where it went."""
    found = manage.why(caller.rooms.buffer, job_id)
    return [{"site": r.site, "verdict": r.verdict, "reason": r.reason, "weight": r.weight, "time": r.at} for r in found]


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
    Call("job/get_reasons", "getBrokerageReasons", READ, get_reasons, (Param("job_id", values.whole_number),)),
    Call("job/get_retries", "getRetries", READ, get_retries, (Param("job_id", values.whole_number),)),
    Call(
        "file_server/upload_cache_file", "putFile", OWN, upload,
        (Param("file", _no_file, required=False),), writes=True, takes_file=True, legacy_answer=lambda _data: "True",
    ),
)  # fmt: skip
