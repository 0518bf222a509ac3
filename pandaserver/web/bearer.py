"""Says who a client is from a bearer token (WLCG and OpenID Connect): the same Identity as from a certificate."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import jwt
from cryptography.exceptions import UnsupportedAlgorithm

from pandaserver.errors import NotAuthenticated
from pandaserver.model.fqan import read_fqan
from pandaserver.web.identity import Identity, Recent, utc_now
from pandaserver.web.issuers import Issuer, IssuerKeys

MAX_TOKEN = 16 * 1024
MAX_SUBJECT = 200
LEEWAY_S = 30
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_KINDS = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_MAX_GROUPS = 300
_LIFE_S, _SIZE = 300.0, 2000
_CAPABILITIES = ("storage.", "compute.")
_MAY_SUBMIT = "compute.create"

# What went wrong, without a word of the token.
_REASONS: Mapping[type[Exception], str] = {
    jwt.ExpiredSignatureError: "it has expired; get a new one",
    jwt.ImmatureSignatureError: "it is not valid yet: is a clock wrong?",
    jwt.InvalidAudienceError: "it is made for another audience",
    jwt.InvalidIssuerError: "its issuer is not known here",
    jwt.InvalidSignatureError: "its signature is wrong",
    jwt.InvalidAlgorithmError: "its algorithm is not accepted",
    jwt.InvalidKeyError: "the key of its issuer is no good",
}
_DAMAGE = (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, LookupError, OverflowError, RecursionError)


class TokenError(NotAuthenticated):
    """The token does not count; the text says why, and nothing of the token."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"bearer token refused: {reason}", field="Authorization")


def bearer_token(environ: Mapping[str, object]) -> str | None:
    """Take the token out of a WSGI request; None where there is none.

    Raises:
        TokenError: it came over a connection that everybody can read.
    """
    kind, _, token = str(environ.get("HTTP_AUTHORIZATION", "")).strip().partition(" ")
    if kind.lower() != "bearer":
        return None
    if "SSL_CLIENT_VERIFY" not in environ:  # which front ends set on TLS connections and on no others
        raise TokenError("it came without TLS; do not use it any more, and say https://")
    return token.strip()


class TokenIdentifier:
    """Identifies by tokens, verifying the same one once in some minutes."""

    def __init__(
        self,
        issuers: Iterable[Issuer],
        *,
        keys: Callable[[Issuer], IssuerKeys] = IssuerKeys,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._issuers = {issuer.url: issuer for issuer in issuers}
        self._keys = {url: keys(issuer) for url, issuer in self._issuers.items()}
        self._clock, self._recent = clock, Recent(_LIFE_S, _SIZE)

    @property
    def active(self) -> bool:
        """Say whether there is anybody whose tokens count; otherwise nobody looks at them."""
        return bool(self._issuers)

    def identify(self, token: str) -> Identity:
        """Verify a token.

        Raises:
            TokenError: it does not count.
            NotAvailable: its issuer cannot be asked for keys.
        """
        if not token or len(token) > MAX_TOKEN:
            raise TokenError(f"it has {len(token)} characters, 1 to {MAX_TOKEN} are taken")
        key, now = self._key(token), self._clock()
        known = self._recent.find(key, now)
        if known is not None:
            return known
        identity = self._identify(token)
        self._recent.keep(key, identity, now)
        return identity

    def _key(self, token: str) -> bytes:
        """Digest of the token and of the state of the keys: a key that is withdrawn takes its tokens with it."""
        state = ",".join(str(keys.generation) for keys in self._keys.values())
        return hashlib.sha256(f"{state}:{token}".encode("utf-8", "surrogatepass")).digest()

    def _identify(self, token: str) -> Identity:
        try:
            algorithm, key_id, url = _unverified(token)
            issuer = self._issuers.get(url)
            if issuer is None:
                raise TokenError("its issuer is not known here")
            claims = _claims(token, issuer, _key_for(algorithm, self._keys[url].find(key_id)))
            return _identity(claims, issuer)
        except _DAMAGE as error:
            raise TokenError(_reason(error)) from None  # the cause may quote the token


def _unverified(token: str) -> tuple[str, str | None, str]:
    """Read algorithm, key id and issuer: they tell which key to take. Addresses of keys in it are not looked at."""
    header = jwt.get_unverified_header(token)
    algorithm, key_id = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS:
        raise TokenError(f"its algorithm is not accepted; {', '.join(ALGORITHMS)} are")
    claims = jwt.decode(token, options={"verify_signature": False})
    return algorithm, None if key_id is None else str(key_id), str(claims.get("iss", ""))


def _key_for(algorithm: str, key: Mapping[str, Any] | None) -> jwt.PyJWK:
    if key is None:
        raise TokenError("its issuer has no key of this id")
    if key.get("kty") != _KINDS[algorithm[:2]] or key.get("alg", algorithm) != algorithm:
        raise TokenError("its algorithm does not fit the key of its issuer")
    return jwt.PyJWK(dict(key), algorithm)


def _claims(token: str, issuer: Issuer, key: jwt.PyJWK) -> dict[str, Any]:
    return jwt.decode(
        token,
        key,
        algorithms=[key.algorithm_name],
        audience=list(issuer.audience),
        issuer=issuer.url,
        leeway=LEEWAY_S,
        options={"require": ["exp", "iss", "sub", "aud"], "enforce_minimum_key_length": True},
    )


def _reason(error: Exception) -> str:
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"claim {error.claim} is missing"
    return next((text for kind, text in _REASONS.items() if isinstance(error, kind)), "it is damaged")


# ---- what a good token says


def _identity(claims: Mapping[str, Any], issuer: Issuer) -> Identity:
    subject = claims["sub"]
    if not 0 < len(subject) <= MAX_SUBJECT:
        raise TokenError(f"its subject has {len(subject)} characters, 1 to {MAX_SUBJECT} are taken")
    scopes = _words(claims.get("scope", ""))
    return Identity(
        dn=token_dn(issuer.name, subject),
        limited=_is_limited(scopes),
        depth=0,
        not_after=datetime.fromtimestamp(int(claims["exp"]), UTC),
        fqans=tuple(dict.fromkeys(_fqans(claims, scopes, issuer))),
    )


def token_dn(issuer: str, subject: str) -> str:
    """Write a subject in the form of a DN: stable, and such as no certificate can have."""
    return f"/OIDC={issuer}/CN={quote(subject, safe=' @:|,._~-')}"


def _words(value: Any) -> Sequence[str]:
    found = value.split() if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise TokenError("its groups or scopes are no list of words")
    return found[:_MAX_GROUPS]


def _is_limited(scopes: Iterable[str]) -> bool:
    """A token made for moving files only, say, does not submit jobs; one that names no capability has its owner's."""
    capabilities = [scope.partition(":")[0] for scope in scopes if scope.startswith(_CAPABILITIES)]
    return bool(capabilities) and _MAY_SUBMIT not in capabilities


def _fqans(claims: Mapping[str, Any], scopes: Iterable[str], issuer: Issuer) -> Iterator[str]:
    """Give groups and roles as VOMS would write them; what is of no concern to the organisation is left out."""
    groups = _words(claims.get("wlcg.groups") or claims.get("groups") or [])
    mapped = issuer.groups_of_scopes
    yield from filter(None, (_fqan(group, issuer) for group in groups))
    yield from (mapped[scope] for scope in scopes if scope in mapped)


def _fqan(group: str, issuer: Issuer) -> str | None:
    path = f"/{group.lstrip('/')}"
    above, _, last = path.rpartition("/")
    text = f"{above}/Role={last}" if above and last in issuer.roles else path
    try:
        found = read_fqan(text)
    except ValueError:
        return None
    return str(found) if found.vo == issuer.vo else None
