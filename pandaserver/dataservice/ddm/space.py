"""Quotas: how full endpoints are, as far as the catalogue knows."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from pandaserver.errors import DDMError
from pandaserver.taskbuffer import catalogue, topology
from pandaserver.taskbuffer.buffer import TaskBuffer

_GB = 1000**3
_FRESH_S = 10.0
_SHARE = 20  # what is counted is used for at least so many times as long as the counting took


@dataclass
class _Used:
    """What was counted, with what this process has copied since."""

    size_bytes: int
    until_s: float


class Space:
    """Looks after quotas; to count all files of an endpoint is dear, so it is done now and then."""

    def __init__(self, buffer: TaskBuffer) -> None:
        self._buffer = buffer
        self._lock = threading.Lock()
        self._used: dict[str, _Used] = {}

    def check(self, endpoint: str, size_bytes: int) -> None:
        """See whether so many bytes more may be put to an endpoint.

        Raises:
            DDMError: its quota is used up; that may pass.
        """
        quota = topology.of(self._buffer).endpoints[endpoint].quota_gb * _GB
        used = self._count(endpoint) if quota else 0
        if quota and used + size_bytes > quota:
            free = f"{used / _GB:.3f} GB of its quota of {quota / _GB:g} GB are used"
            raise DDMError(
                f"{endpoint} has no room for {size_bytes / _GB:.3f} GB more: {free}", field="quota_gb", value=endpoint
            )

    def fill(self, endpoint: str, size_bytes: int) -> None:
        """Note what was copied."""
        with self._lock:
            if endpoint in self._used:
                self._used[endpoint].size_bytes += size_bytes

    def _count(self, endpoint: str) -> int:
        with self._lock:
            begun_s, known = time.monotonic(), self._used.get(endpoint)
            if known is None or begun_s >= known.until_s:
                size = self._buffer.read(lambda c: catalogue.used(c, endpoint))
                took_s = time.monotonic() - begun_s
                known = self._used[endpoint] = _Used(size, begun_s + max(_FRESH_S, _SHARE * took_s))
            return known.size_bytes
