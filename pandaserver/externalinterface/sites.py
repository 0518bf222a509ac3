"""The sites file: queues and storage endpoints as the installation describes them, with all that is wrong in it."""

from __future__ import annotations

import re
import typing
from collections.abc import Collection, Mapping, Sequence
from configparser import ConfigParser
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pandaserver.errors import ConfigError, shorten
from pandaserver.externalinterface.queuedata import OWN_KEYS
from pandaserver.externalinterface.safejson import read_json
from pandaserver.ini import URL, read_ini, read_value
from pandaserver.model.grid import ANY_ENDPOINT, Endpoint, Queue, QueueStatus, Topology

PLACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KINDS: dict[str, type[Any]] = {"queue": Queue, "endpoint": Endpoint}
_SECTIONS = "sections are [queue NAME] or [endpoint NAME] or [link SOURCE DESTINATION]"


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong: where, which value, and what is expected."""

    place: str  # file and section, or URL and entry
    key: str
    value: str | None
    text: str

    def __str__(self) -> str:
        return self.text


class SitesError(ConfigError):
    """A description of queues and endpoints is wrong; `mistakes` has all that is."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        first = mistakes[0]
        super().__init__("\n".join(map(str, mistakes)), field=first.key, value=first.value)
        self.mistakes = tuple(mistakes)


def load_topology(path: Path) -> Topology:
    """Read the sites file: sections [queue NAME] and [endpoint NAME].

    Raises:
        SitesError: with every mistake of the file; one that is no INI file at all has only the first.
    """
    try:
        parser = read_ini(path)
    except ConfigError as error:
        raise SitesError([Mistake(str(path), "config", str(path), error.message)]) from error
    reader = _Reader(path)
    found = reader.read(parser)
    if reader.mistakes:
        raise SitesError(reader.mistakes)
    return found


@dataclass
class _Reader:
    """Reads section by section, and goes on after a mistake."""

    path: Path
    mistakes: list[Mistake] = field(default_factory=list)

    def read(self, parser: ConfigParser) -> Topology:
        """Read everything."""
        found: dict[str, dict[Any, Any]] = {"queue": {}, "endpoint": {}, "link": {}}
        for section in parser.sections():
            kind, _, name = section.partition(" ")
            told = dict(parser[section])
            if kind in _KINDS and name:
                self._check_names(section, name=name)
                found[kind][name] = self._entry(_KINDS[kind], name, section, told)
            elif kind == "link" and len(name.split()) == 2:
                found[kind][tuple(name.split())] = self._at_once(section, told)
            else:
                self._wrong(section, section, None, f": {_SECTIONS}")
        self._check_endpoints(parser, {ANY_ENDPOINT, *found["endpoint"]})
        if self.mistakes:
            return Topology(queues={}, endpoints={})
        endpoints = {name: self._at_its_place(endpoint) for name, endpoint in found["endpoint"].items()}
        return Topology(queues=found["queue"], endpoints=endpoints, links=found["link"])

    def _check_endpoints(self, parser: ConfigParser, known: Collection[str]) -> None:
        """Whoever names an endpoint means one that is there, be it wrong otherwise."""
        for section in parser.sections():
            kind, _, name = section.partition(" ")
            if kind == "queue" and "endpoint" in parser[section]:
                named = parser[section]["endpoint"]
                if named not in known or named == ANY_ENDPOINT:
                    self._wrong(section, "endpoint", named, f" endpoint = {named}: there is no [endpoint {named}]")
            elif kind == "link":
                for end in sorted(set(name.split()) - set(known)):
                    self._wrong(section, "link", end, f": there is no [endpoint {end}]; {ANY_ENDPOINT} stands for any")

    def _at_once(self, section: str, told: dict[str, str]) -> int:
        """Read how many copies go over a link at once."""
        for key in sorted(set(told) - {"at_once"}):
            self._wrong(section, key, told[key], f": unknown key {key}; known is at_once")
        text = told.get("at_once", "")
        if not re.fullmatch("[1-9][0-9]{0,2}", text):
            self._wrong(section, "at_once", text, f" at_once = {text!r}: a number from 1 to 999 is expected")
            return 0
        return int(text)

    def _entry(self, kind: type[Any], name: str, section: str, told: dict[str, str]) -> Any:
        """Make a queue or an endpoint; None where something is wrong."""
        before = len(self.mistakes)
        hints = typing.get_type_hints(kind)
        allowed = {f.name: f for f in fields(kind) if f.name != "name"}
        for key in sorted(set(told) - set(allowed)):
            self._wrong(section, key, told[key], f": unknown key {key}; known are {', '.join(allowed)}")
        for key, f in allowed.items():
            if key not in told and f.default is MISSING and key != "status":
                self._wrong(section, key, None, f": key {key} is missing")
        known = {key: text for key, text in told.items() if key in allowed}
        values = {key: self._value(section, key, text, hints[key]) for key, text in known.items()}
        places = {key: text for key, text in known.items() if key in ("site", "cloud")}
        self._check_names(section, **places)
        if kind is Queue:
            values.setdefault("status", QueueStatus.ONLINE)
        if kind is Endpoint and "url" in known and not URL.fullmatch(self._absolute(known["url"])):
            said = f" url = {known['url']!r}: a URL such as file:///data/{name} is expected"
            self._wrong(section, "url", known["url"], said)
        return None if len(self.mistakes) > before else kind(name=name, **values)

    def _value(self, section: str, key: str, text: str, hint: Any) -> Any:
        where = f"{self.path} [{section}]"
        try:
            if key == "status":
                return _status(text, where)
            if key in _PAIRS:
                return tuple(_PAIRS[key](line.strip(), where) for line in text.splitlines() if line.strip())
            return read_value(text, hint, f"{where} {key}", self.path.parent)
        except ConfigError as error:
            self.mistakes.append(Mistake(where, key, error.value, error.message))
            return None

    def _check_names(self, section: str, **names: str) -> None:
        """Names of places stand in lists with commas between, and in the names of datasets."""
        for key, name in names.items():
            if not PLACE.fullmatch(name):
                self._wrong(section, key, name, f" {key} = {name!r}: letters, digits and . _ -, at most 64 characters")

    def _wrong(self, section: str, key: str, value: str | None, said: str) -> None:
        where = f"{self.path} [{section}]"
        self.mistakes.append(Mistake(where, key, None if value is None else shorten(value), f"{where}{said}"))

    def _at_its_place(self, endpoint: Endpoint) -> Endpoint:
        return replace(endpoint, url=self._absolute(endpoint.url))

    def _absolute(self, url: str) -> str:
        """Let `file:storage/X` be a folder beside the sites file."""
        scheme, _, place = url.partition(":")
        relative = scheme == "file" and not place.startswith("/")
        return f"file://{(self.path.parent / place).absolute()}" if relative else url


def _status(text: str, where: str) -> QueueStatus:
    if text not in {s.value for s in QueueStatus}:
        known = ", ".join(QueueStatus)
        raise ConfigError(f"{where} status = {text!r}: known are {known}", field="status", value=text)
    return QueueStatus(text)


def variable(line: str, where: str) -> tuple[str, str]:
    """Read a variable of the payload's environment, a line NAME=value."""
    name, equals, value = line.partition("=")
    if not equals or not name.isidentifier() or ";" in value or not value.isprintable():
        said = f"{where} environment: {line!r} is not NAME=value (without ;)"
        raise ConfigError(said, field="environment", value=line)
    return name, value


def _param(line: str, where: str) -> tuple[str, Any]:
    """Read a line NAME=value of params; what looks like JSON is taken as that."""
    name, equals, value = line.partition("=")
    name = name.strip()
    if not equals or not name.isidentifier():
        raise ConfigError(f"{where} params: {line!r} is not NAME=value", field="params", value=line)
    if name in OWN_KEYS:
        said = f"{where} params: {name} is made of the queue's own keys, set those"
        raise ConfigError(said, field="params", value=line)
    try:
        return name, read_json(value)
    except ValueError:
        return name, value.strip()


_PAIRS: Mapping[str, Any] = {"environment": variable, "params": _param}
