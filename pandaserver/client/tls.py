"""Turns the words of the TLS and HTTP libraries into what a user can do about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from pandaserver.client.failures import ClientError, NotAuthenticated, NotTrusted, StrangeAnswer, Unreachable
from pandaserver.client.proxy import RENEW

_REFUSED = re.compile(r"ALERT_(UNKNOWN_CA|ACCESS_DENIED|DECRYPT_ERROR|HANDSHAKE_FAILURE|\w*CERTIFICATE\w*)")
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE")
_BAD_PEM = ("KEY_VALUES_MISMATCH", "PEM lib", "PEM_LIB", "NO_START_LINE", "BAD_DECRYPT")


@contextmanager
def explained(host: str, proxy: Path | None, ca_dir: Path) -> Iterator[None]:
    """Raise errors of the client in place of those of the libraries."""
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise _tls_error(error, host, proxy, ca_dir) from error
    except requests.exceptions.Timeout as error:
        raise Unreachable(f"{host} does not answer in time", field="server", value=host) from error
    except requests.exceptions.RequestException as error:
        text = f"cannot reach {host}: {_reason(error)}"
        if proxy and any(isinstance(each, ConnectionResetError) for each in _causes(error)):
            text += f" (does it accept the proxy {proxy}? Some servers hang up instead of saying no)"
        raise Unreachable(text, field="server", value=host) from error


def _tls_error(error: Exception, host: str, proxy: Path | None, ca_dir: Path) -> ClientError:
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text or "doesn't match" in text:
        return NotTrusted(_distrust(error, host, ca_dir), field="server", value=host)
    if found := _REFUSED.search(text):
        shown = f"the proxy {proxy}" if proxy else "a client without certificate"
        why = found[1].replace("_", " ").lower()
        text = f"{host} does not accept {shown} ({why}): does it know your CA, and is the proxy good? If not, {RENEW}"
        return NotAuthenticated(text, field="proxy", value=str(proxy) if proxy else None)
    if any(sign in text for sign in _BAD_PEM):
        return NotAuthenticated(f"the proxy {proxy} is damaged: {RENEW}", field="proxy", value=str(proxy))
    if any(sign in text for sign in _NO_TLS):
        return StrangeAnswer(f"{host} does not speak HTTPS: is the port right?", field="server", value=host)
    return Unreachable(f"the connection to {host} broke: {_reason(error)}", field="server", value=host)


def _distrust(error: Exception, host: str, ca_dir: Path) -> str:
    why = next((each.verify_message for each in _causes(error) if hasattr(each, "verify_message")), str(error))
    if "issuer" in why or "self-signed" in why or "self signed" in why:
        return f"the CA of {host} is not in {ca_dir} ({why}): name the right directory by --ca-dir or X509_CERT_DIR"
    if "expired" in why:
        return f"the certificate of {host} has expired: its operators must renew it (or is this clock wrong?)"
    return f"{host} is not who it should be: {why}"


def _reason(error: Exception) -> str:
    """Give the innermost reason that was meant for people."""
    said = [each.strerror for each in _causes(error) if isinstance(each, OSError) and each.strerror]
    return said[-1] if said else str(list(_causes(error))[-1])


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Walk from an error to what it was made of: libraries wrap it as cause, reason or argument."""
    while isinstance(error, BaseException):
        yield error
        inside = [getattr(error, "reason", None), *error.args, error.__cause__]
        error = next((each for each in inside if isinstance(each, BaseException)), None)
