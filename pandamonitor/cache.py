"""One computation for all who look: rendered pages, kept for some seconds, in memory or in a shared memcached."""

from __future__ import annotations

import hashlib
import json
import logging
import socket
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, BinaryIO, cast

from dogpile.cache import CacheRegion, make_region, register_backend
from dogpile.cache.api import NO_VALUE, CacheBackend, CachedValue, CacheMutex

from pandamonitor.settings import memcached_address
from pandaserver.taskbuffer.monitoring import Unreadable

log = logging.getLogger(__name__)

_TIMEOUT_S = 2.0
_LOCK_S = 20
_KEPT_S = 3600  # memcached forgets by itself after this; until then an old page can stand in for a lost database
_LARGEST_PAGE = 32 * 1024 * 1024


@dataclass(frozen=True)
class Rendered:
    """An answer as it was made; a whole page gets its frame when it is sent."""

    body: str
    mimetype: str
    title: str
    made_at: str  # ISO 8601
    has_table: bool = False
    stale: bool = False  # the database is lost, and this is what was known before

    @property
    def etag(self) -> str:
        """Give what changes exactly when the answer does."""
        return hashlib.sha256(f"{self.made_at}{self.stale}{self.body}".encode(errors="replace")).hexdigest()[:32]


class PageCache:
    """Remembers answers; while one caller makes a page again, the others get the old one."""

    def __init__(self, region: CacheRegion) -> None:
        self._region = region

    def get(self, key: str, make: Callable[[], Rendered], *, for_s: float) -> Rendered:
        """Give the answer, made at most `for_s` ago, or an old one while the database is lost."""
        name = hashlib.sha256(key.encode(errors="replace")).hexdigest()
        if for_s <= 0:
            return make()
        try:
            found: Rendered = self._region.get_or_create(name, make, expiration_time=for_s)
        except Unreadable as error:
            old = self._region.get(name, ignore_expiration=True)
            if old is NO_VALUE:
                raise
            log.warning("showing an old page: %s", error)
            return replace(cast(Rendered, old), stale=True)
        return found


def make_cache(cache: str) -> PageCache:
    """Make the cache that the settings name."""
    address = memcached_address(cache)
    if address is None:
        region = make_region().configure("dogpile.cache.memory", arguments={"cache_dict": BoundedDict()})
    else:
        arguments = {"host": address[0], "port": address[1]}
        region = make_region().configure("panda.memcached", arguments=arguments)
    return PageCache(region)


class BoundedDict(OrderedDict[str, Any]):
    """A dictionary that forgets what was not asked for longest; odd addresses cannot fill the memory."""

    def __init__(self, limit: int = 256) -> None:
        super().__init__()
        self._limit = limit
        self._lock = threading.Lock()

    def get(self, key: str, default: Any = None) -> Any:
        """Look a value up, and keep it longer."""
        with self._lock:
            if key not in self:
                return default
            self.move_to_end(key)
            return self[key]

    def __setitem__(self, key: str, value: Any) -> None:
        """Store a value, at the cost of the oldest."""
        with self._lock:
            super().__setitem__(key, value)
            while len(self) > self._limit:
                super().__delitem__(next(iter(self)))


class Memcached(CacheBackend):
    """dogpile's door to memcached: JSON and no pickle; a server that is away, or rubbish in it, is an empty cache."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self._address = (arguments["host"], int(arguments["port"]))

    def get_mutex(self, key: str) -> CacheMutex:
        """See dogpile: of all monitors that share the cache, one makes a page again."""
        return _Mutex(self, f"{key}-lock")

    def add(self, key: str, for_s: int) -> bool:
        """Store a mark if it is not there; True as well when memcached is away, for then nobody else can."""
        return not self._ask(f"add {_name(key)} 0 {for_s} 1\r\n1\r\n".encode()).startswith(b"NOT_STORED")

    def marked(self, key: str) -> bool:
        """Say whether a mark is there."""
        return self._ask(f"get {_name(key)}\r\n".encode()) == b"1"

    def get(self, key: str) -> Any:
        """See dogpile."""
        data = self._ask(f"get {_name(key)}\r\n".encode())
        try:
            return _unpack(data) if data else NO_VALUE
        except (ValueError, TypeError, KeyError, zlib.error) as error:
            log.warning("memcached at %s:%d holds what no monitor wrote: %s", *self._address, error)
            return NO_VALUE

    def get_multi(self, keys: Iterable[str]) -> list[Any]:
        """See dogpile."""
        return [self.get(key) for key in keys]

    def set(self, key: str, value: Any) -> None:
        """See dogpile."""
        data = _pack(value)
        self._ask(f"set {_name(key)} 0 {_KEPT_S} {len(data)}\r\n".encode() + data + b"\r\n")

    def set_multi(self, mapping: Any) -> None:
        """See dogpile."""
        for key, value in mapping.items():
            self.set(key, value)

    def delete(self, key: str) -> None:
        """See dogpile."""
        self._ask(f"delete {_name(key)}\r\n".encode())

    def delete_multi(self, keys: Iterable[str]) -> None:
        """See dogpile."""
        for key in keys:
            self.delete(key)

    def _ask(self, words: bytes) -> bytes:
        """Say words and give the answer: the value that was asked for, or the line; nothing when nobody answers."""
        try:
            with socket.create_connection(self._address, timeout=_TIMEOUT_S) as connection:
                connection.sendall(words)
                with connection.makefile("rb") as answers:
                    return _answer(answers)
        except OSError as error:
            log.warning("memcached at %s:%d does not serve: %s", *self._address, error)
            return b""


def _answer(answers: BinaryIO) -> bytes:
    line = answers.readline(1000)
    parts = line.split()
    if line.startswith(b"VALUE ") and len(parts) == 4 and parts[3].isdigit() and int(parts[3]) <= _LARGEST_PAGE:
        return answers.read(int(parts[3]))
    return b"" if line.startswith(b"END") else line


def _pack(value: CachedValue) -> bytes:
    told = {"page": asdict(value.payload), "metadata": value.metadata}
    return zlib.compress(json.dumps(told).encode(), 1)


def _unpack(data: bytes) -> CachedValue:
    told = json.loads(zlib.decompressobj().decompress(data, _LARGEST_PAGE))
    return CachedValue(Rendered(**told["page"]), {"ct": float(told["metadata"]["ct"]), "v": int(told["metadata"]["v"])})


class _Mutex(CacheMutex):
    """A mark in memcached that says: somebody makes this page; forgotten by itself when he dies."""

    def __init__(self, cache: Memcached, key: str) -> None:
        self._cache, self._key = cache, key

    def acquire(self, wait: bool = True) -> bool:
        """Take the mark, or wait for it as long as it lives."""
        give_up = time.monotonic() + _LOCK_S
        while not self._cache.add(self._key, _LOCK_S):
            if not wait:
                return False
            if time.monotonic() > give_up:
                return True
            time.sleep(0.05)
        return True

    def release(self) -> None:
        """Give the mark back."""
        self._cache.delete(self._key)

    def locked(self) -> bool:
        """Say whether somebody has it."""
        return self._cache.marked(self._key)


def _name(key: str) -> str:
    return f"panda-monitor-1:{key}"


register_backend("panda.memcached", "pandamonitor.cache", "Memcached")  # type: ignore[no-untyped-call]
