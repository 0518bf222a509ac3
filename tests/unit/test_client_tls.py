"""Words of the TLS library in, advice for people out."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import requests
from urllib3.exceptions import MaxRetryError, NewConnectionError, ProtocolError

from pandaserver.client.failures import ClientError, NotAuthenticated, NotTrusted, StrangeAnswer, Unreachable
from pandaserver.client.tls import explained

PROXY, CA_DIR = Path("/tmp/proxy"), Path("/etc/ca")


def raised(error: Exception, proxy: Path | None = PROXY) -> ClientError:
    with pytest.raises(ClientError) as caught, explained("x:25443", proxy, CA_DIR):
        raise error
    return caught.value


def tls(text: str) -> requests.exceptions.SSLError:
    """Wrap an error as the libraries do."""
    inner = ssl.SSLError(1, text)
    return requests.exceptions.SSLError(MaxRetryError(None, "/", inner))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca (_ssl.c:2580)", "unknown ca"),
        ("[SSL: SSLV3_ALERT_CERTIFICATE_EXPIRED] sslv3 alert certificate expired", "certificate expired"),
        ("[SSL: SSLV3_ALERT_CERTIFICATE_REVOKED] sslv3 alert certificate revoked", "certificate revoked"),
        ("[SSL: SSLV3_ALERT_BAD_CERTIFICATE] sslv3 alert bad certificate", "bad certificate"),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required", "certificate required"),
        ("[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] sslv3 alert handshake failure", "handshake failure"),
    ],
)
def test_server_refuses_the_certificate(text: str, why: str) -> None:
    error = raised(tls(text))
    assert isinstance(error, NotAuthenticated)
    assert f"does not accept the proxy /tmp/proxy ({why})" in error.message
    assert error.exit_code == 3


def test_server_wants_a_certificate() -> None:
    error = raised(tls("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] required"), proxy=None)
    assert "does not accept a client without certificate" in error.message


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", StrangeAnswer),
        ("[SSL: HTTP_REQUEST] http request", StrangeAnswer),
        ("[X509: KEY_VALUES_MISMATCH] key values mismatch", NotAuthenticated),
        ("[SSL] PEM lib (_ssl.c:3905)", NotAuthenticated),
        ("[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation of protocol", Unreachable),
        ("[SSL: TLSV1_ALERT_INTERNAL_ERROR] tlsv1 alert internal error", Unreachable),
    ],
)
def test_kinds(text: str, kind: type[ClientError]) -> None:
    assert type(raised(tls(text))) is kind


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("unable to get local issuer certificate", "is not in /etc/ca"),
        ("self-signed certificate in certificate chain", "is not in /etc/ca"),
        ("certificate has expired", "its operators must renew it"),
        ("Hostname mismatch, certificate is not valid for 'x'.", "not who it should be: Hostname mismatch"),
    ],
)
def test_server_that_is_not_trusted(why: str, said: str) -> None:
    inner = ssl.SSLCertVerificationError(1, f"[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {why}")
    inner.verify_message = why
    error = raised(requests.exceptions.SSLError(MaxRetryError(None, "/", inner)))  # type: ignore[arg-type]
    assert isinstance(error, NotTrusted)
    assert said in error.message


def test_reason_is_the_innermost() -> None:
    inner = NewConnectionError(None, "Failed to establish a new connection")  # type: ignore[arg-type]
    inner.__cause__ = ConnectionRefusedError(111, "Connection refused")
    error = raised(requests.exceptions.ConnectionError(MaxRetryError(None, "/", inner)))  # type: ignore[arg-type]
    assert error.message == "cannot reach x:25443: Connection refused"


def test_broken_connection() -> None:
    inner = ProtocolError("Connection aborted.", ConnectionResetError(104, "Connection reset by peer"))
    error = raised(requests.exceptions.ConnectionError(inner))
    assert isinstance(error, Unreachable)
    assert "Connection reset by peer (does it accept the proxy /tmp/proxy?" in error.message
    assert "proxy" not in raised(requests.exceptions.ConnectionError(inner), proxy=None).message


def test_slow_server() -> None:
    assert "does not answer in time" in raised(requests.exceptions.ReadTimeout("slow")).message


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), explained("x", None, CA_DIR):
        raise ZeroDivisionError
