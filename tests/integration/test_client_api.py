"""The Python client over real TLS: lost answers, refusals, outages, and every way in which certificates go wrong."""

from __future__ import annotations

import socket
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from integration.test_client_stub import (
    Grid,
    Heard,
    NoAnswer,
    Stub,
    make_grid,
    pki,
    refusal,
    server_context,
    serving,
    success,
)

from pandaserver.client.api import PandaClient
from pandaserver.client.failures import (
    ClientError,
    FileTrouble,
    NotAuthenticated,
    NotTrusted,
    Refused,
    StrangeAnswer,
    Unreachable,
)

JOB = {"transformation": "https://x/run.sh", "Files": []}


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    return make_grid(tmp_path_factory.mktemp("grid"))


@pytest.fixture
def stub(grid: Grid) -> Iterator[Stub]:
    with serving(server_context(grid)) as server:
        yield server


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def client(stub: Stub, grid: Grid, pauses: list[float]) -> Iterator[PandaClient]:
    with PandaClient(stub.url, grid.proxy, grid.ca_dir, sleep=pauses.append) as made:
        yield made


def accepting() -> Any:
    """Give a handler that accepts jobs as the server does: one submission for one key."""
    known: dict[str, Any] = {}

    def submit(heard: Heard) -> Any:
        body = heard.body
        number = 100 + len(known)
        answer = [[number, 7, {"jobsetID": 7}] for _ in body["jobs"]]
        return success(known.setdefault(body["clientKey"], answer))

    return submit


# --- submitting ---


def test_submit(client: PandaClient, stub: Stub) -> None:
    stub.on("job/submit", [[101, 5, {"jobsetID": 6}], [102, 5, "a name"]])
    first, second = client.submit([JOB, JOB])
    assert (first.job_id, first.definition_id, first.jobset_id) == (101, 5, 6)
    assert (second.job_id, second.jobset_id) == (102, None)
    (heard,) = stub.calls("job/submit")
    assert heard.method == "POST"
    assert heard.has_certificate
    assert heard.body["jobs"] == [JOB, JOB]
    assert len(heard.body["clientKey"]) == 36


def test_every_submission_has_its_own_key(client: PandaClient, stub: Stub) -> None:
    stub.on("job/submit", accepting())
    assert client.submit([JOB]) != client.submit([JOB])
    keys = [heard.body["clientKey"] for heard in stub.heard]
    assert len(set(keys)) == 2


def test_lost_answer_is_asked_for_again_under_the_same_key(client: PandaClient, stub: Stub, pauses: list) -> None:
    accept = accepting()

    def lose(heard: Heard) -> Any:
        accept(heard)
        raise NoAnswer

    stub.on("job/submit", lose, lose, accept)
    (submitted,) = client.submit([JOB])
    assert submitted.job_id == 100, "the server must have taken all three for one"
    assert len({heard.body["clientKey"] for heard in stub.calls("job/submit")}) == 1
    assert len(stub.heard) == 3
    assert pauses == [0.5, 1.0]


def test_given_key_is_used(client: PandaClient, stub: Stub) -> None:
    stub.on("job/submit", accepting())
    assert client.submit([JOB], client_key="mine") == client.submit([JOB], client_key="mine")
    assert {heard.body["clientKey"] for heard in stub.heard} == {"mine"}


@pytest.mark.parametrize("data", [None, [[1]], [["a", 2, {}]], {"a": 1}, [None]])
def test_answer_that_is_not_understood(client: PandaClient, stub: Stub, data: Any) -> None:
    stub.on("job/submit", data)
    with pytest.raises(StrangeAnswer, match="job/submit"):
        client.submit([JOB])


# --- errors of the server ---


def test_refusal_has_field_and_value(client: PandaClient, stub: Stub, pauses: list) -> None:
    stub.on("job/submit", refusal(400, "job 0: there is no queue NO_Q", named="computingSite", value="NO_Q"))
    with pytest.raises(Refused) as caught:
        client.submit([JOB])
    error = caught.value
    assert (error.message, error.field, error.value) == ("job 0: there is no queue NO_Q", "computingSite", "NO_Q")
    assert (error.status, error.exit_code, pauses) == (400, 1, [])


def test_not_authenticated(client: PandaClient, stub: Stub) -> None:
    stub.on("job/kill", refusal(401, "job/kill needs a certificate", named="certificate"))
    with pytest.raises(NotAuthenticated, match="needs a certificate"):
        client.kill([1])


@pytest.mark.parametrize("status", [500, 503, 429])
def test_trouble_of_the_server_passes(client: PandaClient, stub: Stub, pauses: list, status: int) -> None:
    html = lambda _heard: (status, b"<html>sorry</html>")  # noqa: E731
    envelope = refusal(503, "the DDM is not there")
    stub.on("queue/list", html, envelope, {"A_Q": {"status": "online"}})
    assert client.queues() == {"A_Q": {"status": "online"}}
    assert pauses == [0.5, 1.0]


def test_trouble_that_stays(client: PandaClient, stub: Stub, pauses: list) -> None:
    stub.on("queue/list", lambda _heard: (500, {"StatusCode": 30, "message": "the server has a fault"}))
    stub.headers["X-Request-ID"] = "4e1b6ac2"
    with pytest.raises(Unreachable, match=r"the server has a fault \(request 4e1b6ac2\)$"):
        client.queues()
    assert pauses == [0.5, 1.0, 2.0, 4.0]
    assert len(stub.heard) == 5


@pytest.mark.parametrize("answer", [b"<html>welcome</html>", b"[]", b"\xff\xfe", b""])
def test_other_servers_are_noticed(client: PandaClient, stub: Stub, pauses: list, answer: bytes) -> None:
    stub.on("queue/list", lambda _heard: (200, answer))
    with pytest.raises(StrangeAnswer, match="is the address right"):
        client.queues()
    assert pauses == []


def test_server_without_the_call(client: PandaClient, stub: Stub) -> None:
    with pytest.raises(StrangeAnswer, match="no such call"):
        client.queues()


def test_redirect_is_not_followed(client: PandaClient, stub: Stub) -> None:
    stub.headers["Location"] = f"{stub.url}/api/v1/elsewhere"
    stub.on("queue/list", lambda _heard: (302, b""))
    stub.on("elsewhere", {})
    with pytest.raises(StrangeAnswer, match="302"):
        client.queues()


# --- certificates ---


def quick(stub: Stub, proxy: Path | None, ca_dir: Path, **options: Any) -> PandaClient:
    return PandaClient(stub.url, proxy, ca_dir, pauses_s=(), **options)


def test_reading_needs_no_proxy(stub: Stub, grid: Grid) -> None:
    stub.on("queue/list", {})
    with quick(stub, None, grid.ca_dir) as anonymous:
        assert anonymous.queues() == {}
    assert not stub.heard[0].has_certificate


def test_writing_needs_a_proxy(stub: Stub, grid: Grid, tmp_path: Path) -> None:
    with quick(stub, None, grid.ca_dir) as anonymous:
        for write in (
            lambda: anonymous.submit([JOB]),
            lambda: anonymous.kill([1]),
            lambda: anonymous.upload(tmp_path / "x"),
        ):
            with pytest.raises(NotAuthenticated, match="X509_USER_PROXY"):
                write()
    assert stub.heard == []


def test_expired_proxy_is_told_before_the_server_is_asked(stub: Stub, grid: Grid) -> None:
    old = grid.write("old.pem", pki.delegate(grid.alice, period=pki.over()))
    with (
        quick(stub, old, grid.ca_dir) as client,
        pytest.raises(NotAuthenticated, match=r"expired at .* 1 h \d+ min ago"),
    ):
        client.queues()
    assert stub.heard == []


def test_renewed_proxy_is_used_at_once(stub: Stub, grid: Grid, tmp_path: Path) -> None:
    stub.on("queue/list", {})
    proxy = tmp_path / "proxy.pem"
    pki.write(proxy, pki.delegate(grid.alice, period=pki.over()).pem(), mode=0o600)
    with quick(stub, proxy, grid.ca_dir) as client:
        with pytest.raises(NotAuthenticated):
            client.queues()
        pki.write(proxy, pki.delegate(grid.alice).pem(), mode=0o600)
        assert client.queues() == {}


def test_server_that_does_not_know_the_users_ca(stub: Stub, grid: Grid) -> None:
    other = pki.make_authority("Other CA", period=pki.lasting(days=1))
    mallory = pki.issue(other, "Mallory", period=pki.lasting(days=1))
    proxy = grid.write("mallory.pem", pki.delegate(mallory))
    pauses = (0,) * 500  # the words of refusal are lost when the server hangs up before they are read
    with (
        PandaClient(stub.url, proxy, grid.ca_dir, pauses_s=pauses) as client,
        pytest.raises(NotAuthenticated, match="does not accept the proxy"),
    ):
        client.queues()
    assert stub.heard == []


def test_key_that_does_not_belong_to_the_certificate(stub: Stub, grid: Grid) -> None:
    proxy = pki.write(grid.directory / "mixed.pem", grid.alice.certificate_pem() + grid.authority.key_pem(), mode=0o600)
    with quick(stub, proxy, grid.ca_dir) as client, pytest.raises(NotAuthenticated, match="damaged"):
        client.queues()


def test_server_of_an_unknown_ca(stub: Stub, grid: Grid, tmp_path: Path) -> None:
    with quick(stub, grid.proxy, tmp_path) as client, pytest.raises(NotTrusted, match=f"not in {tmp_path}.*--ca-dir"):
        client.submit([JOB])
    assert stub.heard == []


def test_no_ca_directory(stub: Stub, grid: Grid, tmp_path: Path) -> None:
    with quick(stub, grid.proxy, tmp_path / "no") as client, pytest.raises(NotTrusted, match="does not exist"):
        client.queues()


@pytest.mark.parametrize(
    ("period", "host", "said"),
    [
        ("over", "localhost", "certificate of .* has expired"),
        ("lasting", "elsewhere.example.org", "not who it should be"),
    ],
)
def test_server_with_a_bad_certificate(grid: Grid, period: str, host: str, said: str) -> None:
    when = pki.over() if period == "over" else pki.lasting(days=1)
    names = [pki.x509.DNSName(host)]
    grid.write("bad-host.pem", pki.issue(grid.authority, host, period=when, hosts=names))
    with (
        serving(server_context(grid, certificate="bad-host.pem")) as stub,
        quick(stub, grid.proxy, grid.ca_dir) as client,
        pytest.raises(NotTrusted, match=said),
    ):
        client.queues()


def test_server_without_tls(grid: Grid) -> None:
    with (
        serving(None) as stub,
        quick(stub, grid.proxy, grid.ca_dir) as client,
        pytest.raises(StrangeAnswer, match="does not speak HTTPS"),
    ):
        client.queues()


def test_exposed_key_is_warned_of_once(
    stub: Stub, grid: Grid, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    stub.on("queue/list", {})
    proxy = pki.write(tmp_path / "open.pem", pki.delegate(grid.alice).pem(), mode=0o644)
    with quick(stub, proxy, grid.ca_dir) as client:
        client.queues()
        client.queues()
    assert [record.getMessage() for record in caplog.records if "chmod 600" in record.getMessage()] == [
        f"others may read the private key in {proxy}: chmod 600 it"
    ]


def test_environment_cannot_lead_requests_elsewhere(
    client: PandaClient, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/dev/null")
    stub.on("queue/list", {})
    assert client.queues() == {}


# --- connections ---


def test_nobody_listens(grid: Grid, free_port: int) -> None:
    pauses: list[float] = []
    with PandaClient(f"https://localhost:{free_port}", grid.proxy, grid.ca_dir, sleep=pauses.append) as client:
        with pytest.raises(Unreachable, match=f"cannot reach localhost:{free_port}: Connection refused") as caught:
            client.queues()
        assert caught.value.exit_code == 3
    assert pauses == [0.5, 1.0, 2.0, 4.0]


def test_host_that_does_not_exist(grid: Grid) -> None:
    with (
        PandaClient("https://no-such-host.invalid:25443", grid.proxy, grid.ca_dir, pauses_s=()) as client,
        pytest.raises(Unreachable, match=r"cannot reach no-such-host\.invalid:25443"),
    ):
        client.queues()


def test_connection_that_breaks_in_the_handshake(grid: Grid) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: listener.accept()[0].close())
        url = f"https://localhost:{listener.getsockname()[1]}"
        with PandaClient(url, grid.proxy, grid.ca_dir, pauses_s=()) as client, pytest.raises(Unreachable):
            client.queues()


# --- reading ---


def described(job_id: int, state: str, **more: Any) -> dict[str, Any]:
    since = {"__datetime__": "2026-03-04T05:06:07"}
    return {"PandaID": job_id, "jobStatus": state, "jobName": "test", "stateChangeTime": since, "Files": []} | more


def test_status(client: PandaClient, stub: Stub) -> None:
    stub.on("job/get_description_incl_archive", [described(5, "failed", pilotErrorCode=1150), None])
    failed, unknown = client.status([5, 6])
    assert stub.heard[0].body == {"job_ids": [5, 6]}
    assert unknown is None
    assert failed is not None
    assert (failed.job_id, failed.state, failed.ended, failed.finished) == (5, "failed", True, False)
    assert failed.since == datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    assert failed.errors == ["pilot 1150: no text"]


def test_many_ids_are_asked_for_in_portions(client: PandaClient, stub: Stub) -> None:
    stub.on("job/kill", lambda heard: success([True] * len(heard.body["job_ids"])))
    assert client.kill(range(1, 5002)) == [True] * 5001
    assert [len(heard.body["job_ids"]) for heard in stub.heard] == [5000, 1]


def test_answer_for_the_wrong_number_of_jobs(client: PandaClient, stub: Stub) -> None:
    stub.on("job/kill", [True])
    with pytest.raises(StrangeAnswer, match="2 jobs"):
        client.kill([1, 2])


def test_reasons(client: PandaClient, stub: Stub) -> None:
    time = {"__datetime__": "2026-03-04T05:06:07"}
    stub.on("job/get_reasons", [{"site": "A_Q", "verdict": "chosen", "reason": "best", "weight": 0.5, "time": time}])
    (reason,) = client.reasons(7)
    assert stub.heard[0].query == {"job_id": "7"}
    assert (reason.site, reason.verdict, reason.weight) == ("A_Q", "chosen", 0.5)
    assert reason.time == datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def test_counts(client: PandaClient, stub: Stub) -> None:
    stub.on("statistics/job_stats_by_site", {"A_Q": {"running": 2}})
    assert client.counts() == {"A_Q": {"running": 2}}


@pytest.mark.parametrize("data", [None, [], {"A_Q": 1}])
def test_counts_that_are_not_understood(client: PandaClient, stub: Stub, data: Any) -> None:
    stub.on("statistics/job_stats_by_site", data)
    with pytest.raises(StrangeAnswer):
        client.counts()


def test_whoami(client: PandaClient, stub: Stub) -> None:
    stub.on("system/get_attributes", {"identity": {"dn": "/CN=Alice"}, "parameters": {}}, {"parameters": {}}, None)
    assert client.whoami() == {"dn": "/CN=Alice"}
    assert client.whoami() == {}
    assert client.whoami() == {}


# --- files ---


def test_upload(client: PandaClient, stub: Stub, tmp_path: Path) -> None:
    source = tmp_path / "run.sh"
    source.write_bytes(b"#!/bin/sh\n\x00\xff")
    stub.on("file_server/upload_cache_file", NoAnswer(), f"{stub.url}/cache/other.sh")
    assert client.upload(source, "other.sh") == f"{stub.url}/cache/other.sh"
    lost, heard = stub.heard
    assert b'name="file"; filename="other.sh"' in heard.content
    assert b"\r\n\r\n#!/bin/sh\n\x00\xff\r\n" in heard.content
    assert b"\r\n\r\n#!/bin/sh\n\x00\xff\r\n" in lost.content, "the file must be whole in both tries"


def test_upload_of_nothing(client: PandaClient, stub: Stub, tmp_path: Path) -> None:
    with pytest.raises(FileTrouble, match="No such file"):
        client.upload(tmp_path / "no.sh")
    assert stub.heard == []


def test_upload_that_is_taken(client: PandaClient, stub: Stub, tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
    stub.on("file_server/upload_cache_file", refusal(409, "there is another file run.sh", named="file"))
    with pytest.raises(ClientError, match="another file"):
        client.upload(tmp_path / "run.sh")


def on_storage(directory: Path, lfn: str, content: bytes) -> dict[str, Any]:
    path = directory / "user" / "alice" / lfn
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    checksum = f"ad:{zlib.adler32(content):08x}"
    replicas = [
        {"endpoint": "FAR_DISK", "url": f"root://far.example.org//data/{lfn}"},
        {"endpoint": "NEAR_DISK", "url": path.as_uri()},
    ]
    return {"scope": "user.alice", "lfn": lfn, "guid": "g", "fsize": len(content), "checksum": checksum} | {
        "replicas": replicas
    }


def test_download(client: PandaClient, stub: Stub, tmp_path: Path) -> None:
    names = ["hist 1.root", "log.00005.tgz"]
    wire = [on_storage(tmp_path / "se", lfn, lfn.encode() * 1000) for lfn in names]
    stub.on("data/list_files", wire)
    got = client.download("user.alice.test", tmp_path / "new" / "here")
    assert stub.heard[0].query == {"dataset": "user.alice.test"}
    assert [(each.lfn, each.error) for each in got] == [(lfn, "") for lfn in names]
    assert [(tmp_path / "new" / "here" / lfn).read_bytes() for lfn in names] == [lfn.encode() * 1000 for lfn in names]


def test_one_bad_file_does_not_keep_the_others(client: PandaClient, stub: Stub, tmp_path: Path) -> None:
    wire = [on_storage(tmp_path / "se", lfn, b"data") for lfn in ("a", "b", "c")]
    wire[1]["checksum"] = "ad:00000001"
    stub.on("data/list_files", wire)
    got = client.download("user.alice.test", tmp_path / "here")
    assert [bool(each.path) for each in got] == [True, False, True]
    assert "adler32" in got[1].error
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["a", "c"]


def test_dataset_that_does_not_exist(client: PandaClient, stub: Stub, tmp_path: Path) -> None:
    stub.on("data/list_files", refusal(404, "there is no dataset no.such", named="dataset", value="no.such"))
    with pytest.raises(Refused, match="no dataset") as caught:
        client.download("no.such", tmp_path)
    assert caught.value.status == 404


def test_moments_the_server_marks_strangely(client: PandaClient, stub: Stub) -> None:
    told = {
        "bad": {"__datetime__": "soon"},
        "number": {"__datetime__": 5},
        "zone": {"__datetime__": "2026-01-01T02:00:00+02:00"},
    }
    stub.on("queue/list", {"A_Q": told})
    assert client.queues()["A_Q"] == {
        "bad": "soon",
        "number": {"__datetime__": 5},
        "zone": datetime(2026, 1, 1, tzinfo=UTC),
    }
