"""A queue in the form that existing pilots read: one JSON object, which every generation of pilots adds names to."""

from __future__ import annotations

from typing import Any

from pandaserver.model.grid import Queue

_USUAL_DISK_MB = 14336
# What a queue may say otherwise by its `params`.
_USUAL: dict[str, Any] = {
    "type": "unified",
    "resource_type": "GRID",
    "copytools": {"mv": {"setup": ""}},
    "acopytools": {activity: ["mv"] for activity in ("pr", "pw", "pl", "pls", "default")},
    "acopytools_schemas": {},
    "appdir": "",
    "catchall": "mv_final_destination",
    "container_type": "",
    "container_options": "",
    "pledgedcpu": 0,
    "allow_lan": True,
    "allow_wan": False,
    "direct_access_lan": False,
    "direct_access_wan": False,
    "is_cvmfs": False,
    "params": {"internet_protocol_version": "IPv4"},
}


def queue_data(queue: Queue) -> dict[str, Any]:
    """Describe a queue as pilots expect it."""
    storages = {"read_lan": [queue.endpoint], "write_lan": [queue.endpoint], "pl": [queue.endpoint]}
    names = {"nickname": queue.name, "siteid": queue.name, "astorages": storages}
    return _USUAL | names | dict(queue.params) | _own(queue)


def _own(queue: Queue) -> dict[str, Any]:
    """Give what the queue's own keys say; `params` cannot say otherwise."""
    return {
        "panda_resource": queue.name,
        "atlas_site": queue.site,
        "gstat": queue.site,
        "cloud": queue.cloud,
        "country": queue.country,
        "tier": queue.tier,
        "state": "ACTIVE",
        "status": queue.status.value,
        "vo_name": ",".join(queue.vos),
        "corecount": queue.cores,
        "memory": queue.memory_mb,
        "maxrss": queue.memory_mb,
        "maxtime": queue.max_wall_time_s,
        "maxwdir": queue.max_work_dir_mb or _USUAL_DISK_MB,
        "maxinputsize": queue.max_input_mb or queue.max_work_dir_mb or _USUAL_DISK_MB,
        "timefloor": queue.timefloor_min,
        "releases": list(queue.releases),
        "cmtconfig": ",".join(queue.platforms),
        "environ": ";".join(f"{name}={value}" for name, value in queue.environment),
        "heartbeat_s": queue.heartbeat_s,
    }


OWN_KEYS = (
    "panda_resource", "atlas_site", "gstat", "cloud", "country", "tier", "state", "status", "vo_name", "corecount",
    "memory", "maxrss", "maxtime", "maxwdir", "maxinputsize", "timefloor", "releases", "cmtconfig", "environ",
    "heartbeat_s",
)  # fmt: skip
