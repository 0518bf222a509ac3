"""Runs the application without Apache: gunicorn with TLS and grid proxies, and room for slow clients."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from wsgiref.types import WSGIApplication

from gunicorn.app.base import BaseApplication
from gunicorn.workers import gthread

from pandaserver.errors import ConfigError
from pandaserver.web.peer import with_client_certificates
from pandaserver.web.tls_contexts import TlsContexts

HANDSHAKE_TIMEOUT_S = 5.0
IO_TIMEOUT_S = 30.0
GOODBYE_TIMEOUT_S = 0.5  # for a client that says nothing more
LONGEST_GOODBYE_S = 5.0  # for one that goes on sending what is not wanted
_BLOCK = 64 * 1024

PLAIN_HTTP_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"This port speaks HTTPS: use https:// in the address.\n"
)


def nothing() -> None:
    """Do nothing: the hook of those who need none."""


@dataclass(frozen=True)
class EmbeddedSettings:
    """What the embedded server needs to know.

    The hooks run in each worker: after its start, when it has been told to end, and before its end.
    """

    host_cert: Path
    host_key: Path
    ca_directory: Path
    host: str = "127.0.0.1"
    port: int = 25443
    workers: int = 1
    threads: int = 32
    pidfile: Path | None = None
    access_log: bool = False
    log_level: str = "info"
    on_worker_start: Callable[[], None] = nothing
    on_worker_told_to_stop: Callable[[], None] = nothing
    on_worker_stop: Callable[[], None] = nothing


class EmbeddedServer(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """`EmbeddedServer(settings, create).run()` serves until SIGTERM; `create` makes the application in each worker."""

    def __init__(self, settings: EmbeddedSettings, create: Callable[[], WSGIApplication]) -> None:
        self._options = options(settings)
        self._create = create
        super().__init__()

    def load_config(self) -> None:
        """Hand over the settings: no file, command line or GUNICORN_CMD_ARGS is read."""
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> WSGIApplication:
        """Make the application; this happens after the fork, so that no database connection is shared."""
        return with_client_certificates(self._create())


def options(settings: EmbeddedSettings) -> dict[str, object]:
    """Give gunicorn's settings; raise ConfigError when a file is missing."""
    check_files(settings)
    own = (settings.host_cert, settings.host_key)
    contexts = TlsContexts(lambda: tls_context(settings), own, settings.ca_directory)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return {
        "bind": f"{host}:{settings.port}",
        "proc_name": "panda-server",
        "workers": settings.workers,
        "threads": settings.threads,
        "worker_class": PatientWorker,
        "worker_connections": 1000,
        "backlog": 512,
        "timeout": 60,  # the worker's main loop reports every second; this is for a hanging process, not for requests
        "graceful_timeout": 5,
        "keepalive": 180,  # longer than pilots are told to stay away: a new connection costs more than the question
        "limit_request_line": 8190,
        "limit_request_fields": 60,
        "limit_request_field_size": 8190,
        "certfile": str(settings.host_cert),
        "keyfile": str(settings.host_key),
        "ssl_context": lambda _config, _default: contexts.current(),
        "forwarded_allow_ips": "",  # there is no proxy in front whose headers could be believed
        "forwarder_headers": "",
        "control_socket_disable": True,
        "pidfile": str(settings.pidfile) if settings.pidfile else None,
        "accesslog": "-" if settings.access_log else None,
        "errorlog": "-",
        "loglevel": settings.log_level,
        "post_worker_init": lambda _worker: settings.on_worker_start(),
        "worker_int": lambda _worker: settings.on_worker_told_to_stop(),
        "worker_exit": lambda _server, worker: _stop(settings, worker),
    }


def check_files(settings: EmbeddedSettings) -> None:
    """Refuse to start without certificates rather than with errors at the first connection."""
    for path in (settings.host_cert, settings.host_key):
        if not path.is_file():
            raise ConfigError(f"no such file: {path} (tools/make-certs makes certificates for tests)", value=path)
    if not any(settings.ca_directory.glob("*.0")):
        raise ConfigError(f"no authorities (*.0) in {settings.ca_directory}", value=settings.ca_directory)


def _stop(settings: EmbeddedSettings, worker: Any) -> None:
    if worker.pid == os.getpid():  # the parent calls it too, for workers that have vanished
        settings.on_worker_stop()


# ---- TLS


def tls_context(settings: EmbeddedSettings) -> ssl.SSLContext:
    """Make the context of connections; it holds for the files as they are now."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # trusts nobody, the system's public authorities neither
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.host_cert, settings.host_key)
    context.load_verify_locations(capath=settings.ca_directory)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VERIFY_ALLOW_PROXY_CERTS | ssl.VERIFY_CRL_CHECK_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # would refuse proxies: they carry no key identifiers
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0  # a resumed session would bring no chain
    context.sslsocket_class = PatientSocket
    return context


class PatientSocket(ssl.SSLSocket):
    """A TLS connection on which a client can keep a thread waiting for some seconds only.

    gunicorn asks for blocking sockets; here that means: with a timeout. A client that is too slow counts as gone.
    """

    def setblocking(self, flag: bool) -> None:
        """Wait, but not for ever."""
        self.settimeout(IO_TIMEOUT_S if flag else 0.0)

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands, or tell those who speak plain HTTP that this is HTTPS."""
        self.settimeout(HANDSHAKE_TIMEOUT_S)
        try:
            with _gone_when_silent():
                super().do_handshake(block)
        except ssl.SSLError as error:
            if error.reason == "HTTP_REQUEST":
                socket.socket.send(self, PLAIN_HTTP_ANSWER)
            raise
        self.settimeout(IO_TIMEOUT_S)

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002 - the name is ssl's
        """Read some bytes."""
        with _gone_when_silent():
            return super().read(len, buffer)

    def send(self, data: Any, flags: int = 0) -> int:
        """Write some bytes."""
        with _gone_when_silent():
            return super().send(data, flags)


@contextmanager
def _gone_when_silent() -> Iterator[None]:
    """Turn what clients do to every public server into what gunicorn takes quietly: a reset connection."""
    try:
        yield
    except (TimeoutError, ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
        raise ConnectionResetError(errno.ECONNRESET, f"the client has gone: {error}") from error


# ---- threads


class PatientWorker(gthread.ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's threaded worker, in which clients that say nothing cost no thread and never hold up the others.

    Left alone it gives every new connection a thread for 5 s until the first byte comes, and it waits in its only main
    loop up to 2 s for each client to close a finished connection. What remains: somebody who begins a handshake and
    stops holds a thread for HANDSHAKE_TIMEOUT_S, so that as many of them as there are threads slow the others down.
    """

    def handle(self, conn: Any) -> Any:
        """Serve a connection in a thread of the pool, once it has something to say."""
        if not conn.initialized and not conn.wait_for_data(0):
            return gthread._DEFER
        kept = super().handle(conn)
        if not kept:
            see_off(conn.sock)
        return kept

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end at SIGTERM; requests that wait for something are to hear of it, and not in a signal handler."""
        super().handle_exit(sig, frame)
        self.method_queue.defer(lambda: self.cfg.worker_int(self))

    def finish_request(self, conn: Any, done: Future[Any]) -> None:
        """Forget a connection that its thread has closed; leave the others to gunicorn."""
        if done.cancelled() or done.exception() or done.result():
            super().finish_request(conn, done)
            return
        self.nr_conns -= 1
        conn.close()


def see_off(connection: socket.socket) -> None:
    """Close a connection so that its client can read the answer, also one that is still sending what was too much."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(GOODBYE_TIMEOUT_S)
        end = time.monotonic() + LONGEST_GOODBYE_S
        while time.monotonic() < end and connection.recv(_BLOCK):
            pass
    connection.close()
