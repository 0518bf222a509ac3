"""Staged outputs: pilots store them beside their place, under a name of their attempt, until the attempt counts.

So no attempt can touch what another one stored. What an attempt that did not count has left there is removed a day
after its end, when no pilot that was long out of touch stores anything any more.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime

from pandaserver.dataservice.ddm.protocol import StagedFile
from pandaserver.dataservice.service import SWEEP, DataService
from pandaserver.model.file import OUTPUTS
from pandaserver.model.job import JobWithFiles
from pandaserver.model.states import WITH_PILOT, JobState
from pandaserver.taskbuffer import counters, topology
from pandaserver.taskbuffer.database import Connection
from pandaserver.taskbuffer.work import NewWork, WorkItem
from pandaserver.taskbuffer.work import add as add_work

SWEEP_AFTER_S = 24 * 3600
_SECRET = "staged-outputs"
_HAD_A_PILOT = WITH_PILOT | {JobState.HOLDING}


def secret_of(connection: Connection) -> str:
    """Give what suffixes are made with, the same for all server processes."""
    return counters.secret(connection, _SECRET)


def suffix(secret: str, job_id: int, attempt: int) -> str:
    """Give what an attempt adds to the names of its files; nothing needs to be stored, and nobody else can know it."""
    digest = hmac.new(secret.encode(), f"outputs of {job_id}.{attempt}".encode(), hashlib.sha256).hexdigest()
    return f".a{attempt}-{digest[:8]}"


def ask_sweep(connection: Connection, ended: Sequence[JobWithFiles], now: datetime) -> None:
    """Have removed, some time later, what the attempts have left that jobs, as loaded before, are in."""
    new = [
        NewWork(kind=SWEEP, key=f"{one.job.job_id}.{one.job.attempt}", payload=_payload(one))
        for one in ended
        if one.job.state in _HAD_A_PILOT and one.of_type(*OUTPUTS)
    ]
    if new:
        add_work(connection, new, now=now, delay_s=SWEEP_AFTER_S)


def _payload(one: JobWithFiles) -> dict[str, object]:
    names = [[file.scope, file.lfn] for file in one.of_type(*OUTPUTS)]
    return {"job_id": one.job.job_id, "attempt": one.job.attempt, "queue": one.job.site, "files": names}


def sweep(service: DataService, bunch: Sequence[WorkItem]) -> None:
    """Remove what attempts left beside its place: background work of kind `sweep`."""
    if not service.ddm.stages_outputs:
        return
    queues = topology.of(service.buffer).queues
    secret = service.buffer.run(secret_of)
    service.ddm.discard(
        StagedFile(scope, lfn, queues[told["queue"]].endpoint, suffix(secret, told["job_id"], told["attempt"]))
        for told in (item.payload for item in bunch)
        if told["queue"] in queues
        for scope, lfn in told["files"]
    )
