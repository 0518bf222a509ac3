"""What users and pilots say in a measurement: as long and as full as what real ones say."""

from __future__ import annotations

import json
import time
import uuid
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

GET_JOB, UPDATE_JOB, SUBMIT = "/server/panda/getJob", "/server/panda/updateJob", "/server/panda/submitJobs"
DATASET = "bench.output"
LABEL = "managed"
MEMORY_MB, DISK_MB, WALL_TIME_S = 2000, 1000, 3600  # what the jobs ask for
CONTENT = b"what a job has made\n" * 5  # of every output file
_FACTS = {"fsize": len(CONTENT), "adler32": f"{zlib.adler32(CONTENT):08x}"}
_LOG_EXTRACT = "WARNING some line that a payload has written to its standard error\n" * 6
_STDOUT = "INFO event 1000 of 10000 done, 0.123 s per event\n" * 20
_REPORT = json.dumps(
    {"exitCode": 0, "resource": {f"step{n}": {"wall_s": 1.5, "events": 100, "name": "simulate"} for n in range(20)}}
)


def new_jobs(count: int) -> list[dict[str, Any]]:
    """Describe production jobs with one output each; the server adds the log."""
    return [_new_job(number) for number in range(count)]


def _new_job(number: int) -> dict[str, Any]:
    return {
        "jobName": f"bench-{number:05d}",
        "prodSourceLabel": LABEL,
        "transformation": "https://localhost/cache/simulate.py",
        "jobParameters": f"--events 1000 --seed {number} --output $PANDAID.root " + "--option value " * 10,
        "destinationDBlock": DATASET,
        "taskID": 7,
        "coreCount": 1,
        "minRamCount": MEMORY_MB,
        "maxDiskCount": DISK_MB,
        "maxWalltime": WALL_TIME_S,
        "currentPriority": 100,
        "Files": [{"type": "output", "lfn": f"bench.$PANDAID._{number:05d}.root", "dataset": DATASET}],
    }


def submission(count: int) -> dict[str, Any]:
    """Make the body of submitJobs; the key makes every submission one of its own."""
    return {"jobs": new_jobs(count), "clientKey": str(uuid.uuid4())}


def request_for(queue: str, *, node: str = "wn001.bench.org", **more: Any) -> dict[str, Any]:
    """Make the body of getJob as a pilot does."""
    return {
        "siteName": queue,
        "prodSourceLabel": LABEL,
        "computingElement": queue,
        "node": node,
        "mem": 2 * MEMORY_MB,
        "diskSpace": 20 * DISK_MB,
        "remainingTime": 24 * WALL_TIME_S,
        "schedulerID": "bench",
        "pilotID": f"bench-{node}",
        "requestId": str(uuid.uuid4()),
    } | more


def word(job: Mapping[str, Any], state: str, **more: Any) -> dict[str, Any]:
    """Make the body of updateJob: a heartbeat, mostly."""
    return {
        "jobId": str(job["PandaID"]),
        "attemptNr": job["attemptNr"],
        "jobToken": job.get("jobToken"),
        "state": state,
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        "siteName": job.get("siteName", "BENCH"),
        "node": "wn001.bench.org",
        "schedulerID": "bench",
        "pilotID": "bench-wn001",
        "startTime": "2026-01-01 00:00:00",
        "coreCount": 1,
        "cpuConsumptionTime": 123.45,
        "cpuConsumptionUnit": "s",
        "maxRSS": 1234567,
        "stdout": _STDOUT,
    } | more


def last_word(job: Mapping[str, Any], endpoint: str, lfns: Sequence[str]) -> dict[str, Any]:
    """Make the body of the last updateJob of a job that went well."""
    made = {lfn: _FACTS | {"guid": str(uuid.uuid4()), "surl": f"file:///{lfn}", "endpoint": endpoint} for lfn in lfns}
    more = {"endTime": "2026-01-01 01:00:00", "pilotTiming": "1|2|3600|4|5", "jobMetrics": "nEvents=1000"}
    texts = {"pilotLog": _LOG_EXTRACT, "metaData": _REPORT, "xml": json.dumps(made)}
    return word(job, "finished", **more, **texts)
