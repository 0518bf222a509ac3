"""Errors of Rucio in our own words, over a client that raises whatever a test wants."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from rucio.common import exception as rucio

from pandaserver.config_rucio import RucioLogin, RucioSection
from pandaserver.dataservice.ddm import rucio_client
from pandaserver.dataservice.ddm.rucio_client import ALREADY_THERE, HELD, NOT_THERE, RULE_THERE, RucioConnection
from pandaserver.errors import DDMError, DDMFatal, DDMUnknown


class Raising:
    """A client whose every call raises, or answers."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome

    def __getattr__(self, name: str) -> Any:
        def call(*told: Any, **more: Any) -> Any:
            if isinstance(self.outcome, BaseException):
                raise self.outcome
            return self.outcome

        return call


@pytest.fixture
def connection(tmp_path: Path) -> RucioConnection:
    (tmp_path / "password").write_text("secret\n")
    told = {"login": RucioLogin.USERPASS, "username": "panda", "password_file": tmp_path / "password"}
    return RucioConnection(RucioSection(url="http://127.0.0.1:9", timeout_s=5, **told), tmp_path)


def answering(connection: RucioConnection, outcome: Any) -> RucioConnection:
    connection._local.client = Raising(outcome)
    return connection


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (rucio.DataIdentifierNotFound("x"), DDMUnknown),
        (rucio.ScopeNotFound("x"), DDMUnknown),
        (rucio.RSENotFound("x"), DDMUnknown),
        (rucio.RuleNotFound("x"), DDMUnknown),
        (rucio.ReplicaNotFound("x"), DDMUnknown),
        (rucio.InvalidObject("x"), DDMFatal),
        (rucio.InputValidationError("x"), DDMFatal),
        (rucio.InvalidRSEExpression("x"), DDMFatal),
        (rucio.InsufficientTargetRSEs("x"), DDMFatal),
        (rucio.UnsupportedOperation("x"), DDMFatal),
        (rucio.FileConsistencyMismatch("x"), DDMFatal),
        (rucio.CannotAuthenticate("x"), DDMError),
        (rucio.AccessDenied("x"), DDMError),
        (rucio.ServiceUnavailable("x"), DDMError),
        (rucio.DatabaseException("x"), DDMError),
        (rucio.InsufficientAccountLimit("x"), DDMError),
        (rucio.ServerConnectionException("x"), DDMError),
        (rucio.RucioException("no error information passed (http status code: 502)"), DDMError),
        (requests.ConnectionError("x"), DDMError),
        (requests.ReadTimeout("x"), DDMError),
        (OSError("x"), DDMError),
        (ValueError("no JSON"), DDMError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_errors_are_said_in_our_words(connection: RucioConnection, error: Exception, ours: type[DDMError]) -> None:
    with pytest.raises(DDMError) as said:
        answering(connection, error).ask("anything", 1, more=2)
    assert type(said.value) is ours
    assert said.value.message.startswith(f"Rucio: {type(error).__name__}: ")
    assert said.value.__cause__ is error


@pytest.mark.parametrize(
    ("error", "accept"),
    [
        (rucio.DataIdentifierAlreadyExists("x"), ALREADY_THERE),
        (rucio.FileAlreadyExists("x"), ALREADY_THERE),
        (rucio.Duplicate("x"), ALREADY_THERE),
        (rucio.DuplicateRule("x"), RULE_THERE),
        (rucio.DataIdentifierNotFound("x"), NOT_THERE),
        (rucio.ReplicaIsLocked("x"), HELD),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_some_errors_are_answers(connection: RucioConnection, error: Exception, accept: Any) -> None:
    assert answering(connection, error).ask("anything", accept=accept) is None
    with pytest.raises(DDMError):
        answering(connection, error).ask("anything")


def test_streams_are_read_to_their_end_where_errors_are_understood(connection: RucioConnection) -> None:
    def stream(error: Exception | None) -> Any:
        yield 1
        if error:
            raise error

    assert answering(connection, stream(None)).ask("list") == [1]
    assert answering(connection, stream(rucio.DataIdentifierNotFound("x"))).ask("list", accept=NOT_THERE) is None
    with pytest.raises(DDMError):
        answering(connection, stream(requests.exceptions.ChunkedEncodingError("cut"))).ask("list")


def test_a_long_error_is_cut_and_a_strange_one_made_visible(connection: RucioConnection) -> None:
    with pytest.raises(DDMError) as said:
        answering(connection, rucio.RucioException("a\n\x1b" + "b" * 5000)).ask("anything")
    assert len(said.value.message) < 400 and "\n" not in said.value.message and "\x1b" not in said.value.message


def test_a_server_that_is_away_may_come_back(connection: RucioConnection) -> None:
    program = sys.argv[0]
    with pytest.raises(DDMError) as said:
        connection.ask("whoami")
    assert type(said.value) is DDMError
    assert sys.argv[0] == program, "the client shortens it"


def test_what_the_environment_says_of_proxies_and_authorities_does_not_count(
    connection: RucioConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = list[Any]()
    monkeypatch.setattr(rucio_client.Client, "__init__", lambda self, **told: made.append(told))
    client = connection._client()
    client.session = requests.Session()
    assert client.session.trust_env is False
    (told,) = made
    assert (told["timeout"], told["auth_type"], told["account"]) == (5, "userpass", "panda")
    assert told["creds"] == {"username": "panda", "password": "secret"}
    assert told["auth_host"] == told["rucio_host"] == "http://127.0.0.1:9" and told["ca_cert"]
    assert connection._client() is client


def test_a_proxy_is_shown_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[Any]()
    monkeypatch.setattr(rucio_client.Client, "__init__", lambda self, **told: made.append(told))
    section = RucioSection(url="https://rucio.example:443/", auth_url="https://auth.example", proxy=tmp_path / "x509")
    RucioConnection(section, tmp_path / "certificates")._client()
    assert made[0]["creds"] == {"client_proxy": str(tmp_path / "x509")} and made[0]["auth_type"] == "x509_proxy"
    assert made[0]["ca_cert"] == str(tmp_path / "certificates")
    assert (made[0]["rucio_host"], made[0]["auth_host"]) == ("https://rucio.example:443", "https://auth.example")
