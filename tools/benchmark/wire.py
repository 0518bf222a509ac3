"""A light HTTP client over plain sockets: so that the load costs little beside what it measures."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_TIMEOUT_S = 120  # longer than a request for a job may wait
_BLOCK = 65536


class WireError(Exception):
    """The server did not answer as HTTP wants it."""


@dataclass(frozen=True)
class Address:
    """Where the server is, and what is shown to it: over TLS a proxy, else the name of a person."""

    port: int
    certificates: str = ""  # folder of tools/make-certs; empty: plain HTTP
    proxies: str = ""  # folder of everybody's proxy; empty: the one before
    keep_alive: bool = True

    def context(self, person: str) -> ssl.SSLContext | None:
        """Prepare TLS for somebody; made once, used for many connections."""
        if not self.certificates:
            return None
        context = ssl.create_default_context(capath=str(Path(self.certificates) / "certificates"))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # proxies carry no key identifiers
        context.load_cert_chain(Path(self.proxies or self.certificates) / f"{person}.pem")
        return context


@dataclass
class Wire:
    """A connection of one person, opened when needed and again when the server has closed it."""

    address: Address
    person: str
    context: ssl.SSLContext | None
    reconnects: int = -1
    _socket: socket.socket | None = field(default=None, repr=False)

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Send a request; give status and body of the answer."""
        return self._ask(self._request("POST", path, body))

    def get(self, path: str) -> tuple[int, bytes]:
        """Fetch something."""
        return self._ask(self._request("GET", path, b""))

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _request(self, method: str, path: str, body: bytes) -> bytes:
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: localhost:{self.address.port}\r\nAccept: application/json\r\n"
            f"X-Bench-Person: {self.person}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"{'' if self.address.keep_alive else 'Connection: close' + chr(13) + chr(10)}\r\n"
        )
        return head.encode() + body

    def _ask(self, request: bytes) -> tuple[int, bytes]:
        if not self.address.keep_alive:
            self.close()
        old = self._socket is not None
        try:
            return self._exchange(request)
        except (WireError, OSError):
            self.close()
            if not old:
                raise
            return self._exchange(request)  # an idle connection that the server closed meanwhile

    def _exchange(self, request: bytes) -> tuple[int, bytes]:
        connection = self._socket or self._connect()
        self._socket = connection
        connection.sendall(request)
        status, headers, body = read_answer(connection)
        if headers.get("connection", "").lower() == "close" or not self.address.keep_alive:
            self.close()
        return status, body

    def _connect(self) -> socket.socket:
        self.reconnects += 1
        plain = socket.create_connection(("127.0.0.1", self.address.port), timeout=_TIMEOUT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.context.wrap_socket(plain, server_hostname="localhost") if self.context else plain


def read_answer(connection: socket.socket) -> tuple[int, Mapping[str, str], bytes]:
    """Read an answer whose length is told."""
    received = b""
    while (end := received.find(b"\r\n\r\n")) < 0:
        received += _more(connection)
    first, *lines = received[:end].decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "content-length" not in headers:
        raise WireError(f"an answer without Content-Length: {first}")
    parts, missing = [received[end + 4 :]], int(headers["content-length"]) - (len(received) - end - 4)
    while missing > 0:
        parts.append(_more(connection))
        missing -= len(parts[-1])
    return int(first.split()[1]), headers, b"".join(parts)


def _more(connection: socket.socket) -> bytes:
    block = connection.recv(_BLOCK)
    if not block:
        raise WireError("the server closed the connection in the middle of an answer")
    return block
