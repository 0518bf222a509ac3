"""Writes jobs as clients read them: dictionaries by attribute name."""

from __future__ import annotations

from typing import Any

from pandaserver.model.attempt import Attempt
from pandaserver.model.codes import ErrorFamily
from pandaserver.model.file import File, FileType
from pandaserver.model.job import Job
from pandaserver.userinterface.manage import Description
from pandaserver.web.attributes import FILES, JOB_ATTRIBUTES


def describe(found: Description) -> dict[str, Any]:
    """Describe a job by all its wire attributes, unset ones as None, and its files."""
    job, details = found.one.job, found.details
    described: dict[str, Any] = dict.fromkeys(JOB_ATTRIBUTES)
    described |= details.attributes
    described |= _job_part(job)
    described |= {"jobParameters": details.parameters, "metadata": details.metadata or None}
    if found.attempts:
        described |= _attempt_part(found.attempts[-1])
    described |= _error_part(found)
    described[FILES] = [_file(f) for f in found.one.files]
    return described


def _job_part(job: Job) -> dict[str, Any]:
    return {
        "PandaID": job.job_id,
        "jobDefinitionID": job.definition_id,
        "jobsetID": job.jobset_id,
        "taskID": job.task_id,
        "jediTaskID": job.task_id or None,
        "parentID": job.parent_id or None,
        "jobName": job.name,
        "jobStatus": job.state.value,
        "prodSourceLabel": job.label,
        "processingType": job.processing_type,
        "prodUserID": job.owner,
        "prodUserName": job.owner_name,
        "VO": job.vo,
        "workingGroup": job.working_group or None,
        "transformation": job.transformation,
        "assignedPriority": job.assigned_priority,
        "currentPriority": job.priority,
        "attemptNr": job.attempt,
        "failedAttempt": job.failed_attempts,
        "maxAttempt": job.max_attempt,
        "computingSite": job.site,
        "relocationFlag": int(job.pinned),
        "cloud": job.cloud or None,
        "AtlasRelease": job.release or None,
        "cmtConfig": job.platform or None,
        "prodDBlock": job.input_dataset or None,
        "dispatchDBlock": job.dispatch_dataset,
        "destinationDBlock": job.output_dataset or None,
        "destinationSE": job.destination or None,
        "coreCount": job.cores,
        "minRamCount": job.memory_mb,
        "maxDiskCount": job.disk_mb,
        "maxCpuCount": job.cpu_time_s,
        "maxWalltime": job.wall_time_s,
        "commandToPilot": job.command,
        "creationTime": job.created_at,
        "modificationTime": job.modified_at,
        "stateChangeTime": job.state_since,
        "startTime": job.started_at,
        "endTime": job.ended_at,
    }


def _attempt_part(attempt: Attempt) -> dict[str, Any]:
    told = {name: value for name, value in attempt.usage.items() if name in JOB_ATTRIBUTES and name != "coreCount"}
    return told | {
        "computingElement": attempt.computing_element or None,
        "schedulerID": attempt.scheduler_id or None,
        "pilotID": attempt.pilot_id or None,
        "modificationHost": attempt.node or None,
        "transExitCode": attempt.exit_code,
        "cpuConsumptionTime": attempt.cpu_time_s,
        "cpuConsumptionUnit": told.get("cpuConsumptionUnit") or "s",
        "actualCoreCount": attempt.usage.get("coreCount"),
        "maxRSS": attempt.max_rss_kb,
        "pilotTiming": attempt.timing,
    }


def _error_part(found: Description) -> dict[str, Any]:
    """Give the errors of the current attempt, by family; the last of each counts."""
    part: dict[str, Any] = {f"{family}ErrorCode": 0 for family in ErrorFamily}
    for recorded in found.errors:
        if recorded.attempt == found.one.job.attempt:
            part[f"{recorded.error.family}ErrorCode"] = recorded.error.code
            part[f"{recorded.error.family}ErrorDiag"] = recorded.error.diagnostic
    return part


def _file(file: File) -> dict[str, Any]:
    is_input = file.type is FileType.INPUT
    return {
        "row_ID": file.file_id,
        "PandaID": file.job_id,
        "GUID": file.guid,
        "lfn": file.lfn,
        "type": file.type.value,
        "dataset": file.dataset,
        "status": file.status.value,
        "prodDBlock": file.dataset if is_input else None,
        "dispatchDBlock": file.block if is_input else None,
        "destinationDBlock": None if is_input else file.block or file.dataset,
        "destinationSE": file.endpoint or file.destination,
        "fsize": file.size_bytes,
        "checksum": file.checksum,
        "scope": file.scope,
    }
