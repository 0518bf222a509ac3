"""Apache's doors: a cache that is not for everybody, words for those who are not known, and clients that never end."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MariaDB, pick_free_port
from factories import Pki
from private_httpd import Httpd, Ports, private_httpd, wait_until

pytestmark = [pytest.mark.credentials, pytest.mark.mysql]


@pytest.fixture(scope="module")
def httpd(pki: Pki, mariadb: MariaDB) -> Iterator[Httpd]:
    url = mariadb.new_database()
    with private_httpd(pki, url, Ports(*(pick_free_port() for _ in range(3)))) as made:
        yield made


@contextlib.contextmanager
def closed_cache(httpd: Httpd) -> Iterator[None]:
    """Give sandboxes to those only whom they concern, for a while."""
    config = httpd.root / "etc/panda/panda_server.cfg"
    open_to_all = config.read_text()
    for text, status in ((open_to_all.replace("[cache]\n", "[cache]\npublic = no\n"), 401), (open_to_all, 200)):
        config.write_text(text)
        httpd.control("graceful")
        wait_until(
            lambda status=status: httpd.curl("/cache/known-77.sh").status == status, "the new configuration counts"
        )
        if status == 401:
            yield


def test_a_sandbox_may_be_for_the_pilot_of_its_job_only(httpd: Httpd, tmp_path: Path) -> None:
    """Apache serves nothing of the cache by itself."""
    script = tmp_path / "known-77.sh"
    script.write_text("#!/bin/sh\necho known\n")
    assert httpd.curl("/server/panda/putFile", "--form", f"file=@{script}", who="alice").status == 200
    url = f"https://localhost:{httpd.port}/cache/known-77.sh"
    told = {"transformation": url, "computingSite": "BNL", "prodSourceLabel": "user", "Files": []}
    ((job_id, *_),) = httpd.call("alice", "submitJobs", jobs=[told])
    httpd.wait_for(job_id, "activated")
    job = httpd.call("pilot", "getJob", siteName="BNL", prodSourceLabel="user")
    assert job["PandaID"] == job_id
    proof = ["-H", f"X-Job-Id: {job_id}", "-H", f"X-Job-Token: {job['jobToken']}"]
    bearer = ["-H", f"X-Job-Id: {job_id}", "-H", f"Authorization: Bearer {job['jobToken']}"]
    with closed_cache(httpd):
        for way in (proof, bearer):
            assert httpd.curl("/cache/known-77.sh", *way).text == script.read_text()
            assert httpd.curl("/cache/known-77.sh", *way, base=httpd.plain).status in (400, 401), "not without TLS"
        assert [httpd.curl("/cache/known-77.sh", who=who).status for who in ("alice", "pilot", "bob")] == [
            200,
            200,
            403,
        ]
        answer = httpd.curl("/cache/known-77.sh", "-i", *proof[:3], "X-Job-Token: 0")
        assert answer.status == 403
        for path in ("/cache//known-77.sh", "/cache/./known-77.sh", "/cache/known-77.sh/", "/cache/x/../known-77.sh"):
            assert httpd.curl(path, "--path-as-is").status in (401, 404), path
        assert httpd.curl("/cache/ddmendpoints.json").status == 200
    assert job["jobToken"] not in httpd.access_log() + httpd.log()


def test_nobody_is_told_both_ways_to_be_somebody(httpd: Httpd) -> None:
    answer = httpd.curl("/server/panda/killJobs", "-i", "--data", "ids=1")
    assert answer.status == 401 and "--cert PROXY" in answer.text and "Authorization: Bearer TOKEN" in answer.text
    assert 'www-authenticate: bearer realm="panda"' in answer.text.lower() and "x509 realm" in answer.text.lower()


SLOW = 50
LONGEST_S = 30.0  # of an ordinary request; a machine that does other things too needs its time


def half_open(httpd: Httpd, number: int) -> socket.socket:
    """Begin what is not to be ended: a handshake, a request, or a body."""
    raw = socket.create_connection(("127.0.0.1", httpd.port), timeout=60)
    if number % 3 == 0:
        raw.sendall(b"\x16\x03\x01\x02\x00\x01")  # the first bytes of a greeting
        return raw
    tls = ssl.create_default_context(cafile=httpd.pki / "ca.pem").wrap_socket(raw, server_hostname="localhost")
    head = b"POST /server/panda/getJobStatus HTTP/1.1\r\nHost: localhost\r\n"
    tls.sendall(head + (b"X-Slow: " if number % 3 == 1 else b"Content-Length: 1000\r\n\r\nids="))
    return tls


def drip(connections: list[socket.socket]) -> int:
    """Send one byte more on each; give how many the server has given up."""
    ended = 0
    for connection in connections:
        try:
            connection.sendall(b"1")
        except OSError:
            ended += 1
    return ended


def test_slow_clients_hold_up_nobody(httpd: Httpd) -> None:
    """Nor do they hold on for ever: what comes too slowly is broken off, greetings first."""
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(half_open(httpd, number)) for number in range(SLOW)]
        for _ in range(5):
            drip(slow)
            began = time.monotonic()
            assert httpd.curl("/server/panda/isAlive").text == "alive=yes"
            assert httpd.call("alice", "getAttr")["identity"]["dn"].endswith("Alice Adams")
            assert time.monotonic() - began < LONGEST_S
        greeters = len(range(0, SLOW, 3))
        wait_until(lambda: time.sleep(0.5) or drip(slow) >= greeters, "those that only greet are given up")
    assert httpd.curl("/server/panda/isAlive").text == "alive=yes"
