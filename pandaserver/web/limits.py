"""How much one DN or address may ask for: token buckets in this process, so with several each gives as much."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from pandaserver.config import LimitsSection
from pandaserver.errors import TooMany

_MOST_DNS = 10_000  # that are remembered; who was silent the longest is forgotten, and begins anew
_DAY_S = 86400.0
_MB = 1024 * 1024


@dataclass
class _Level:
    """How much is left in a bucket, and when that was."""

    left: float
    at: float


class Buckets:
    """A bucket for each DN, refilled steadily: `rate` a second, up to `size`."""

    def __init__(self, rate: float, size: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._size, self._clock = rate, size, clock
        self._levels: OrderedDict[str, _Level] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, dn: str, amount: float = 1) -> float:
        """Take from somebody's bucket; give 0, or the seconds until there is enough, and then nothing is taken.

        What would never fit into a bucket may be taken from a full one.
        """
        with self._lock:
            now = self._clock()
            level = self._levels.setdefault(dn, _Level(self._size, now))
            self._levels.move_to_end(dn)
            level.left, level.at = min(self._size, level.left + (now - level.at) * self._rate), now
            missing = min(amount, self._size) - level.left
            if missing <= 0:
                level.left -= amount
            while len(self._levels) > _MOST_DNS:
                self._levels.popitem(last=False)
            return max(0.0, missing / self._rate)


class Limits:
    """What the configuration allows: requests of users, of services and of nobody known, and bytes of uploads."""

    def __init__(self, configured: LimitsSection, clock: Callable[[], float] = time.monotonic) -> None:
        self._configured = configured
        self._users = _buckets(configured.user_rate, configured.user_burst, clock)
        self._services = _buckets(configured.pilot_rate, configured.pilot_burst, clock)
        self._nobodies = _buckets(configured.anonymous_rate, configured.anonymous_burst, clock)
        per_day = configured.sandbox_mb_per_day
        self._uploads = Buckets(per_day * _MB / _DAY_S, per_day * _MB, clock) if per_day else None

    def take_request(self, dn: str, *, service: bool) -> None:
        """Count a request.

        Raises:
            TooMany: too many came from this DN.
        """
        buckets = self._services if service else self._users
        seconds = buckets.take(dn) if buckets else 0
        if seconds:
            rate = self._configured.pilot_rate if service else self._configured.user_rate
            text = f"too many requests from {dn}: {rate:g} a second are taken on average; come again later"
            raise TooMany(text, math.ceil(seconds), field="certificate", value=dn)

    def take_anonymous(self, address: str) -> None:
        """Count a request of somebody who is not known, by the address; an unknown one, as of a socket, is not counted.

        Raises:
            TooMany: too many came from there.
        """
        where = network(address)
        seconds = self._nobodies.take(where) if self._nobodies and where else 0
        if seconds:
            rate = f"{self._configured.anonymous_rate:g} a second are taken on average"
            text = f"too many requests without a certificate from {where}: {rate}; come again later, or show one"
            raise TooMany(text, math.ceil(seconds), field="certificate", value=where)

    def take_upload(self, dn: str, size_bytes: int) -> None:
        """Count an upload.

        Raises:
            TooMany: this DN left more than a day's worth of files.
        """
        seconds = self._uploads.take(dn, size_bytes) if self._uploads else 0
        if seconds:
            text = f"{dn} may upload {self._configured.sandbox_mb_per_day} MB a day; this is more: come again later"
            raise TooMany(text, math.ceil(seconds), field="file", value=size_bytes)


def _buckets(rate: float | None, burst: int, clock: Callable[[], float]) -> Buckets | None:
    return Buckets(rate, burst, clock) if rate else None


def network(address: str) -> str:
    """Give what counts as one place: an address, of IPv6 the /64 network, all of which one host may have; or none."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
