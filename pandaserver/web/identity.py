"""Says who a client is from the certificates it showed, and which groups and roles its VOMS attributes prove."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from pandaserver.errors import shorten
from pandaserver.model.fqan import read_fqan
from pandaserver.web.chain import Delegation, IdentityError, TrustStore, slash_dn, walk
from pandaserver.web.voms import VomsVerifier

__all__ = ["Identity", "IdentityCache", "IdentityError", "TrustStore", "compact_name", "from_environ", "identify"]

MAX_CERTIFICATES = 20
MAX_CHARACTERS = 512 * 1024

# What damaged certificates make the parser raise, as mutation tests have shown.
DAMAGE = (
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)

_BEGINNING_OF_PART = re.compile(r"/(?=[A-Za-z0-9.]+=)")
_NOT_A_PERSON = re.compile(r"\d+|proxy|limited proxy|(robot|nickname):.*", re.IGNORECASE)
_NUMBER_OR_MARK = re.compile(r"[ _]\d+(?![A-Za-z0-9])|[()'\"]")


@dataclass(frozen=True)
class Identity:
    """Who the client is; `dn` is the end entity's, never a proxy's. The first of `fqans` is the primary one."""

    dn: str
    limited: bool
    depth: int
    not_after: datetime
    fqans: tuple[str, ...] = ()

    @property
    def vo(self) -> str:
        """Give the virtual organisation of the primary group; empty without groups."""
        return read_fqan(self.fqans[0]).vo if self.fqans else ""


Identifier = Callable[[Sequence[str]], Identity]


def utc_now() -> datetime:
    """Tell the time."""
    return datetime.now(UTC)


def identify(
    pem_chain: Sequence[str],
    *,
    trust: TrustStore | None = None,
    voms: VomsVerifier | None = None,
    now: datetime | None = None,
) -> Identity:
    """Verify a chain in PEM, leaf first and the rest in any order.

    Without `trust` the caller must know that TLS has verified the authority; without `voms` attributes give nothing.
    """
    try:
        delegation = walk(_parse(pem_chain))
        return _identify(delegation, trust=trust, voms=voms, now=now or utc_now())
    except DAMAGE as error:
        raise IdentityError(f"damaged certificate: {shorten(str(error))}") from error


def _parse(pem_chain: Sequence[str]) -> list[x509.Certificate]:
    if not pem_chain:
        raise IdentityError("no certificate")
    if len(pem_chain) > MAX_CERTIFICATES or sum(map(len, pem_chain)) > MAX_CHARACTERS:
        raise IdentityError(f"the chain is too long ({len(pem_chain)} certificates)")
    return [x509.load_pem_x509_certificate(pem.encode("ascii")) for pem in pem_chain]


def _identify(
    delegation: Delegation, *, trust: TrustStore | None, voms: VomsVerifier | None, now: datetime
) -> Identity:
    _check_dates(delegation, now=now)
    if trust is not None:
        trust.check(delegation.end_entity, now=now)
    attributes = voms.attributes(delegation, now=now) if voms is not None else None
    return Identity(
        dn=slash_dn(delegation.end_entity.subject),
        limited=delegation.limited,
        depth=len(delegation.proxies),
        not_after=min(delegation.not_after, attributes.not_after) if attributes else delegation.not_after,
        fqans=attributes.fqans if attributes else (),
    )


def _check_dates(delegation: Delegation, *, now: datetime) -> None:
    if now > delegation.not_after:
        raise IdentityError(f"certificate or proxy expired at {delegation.not_after:%Y-%m-%d %H:%M} UTC; renew it")
    if any(now < each.not_valid_before_utc for each in delegation.certificates):
        raise IdentityError("certificate or proxy not valid yet: is a clock wrong?")


def from_environ(environ: Mapping[str, object], identifier: Identifier = identify) -> Identity | None:
    """Identify the client of a WSGI request; None when it showed no certificate (anonymous)."""
    verdict = environ.get("SSL_CLIENT_VERIFY", "NONE")
    if verdict == "NONE":
        return None
    if verdict != "SUCCESS":
        raise IdentityError(f"the client's certificate was not accepted: {shorten(str(verdict))}")
    names = ["SSL_CLIENT_CERT", *(f"SSL_CLIENT_CERT_CHAIN_{number}" for number in range(MAX_CERTIFICATES))]
    chain = [str(environ[name]) for name in names if environ.get(name)]
    if not environ.get("SSL_CLIENT_CERT"):
        raise IdentityError("the front end passes no certificate on (SSLOptions +ExportCertData is needed)")
    return identifier(chain)


class Recent:
    """Remembers identities for some minutes: not longer, because of revocation, and never beyond their end."""

    def __init__(self, life_s: float, size: int) -> None:
        self._life, self._size = timedelta(seconds=life_s), size
        self._entries: OrderedDict[bytes, tuple[datetime, Identity]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: bytes, now: datetime) -> Identity | None:
        """Give what is remembered, unless its time is over."""
        with self._lock:
            end, known = self._entries.get(key, (now, None))
        return known if now < end else None

    def keep(self, key: bytes, identity: Identity, now: datetime) -> None:
        """Remember, and forget the oldest where there are too many."""
        with self._lock:
            self._entries[key] = (min(now + self._life, identity.not_after), identity)
            self._entries.move_to_end(key)
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)


class IdentityCache:
    """Identifies by certificates, verifying the same chain once in some minutes."""

    def __init__(
        self,
        trust: TrustStore | None = None,
        *,
        voms: VomsVerifier | None = None,
        life_s: float = 300.0,
        size: int = 2000,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._trust, self._voms, self._clock = trust, voms, clock
        self._recent = Recent(life_s, size)

    def identify(self, pem_chain: Sequence[str]) -> Identity:
        """Do what the function of this name does, or remember that it was done; pass it to from_environ."""
        key, now = self._key(pem_chain), self._clock()
        known = self._recent.find(key, now)
        if known is not None:
            return known
        identity = identify(pem_chain, trust=self._trust, voms=self._voms, now=now)
        self._recent.keep(key, identity, now)
        return identity

    def _key(self, pem_chain: Sequence[str]) -> bytes:
        """Digest of the chain and of the state of the trust store: a new revocation list empties the cache."""
        generation = self._trust.refresh() if self._trust else 0
        lengths = ",".join(str(len(pem)) for pem in pem_chain)
        digest = hashlib.sha256(f"{generation}:{lengths}:".encode())
        for pem in pem_chain:
            digest.update(pem.encode("utf-8", "surrogatepass"))
        return digest.digest()


def compact_name(dn: str) -> str:
    """Shorten a DN to a name for display and grouping; two people may share one, so never authorise by it."""
    parts = [part.partition("=") for part in _BEGINNING_OF_PART.split(dn)]
    names = [value for kind, _, value in parts if kind == "CN"]
    people = [_NUMBER_OR_MARK.sub("", name).strip() for name in names if not _NOT_A_PERSON.fullmatch(name)]
    robots = [name.partition(":")[2].strip() for name in names if name.lower().startswith("robot:")]
    return next(filter(None, [*reversed(people), *reversed(robots)]), dn)
