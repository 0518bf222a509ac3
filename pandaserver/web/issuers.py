"""Those whose tokens count: read from a file, and their public keys, fetched from them over verified TLS."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from pandaserver.errors import ConfigError, NotAvailable
from pandaserver.ini import build, read_ini
from pandaserver.model.fqan import read_fqan

log = logging.getLogger(__name__)

KEYS_LIFE_S = 3600.0
KEYS_PAUSE_S = 60.0  # between two requests to an issuer, also when the first failed
_TIMEOUT_S = (5.0, 5.0)
_MAX_BYTES = 256 * 1024
_DISCOVERY = "/.well-known/openid-configuration"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,40}")


@dataclass(frozen=True, kw_only=True)
class Issuer:
    """One who gives tokens to the people of a virtual organisation."""

    name: str  # part of the identities that it vouches for
    url: str  # `iss` of its tokens, to the letter
    audience: tuple[str, ...]
    vo: str
    keys_url: str = ""
    roles: tuple[str, ...] = ("production", "pilot")
    scopes: tuple[str, ...] = ()
    ca: Path | None = None

    @property
    def groups_of_scopes(self) -> Mapping[str, str]:
        """Give the group that each scope stands for."""
        return dict(line.split() for line in self.scopes)


def read_issuers(path: Path | None) -> tuple[Issuer, ...]:
    """Read the [issuer NAME] sections; none where no file is named.

    Raises:
        ConfigError: naming section and key.
    """
    if path is None:
        return ()
    parser = read_ini(path)
    issuers = []
    for section in parser.sections():
        kind, _, name = section.partition(" ")
        where = f"{path} [{section}]"
        if kind != "issuer" or not _NAME.fullmatch(name):
            raise ConfigError(f"{where}: sections are called [issuer NAME]", field=section)
        issuers.append(_checked(build(Issuer, parser[section], where=where, base=path.parent, name=name), where))
    urls = [issuer.url for issuer in issuers]
    if len(set(urls)) < len(urls):
        raise ConfigError(f"{path}: two issuers have the same url", field="url")
    return tuple(issuers)


def _checked(issuer: Issuer, where: str) -> Issuer:
    for key, url in (("url", issuer.url), ("keys_url", issuer.keys_url or issuer.url)):
        if urlsplit(url).scheme != "https" or not urlsplit(url).hostname:
            raise ConfigError(f"{where} {key} = {url!r}: an address with https:// is expected", field=key, value=url)
    if not issuer.audience:
        raise ConfigError(f"{where} audience is empty: whom are tokens for this server made for?", field="audience")
    for line in issuer.scopes:
        if len(line.split()) != 2 or not _is_of(line.split()[1], issuer.vo):
            text = f"{where} scopes: {line!r} is not `SCOPE GROUP` with a group of {issuer.vo}, one per line"
            raise ConfigError(text, field="scopes", value=line)
    if not _is_of(f"/{issuer.vo}", issuer.vo) or not all(
        _is_of(f"/{issuer.vo}/Role={r}", issuer.vo) for r in issuer.roles
    ):
        raise ConfigError(f"{where}: vo and roles are words of letters, digits and _ . -", field="vo", value=issuer.vo)
    return issuer


def _is_of(fqan: str, vo: str) -> bool:
    try:
        return read_fqan(fqan).vo == vo
    except ValueError:
        return False


Fetch = Callable[[str, Path | None], Any]  # (address, authorities) -> JSON


def fetch_json(url: str, ca: Path | None) -> Any:
    """Fetch a small JSON document; only from the address given, only over TLS that is verified.

    Raises:
        NotAvailable: there is no such answer.
    """
    try:
        with requests.get(
            url, verify=str(ca) if ca else True, timeout=_TIMEOUT_S, allow_redirects=False, stream=True
        ) as answer:
            if answer.status_code != 200:
                raise NotAvailable(f"{url} answers with status {answer.status_code}")
            body = answer.raw.read(_MAX_BYTES + 1, decode_content=True)
    except (requests.RequestException, OSError) as error:
        raise NotAvailable(f"{url} cannot be fetched: {error}") from error
    try:
        return json.loads(body[:_MAX_BYTES])
    except (ValueError, RecursionError) as error:
        raise NotAvailable(f"{url} gives no JSON of at most {_MAX_BYTES} bytes") from error


class IssuerKeys:
    """The public keys of an issuer, by key id: fetched when needed, and again for an id that is new."""

    def __init__(
        self, issuer: Issuer, *, fetch: Fetch = fetch_json, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._issuer, self._fetch, self._clock = issuer, fetch, clock
        self._lock = threading.Lock()
        self._keys: dict[str, dict[str, Any]] = {}
        self._fresh_until = self._next_try = clock()
        self.generation = 0

    def find(self, key_id: str | None) -> dict[str, Any] | None:
        """Give a key as JWK; without id, the only one there is.

        Raises:
            NotAvailable: the issuer has never answered.
        """
        found = self._look(key_id)
        if found is None or self._clock() >= self._fresh_until:
            self._refresh()
            found = self._look(key_id)
        if not self._keys:
            raise NotAvailable(f"the keys of the token issuer {self._issuer.name} cannot be fetched now; try again")
        return found

    def _look(self, key_id: str | None) -> dict[str, Any] | None:
        keys = self._keys
        if key_id is None:
            return next(iter(keys.values())) if len(keys) == 1 else None
        return keys.get(key_id)

    def _refresh(self) -> None:
        """Ask the issuer, once in a while; when it does not answer, what was known goes on."""
        with self._lock:
            if self._clock() < self._next_try:
                return
            self._next_try = self._clock() + KEYS_PAUSE_S
            try:
                keys = _usable(self._fetch(self._address(), self._issuer.ca))
            except NotAvailable as error:
                log.warning("token issuer %s: %s", self._issuer.name, error)
                return
            self._fresh_until = self._clock() + KEYS_LIFE_S
            if keys != self._keys:
                self._keys = keys
                self.generation += 1
                log.info("%d keys of token issuer %s", len(keys), self._issuer.name)

    def _address(self) -> str:
        """Give where the keys are; an issuer tells it in a document at a known place."""
        if self._issuer.keys_url:
            return self._issuer.keys_url
        told = self._fetch(self._issuer.url.rstrip("/") + _DISCOVERY, self._issuer.ca)
        address = told.get("jwks_uri") if isinstance(told, dict) else None
        if not isinstance(address, str) or urlsplit(address).scheme != "https":
            raise NotAvailable(f"{self._issuer.url}{_DISCOVERY} names no https address of keys")
        if told.get("issuer") != self._issuer.url:
            raise NotAvailable(f"{self._issuer.url}{_DISCOVERY} is of another issuer")
        return address


def _usable(document: Any) -> dict[str, dict[str, Any]]:
    """Take the keys that verify signatures; secrets shared with an issuer are none."""
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise NotAvailable("what it calls its keys is no key set")
    good = [
        key
        for key in keys
        if isinstance(key, dict) and key.get("kty") in ("RSA", "EC", "OKP") and key.get("use", "sig") == "sig"
    ]
    return {str(key.get("kid", number)): key for number, key in enumerate(good)}
