"""Tells the application behind the embedded server of its client: certificates, under the names that Apache uses."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


def with_client_certificates(application: WSGIApplication) -> WSGIApplication:
    """Wrap an application for gunicorn: SSL_* then comes from the TLS connection and from nowhere else."""

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        for name in [name for name in environ if name.startswith("SSL_")]:
            del environ[name]
        environ.update(client_variables(environ.get("gunicorn.socket")))
        return application(environ, start_response)

    return serve


def client_variables(connection: object) -> dict[str, str]:
    """Give the SSL_CLIENT_* variables of a connection; none at all where there is no TLS."""
    if not isinstance(connection, ssl.SSLSocket):
        return {}
    leaf, *issuers = verified_chain(connection) or [""]
    if not leaf:
        return {"SSL_CLIENT_VERIFY": "NONE"}
    numbered = {f"SSL_CLIENT_CERT_CHAIN_{number}": pem for number, pem in enumerate(issuers)}
    return {"SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_CERT": leaf, **numbered}


def is_still_there(connection: object) -> bool:
    """Say whether a client that waits for its answer has not closed the connection; yes where nobody can know."""
    if not isinstance(connection, socket.socket):
        return True
    if connection.fileno() < 0:
        return False
    closed = select.poll()
    closed.register(connection, select.POLLRDHUP)  # errors and a full close are always told
    return not closed.poll(0)


def verified_chain(connection: ssl.SSLSocket) -> list[str]:
    """Give the chain that TLS has verified in PEM, leaf first and root last; [] when the client showed none."""
    public = getattr(connection, "get_verified_chain", None)
    if public is not None:
        return [ssl.DER_cert_to_PEM_cert(der) for der in public()]
    # Before Python 3.13 only the private object below the socket knows the chain. It is None on a closed connection.
    private = getattr(connection, "_sslobj", None)
    chain = private.get_verified_chain() if private is not None else None
    return [certificate.public_bytes() for certificate in chain or []]
