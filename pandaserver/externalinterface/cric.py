"""Queue and storage data as CRIC writes them: objects by name, each read by itself, so that a bad one harms none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pandaserver.errors import ConfigError, shorten
from pandaserver.externalinterface.queuedata import OWN_KEYS
from pandaserver.externalinterface.sites import PLACE, Mistake, variable
from pandaserver.ini import URL
from pandaserver.model.grid import Endpoint, Queue, QueueStatus

_NAMES = ("panda_resource", "siteid", "nickname", "name")  # of a queue, the first that is told
_STORAGES = ("write_lan", "pw", "read_lan", "pr", "pl", "default")  # where a queue's jobs read and write
_WAYS = ("write_lan", "read_lan", "write_wan", "read_wan")
_SCHEMES = ("file", "https", "davs", "root")  # that this server and its pilots speak, the best first
_TIER = re.compile(r"T?([0-9])[A-Z]?", re.I)
_MOST = 1_000_000_000
_LARGEST_ENTRY = 64 * 1024
_MANY = 10_000  # entries of a list
_READ = {*OWN_KEYS, *_NAMES, "vo", "vo_names", "site", "rc_site", "astorages", "resource_name"}  # not to be handed on


@dataclass(frozen=True)
class Found:
    """What a document says: entries that are good, what is wrong with the others, and the names of those."""

    entries: Mapping[str, Any]
    mistakes: tuple[Mistake, ...] = ()
    bad: frozenset[str] = frozenset()


class _Wrong(Exception):
    """A value is not what it should be."""

    def __init__(self, key: str, value: object, expected: str) -> None:
        super().__init__(expected)
        self.key, self.value, self.expected = key, value, expected


def read_endpoints(document: Any, place: str) -> Found:
    """Read storage data, name -> endpoint."""
    return _read(document, place, "endpoint", _endpoint)


def read_queues(document: Any, place: str, endpoints: Collection[str]) -> Found:
    """Read queue data, name -> queue.

    Args:
        endpoints: those that are there for queues to use.
    """
    return _read(document, place, "queue", lambda name, told: _queue(name, told, endpoints))


def _read(document: Any, place: str, kind: str, make: Callable[[str, Mapping[str, Any]], Any]) -> Found:
    good: dict[str, Any] = {}
    mistakes: list[Mistake] = []
    bad: set[str] = set()
    for name, told in _entries(document, place, kind):
        try:
            if not isinstance(told, Mapping):
                raise _Wrong("entry", told, "an object is expected")
            if not _is_active(told):
                continue
            entry = make(name, told)
            if entry.name in good:
                raise _Wrong("name", entry.name, "another entry before this one has the same name")
            good[entry.name] = entry
        except _Wrong as wrong:
            bad |= {name, *(told[key] for key in _NAMES if isinstance(told, Mapping) and _is_name(told.get(key)))}
            value = shorten(json.dumps(wrong.value, default=str, ensure_ascii=False))
            said = f"{place} {kind} {shorten(name)}: {wrong.key} = {value}: {wrong.expected}; left out"
            mistakes.append(Mistake(f"{place} {kind} {shorten(name)}", wrong.key, value, said))
    return Found(good, tuple(mistakes), frozenset(bad - set(good)))


def _entries(document: Any, place: str, kind: str) -> Iterator[tuple[str, Any]]:
    """Give the entries of a document, which is an object by name or a list of objects with names.

    Raises:
        ConfigError: it is neither, or empty, so that nothing of it is believed.
    """
    if not isinstance(document, dict | list) or not document:
        said = f"{place}: an object with a {kind} for each name is expected, not {shorten(json.dumps(document))}"
        raise ConfigError(said, field=kind, value=document)
    if isinstance(document, dict):
        yield from ((str(name), told) for name, told in document.items())
        return
    for number, told in enumerate(document):
        names = [told[key] for key in _NAMES if _is_name(told.get(key))] if isinstance(told, dict) else []
        yield (names[0] if names else f"number {number + 1}"), told


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(PLACE.fullmatch(value))


def _is_active(told: Mapping[str, Any]) -> bool:
    state = told.get("state") or "ACTIVE"
    if state not in ("ACTIVE", "DISABLED", "INACTIVE"):
        raise _Wrong("state", state, "ACTIVE, INACTIVE or DISABLED is expected")
    return bool(state == "ACTIVE")


# --- queues


def _queue(name: str, told: Mapping[str, Any], endpoints: Collection[str]) -> Queue:
    if len(json.dumps(told)) > _LARGEST_ENTRY:
        raise _Wrong("entry", f"{len(json.dumps(told))} characters", f"at most {_LARGEST_ENTRY} are taken")
    queue = _name("panda_resource", next((told[key] for key in _NAMES if told.get(key) is not None), name))
    storages = _storages(told)
    endpoint = next((e for way in _STORAGES for e in storages.get(way, ()) if e in endpoints), None)
    if endpoint is None:
        raise _Wrong("astorages", told.get("astorages"), "it names no endpoint that is there")
    return Queue(
        name=queue,
        site=_name("site", _first(told, "atlas_site", "gstat", "rc_site", "site") or queue),
        cloud=_name("cloud", told.get("cloud")),
        tier=_tier(_first(told, "tier", "tier_level")),
        status=_status(told.get("status")),
        endpoint=endpoint,
        memory_mb=_number(told, "maxrss") or _number(told, "memory"),
        cores=_number(told, "corecount") or 1,
        max_wall_time_s=_number(told, "maxtime"),
        max_work_dir_mb=_number(told, "maxwdir"),
        max_input_mb=_number(told, "maxinputsize"),
        timefloor_min=_number(told, "timefloor"),
        releases=_releases(told),
        platforms=_texts(told, "cmtconfig"),
        vos=_vos(told),
        environment=_environment(told),
        heartbeat_s=_number(told, "heartbeat_s") or 1800,
        country=_text("country", told.get("country") or "", 64),
        params=_params(queue, told, {**storages, **_with_first(storages, endpoint)}),
    )


def _params(queue: str, told: Mapping[str, Any], storages: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Keep what only pilots understand."""
    names = {key: told[key] for key in ("nickname", "siteid") if told.get(key) not in (None, queue)}
    rest = {key: value for key, value in told.items() if key not in _READ and value is not None}
    return tuple(sorted((names | rest | {"astorages": dict(storages)}).items()))


def _with_first(storages: Mapping[str, list[str]], endpoint: str) -> dict[str, list[str]]:
    """Name the endpoint first that the server works with, for reading and writing in the site."""
    ways = ("read_lan", "write_lan")
    return {way: [endpoint, *(e for e in storages.get(way, ()) if e != endpoint)] for way in ways}


def _storages(told: Mapping[str, Any]) -> dict[str, list[str]]:
    given = told.get("astorages")
    if not isinstance(given, Mapping):
        raise _Wrong("astorages", given, "an object with lists of endpoints is expected")
    for way, names in given.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise _Wrong(f"astorages.{way}", names, "a list of names is expected")
    return {str(way): list(names) for way, names in given.items()}


def _first(told: Mapping[str, Any], *keys: str) -> Any:
    return next((told[key] for key in keys if told.get(key) not in (None, "")), None)


def _name(key: str, value: Any) -> str:
    if not _is_name(value):
        raise _Wrong(key, value, "letters, digits and . _ -, at most 64 characters, are expected")
    return str(value)


def _status(value: Any) -> QueueStatus:
    known = {status.value: status for status in QueueStatus}
    if not isinstance(value, str) or value.lower() not in known:
        raise _Wrong("status", value, f"one of {', '.join(known)} is expected")
    return known[value.lower()]


def _tier(value: Any) -> int:
    found = _TIER.fullmatch(str(value)) if isinstance(value, int | str) and not isinstance(value, bool) else None
    if value is not None and found is None:
        raise _Wrong("tier", value, "a tier such as T2, or its number, is expected")
    return int(found[1]) if found else 2


def _number(told: Mapping[str, Any], key: str) -> int:
    """Read a number, also from text; nothing is zero."""
    value = told.get(key)
    if value in (None, ""):
        return 0
    try:
        number = int(value) if isinstance(value, int | float) and not isinstance(value, bool) else int(str(value))
    except (ValueError, OverflowError):
        number = -1
    if isinstance(value, bool | list | dict) or not 0 <= number <= _MOST:
        raise _Wrong(key, value, f"a whole number from 0 to {_MOST} is expected")
    return number


def _text(key: str, value: Any, longest: int = 255) -> str:
    if not isinstance(value, str) or len(value) > longest or not value.isprintable() or "," in value:
        raise _Wrong(key, value, f"a text of at most {longest} printable characters without comma is expected")
    return value.strip()


def _texts(told: Mapping[str, Any], *keys: str) -> tuple[str, ...]:
    """Read a list of texts, or a text with commas."""
    key, value = next(((key, told[key]) for key in keys if told.get(key)), (keys[0], []))
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or len(parts) > _MANY:
        raise _Wrong(key, value, "a list of texts is expected")
    return tuple(dict.fromkeys(filter(None, (_text(key, part) for part in parts))))


def _vos(told: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(_name("vo_name", vo) for vo in _texts(told, "vo_names", "vo_name", "vo"))


def _releases(told: Mapping[str, Any]) -> tuple[str, ...]:
    """Read the releases; AUTO means that all are there."""
    given = told.get("releases")
    if isinstance(given, list):
        given = [one.get("release") if isinstance(one, Mapping) else one for one in given]
    found = _texts({"releases": given}, "releases")
    return () if "AUTO" in found else found


def _environment(told: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    given = told.get("environ") or ""
    if not isinstance(given, str):
        raise _Wrong("environ", given, "a text NAME=value;NAME=value is expected")
    try:
        return tuple(variable(part.strip(), "") for part in given.split(";") if part.strip())
    except ConfigError as error:
        raise _Wrong("environ", error.value, "NAME=value;NAME=value is expected") from error


# --- endpoints


def _endpoint(name: str, told: Mapping[str, Any]) -> Endpoint:
    if told.get("is_deterministic", True) is not True:
        raise _Wrong("is_deterministic", told["is_deterministic"], "true is expected: places of files are computed")
    site = _name("site", _first(told, "site", "rc_site"))
    return Endpoint(name=_name("name", told.get("name") or name), site=site, url=_url(told.get("arprotocols")))


def _url(protocols: Any) -> str:
    """Choose a way to the storage, one that this server speaks."""
    if not isinstance(protocols, Mapping):
        raise _Wrong("arprotocols", protocols, "an object with lists of protocols is expected")
    offered = [url for way in _WAYS for url in _urls(protocols.get(way))]
    for scheme in _SCHEMES:
        url = next((url for url in offered if url.startswith(f"{scheme}://")), None)
        if url is not None:
            return _checked(url)
    raise _Wrong("arprotocols", sorted({url.partition(":")[0] for url in offered}), f"none of {', '.join(_SCHEMES)}")


def _urls(offered: Any) -> Iterator[str]:
    for one in offered if isinstance(offered, list) else ():
        if isinstance(one, Mapping) and isinstance(one.get("endpoint"), str) and isinstance(one.get("path"), str):
            path = one["path"] if one["endpoint"].startswith("root:") else one["path"].lstrip("/")
            yield f"{one['endpoint'].rstrip('/')}/{path}"


def _checked(url: str) -> str:
    if not URL.fullmatch(url) or not url.isprintable() or "/../" in f"{url}/":
        raise _Wrong("arprotocols", url, "a URL such as https://host:443/path is expected")
    scheme, _, rest = url.partition("://")
    if scheme == "davs":
        return f"https://{rest}"
    return f"file://{rest.removeprefix('localhost')}" if scheme == "file" else url
