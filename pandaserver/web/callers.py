"""Finds out who calls: by a bearer token where one is sent, else by the certificate of the TLS connection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from pandaserver.config import Config
from pandaserver.web.bearer import TokenIdentifier, bearer_token
from pandaserver.web.chain import TrustStore
from pandaserver.web.identity import Identity, IdentityCache, from_environ
from pandaserver.web.issuers import Issuer
from pandaserver.web.voms import VomsVerifier


@dataclass(frozen=True)
class Callers:
    """Both ways to be somebody. A token is sent on purpose, a certificate often by habit: so the token decides alone.

    A bad token is refused, whatever certificate came with it; a certificate adds nothing to a good one. Where no issuer
    is configured, tokens are not looked at.
    """

    certificates: IdentityCache
    tokens: TokenIdentifier

    def identify(self, environ: Mapping[str, object]) -> Identity | None:
        """Identify the client of a WSGI request; None when it is anonymous."""
        token = bearer_token(environ) if self.tokens.active else None
        if token is not None:
            return self.tokens.identify(token)
        return from_environ(environ, self.certificates.identify)


def make_callers(config: Config, issuers: Iterable[Issuer]) -> Callers:
    """Put together what the configuration says of certificates, attributes and tokens."""
    trust, vomsdir = TrustStore(config.server.ca_dir), config.identity.vomsdir
    hosts = frozenset(filter(None, [urlsplit(config.server.public_url).hostname]))
    voms = VomsVerifier(trust, vomsdir, hosts) if vomsdir else None
    return Callers(IdentityCache(trust, voms=voms), TokenIdentifier(issuers))
