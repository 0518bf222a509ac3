"""The one place that speaks HTTP with the server: its envelope, its errors, and trying again."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from pandaserver import __version__
from pandaserver.client.failures import (
    ClientError,
    NotAuthenticated,
    NotTrusted,
    Refused,
    StrangeAnswer,
    Unreachable,
    WrongUse,
)
from pandaserver.client.proxy import RENEW, Proxy, check_proxy, default_proxy, warn_if_exposed
from pandaserver.client.tls import explained

log = logging.getLogger(__name__)

PAUSES_S = (0.5, 1.0, 2.0, 4.0)
_TIMES_S = (10.0, 120.0)  # to connect, to answer
_COME_AGAIN = (408, 425, 429)
_PATHS = ("/server/panda", "/api/v1")  # what addresses of a server may end with


def base_url(server: str) -> str:
    """Give scheme, host and port of a server's address, which may have the path of a dialect behind it.

    Raises:
        WrongUse: it is no https address of a server.
    """
    address = server.strip().rstrip("/")
    for path in _PATHS:
        address = address.removesuffix(path)
    try:
        parts = urlsplit(address)
        good = parts.scheme == "https" and parts.hostname and (parts.port or 443) and not (parts.path or parts.query)
    except ValueError:
        good = False
    if not good or "@" in address:
        text = f"{server!r} is no address of a PanDA server, such as https://panda.example.org:25443"
        raise WrongUse(text, field="server", value=server)
    return address


class Connection:
    """Calls of /api/v1; every call of PanDA may come twice, so all are tried again when no answer comes."""

    def __init__(
        self,
        server: str,
        proxy: Path | None,
        ca_dir: Path,
        *,
        pauses_s: Sequence[float] = PAUSES_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = base_url(server)
        self.proxy, self.ca_dir = proxy, ca_dir
        self._host = urlsplit(self.url).netloc
        self._pauses_s, self._sleep = tuple(pauses_s), sleep
        self._shown: Proxy | None = None
        self._session = requests.Session()
        self._session.trust_env = False  # no HTTP proxies, no .netrc, no other CA bundle
        self._session.verify = str(ca_dir)
        self._session.cert = str(proxy) if proxy else None
        self._session.headers.update({"User-Agent": f"panda-client/{__version__}", "Accept": "application/json"})

    def close(self) -> None:
        """Close what is open; a later call opens it again."""
        self._session.close()

    def need_proxy(self) -> None:
        """Make sure that there is a proxy, for calls that only known people may make."""
        if self.proxy is None:
            text = f"this needs a proxy and there is none at {default_proxy()}: {RENEW}, or name it by X509_USER_PROXY"
            raise NotAuthenticated(text, field="proxy")

    def get(self, call: str, **query: Any) -> Any:
        """Ask for data."""
        return self._persistently("GET", call, {"params": query})

    def post(self, call: str, body: dict[str, Any]) -> Any:
        """Ask with a JSON body."""
        return self._persistently("POST", call, {"json": body})

    def send_file(self, call: str, name: str, content: bytes) -> Any:
        """Upload a file under a name."""
        return self._persistently("POST", call, {"files": {"file": (name, content, "application/octet-stream")}})

    def _persistently(self, method: str, call: str, arguments: dict[str, Any]) -> Any:
        for pause_s in self._pauses_s:
            try:
                return self._once(method, call, arguments)
            except Unreachable as error:
                log.warning("%s; trying again in %g s", error, pause_s)
            self._sleep(pause_s)
        return self._once(method, call, arguments)

    def _once(self, method: str, call: str, arguments: dict[str, Any]) -> Any:
        self._check_files()
        url = f"{self.url}/api/v1/{call}"
        with explained(self._host, self.proxy, self.ca_dir):
            response = self._session.request(method, url, timeout=_TIMES_S, allow_redirects=False, **arguments)
        return self._data(response)

    def _check_files(self) -> None:
        """Look at proxy and CA directory; a renewed proxy must not speak through a connection of the old one."""
        if not self.ca_dir.is_dir():
            text = f"the CA directory {self.ca_dir} does not exist: name it by --ca-dir or X509_CERT_DIR"
            raise NotTrusted(text, field="ca_dir", value=str(self.ca_dir))
        if self.proxy is None:
            return
        proxy = check_proxy(self.proxy)
        if proxy != self._shown:
            self._session.close()
            self._shown = proxy
            warn_if_exposed(self.proxy)

    def _data(self, response: requests.Response) -> Any:
        answer = _envelope(response)
        if response.status_code == 200 and answer.get("success") is True:
            return answer.get("data")
        raise _refusal(answer, response, self._host)


def _refusal(answer: dict[str, Any], response: requests.Response, host: str) -> ClientError:
    """Make an error of an answer that is no success: an envelope, or the error of a front end in JSON."""
    if response.status_code == 404 and "success" not in answer:
        text = f"{host} has no such call: is it a PanDA server, as new as this client ({__version__})?"
        return StrangeAnswer(text, field="server", value=response.url)
    told = answer.get("error")
    error = told if isinstance(told, dict) else answer
    status = error.get("status", response.status_code)
    if status == 200 or not isinstance(status, int):
        status = 400  # refused without saying of which kind
    message = str(answer.get("message") or f"{host} answers with HTTP status {status} and no reason")
    field, value = error.get("field"), error.get("value")
    if status >= 500 or status in _COME_AGAIN:
        number = response.headers.get("X-Request-ID")
        text = f"{host} has trouble: {message}" + (f" (request {number})" if number else "")
        return Unreachable(text, field=field, value=value)
    if status == 401:
        return NotAuthenticated(message, field=field, value=value)
    return Refused(message, status=status, field=field, value=value)


def _envelope(response: requests.Response) -> dict[str, Any]:
    """Read what came as a JSON object; front ends answer in HTML when the server behind them is not there."""
    try:
        answer = json.loads(response.content, object_hook=_moments)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, dict):
        return answer
    status = response.status_code
    if status >= 500 or status in _COME_AGAIN:
        raise Unreachable(f"{response.url} answers with HTTP status {status}", value=status)
    text = f"{response.url} answers with HTTP status {status} and no words of a PanDA server: is the address right?"
    raise StrangeAnswer(text, field="server", value=response.url)


def _moments(told: dict[str, Any]) -> Any:
    """Make moments, always in UTC, of the form in which the server marks them."""
    marked = told.get("__datetime__")
    if not isinstance(marked, str) or len(told) != 1:
        return told
    try:
        moment = datetime.fromisoformat(marked)
    except ValueError:
        return marked
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
