"""The sites file: queues and storage endpoints as the installation describes them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from pandaserver.config import URL, build, read_ini
from pandaserver.errors import ConfigError
from pandaserver.model.grid import Endpoint, Queue, QueueStatus, Topology

_PLACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def load_topology(path: Path) -> Topology:
    """Read the sites file: sections [queue NAME] and [endpoint NAME].

    Raises:
        ConfigError: a section is wrong, or a queue names an endpoint that is not there.
    """
    parser = read_ini(path)
    queues: dict[str, Queue] = {}
    endpoints: dict[str, Endpoint] = {}
    for section in parser.sections():
        kind, _, name = section.partition(" ")
        where = f"{path} [{section}]"
        if kind == "queue" and name:
            queues[name] = _queue(name, dict(parser[section]), where, path.parent)
        elif kind == "endpoint" and name:
            endpoint = build(Endpoint, parser[section], where=where, base=path.parent, name=name)
            endpoints[name] = replace(endpoint, url=_absolute(endpoint.url, path.parent))
        else:
            raise ConfigError(f"{where}: sections are [queue NAME] or [endpoint NAME]", field=section)
    for endpoint in endpoints.values():
        _check_endpoint(endpoint, f"{path} [endpoint {endpoint.name}]")
    for queue in queues.values():
        _check_names(f"{path} [queue {queue.name}]", name=queue.name, site=queue.site, cloud=queue.cloud)
        if queue.endpoint not in endpoints:
            text = f"{path} [queue {queue.name}] endpoint = {queue.endpoint}: there is no [endpoint {queue.endpoint}]"
            raise ConfigError(text, field="endpoint", value=queue.endpoint)
    return Topology(queues=queues, endpoints=endpoints)


def _check_endpoint(endpoint: Endpoint, where: str) -> None:
    _check_names(where, name=endpoint.name, site=endpoint.site)
    if not URL.fullmatch(endpoint.url):
        text = f"{where} url = {endpoint.url!r}: a URL such as file:///data/{endpoint.name} is expected"
        raise ConfigError(text, field="url", value=endpoint.url)


def _check_names(where: str, **names: str) -> None:
    """Names of places stand in lists with commas between, and in the names of datasets."""
    for key, name in names.items():
        if not _PLACE.fullmatch(name):
            text = f"{where} {key} = {name!r}: letters, digits and . _ -, at most 64 characters"
            raise ConfigError(text, field=key, value=name)


def _absolute(url: str, base: Path) -> str:
    """Let `file:storage/X` be a folder beside the sites file."""
    scheme, _, place = url.partition(":")
    relative = scheme == "file" and not place.startswith("/")
    return f"file://{(base / place).absolute()}" if relative else url


def _queue(name: str, values: dict[str, str], where: str, base: Path) -> Queue:
    environment = tuple(_pair(line, where) for line in values.pop("environment", "").splitlines() if line.strip())
    status = values.pop("status", "online")
    if status not in {s.value for s in QueueStatus}:
        known = ", ".join(QueueStatus)
        raise ConfigError(f"{where} status = {status!r}: known are {known}", field="status", value=status)
    given = {"name": name, "status": QueueStatus(status), "environment": environment}
    return build(Queue, values, where=where, base=base, **given)


def _pair(line: str, where: str) -> tuple[str, str]:
    name, equals, value = line.strip().partition("=")
    if not equals or not name.isidentifier() or ";" in value:
        raise ConfigError(
            f"{where} environment: {line!r} is not NAME=value (without ;)", field="environment", value=line
        )
    return name, value
