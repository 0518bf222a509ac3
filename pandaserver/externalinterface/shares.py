"""Tells which part of a queue each share shall have, and has."""

from __future__ import annotations

from typing import Any

from pandaserver.externalinterface import information
from pandaserver.model.share import Shares
from pandaserver.taskbuffer import lanes
from pandaserver.taskbuffer.buffer import TaskBuffer


def parts(buffer: TaskBuffer, shares: Shares, queue: str) -> list[dict[str, Any]]:
    """Give the shares in their order, that of the others last; `target` is what each has when all have jobs waiting.

    Raises:
        NotFound: there is no such queue.
    """
    known = information.queue(buffer, queue).name
    seen = buffer.read(lambda c: lanes.look(c, [known]))[known]
    running = shares.standing(seen.everything).running_cores()
    waiting = {shares.all[shares.place_of(lane.key)].name for lane in seen.waiting.values()}
    weights = sum(share.weight for share in shares.all)
    return [
        {
            "name": share.name,
            "weight": share.weight,
            "vo": share.vo,
            "workingGroup": share.working_group,
            "label": share.label,
            "target": share.weight / weights,
            "runningCores": running[share.name],
            "waiting": share.name in waiting,
        }
        for share in shares.all
    ]
