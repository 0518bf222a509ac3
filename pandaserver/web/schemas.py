"""What goes in and out of the calls, as JSON Schema for the OpenAPI document: tools make clients and tests of it.

The server takes more than is promised here (digits for numbers, one id for a list, names of other years), and a call
that is not listed takes and gives anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pandaserver.web.attributes import FILES, JOB_ATTRIBUTES

Schema = Mapping[str, Any]

_LARGEST = 2**62
_MOST_JOBS, _MOST_IN_BULK, _MOST_UPDATES = 5000, 100, 1000


def _text(most: int | None = None, **more: Any) -> dict[str, Any]:
    """Describe text without zero bytes."""
    schema = {"type": "string", "pattern": r"^[^\u0000]*$"} | more
    return schema if most is None else schema | {"maxLength": most}


def _object(required: str = "", **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required.split(), "properties": properties}


def _list(items: Any, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items} | more


def _by_name(values: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": values}


INTEGER, NUMBER, STRING, BOOLEAN = ({"type": kind} for kind in ("integer", "number", "string", "boolean"))
ID = {"type": "integer", "minimum": -_LARGEST, "maximum": _LARGEST}
IDS = _list(ID, maxItems=_MOST_JOBS)
_AMOUNT = {"type": "number", "minimum": 0, "maximum": _LARGEST}
_MOMENT = _object("__datetime__", __datetime__=STRING)
_STATES = ["starting", "running", "setup", "stagein", "stageout", "holding", "transferring", "finished", "failed"]

# ---- jobs

_PLACES = r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63}(,[A-Za-z0-9][A-Za-z0-9._-]{0,63}){0,1})?$"  # two here, as many as fit
_FILE = _object(
    "type lfn",
    type={"enum": ["input", "output", "log"]},
    lfn=_text(255, minLength=1),
    dataset=_text(180),
    scope=_text(64),
    GUID={"type": "string", "pattern": r"^[0-9A-Za-z_-]{1,64}$"},
    fsize={"type": "integer", "minimum": 0, "maximum": _LARGEST},
    checksum={"type": "string", "pattern": r"^(ad:|md5:|md:)?[0-9A-Fa-f]{1,60}$"},
    destinationSE=_text(64),
)
_NEW_JOB = _object(
    "transformation",
    transformation=_text(1024, minLength=1),
    jobParameters=_text(1_000_000),
    jobName=_text(255),
    prodSourceLabel=_text(64),
    processingType=_text(64),
    includedSite=_text(255, pattern=_PLACES),
    excludedSite=_text(255, pattern=_PLACES),
    VO=_text(64),
    workingGroup=_text(64),
    computingSite=_text(64),
    prodDBlock=_text(180),
    destinationDBlock=_text(180),
    destinationSE=_text(64),
    assignedPriority={"type": "integer", "minimum": -1_000_000, "maximum": 1_000_000},
    **{
        name: {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
        for name in ("maxAttempt", "coreCount", "minRamCount", "maxDiskCount", "maxCpuCount", "maxWalltime")
    },
    **{FILES: _list(_FILE)},
)
_JOB = _object(" ".join((*JOB_ATTRIBUTES, FILES)), PandaID=INTEGER, jobStatus=STRING, Files=_list({"type": "object"}))
_JOBS = _list({"anyOf": [_JOB, {"type": "null"}]})

# ---- pilots

_COUNT = {"type": "integer", "minimum": 1, "maximum": _MOST_IN_BULK}
_CLAIM = _object(
    "siteName",
    siteName=_text(64, minLength=1, description="the queue"),
    prodSourceLabel=_text(64),
    node=_text(),
    computingElement=_text(),
    mem=_AMOUNT | {"description": "MB"},
    diskSpace=_AMOUNT | {"description": "MB"},
    remainingTime=_AMOUNT | {"description": "seconds"},
    coreCount={"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
    vo=_text(64),
    workingGroup=_text(255),
    prodUserID=_text(255, description="a DN: only jobs of this user"),
    schedulerID=_text(),
    pilotID=_text(),
    requestId=_text(64, description="the same request repeated gets the same jobs"),
    nJobs=_COUNT,
    wait=_AMOUNT | {"description": "seconds for which to wait for a job"},
)
_WORD = _object(
    "jobId state",
    jobId=ID,
    state={"enum": _STATES},
    attemptNr={"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
    jobToken=_text(128, description="as it came with the job"),
    node=_text(),
    cpuConsumptionTime=_AMOUNT | {"description": "seconds"},
    maxRSS=_AMOUNT | {"description": "kB"},
    pilotTiming=_text(),
    transExitCode=_text(),
    pilotErrorCode={"type": "integer", "minimum": -(2**31 - 1), "maximum": 2**31 - 1},
    pilotErrorDiag=_text(),
    exeErrorCode={"type": "integer", "minimum": -(2**31 - 1), "maximum": 2**31 - 1},
    exeErrorDiag=_text(),
    stdout=_text(),
    pilotLog=_text(),
    metaData=_text(),
    xml={
        "description": "the files that were stored, by name",
        "type": "object",
        "additionalProperties": _object(
            "fsize adler32",
            fsize={"type": "integer", "minimum": 0, "maximum": _LARGEST},
            adler32={"type": "string", "pattern": "^[0-9a-f]{8}$"},
            guid=_text(64),
            endpoint=_text(64),
            staged=BOOLEAN,
        ),
        "propertyNames": _text(255),
    },
)
_SAID = _object("StatusCode", StatusCode=INTEGER, command=STRING, message=STRING)

# ---- by call: what goes in

PARAMETERS: Mapping[str, Mapping[str, Schema]] = {
    "job/submit": {
        "jobs": {
            "description": "jobs by attribute name, or the same as JSON text",
            "anyOf": [_list(_NEW_JOB, minItems=1, maxItems=_MOST_JOBS), {"type": "string"}],
        },
        "clientKey": _text(64, description="repeated with its key, a submission is answered as before"),
    },
    "queue/set_status": {
        "status": {"enum": ["online", "test", "brokeroff", "offline"]},
        "reason": _text(500, minLength=1),
        "until": {"type": "string", "format": "date-time"},
    },
    "queue/clear_status": {"reason": _text(500)},
    "pilot/acquire_jobs": _CLAIM["properties"],
    "pilot/update_job": _WORD["properties"],
    "pilot/update_jobs_bulk": {"jobList": _list(_WORD, maxItems=_MOST_UPDATES)},
    "creds/set_user_secrets": {
        "key": {"type": "string", "pattern": r"^[A-Za-z0-9_.:+-]{1,200}$"},
        "value": _text(1_000_000),
    },
    "creds/get_user_secrets": {"keys": _list(_text())},
}
REQUIRED = {  # of calls that read what came by themselves
    "pilot/acquire_jobs": _CLAIM["required"],
    "pilot/update_job": _WORD["required"],
    "pilot/update_jobs_bulk": ["jobList"],
}

# ---- by call: what comes out

_QUEUE = _object("nickname siteid status astorages heartbeat_s", nickname=STRING, status=STRING)
_STANDING = _object("queue status standing", queue=STRING, status=STRING, standing={"type": "object"})
_FACTS = _object(
    "scope lfn guid fsize checksum replicas", lfn=STRING, fsize=INTEGER, replicas=_list({"type": "object"})
)
_ROUND = _object("time site advice reasons", time=_MOMENT, advice=STRING, reasons=_list({"type": "object"}))
_WARNING = _object("code text field", code=STRING, text=STRING, field=STRING)
ANSWERS: Mapping[str, Schema] = {
    "system/is_alive": {"const": "alive=yes"},
    "system/get_attributes": _object("identity parameters environment", identity={"type": "object"}),
    "system/get_timeouts": _list(_object("state subject after_s action code", state=STRING, after_s=INTEGER)),
    "system/get_retry_rules": _list({"type": "object"}),
    "system/get_roles": _object("you calls", you=_object("dn roles"), calls=_list(_object("call allows you"))),
    "statistics/job_stats_by_site": _by_name(_by_name(INTEGER)),
    "queue/list": _by_name(_QUEUE),
    "queue/get": _QUEUE,
    "queue/set_status": _STANDING,
    "queue/clear_status": _STANDING,
    "queue/history": _list(_object("time action to by reason", time=_MOMENT, to=STRING, reason=STRING)),
    "share/list": _list({"type": "object"}),
    "data/list_files": _list(_FACTS),
    "data/get_dataset": _object("name type status", name=STRING, type=STRING, status=STRING, created_at=_MOMENT),
    "data/dataset_completed": {"const": "True"},
    "job/submit": _list(_list({"type": ["integer", "object"]}, minItems=3, maxItems=3)),
    "job/get_description": _JOBS,
    "job/get_description_incl_archive": _JOBS,
    "job/kill": _list(BOOLEAN),
    "job/get_reasons": _list(_object("site verdict reason time", verdict=STRING, time=_MOMENT)),
    "job/why": _object("PandaID jobStatus text advice rounds", PandaID=INTEGER, text=STRING, rounds=_list(_ROUND)),
    "job/check": _list(
        _object("runnable site warnings advice", runnable=BOOLEAN, advice=STRING, warnings=_list(_WARNING))
    ),
    "job/get_retries": _list(_object("attempt rule action reason time", attempt=INTEGER, time=_MOMENT)),
    "file_server/upload_cache_file": {"type": "string", "pattern": "/cache/"},
    "pilot/acquire_jobs": _object("StatusCode", StatusCode={"enum": [0, 20]}, PandaID=INTEGER, jobToken=STRING),
    "pilot/update_job": _SAID,
    "pilot/update_jobs_bulk": _list(_SAID),
    "creds/set_user_secrets": {"const": True},
    "creds/get_user_secrets": STRING | {"description": "a JSON object by name, as text"},
    "creds/get_job_secrets": _by_name(STRING),
}
