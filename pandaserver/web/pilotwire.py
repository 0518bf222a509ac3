"""Speaks with pilots: what getJob asks and gets, what updateJob says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pandaserver.errors import BadInput
from pandaserver.jobdispatcher.dispatcher import Claim
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
_EXTRACT, _STDOUT, _METADATA = 4096, 4096, 1_000_000  # characters kept


def read_claim(told: Mapping[str, Any], pilot: str) -> ClaimRequest:
    """Read a getJob request.

    Raises:
        BadInput: naming the field that is wrong.
    """
    queue = _text(told, "siteName", 64)
    if not queue:
        raise BadInput("siteName is missing: which queue is the pilot for?", field="siteName")
    return ClaimRequest(
        queue=queue,
        labels=labels_for(_text(told, "prodSourceLabel", 64)),
        memory_mb=int(_number(told, "mem") or 0),
        disk_mb=int(_number(told, "diskSpace") or 0),
        remaining_s=int(_number(told, "remainingTime") or 0),
        pilot=pilot,
        node=_text(told, "node", 255),
        computing_element=_text(told, "computingElement", 255),
        scheduler_id=_text(told, "schedulerID", 255),
        pilot_id=_text(told, "pilotID", 255),
        request_id=_text(told, "requestId", 64),
    )


def write_claim(claim: Claim | None) -> dict[str, Any]:
    """Write the answer to getJob; lists are comma-joined strings, position by position."""
    if claim is None:
        return {"StatusCode": NO_JOBS, "errorDialog": "no job for this queue now"}
    inputs = [f for f in claim.files if f.type is FileType.INPUT]
    outputs = [f for f in claim.files if f.type is FileType.OUTPUT]
    logs = [f for f in claim.files if f.type is FileType.LOG]
    answer = {"StatusCode": OK} | _job(claim) | _inputs(inputs, claim.queue.endpoint)
    answer |= _outputs(outputs, logs, claim.queue.endpoint)
    return answer | {
        "jobToken": claim.token,
        "heartbeatInterval": claim.queue.heartbeat_s,
        "leaseTime": claim.lease_s,
    }


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
        "fileDestinationSE": _join(f.destination or "NULL" for f in every),
        "destinationSE": every[0].destination or "NULL" if every else "NULL",
        "ddmEndPointOut": _join(endpoint for _ in every),
        "logFile": log.lfn if log else "NULL",
        "logGUID": (log.guid if log else None) or "NULL",
        "scopeLog": log.scope if log else "NULL",
    }


def _join(parts: Any) -> str:
    return ",".join(parts)


def read_report(told: Mapping[str, Any], pilot: str) -> PilotReport:
    """Read an updateJob request.

    Raises:
        BadInput: naming the field that is wrong.
    """
    state = _text(told, "state", 32)
    if state not in _STATES:
        raise BadInput(f"state is one of {', '.join(_STATES)}", field="state", value=state)
    job_id = _number(told, "jobId")
    if job_id is None:
        raise BadInput("jobId is missing: which job is it about?", field="jobId")
    attempt = _number(told, "attemptNr")
    rss = _number(told, "maxRSS")
    return PilotReport(
        job_id=int(job_id),
        attempt=None if attempt is None else int(attempt),
        token=_text(told, "jobToken", 128) or None,
        pilot=pilot,
        state=_STATES[state],
        node=_text(told, "node", 255),
        cpu_time_s=_number(told, "cpuConsumptionTime"),
        max_rss_kb=None if rss is None else int(rss),
        timing=_text(told, "pilotTiming", 64) or None,
        exit_code=_text(told, "transExitCode", 64) or None,
        errors=tuple(_errors(told)),
        outputs=tuple(_read_outputs(told.get("xml"))),
        metadata=_text(told, "metaData", _METADATA),
        log_extract=_text(told, "pilotLog", _EXTRACT),
        stdout_tail=_text(told, "stdout", _STDOUT, keep_end=True),
        usage={name: told[name] for name in _USAGE if isinstance(told.get(name), (str, int, float))},
    )


def _errors(told: Mapping[str, Any]) -> list[JobError]:
    found = []
    for family in (ErrorFamily.PILOT, ErrorFamily.PAYLOAD, ErrorFamily.SUBMISSION, ErrorFamily.DDM):
        code = _number(told, f"{family}ErrorCode")
        if code:
            found.append(JobError(family, int(code), _text(told, f"{family}ErrorDiag", 500)))
    return found


def _read_outputs(xml: Any) -> list[OutputReport]:
    """Read the catalogue of stored files: JSON text by file name, under its old name xml."""
    if xml in (None, "", "NULL"):
        return []
    try:
        told = values.from_json(xml)
        if not isinstance(told, dict):
            raise ValueError("a JSON object by file name is expected")
        return [_read_output(lfn, facts) for lfn, facts in told.items()]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"xml: {error}", field="xml", value=xml) from error


def _read_output(lfn: str, facts: Mapping[str, Any]) -> OutputReport:
    size, adler32 = facts.get("fsize"), str(facts.get("adler32") or "").lower().removeprefix("ad:")
    if size is None or not adler32:
        raise ValueError(f"{lfn} has no fsize or no adler32: it cannot be verified")
    return OutputReport(
        lfn=lfn,
        guid=str(facts.get("guid") or "")[:64],
        size_bytes=values.whole_number(size),
        adler32=adler32[-8:].rjust(8, "0"),
        endpoint=str(facts.get("endpoint") or "")[:64],
    )


def _text(told: Mapping[str, Any], name: str, most: int, *, keep_end: bool = False) -> str:
    """Read text generously: pilots send numbers and nulls where text is meant, and more of it than is kept."""
    value = told.get(name)
    if value is None or value == "NULL":
        return ""
    text = str(value).replace("\x00", "")
    return text[-most:] if keep_end else text[:most]


def _number(told: Mapping[str, Any], name: str) -> float | None:
    value = told.get(name)
    if value in (None, "", "NULL"):
        return None
    try:
        return values.number(value)
    except ValueError as error:
        raise BadInput(f"{name}: {error}", field=name, value=value) from error
