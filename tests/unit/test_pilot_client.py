"""The HTTP client's judgement of answers, with the network replaced inside the HTTP library."""

from __future__ import annotations

import io
import json

import pytest
import requests
from requests.adapters import BaseAdapter

from pandapilot.failures import NotAuthorised, ServerRefused, ServerUnreachable, TlsFailed
from pandapilot.jobs import job_from_wire
from pandapilot.server import JobAnswer, Server, same_origin
from pandapilot.settings import Identity

URL = "https://panda.example.org:25443"


class Clock:
    def __init__(self):
        self.time = 0.0

    def now(self):
        return self.time


class Network(BaseAdapter):
    """Answers every request with what was prepared and remembers what was asked."""

    def __init__(self, clock):
        super().__init__()
        self.clock, self.answer, self.seen, self.slow_s = clock, (200, b"{}"), [], 0.0

    def send(self, request, **options):
        self.seen.append((request, options))
        if isinstance(self.answer, Exception):
            raise self.answer
        response = requests.Response()
        response.status_code, content = self.answer
        response.raw, response.url, response.request = io.BytesIO(content), request.url, request
        self.clock.time += self.slow_s
        return response

    def close(self):
        pass


@pytest.fixture
def network(tmp_path):
    return Network(Clock())


@pytest.fixture
def server(tmp_path, network):
    made = Server(URL, Identity(proxy=tmp_path / "proxy.pem", ca_directory=tmp_path), network.clock)
    for session in (made._session, made._elsewhere):
        session.mount("https://", network)
        session.mount("http://", network)
    yield made
    made.close()


def answer(network, value, status=200):
    network.answer = (status, json.dumps(value).encode())


def test_proxy_and_ca_directory_are_used_and_the_environment_is_not(server, network, tmp_path, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/other")
    monkeypatch.setenv("HTTPS_PROXY", "http://evil:1")
    server.queue_data("A/B")
    request, options = network.seen[0]
    assert request.url == f"{URL}/cache/schedconfig/A%2FB.all.json"
    assert options["verify"] == str(tmp_path)
    assert options["cert"] == str(tmp_path / "proxy.pem")
    assert not options["proxies"]


def test_other_servers_get_no_credential_but_are_verified(server, network, tmp_path):
    network.answer = (200, b"script")
    target = io.BytesIO()
    server.download("https://elsewhere.org/run.sh", target, lambda: None)
    assert target.getvalue() == b"script"
    assert network.seen[0][1]["cert"] is None
    assert network.seen[0][1]["verify"] == str(tmp_path)
    server.download(f"{URL}/cache/run.sh", target, lambda: None)
    assert network.seen[1][1]["cert"] == str(tmp_path / "proxy.pem")


def test_only_its_server_sees_the_token_of_the_job(server, network):
    job = job_from_wire({"PandaID": 7, "attemptNr": 1, "jobToken": "t0k"})
    for url in ("https://elsewhere.org/run.sh", URL.replace("https", "http") + "/cache/run.sh", f"{URL}/cache/run.sh"):
        network.answer = (200, b"script")
        server.download(url, io.BytesIO(), lambda: None, job=job)
    *others, (own, _) = network.seen
    assert [own.headers["X-Job-Id"], own.headers["X-Job-Token"]] == ["7", "t0k"]
    assert not any(name.startswith("X-Job") for request, _ in others for name in request.headers)
    assert not any("t0k" in request.url for request, _ in network.seen)


@pytest.mark.parametrize(
    ("url", "same"),
    [
        (URL + "/x", True),
        ("https://panda.example.org/x", False),
        ("http://panda.example.org:25443/x", False),
        ("https://panda.example.org:25443@evil.org/x", False),
        ("https://evil.org/panda.example.org:25443", False),
    ],
)
def test_same_server_means_scheme_host_and_port(url, same):
    assert same_origin(url, URL) is same


def test_job_is_given_or_not(server, network):
    answer(network, {"StatusCode": 0, "PandaID": 1})
    assert server.get_job({"requestId": "r"}).job["PandaID"] == 1
    assert json.loads(network.seen[0][0].body) == {"requestId": "r"}
    for status in (20, "20", 30, None, "x"):
        answer(network, {"StatusCode": status})
        assert server.get_job({}) == JobAnswer()
    for status in (40, 70):
        answer(network, {"StatusCode": status, "message": "go away"})
        with pytest.raises(NotAuthorised, match="go away"):
            server.get_job({})


@pytest.mark.parametrize(
    ("said", "seconds"),
    [(7, 7), ("7", 7), (0.5, 0.5), (None, None), ("soon", None), (-1, None), (10**9, None), ("nan", None), ([1], None)],
)
def test_the_server_may_say_when_to_ask_again(server, network, said, seconds):
    answer(network, {"StatusCode": 20, "retryAfter": said})
    assert server.get_job({}) == JobAnswer(retry_after_s=seconds)


@pytest.mark.parametrize(("told", "read_s"), [({}, 60), ({"wait": 30}, 90)])
def test_an_answer_that_may_wait_has_more_time(server, network, told, read_s):
    answer(network, {"StatusCode": 20})
    server.get_job(told)
    assert network.seen[0][1]["timeout"] == (5, read_s)


@pytest.mark.parametrize(
    ("wire", "accepted", "kill"),
    [
        ({"StatusCode": 0, "command": "NULL"}, True, False),
        ({"StatusCode": "0"}, True, False),
        ({"StatusCode": 0, "command": "debug, tobekilled"}, True, True),
        ({"StatusCode": 30, "command": "tobekilled"}, False, True),
        ({"StatusCode": 30, "command": None}, False, False),
        ({}, False, False),
    ],
)
def test_answers_to_updates(server, network, wire, accepted, kill):
    answer(network, wire)
    found = server.update_job({})
    assert (found.accepted, found.kill) == (accepted, kill)


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, NotAuthorised), (403, NotAuthorised), (400, ServerRefused), (404, ServerRefused), (413, ServerRefused),
     (302, ServerRefused), (408, ServerUnreachable), (429, ServerUnreachable), (500, ServerUnreachable),
     (503, ServerUnreachable)],
)  # fmt: skip
def test_http_status_decides_whether_to_come_again(server, network, status, error):
    answer(network, {"message": "words"}, status)
    with pytest.raises(error) as caught:
        server.update_job({})
    assert type(caught.value) is error
    assert str(status) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"<html>\x1b[2J", b'{"StatusCode": 0', b"\xff\xfe"])
def test_answer_that_is_no_object_may_be_asked_for_again(server, network, content):
    network.answer = (200, content)
    with pytest.raises(ServerUnreachable, match="no JSON object") as caught:
        server.get_job({})
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("error", "certain"),
    [
        ("(Caused by SSLError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed'))", True),
        ("(Caused by SSLError(1, '[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca'))", True),
        ("(Caused by SSLEOFError(8, 'EOF occurred in violation of protocol'))", False),
    ],
)
def test_tls_trouble_is_told_apart(server, network, error, certain):
    network.answer = requests.exceptions.SSLError(error)
    with pytest.raises(TlsFailed) as caught:
        server.storage_data()
    assert caught.value.certain is certain


@pytest.mark.parametrize("error", [requests.ConnectionError("refused"), requests.Timeout("late")])
def test_network_errors_mean_come_again(server, network, error):
    network.answer = error
    with pytest.raises(ServerUnreachable, match=r"panda\.example\.org:25443"):
        server.storage_data()


def test_endless_and_dripping_answers_are_cut_off(server, network, monkeypatch):
    monkeypatch.setattr("pandapilot.server.ANSWER_LIMIT_BYTES", 100)
    network.answer = (200, b"x" * 101)
    with pytest.raises(ServerRefused, match="more than 100 bytes"):
        server.storage_data()
    network.answer, network.slow_s = (200, b"{}"), 0.0
    ticking = iter(range(0, 10_000, 1000))
    network.clock.now = lambda: next(ticking)
    with pytest.raises(ServerUnreachable, match="not complete"):
        server.storage_data()


def test_download_of_nonsense_is_refused(server):
    server._elsewhere.adapters.clear()
    with pytest.raises(ServerRefused):
        server.download("gopher://x/y", io.BytesIO(), lambda: None)
