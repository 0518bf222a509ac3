"""Speaks with pilots: what getJob asks and gets, what updateJob says."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pandaserver.errors import BadInput, shorten
from pandaserver.jobdispatcher.claims import Claim
from pandaserver.jobdispatcher.policy import labels_for
from pandaserver.model.attempt import ClaimRequest, OutputReport, PilotReport
from pandaserver.model.codes import ErrorFamily, JobError
from pandaserver.model.file import File, FileType
from pandaserver.web import values

OK, NO_JOBS, FAILED, NOT_SECURE, NO_PERMISSION = 0, 20, 30, 40, 70  # StatusCode

_STATES = {
    "starting": "starting",
    "running": "running",
    "setup": "running",
    "stagein": "running",
    "stageout": "running",
    "holding": "running",
    "transferring": "running",
    "finished": "finished",
    "failed": "failed",
}
_USAGE = """
    cpuConsumptionUnit maxVMEM maxPSS avgRSS avgPSS totRBYTES totWBYTES coreCount jobMetrics jobSubStatus batchID
    nEvents
""".split()
_EXTRACT, _STDOUT, _METADATA, _USAGE_TEXT = 4096, 4096, 1_000_000, 1000  # characters kept
_LARGEST, _LARGEST_CODE = 2**62, 2**31 - 1  # what the tables hold
_UNSET = (None, "", "NULL", "None")
_ADLER32 = re.compile(r"[0-9a-f]{1,8}")
_MAX_REQUEST_ID, _MAX_LFN = 64, 255
_CORES, _VO = ("coreCount", "nCores", "cores"), ("vo", "VO")  # as pilots of different years say it
_MOST_JOBS, _MOST_UPDATES = 100, 1000  # in one call


def read_claim(told: Mapping[str, Any], pilot: str) -> ClaimRequest:
    """Read a getJob request.

    siteName names the queue. All else narrows down what the pilot gets, and no limit is what it does not say:
    prodSourceLabel the kind of jobs; coreCount (or nCores, cores), mem and diskSpace in MB, remainingTime in seconds
    the most that a job may ask for; vo (or VO), prodUserID (a DN) and workingGroup whose jobs they are.

    Raises:
        BadInput: naming the field that is wrong.
    """
    queue = _text(told, "siteName", 64)
    if not queue:
        raise BadInput("siteName is missing: which queue is the pilot for?", field="siteName")
    return ClaimRequest(
        queue=queue,
        labels=labels_for(_text(told, "prodSourceLabel", 64)),
        memory_mb=_amount(told, "mem") or 0,
        disk_mb=_amount(told, "diskSpace") or 0,
        remaining_s=_amount(told, "remainingTime") or 0,
        cores=_cores(told, _first_said(told, _CORES)),
        vo=_whole_text(told, _first_said(told, _VO), 64),
        owner=_whole_text(told, "prodUserID", 255),
        working_group=_whole_text(told, "workingGroup", 255),
        pilot=pilot,
        node=_text(told, "node", 255),
        computing_element=_text(told, "computingElement", 255),
        scheduler_id=_text(told, "schedulerID", 255),
        pilot_id=_text(told, "pilotID", 255),
        request_id=_whole_text(told, "requestId", _MAX_REQUEST_ID),
    )


def _first_said(told: Mapping[str, Any], names: Sequence[str]) -> str:
    return next((name for name in names if told.get(name) not in _UNSET), names[0])


def _cores(told: Mapping[str, Any], name: str) -> int:
    number = _number(told, name, least=0) or 0.0
    if not number.is_integer():
        raise BadInput(f"{name}: a whole number is expected", field=name, value=told[name])
    return int(number)


def _whole_text(told: Mapping[str, Any], name: str, most: int) -> str:
    """Read text whole or not at all: what is cut could be equal to somebody else's."""
    text = _text(told, name, most + 1)
    if len(text) > most:
        raise BadInput(f"{name} has more than {most} characters", field=name, value=text)
    return text


def read_number_of_jobs(told: Mapping[str, Any]) -> int:
    """Read how many jobs a getJob request asks for."""
    name = "n_jobs" if "n_jobs" in told else "nJobs"
    number = _whole(told, name)
    if number is not None and not 1 <= number <= _MOST_JOBS:
        raise BadInput(f"{name}: from 1 to {_MOST_JOBS} jobs can be asked for at once", field=name, value=number)
    return number or 1


def read_wait(told: Mapping[str, Any]) -> float:
    """Read for how many seconds the pilot would wait for an answer with a job."""
    return _number(told, "wait", least=0) or 0.0


def for_each_job(request: ClaimRequest, number: int) -> list[ClaimRequest]:
    """Make a request for each of several jobs; each has a request id of its own, always the same."""
    return [request, *(replace(request, request_id=_nth(request.request_id, n)) for n in range(1, number))]


def _nth(request_id: str, number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{number} {request_id}")) if request_id else ""


def write_no_job(retry_after_s: int | None = None) -> dict[str, Any]:
    """Say that there is no job, and when to ask again if that matters."""
    answer: dict[str, Any] = {"StatusCode": NO_JOBS, "errorDialog": "no job for this queue now"}
    return answer if retry_after_s is None else answer | {"retryAfter": retry_after_s}


def write_claims(claims: Sequence[Claim]) -> dict[str, Any]:
    """Write the answer to a getJob that asked for several jobs and gets some."""
    return {"StatusCode": OK, "jobs": [write_claim(claim) for claim in claims]}


def write_claim(claim: Claim) -> dict[str, Any]:
    """Write the answer to getJob with a job; lists are comma-joined strings, position by position."""
    inputs = [f for f in claim.files if f.type is FileType.INPUT]
    outputs = [f for f in claim.files if f.type is FileType.OUTPUT]
    logs = [f for f in claim.files if f.type is FileType.LOG]
    answer = {"StatusCode": OK} | _job(claim) | _inputs(inputs, claim.queue.endpoint)
    answer |= _outputs(outputs, logs, claim.queue.endpoint)
    return (
        answer
        | {
            "jobToken": claim.token,
            "heartbeatInterval": claim.queue.heartbeat_s,
            "leaseTime": claim.lease_s,
        }
        | ({"outSuffix": claim.output_suffix} if claim.output_suffix else {})
    )


def _job(claim: Claim) -> dict[str, Any]:
    job, queue = claim.job, claim.queue
    return {
        "PandaID": job.job_id,
        "jobName": job.name or "NULL",
        "jobDefinitionID": job.definition_id,
        "jobsetID": job.jobset_id,
        "taskID": job.task_id,
        "attemptNr": job.attempt,
        "prodUserID": job.owner,
        "prodSourceLabel": job.label,
        "processingType": job.processing_type or "NULL",
        "transformation": job.transformation,
        "jobPars": claim.parameters,
        "swRelease": job.release or "NULL",
        "homepackage": str(claim.attributes.get("homepackage", "NULL")),
        "cmtConfig": job.platform or "NULL",
        "coreCount": job.cores,
        "minRamCount": job.memory_mb,
        "maxDiskCount": job.disk_mb,
        "maxCpuCount": job.cpu_time_s,
        "maxWalltime": job.wall_time_s or queue.max_wall_time_s,
        "currentPriority": job.priority,
        "cloud": queue.cloud,
        "transferType": "NULL",
        "sourceSite": "NULL",
        "nSent": 0,
    }


def _inputs(inputs: Sequence[File], endpoint: str) -> dict[str, Any]:
    return {
        "inFiles": _join(f.lfn for f in inputs),
        "scopeIn": _join(f.scope for f in inputs),
        "realDatasetsIn": _join(f.dataset for f in inputs),
        "prodDBlocks": _join(f.dataset for f in inputs),
        "dispatchDblock": _join(f.block or "NULL" for f in inputs),
        "GUID": _join(f.guid or "NULL" for f in inputs),
        "fsize": _join(str(f.size_bytes or 0) for f in inputs),
        "checksum": _join(f.checksum or "NULL" for f in inputs),
        "ddmEndPointIn": _join(endpoint for _ in inputs),
        "prodDBlockToken": _join("NULL" for _ in inputs),
    }


def _outputs(outputs: Sequence[File], logs: Sequence[File], endpoint: str) -> dict[str, Any]:
    every = [*outputs, *logs]
    log = logs[0] if logs else None
    return {
        "outFiles": _join(f.lfn for f in every),
        "scopeOut": _join(f.scope for f in outputs),
        "realDatasets": _join(f.dataset for f in every),
        "destinationDblock": _join(f.block or f.dataset for f in every),
        "destinationDBlockToken": _join("NULL" for _ in every),
        "fileDestinationSE": _join(f.endpoint or f.destination or "NULL" for f in every),
        "destinationSE": every[0].endpoint or "NULL" if every else "NULL",
        "ddmEndPointOut": _join(endpoint for _ in every),
        "logFile": log.lfn if log else "NULL",
        "logGUID": (log.guid if log else None) or "NULL",
        "scopeLog": log.scope if log else "NULL",
    }


def _join(parts: Any) -> str:
    return ",".join(parts)


def read_list_of_updates(told: Mapping[str, Any]) -> list[Any]:
    """Read what several updateJob requests in one are: a list, or JSON text of one."""
    name = "job_list" if "job_list" in told else "jobList"
    if told.get(name) in _UNSET:
        raise BadInput(f"{name} is missing: a list of updates", field=name)
    updates = _read(values.from_json, name, told[name])
    if not isinstance(updates, list):
        raise BadInput(f"{name}: a list is expected, not {type(updates).__name__}", field=name, value=updates)
    if len(updates) > _MOST_UPDATES:
        text = f"{name} has {len(updates)} updates, at most {_MOST_UPDATES} are taken at once"
        raise BadInput(text, field=name)
    return updates


def read_report(told: Mapping[str, Any], pilot: str) -> PilotReport:
    """Read an updateJob request.

    Raises:
        BadInput: naming the field that is wrong.
    """
    state = _text(told, "state", 32)
    if state not in _STATES:
        raise BadInput(f"state is one of {', '.join(_STATES)}", field="state", value=state)
    job_id = _whole(told, "jobId")
    if job_id is None:
        raise BadInput("jobId is missing: which job is it about?", field="jobId")
    return PilotReport(
        job_id=job_id,
        attempt=_whole(told, "attemptNr"),
        token=_text(told, "jobToken", 128) or None,
        pilot=pilot,
        state=_STATES[state],
        node=_text(told, "node", 255),
        cpu_time_s=_number(told, "cpuConsumptionTime", least=0),
        max_rss_kb=_amount(told, "maxRSS"),
        timing=_text(told, "pilotTiming", 64) or None,
        exit_code=_text(told, "transExitCode", 64) or None,
        errors=tuple(_errors(told)),
        outputs=tuple(_read_outputs(told.get("xml"))),
        metadata=_text(told, "metaData", _METADATA),
        log_extract=_text(told, "pilotLog", _EXTRACT) or _text(told, "pilotErrorDiag", 500),
        stdout_tail=_text(told, "stdout", _STDOUT, keep_end=True),
        usage={name: _usage(told, name) for name in _USAGE if told.get(name) not in _UNSET},
    )


def _usage(told: Mapping[str, Any], name: str) -> Any:
    value = told[name]
    return _text(told, name, _USAGE_TEXT) if isinstance(value, str) else _read(values.scalar, name, value)


def _errors(told: Mapping[str, Any]) -> list[JobError]:
    found = []
    for family in (ErrorFamily.PILOT, ErrorFamily.PAYLOAD, ErrorFamily.SUBMISSION, ErrorFamily.DDM):
        code = _whole(told, f"{family}ErrorCode", largest=_LARGEST_CODE)
        if code:
            found.append(JobError(family, code, _text(told, f"{family}ErrorDiag", 500)))
    return found


def _read_outputs(xml: Any) -> list[OutputReport]:
    """Read the catalogue of stored files: JSON text by file name, under its old name xml."""
    if xml in _UNSET:
        return []
    told = _read(values.from_json, "xml", xml)
    if not isinstance(told, dict):
        raise BadInput("xml: a JSON object by file name is expected", field="xml", value=xml)
    return [_read_output(lfn, facts) for lfn, facts in told.items()]


def _read_output(lfn: str, facts: Any) -> OutputReport:
    name = shorten(lfn)
    if not isinstance(facts, dict) or len(lfn) > _MAX_LFN:
        text = f"xml: {name}: facts by name, for a file name of at most {_MAX_LFN} characters, are expected"
        raise BadInput(text, field="xml", value=facts)
    size = facts.get("fsize")
    adler32 = _text(facts, "adler32", _MAX_LFN).lower().removeprefix("ad:")
    if size is None or not adler32:
        raise BadInput(f"xml: {name} has no fsize or no adler32: it cannot be verified", field="xml", value=facts)
    if not _ADLER32.fullmatch(adler32):
        raise BadInput(f"xml: {name}: adler32 is 8 hexadecimal digits", field="adler32", value=adler32)
    return OutputReport(
        lfn=_clean(lfn),
        guid=_text(facts, "guid", 64),
        size_bytes=_whole(facts, "fsize", least=0) or 0,
        adler32=adler32.rjust(8, "0"),
        endpoint=_text(facts, "endpoint", 64),
        staged=facts.get("staged") is True,
    )


def _text(told: Mapping[str, Any], name: str, most: int, *, keep_end: bool = False) -> str:
    """Read text generously: pilots send numbers and nulls where text is meant, and more of it than is kept."""
    value = told.get(name)
    if value in _UNSET:
        return ""
    if isinstance(value, (dict, list)):
        raise BadInput(f"{name}: text is expected, not {type(value).__name__}", field=name, value=value)
    text = _clean(str(value))
    return text[-most:] if keep_end else text[:most]


def _clean(text: str) -> str:
    """Take out what no database keeps: zero bytes and half characters, which payloads do print."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


def _number(told: Mapping[str, Any], name: str, *, least: float = -_LARGEST) -> float | None:
    value = told.get(name)
    if value in _UNSET:
        return None
    number = _read(values.number, name, value)
    if not least <= number <= _LARGEST:
        raise BadInput(f"{name}: a number from {least} to {_LARGEST} is expected", field=name, value=value)
    return float(number)


def _amount(told: Mapping[str, Any], name: str) -> int | None:
    """Read a size or a time, of which the fraction does not matter."""
    number = _number(told, name, least=0)
    return None if number is None else int(number)


def _whole(told: Mapping[str, Any], name: str, *, least: int | None = None, largest: int = _LARGEST) -> int | None:
    value = told.get(name)
    if value in _UNSET:
        return None
    number = int(_read(values.whole_number, name, value))
    if not (-largest if least is None else least) <= number <= largest:
        raise BadInput(f"{name}: the number is too small or too large", field=name, value=value)
    return number


def _read(reader: Callable[[Any], Any], name: str, value: Any) -> Any:
    try:
        return reader(value)
    except ValueError as error:
        raise BadInput(f"{name}: {error}", field=name, value=value) from error
