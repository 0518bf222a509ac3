"""Calls about queues: what they are, how they stand, and operators who switch them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pandaserver.externalinterface import information
from pandaserver.model.grid import SOURCES, QueueStatus
from pandaserver.taskbuffer.activity import QueueActivity
from pandaserver.taskbuffer.switches import Standing, StatusChange
from pandaserver.userinterface import queues
from pandaserver.userinterface.submit import User
from pandaserver.web import values
from pandaserver.web.calls import Call, Caller, Param
from pandaserver.web.identity import compact_name
from pandaserver.web.roles import OPERATE, READ


def list_queues(caller: Caller) -> dict[str, Any]:
    """Describe all queues: as pilots read them, how their status came about, and how many pilots were seen."""
    buffer = caller.rooms.buffer
    found = queues.overview(buffer)
    return {
        name: information.queue_data(queue) | _standing(found.standings.get(name)) | _pilots(found.pilots.get(name))
        for name, queue in information.grid(buffer).queues.items()
    }


def get_queue(caller: Caller, queue: str) -> dict[str, Any]:
    """Describe one queue."""
    found = information.queue(caller.rooms.buffer, queue)
    standing = queues.overview(caller.rooms.buffer)
    return (
        information.queue_data(found) | _standing(standing.standings.get(queue)) | _pilots(standing.pilots.get(queue))
    )


def set_status(caller: Caller, queue: str, status: QueueStatus, reason: str, until: datetime | None) -> dict[str, Any]:
    """Switch a queue, whatever its source says."""
    wish = queues.Wish(queue=queue, status=status, reason=reason, until=until)
    return _told(queues.set_status(caller.rooms.buffer, wish, _who(caller)))


def clear_status(caller: Caller, queue: str, reason: str) -> dict[str, Any]:
    """Let a queue's source decide again."""
    return _told(queues.clear_status(caller.rooms.buffer, queue, reason, _who(caller)))


def get_history(caller: Caller, queue: str) -> list[dict[str, Any]]:
    """Tell who switched a queue, when and why, newest first."""
    return [_change(one) for one in queues.history(caller.rooms.buffer, queue)]


def _who(caller: Caller) -> User:
    return User(caller.dn, compact_name(caller.dn))


def _told(standing: Standing) -> dict[str, Any]:
    return {"queue": standing.queue, "status": standing.status.value} | _standing(standing)


def _standing(standing: Standing | None) -> dict[str, Any]:
    """Say how a status came about; by whom only by name, for everybody reads it."""
    if standing is None:  # made this very moment
        return {}
    source = queues.source_of(standing)
    return {
        "standing": {
            "configured": standing.configured.value,
            "source": SOURCES[source] if source else None,
            "switched": standing.switch is not None,
            "by": standing.by_name,
            "reason": standing.reason,
            "since": standing.since,
            "until": standing.until,
        }
    }


def _pilots(seen: QueueActivity | None) -> dict[str, Any]:
    if seen is None:
        return {"pilots": {"requests": 0, "jobs": 0, "updates": 0, "last_seen": None}}
    return {"pilots": vars(seen)}


def _change(one: StatusChange) -> dict[str, Any]:
    return {
        "time": one.at,
        "action": one.action,
        "from": one.from_status.value if one.from_status else None,
        "to": one.to_status.value,
        "by": one.by_name,
        "reason": one.reason,
        "until": one.until,
    }


def _status(value: Any) -> QueueStatus:
    known = {status.value: status for status in QueueStatus}
    if values.text(value) not in known:
        raise ValueError(f"known are {', '.join(known)}")
    return known[value]


def _moment(value: Any) -> datetime:
    """Read a moment in ISO 8601, UTC where it names no zone."""
    try:
        moment = datetime.fromisoformat(values.text(value))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("a moment such as 2027-01-31T18:00 (UTC) is expected") from None


_QUEUE = Param("queue", values.text, also=("siteName",))

QUEUE_CALLS = (
    Call("queue/list", "getSiteSpecs", READ, list_queues),
    Call("queue/get", "getSiteSpec", READ, get_queue, (_QUEUE,)),
    Call("queue/history", "getQueueHistory", READ, get_history, (_QUEUE,)),
    Call(
        "queue/set_status", "setQueueStatus", OPERATE, set_status,
        (
            _QUEUE, Param("status", _status), Param("reason", values.text),
            Param("until", _moment, required=False),
        ),
        writes=True,
    ),
    Call(
        "queue/clear_status", "clearQueueStatus", OPERATE, clear_status,
        (_QUEUE, Param("reason", values.text, required=False, default="")), writes=True,
    ),
)  # fmt: skip
