"""The only place that knows Rucio's own client: a login for each thread, and errors in our own words."""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
from rucio.client import Client
from rucio.common import exception as rucio

from pandaserver.config_rucio import RucioLogin, RucioSection, secret
from pandaserver.errors import DDMError, DDMFatal, DDMUnknown, shorten

log = logging.getLogger(__name__)

Errors = tuple[type[Exception], ...]

# Errors that are answers.
ALREADY_THERE: Errors = (rucio.DataIdentifierAlreadyExists, rucio.FileAlreadyExists, rucio.Duplicate)
RULE_THERE: Errors = (rucio.DuplicateRule,)
NOT_THERE: Errors = (rucio.DataIdentifierNotFound, rucio.ScopeNotFound)
RULE_GONE: Errors = (rucio.RuleNotFound,)
UNSUPPORTED: Errors = (rucio.UnsupportedOperation,)
HELD: Errors = (rucio.ReplicaIsLocked, rucio.ReplicaNotFound)

_UNKNOWN = (
    rucio.DataIdentifierNotFound,
    rucio.ScopeNotFound,
    rucio.RSENotFound,
    rucio.RuleNotFound,
    rucio.ReplicaNotFound,
)
_FATAL = (
    rucio.InvalidObject,
    rucio.InputValidationError,
    rucio.InvalidRSEExpression,
    rucio.InsufficientTargetRSEs,
    rucio.UnsupportedOperation,
    rucio.FileConsistencyMismatch,
)
_LOGIN = (rucio.CannotAuthenticate, rucio.AccessDenied, rucio.MissingClientParameter)
_TEXT = 300  # characters of an error that are told


class _Session(requests.Session):
    """Believes what it is told, and nothing that the environment says of proxies and authorities."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False


class _Client(Client):  # type: ignore[misc]
    """Rucio's client with its tokens in a folder of this process, and sessions that the environment does not rule."""

    def __init__(self, token_folder: str, **told: Any) -> None:
        self.TOKEN_PATH_PREFIX = f"{token_folder}/"
        super().__init__(**told)

    @property
    def session(self) -> requests.Session:
        """Give the session; the client makes a new one after each refused token."""
        return self._session

    @session.setter
    def session(self, _: requests.Session) -> None:
        self._session = _Session()


class RucioConnection:
    """Asks Rucio; each thread has its own client, which logs in when it is first used."""

    def __init__(self, section: RucioSection, ca_dir: Path) -> None:
        self._section, self._ca_dir = section, section.ca_dir or ca_dir
        self._local = threading.local()
        self._tokens = tempfile.mkdtemp(prefix="panda-rucio-")
        weakref.finalize(self, shutil.rmtree, self._tokens, ignore_errors=True)
        self._credentials()  # what is wrong in the configuration shall be seen at the start

    def ask(self, method: str, *told: Any, accept: Errors = (), **more: Any) -> Any:
        """Make one call of the client's, and give the answer; None where Rucio said one of the errors to `accept`.

        Raises:
            DDMUnknown: there is no such thing.
            DDMFatal: it will never be done.
            DDMError: it cannot be done now.
        """
        try:
            answer = getattr(self._client(), method)(*told, **more)
            return list(answer) if isinstance(answer, Iterator) else answer
        except accept:
            return None
        except (rucio.RucioException, requests.RequestException, OSError, ValueError) as error:
            raise in_our_words(error) from error

    def _client(self) -> Any:
        if not hasattr(self._local, "client"):
            self._local.client = self._login()
        return self._local.client

    def _login(self) -> Any:
        told, program = self._section, sys.argv[0]
        try:
            return _Client(
                self._tokens,
                rucio_host=told.url.rstrip("/"),
                auth_host=(told.auth_url or told.url).rstrip("/"),
                account=told.account,
                ca_cert=str(self._ca_dir),
                auth_type=told.login.value,
                creds=self._credentials(),
                timeout=told.timeout_s,
                user_agent="pandaserver",
                vo="def",
                logger=log,
            )
        finally:
            sys.argv[0] = program  # which the client shortens

    def _credentials(self) -> dict[str, str]:
        told = self._section
        if told.login is RucioLogin.X509_PROXY:
            return {"client_proxy": str(told.proxy)}
        return {"username": told.username, "password": secret(told.password_file, "password_file")}


def in_our_words(error: Exception) -> DDMError:
    """Say what an error of Rucio's means for us."""
    said = shorten(" ".join(str(error).split()), _TEXT)
    text = f"Rucio: {type(error).__name__}: {said}"
    if isinstance(error, _UNKNOWN):
        return DDMUnknown(text)
    if isinstance(error, _FATAL):
        return DDMFatal(text)
    if isinstance(error, _LOGIN):
        return DDMError(f"{text} (see [rucio] in the server's configuration)")
    return DDMError(text)
