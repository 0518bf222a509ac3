"""What the server is told about a job, in its own words: heartbeats and the final report."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from pandapilot.codes import ErrorCode
from pandapilot.record import JobRecord
from pandapilot.states import WIRE_STATES, Phase
from pandapilot.text import clip, clip_start, printable
from pandapilot.transfers import Transferred

STDOUT_BYTES = 2048
EXTRACT_BYTES = 1024
DIAGNOSIS_BYTES = 500
METADATA_BYTES = 500_000
_KIB = 1024


@dataclass(frozen=True)
class Sender:
    """Who sends the updates."""

    site: str
    node: str
    pilot_id: str
    scheduler_id: str


def heartbeat(record: JobRecord, sender: Sender, *, now: float) -> dict[str, Any]:
    """Tell how the job is doing."""
    state = WIRE_STATES.get(record.phase, "running")
    return {**_common(record, sender, now=now), "state": state, "jobSubStatus": record.phase.value}


def final(record: JobRecord, sender: Sender, *, now: float) -> dict[str, Any]:
    """Tell how the job went; of a failed job only the log counts as transferred."""
    failure = record.failure
    exe_code, exe_message = record.executable_error()
    files = [*([] if failure else record.transferred), *([record.log] if record.log else [])]
    return {
        **_common(record, sender, now=now),
        "state": "failed" if failure else "finished",
        "endTime": record.ended or now,
        "pilotErrorCode": int(failure.code if failure else ErrorCode.NONE),
        "pilotErrorDiag": _diagnosis(record),
        "transExitCode": record.payload.exit_code if record.payload else 0,
        "exeErrorCode": exe_code,
        "exeErrorDiag": clip(printable(exe_message), DIAGNOSIS_BYTES),
        "pilotTiming": _timing(record),
        "pilotLog": record.extract if failure else "",
        "xml": catalogue(files),
        "metaData": record.job_report,
    }


def reduced(update: dict[str, Any]) -> dict[str, Any]:
    """Leave out all that came from the payload, for a server that did not swallow it."""
    return {name: value for name, value in update.items() if name not in ("metaData", "stdout", "pilotLog")}


def catalogue(files: Iterable[Transferred]) -> str:
    """Describe transferred files as the JSON text that the server expects under the old name xml."""
    return json.dumps(
        {
            file.lfn: {
                "guid": file.guid,
                "fsize": file.facts.size_bytes,
                "adler32": file.facts.adler32,
                "surl": file.surl,
                "endpoint": file.endpoint,
                **({"staged": True} if file.staged else {}),
            }
            for file in files
        }
    )


def extract(warnings: Iterable[str], stderr_tail: str) -> str:
    """Choose the last interesting lines: those of the pilot, then of the payload's standard error."""
    lines = [printable(line) for line in (*warnings, *stderr_tail.splitlines())]
    return clip_start("\n".join(lines), EXTRACT_BYTES)


def _common(record: JobRecord, sender: Sender, *, now: float) -> dict[str, Any]:
    memory = max(record.measured.memory_bytes, record.payload.max_memory_bytes if record.payload else 0)
    return {
        "jobId": str(record.job.job_id),
        "attemptNr": record.job.attempt_nr,
        "jobToken": record.job.token,
        "timestamp": datetime.fromtimestamp(now, timezone.utc).isoformat(),
        "siteName": sender.site,
        "node": sender.node,
        "schedulerID": sender.scheduler_id,
        "pilotID": sender.pilot_id,
        "startTime": record.started,
        "coreCount": record.job.core_count,
        "cpuConsumptionTime": round(record.cpu_s, 2),
        "cpuConsumptionUnit": "s",
        "maxRSS": memory // _KIB,
        "stdout": record.stdout_tail,
    }


def _diagnosis(record: JobRecord) -> str:
    failure = record.failure.diagnosis if record.failure else ""
    text = "; ".join(filter(None, (clip(failure, DIAGNOSIS_BYTES - 200), record.log_problem)))
    return clip(printable(text), DIAGNOSIS_BYTES)


def _timing(record: JobRecord) -> str:
    phases = (Phase.GET_JOB, Phase.STAGE_IN, Phase.RUN, Phase.STAGE_OUT, Phase.SET_UP)
    return "|".join(str(round(record.spent_s.get(phase, 0.0))) for phase in phases)
