"""An issuer of tokens for tests: its keys, the tokens that it signs, and a TLS server that tells its public keys."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

URL = "https://iam.test/"
AUDIENCE = "https://panda.test"


def public_jwk(key: Any, key_id: str, **more: Any) -> dict[str, Any]:
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": key_id, "use": "sig", **more}


@dataclass
class TokenIssuer:
    """Signs tokens; what a token says can be changed at will."""

    url: str = URL
    key_id: str = "k1"
    key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    asked: int = 0
    answers: bool = True

    def claims(self, **more: Any) -> dict[str, Any]:
        now = int(time.time())
        told = {"iss": self.url, "sub": "u-1", "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 600}
        told |= {"wlcg.ver": "1.0", "wlcg.groups": ["/testvo", "/testvo/production"]}
        return {name: value for name, value in (told | more).items() if value is not None}

    def token(self, *, headers: dict[str, Any] | None = None, algorithm: str = "ES256", **more: Any) -> str:
        named = {"kid": self.key_id} | (headers or {})
        return jwt.encode(self.claims(**more), self.key, algorithm=algorithm, headers=named)

    def key_set(self) -> dict[str, Any]:
        return {"keys": [public_jwk(self.key, self.key_id)]}


@contextmanager
def serving(issuer: TokenIssuer, *, certificate: Path, key: Path) -> Iterator[str]:
    """Tell the keys over TLS; give the base address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked += 1
            pages = {
                "/.well-known/openid-configuration": {"issuer": issuer.url, "jwks_uri": f"{base}/jwks"},
                "/jwks": issuer.key_set(),
                "/huge": {"keys": ["x" * 1024] * 1024},
            }
            if self.path == "/elsewhere":
                self.send_response(302)
                self.send_header("Location", f"{base}/jwks")
                self.end_headers()
                return
            body = json.dumps(pages.get(self.path, {})).encode()
            self.send_response(200 if self.path in pages and issuer.answers else 503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_told: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.handle_error = lambda *_told: None  # type: ignore[method-assign]  # clients that do not trust us hang up
    base = f"https://localhost:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield base
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
