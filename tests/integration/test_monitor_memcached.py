"""Several monitors on one memcached: bytes in its text protocol, one maker at a time, and life without it."""

from __future__ import annotations

import logging
import socketserver
import threading
from collections.abc import Iterator

import pytest
from dogpile.cache.api import NO_VALUE, CachedValue

from pandamonitor.cache import Memcached, PageCache, Rendered, make_cache


class Daemon(socketserver.ThreadingTCPServer):
    """As much of memcached as the monitor speaks."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Conversation)
        self.stored: dict[bytes, bytes] = {}
        self.lock = threading.Lock()


class Conversation(socketserver.StreamRequestHandler):
    server: Daemon

    def handle(self) -> None:
        while line := self.rfile.readline():
            verb, key, *rest = line.split()
            with self.server.lock:
                self.wfile.write(getattr(self, verb.decode())(key, rest))

    def get(self, key: bytes, _rest: list[bytes]) -> bytes:
        value = self.server.stored.get(key)
        return b"END\r\n" if value is None else b"VALUE %s 0 %d\r\n%s\r\nEND\r\n" % (key, len(value), value)

    def set(self, key: bytes, rest: list[bytes]) -> bytes:
        self.server.stored[key] = self.rfile.read(int(rest[2]) + 2)[:-2]
        return b"STORED\r\n"

    def add(self, key: bytes, rest: list[bytes]) -> bytes:
        value = self.rfile.read(int(rest[2]) + 2)[:-2]
        if key in self.server.stored:
            return b"NOT_STORED\r\n"
        self.server.stored[key] = value
        return b"STORED\r\n"

    def delete(self, key: bytes, _rest: list[bytes]) -> bytes:
        return b"DELETED\r\n" if self.server.stored.pop(key, None) is not None else b"NOT_FOUND\r\n"


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    server = Daemon()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def cache_at(port: int) -> PageCache:
    return make_cache(f"memcached:127.0.0.1:{port}")


def page(body: str) -> Rendered:
    return Rendered(body, "text/html", "t", "2026-11-22T12:00:00.000Z", has_table=True)


def test_monitors_share_pages(daemon: Daemon) -> None:
    port = daemon.server_address[1]
    made = cache_at(port).get("/jobs?name=ü", lambda: page("<p>ü</p>" * 9000), for_s=60)
    found = cache_at(port).get("/jobs?name=ü", lambda: page("other"), for_s=60)
    assert found == made
    assert cache_at(port).get("/", lambda: page("other"), for_s=60).body == "other"


def test_what_is_stored_is_no_pickle_and_no_lock_is_left(daemon: Daemon) -> None:
    cache_at(daemon.server_address[1]).get("/", lambda: page("x"), for_s=60)
    (value,) = daemon.stored.values()
    assert b"\x80\x04" not in value
    assert b"pandamonitor" not in value


def test_only_one_monitor_makes_a_page(daemon: Daemon) -> None:
    port = daemon.server_address[1]
    started, go_on, bodies = threading.Event(), threading.Event(), []
    cache_at(port).get("/", lambda: page("old"), for_s=60)

    def slowly() -> Rendered:
        started.set()
        assert go_on.wait(10)
        return page("new")

    maker = threading.Thread(target=lambda: bodies.append(cache_at(port).get("/", slowly, for_s=1e-9).body))
    maker.start()
    assert started.wait(10)
    assert cache_at(port).get("/", lambda: page("never"), for_s=1e-9).body == "old"
    go_on.set()
    maker.join(10)
    assert bodies == ["new"]


@pytest.mark.parametrize("rubbish", [b"", b"rubbish", b"1|{}|x", b"x" * 100])
def test_rubbish_in_the_cache_is_made_again(daemon: Daemon, rubbish: bytes) -> None:
    cache = cache_at(daemon.server_address[1])
    cache.get("/", lambda: page("x"), for_s=60)
    for key in daemon.stored:
        daemon.stored[key] = rubbish
    assert cache.get("/", lambda: page("again"), for_s=60).body == "again"


def test_without_memcached_every_page_is_made(free_port: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    cache = cache_at(free_port)
    assert [cache.get("/", lambda n=n: page(n), for_s=60).body for n in "12"] == ["1", "2"]
    assert "does not serve" in caplog.text


def test_the_door_by_itself(daemon: Daemon) -> None:
    door = Memcached({"host": "127.0.0.1", "port": daemon.server_address[1]})
    values = {name: CachedValue(page(name), {"ct": 1.5, "v": 1}) for name in "ab"}
    door.set_multi(values)
    assert door.get_multi(["a", "b", "c"]) == [*values.values(), NO_VALUE]
    door.delete_multi(["a", "b"])
    assert daemon.stored == {}
    mutex = door.get_mutex("x")
    assert mutex.acquire(False)
    assert (door.get_mutex("x").acquire(False), mutex.locked()) == (False, True)
    mutex.release()
    assert not mutex.locked()
