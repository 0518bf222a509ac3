"""What the pilot needs to know of its queue and of the storage around it, read from the server's JSON."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CREDENTIAL = re.compile(r"X509_|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|OIDC|BEARER|API_?KEY", re.IGNORECASE)


@dataclass(frozen=True)
class Queue:
    """The limits and surroundings that a queue gives to its jobs; 0 means no limit."""

    name: str
    site: str
    status: str
    max_memory_mb: int
    max_wall_s: int
    max_directory_mb: int
    read_endpoints: tuple[str, ...]
    write_endpoints: tuple[str, ...]
    environment: Mapping[str, str]

    @property
    def offline(self) -> bool:
        """Tell whether no job may be run here at all."""
        return self.status == "offline"


@dataclass(frozen=True)
class Endpoint:
    """One storage: the URL under which its files are read and written."""

    name: str
    read_url: str
    write_url: str


def queue_from_wire(name: str, wire: Mapping[str, Any]) -> Queue:
    """Read the JSON object of one queue."""
    storages = _mapping(wire.get("astorages"))
    return Queue(
        name=name,
        site=str(wire.get("atlas_site") or name),
        status=str(wire.get("status") or "").lower(),
        max_memory_mb=_number(wire.get("maxrss")),
        max_wall_s=_number(wire.get("maxtime")),
        max_directory_mb=_number(wire.get("maxwdir")),
        read_endpoints=_names(storages.get("read_lan")),
        write_endpoints=_names(storages.get("write_lan")),
        environment=parse_environment(str(wire.get("environ") or "")),
    )


def parse_environment(text: str) -> dict[str, str]:
    """Read "NAME=value;NAME=value"; what is malformed or smells of a credential is left out with a warning."""
    environment = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, value = part.partition("=")
        if not equals or not _NAME.fullmatch(name) or "\0" in value:
            logger.warning("queue data: environ has %r, which is not NAME=value; left out", part)
        elif _CREDENTIAL.search(name):
            logger.warning("queue data: environ has %s, which looks like a credential; left out", name)
        else:
            environment[name] = value
    return environment


def endpoints_from_wire(wire: Mapping[str, Any]) -> dict[str, Endpoint]:
    """Read the storage data; endpoints whose file paths cannot be worked out are left out."""
    endpoints = {}
    for name, facts in wire.items():
        protocols = _mapping(_mapping(facts).get("arprotocols"))
        if _mapping(facts).get("is_deterministic", True):
            endpoints[name] = Endpoint(
                name=name,
                read_url=_first_url(protocols, "read_lan", "read_wan"),
                write_url=_first_url(protocols, "write_lan", "write_wan"),
            )
    return endpoints


def _first_url(protocols: Mapping[str, Any], *activities: str) -> str:
    for activity in activities:
        for protocol in protocols.get(activity) or ():
            endpoint, path = str(protocol.get("endpoint") or ""), str(protocol.get("path") or "")
            if endpoint and path:
                return endpoint.rstrip("/") + "/" + path.strip("/")
    return ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _names(value: Any) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def _number(value: Any) -> int:
    try:
        return max(0, int(float(value or 0)))
    except (TypeError, ValueError, OverflowError):
        return 0
