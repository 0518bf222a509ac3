"""The pilot's way to the PanDA server, and the only place that speaks HTTP."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

import requests

from pandapilot import __version__
from pandapilot.clock import Clock, Tick
from pandapilot.failures import NotAuthorised, ServerRefused, ServerUnreachable, TlsFailed
from pandapilot.jobs import Job
from pandapilot.settings import Identity
from pandapilot.text import clip, printable

logger = logging.getLogger(__name__)

CONNECT_S = 5.0
READ_S = 20.0
GET_JOB_READ_S = 60.0
LONGEST_RETRY_AFTER_S = 3600.0
ANSWER_LIMIT_BYTES = 32 * 1024 * 1024
DOWNLOAD_LIMIT_BYTES = 512 * 1024 * 1024
DOWNLOAD_S = 1800.0
CHUNK_BYTES = 64 * 1024

_STATUS_OK = 0
_STATUS_NO_JOB = 20
_NO_PERMISSION = (40, 70)
_COME_AGAIN = (408, 425, 429)
_CERTIFICATE_TROUBLE = re.compile(r"\[SSL: [^\]]*(CERTIFICATE|UNKNOWN_CA)")


@dataclass(frozen=True)
class UpdateAnswer:
    """What the server says to an update: whether it counts, and what the pilot is to do."""

    accepted: bool
    commands: frozenset[str] = frozenset()

    @property
    def kill(self) -> bool:
        """Tell whether the payload is to be stopped."""
        return "tobekilled" in self.commands


@dataclass(frozen=True)
class JobAnswer:
    """What the server says to a request for a job: the job, or none and perhaps when to ask again."""

    job: dict[str, Any] | None = None
    retry_after_s: float | None = None


class Server:
    """The calls of the PanDA server that a pilot needs; each is one try and may be repeated."""

    def __init__(self, url: str, identity: Identity, clock: Clock) -> None:
        """Make one session that shows the proxy to the server, and one without it for everybody else."""
        self.url = url
        self._clock = clock
        self._session = _session(identity)
        self._session.cert = str(identity.proxy) if identity.proxy else None
        self._elsewhere = _session(identity)

    def queue_data(self, queue: str) -> dict[str, Any]:
        """Return the JSON object of one queue."""
        return self._object(self._fetch("GET", f"/cache/schedconfig/{quote(queue, safe='')}.all.json"))

    def storage_data(self) -> dict[str, Any]:
        """Return the JSON object of all storage endpoints."""
        return self._object(self._fetch("GET", "/cache/ddmendpoints.json"))

    def get_job(self, request: dict[str, Any]) -> JobAnswer:
        """Ask for a job; a repeated request must carry the same requestId.

        With `wait` the server may take so many seconds longer to answer.
        """
        read_s = GET_JOB_READ_S + request.get("wait", 0)
        answer = self._object(self._fetch("POST", "/server/panda/getJob", body=request, read_s=read_s))
        status = _status_code(answer)
        if status in _NO_PERMISSION:
            raise NotAuthorised(403, _words(answer))
        if status not in (_STATUS_OK, _STATUS_NO_JOB):
            logger.warning("the server gave no job: status %s, %s", status, _words(answer))
        return JobAnswer(job=answer) if status == _STATUS_OK else JobAnswer(retry_after_s=_retry_after_s(answer))

    def update_job(self, update: dict[str, Any]) -> UpdateAnswer:
        """Tell the server how a job is doing."""
        answer = self._object(self._fetch("POST", "/server/panda/updateJob", body=update))
        commands = frozenset(part.strip() for part in str(answer.get("command") or "").split(","))
        accepted = _status_code(answer) == _STATUS_OK
        if not accepted:
            logger.warning("the server did not take the update: %s", _words(answer))
        return UpdateAnswer(accepted=accepted, commands=commands - {"", "NULL"})

    def download(self, url: str, target: BinaryIO, tick: Tick, *, job: Job | None = None) -> None:
        """Copy what a URL holds; only the PanDA server itself gets to see the proxy and the token of the job."""
        own = same_origin(url, self.url)
        session = self._session if own else self._elsewhere
        proof = _proof(job) if job and own and url.startswith("https:") else {}
        with _translated(url):
            response = session.get(
                url, headers=proof, timeout=(CONNECT_S, READ_S), stream=True, allow_redirects=not own
            )
            with response:
                _check_status(response)
                if url.startswith("https:") and not response.url.startswith("https:"):
                    raise ServerRefused(response.status_code, f"{url} leads away from https")
                for chunk in self._chunks(response, DOWNLOAD_LIMIT_BYTES, DOWNLOAD_S):
                    tick()
                    target.write(chunk)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()
        self._elsewhere.close()

    def _fetch(self, method: str, path: str, *, body: dict[str, Any] | None = None, read_s: float = READ_S) -> bytes:
        with (
            _translated(self.url),
            self._session.request(
                method, self.url + path, json=body, timeout=(CONNECT_S, read_s), stream=True, allow_redirects=False
            ) as response,
        ):
            content = b"".join(self._chunks(response, ANSWER_LIMIT_BYTES, read_s + CONNECT_S))
            _check_status(response, content)
            return content

    def _chunks(self, response: requests.Response, limit_bytes: int, limit_s: float) -> Iterator[bytes]:
        """Read an answer piece by piece, so that neither an endless nor a dripping one holds the pilot."""
        end, size = self._clock.now() + limit_s, 0
        for chunk in response.iter_content(CHUNK_BYTES):
            size += len(chunk)
            if size > limit_bytes:
                raise ServerRefused(response.status_code, f"the answer has more than {limit_bytes} bytes")
            if self._clock.now() > end:
                raise ServerUnreachable(f"the answer was not complete after {limit_s:.0f} s")
            yield chunk

    def _object(self, content: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            text = printable(content[:80].decode("utf-8", "replace"))
            raise ServerUnreachable(f"{self.url} answered with something that is no JSON object: {text!r}")
        return answer


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """Turn the exceptions of the HTTP library into those of the pilot."""
    host = urlsplit(url).netloc
    try:
        yield
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
        raise ServerRefused(0, f"not a usable URL: {error}") from error
    except requests.exceptions.SSLError as error:
        raise TlsFailed(
            f"TLS with {host} failed: {error}; check that the CA directory knows the CA of the server, and that "
            "the proxy is neither expired nor from a CA that the server does not know",
            certain=bool(_CERTIFICATE_TROUBLE.search(str(error))),
        ) from error
    except requests.RequestException as error:
        raise ServerUnreachable(f"no answer from {host}: {error}") from error


def same_origin(url: str, other: str) -> bool:
    """Tell whether two URLs lead to the same server, by scheme, host and port."""
    first, second = urlsplit(url), urlsplit(other)
    return (first.scheme, first.hostname, first.port) == (second.scheme, second.hostname, second.port)


def _proof(job: Job) -> dict[str, str]:
    """Show that the pilot has the job: sandboxes may be for nobody else."""
    return {"X-Job-Id": str(job.job_id), "X-Job-Token": job.token} if job.token else {}


def _session(identity: Identity) -> requests.Session:
    """Make a session that takes nothing from the environment: no proxies, no .netrc, no other CA bundle."""
    session = requests.Session()
    session.trust_env = False
    session.verify = str(identity.ca_directory) if identity.ca_directory else True
    session.headers["User-Agent"] = f"pandapilot/{__version__}"
    session.headers["Accept"] = "application/json, */*"
    return session


def _check_status(response: requests.Response, content: bytes = b"") -> None:
    """Raise what a status other than 2xx means to a pilot."""
    status = response.status_code
    if 200 <= status < 300:
        return
    message = clip(printable(content.decode("utf-8", "replace") or str(response.reason)), 300)
    if status in (401, 403):
        raise NotAuthorised(status, message)
    if status >= 500 or status in _COME_AGAIN:
        raise ServerUnreachable(f"HTTP status {status}: {message}")
    raise ServerRefused(status, message)


def _status_code(answer: dict[str, Any]) -> int:
    try:
        return int(answer.get("StatusCode", -1))
    except (TypeError, ValueError):
        return -1


def _retry_after_s(answer: dict[str, Any]) -> float | None:
    """Read when to come again; nonsense and more than an hour count as nothing said."""
    try:
        seconds = float(answer.get("retryAfter") or 0)
    except (TypeError, ValueError):
        return None
    return seconds if 0 < seconds <= LONGEST_RETRY_AFTER_S else None


def _words(answer: dict[str, Any]) -> str:
    return clip(printable(str(answer.get("message") or answer.get("errorDialog") or "no reason given")), 300)
