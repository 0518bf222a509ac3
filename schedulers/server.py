"""Asks the PanDA server what waits where; an answer that cannot be used is an error, never «nothing waits»."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import requests

from schedulers.errors import ServerUnknown

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
LARGEST_ANSWER_BYTES = 64 * 1024 * 1024

JobCounts = dict[str, dict[str, int]]


class Server(Protocol):
    """The two questions that a scheduler has."""

    def job_counts(self) -> JobCounts:
        """Give the number of jobs by queue and state; a queue that is absent has none."""

    def queue_status(self) -> dict[str, str]:
        """Give the status of each queue; one that is absent is unknown."""


class PandaServer:
    """The server over HTTPS, on one connection that is kept."""

    def __init__(
        self, url: str, *, proxy: Path | None = None, ca_dir: Path | None = None, timeout_s: float = 20.0
    ) -> None:
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = str(ca_dir) if ca_dir else True
        self._session.cert = str(proxy) if proxy else None

    def __enter__(self) -> Self:
        """Use it in a with statement, so that its connection is closed."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self._session.close()

    def job_counts(self) -> JobCounts:
        """Ask getJobStatisticsPerSite."""
        answer = self._get("getJobStatisticsPerSite")
        return {queue: _counts(queue, states) for queue, states in answer.items()}

    def queue_status(self) -> dict[str, str]:
        """Ask getSiteSpecs, of which the schedulers need the status alone."""
        answer = self._get("getSiteSpecs")
        statuses = {queue: spec.get("status") for queue, spec in answer.items() if isinstance(spec, dict)}
        return {queue: status for queue, status in statuses.items() if isinstance(status, str)}

    def _get(self, method: str) -> Mapping[str, object]:
        url = f"{self._url}/server/panda/{method}"
        try:
            with self._session.get(
                url, timeout=(CONNECT_TIMEOUT_S, self._timeout_s), stream=True, allow_redirects=False
            ) as response:
                body = _read(response)
        # OSError: an unreadable proxy or CA directory is found only when the connection is made.
        except (requests.RequestException, OSError) as error:
            raise ServerUnknown(f"{url}: {error}") from error
        if response.status_code != 200:
            raise ServerUnknown(f"{url}: HTTP {response.status_code}: {body[:200].decode(errors='replace')}")
        return _mapping(url, body)


def _read(response: requests.Response) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(65536):
        body += chunk
        if len(body) > LARGEST_ANSWER_BYTES:
            raise ServerUnknown(f"{response.url}: more than {LARGEST_ANSWER_BYTES} bytes")
    return bytes(body)


def _mapping(url: str, body: bytes) -> Mapping[str, object]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ServerUnknown(f"{url}: the answer is not JSON: {body[:80]!r}") from error
    if not isinstance(answer, dict):
        raise ServerUnknown(f"{url}: a JSON object by queue is expected, not {body[:80]!r}")
    return answer


def _counts(queue: str, states: object) -> dict[str, int]:
    if not isinstance(states, dict) or not all(type(n) is int and n >= 0 for n in states.values()):
        raise ServerUnknown(f"job statistics of {queue}: numbers by state are expected, not {states!r:.80}")
    return states
