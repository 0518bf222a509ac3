"""What a client may go through: a front end, and a kind of connection."""

from __future__ import annotations

from dataclasses import dataclass

GUNICORN, APACHE = "gunicorn", "apache"
FRONTS = {
    GUNICORN: "the embedded server, as panda-server start runs it",
    APACHE: "a private Apache with mod_ssl, mod_gridsite and mod_wsgi, as panda-server install puts it in place",
}
HTTP, HTTPS, NEW = "http", "https", "new"
CONNECTIONS = {
    HTTP: "kept open, without TLS: an entrance on the loopback interface that is there for the measurement only",
    HTTPS: "kept open, TLS with a proxy",
    NEW: "a new TLS connection for each request, with a VOMS proxy",
}


@dataclass(frozen=True)
class Door:
    """One of each."""

    front: str = GUNICORN
    connection: str = HTTP

    def __str__(self) -> str:
        return f"{self.front} {self.connection}"

    @property
    def tls(self) -> bool:
        """Say whether clients show a proxy: else they are believed who they are."""
        return self.connection != HTTP

    @property
    def keep_alive(self) -> bool:
        """Say whether a connection is used for more than one request."""
        return self.connection != NEW

    @property
    def voms(self) -> bool:
        """Say whether the proxies have VOMS attributes."""
        return self.connection == NEW
