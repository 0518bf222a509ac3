"""Walks a chain of grid certificates: from what a client showed to the end entity, and on to a trusted authority."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import NameOID

from pandaserver.errors import NotAuthenticated, shorten

log = logging.getLogger(__name__)

MAX_DEPTH = 10

PROXY_CERT_INFO = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14")
DRAFT_PROXY_CERT_INFO = x509.ObjectIdentifier("1.3.6.1.4.1.3536.1.222")
# Policy languages as the bytes of their object identifiers: nothing else of them is needed.
INHERIT_ALL = bytes.fromhex("2b06010505071501")  # 1.3.6.1.5.5.7.21.1
INDEPENDENT = bytes.fromhex("2b06010505071502")  # 1.3.6.1.5.5.7.21.2
LIMITED = bytes.fromhex("2b060104019b5001010109")  # 1.3.6.1.4.1.3536.1.1.1.9
LEGACY_NAMES = frozenset({"proxy", "limited proxy"})

SEQUENCE, INTEGER, OID = 0x30, 0x02, 0x06

SHORT_NAMES = {
    NameOID.COMMON_NAME: "CN",
    NameOID.COUNTRY_NAME: "C",
    NameOID.LOCALITY_NAME: "L",
    NameOID.STATE_OR_PROVINCE_NAME: "ST",
    NameOID.ORGANIZATION_NAME: "O",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "OU",
    NameOID.DOMAIN_COMPONENT: "DC",
    NameOID.USER_ID: "UID",
    NameOID.EMAIL_ADDRESS: "emailAddress",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.SURNAME: "SN",
    NameOID.GIVEN_NAME: "GN",
    NameOID.TITLE: "title",
}
_LOOKS_LIKE_A_PART = re.compile(r"[/+][A-Za-z0-9.]+=")
_CA_FILE = re.compile(r"[0-9a-f]{8}\.(r?)[0-9]+")


class IdentityError(NotAuthenticated):
    """The certificates that a client showed do not prove who it is; the text says why."""


# ---- names


def slash_dn(name: x509.Name) -> str:
    """Write a name as grid tools do (/DC=org/O=Grid/CN=Alice), refusing names that another name could imitate."""
    dn = "".join("/" + "+".join(map(_part, rdn)) for rdn in name.rdns)
    if not dn:
        raise IdentityError("the certificate has no subject")
    return dn


def _part(attribute: x509.NameAttribute[str | bytes]) -> str:
    value = attribute.value
    if not isinstance(value, str) or not value.isprintable() or _LOOKS_LIKE_A_PART.search(value):
        raise IdentityError(f"ambiguous name in the certificate: {shorten(repr(value))}")
    return f"{SHORT_NAMES.get(attribute.oid, attribute.oid.dotted_string)}={value}"


def _is_one_cn_longer(longer: x509.Name, shorter: x509.Name) -> bool:
    added = longer.rdns[len(shorter.rdns) :]
    common_names = [[each.oid for each in rdn] == [NameOID.COMMON_NAME] for rdn in added]
    return longer.rdns[: len(shorter.rdns)] == shorter.rdns and common_names == [True]


# ---- what makes a certificate a proxy


@dataclass(frozen=True)
class ProxyInfo:
    """The extension of RFC 3820: what the proxy may do, and how many proxies may follow it."""

    policy: bytes
    path_length: int | None


def read_der(data: bytes) -> list[tuple[int, bytes]]:
    """Split DER into (tag, content) pairs, one level deep; raise ValueError when it is damaged."""
    elements, position = [], 0
    while position < len(data):
        header = data[position : position + 2]
        position += 2
        size = header[1] if len(header) == 2 else 0x80
        if size > 0x84 or size == 0x80:
            raise ValueError("damaged DER")
        if size > 0x80:
            digits = size - 0x80
            size = int.from_bytes(data[position : position + digits], "big")
            position += digits
        content = data[position : position + size]
        position += size
        if len(content) != size or position > len(data):
            raise ValueError("damaged DER")
        elements.append((header[0], content))
    return elements


def parse_proxy_info(data: bytes) -> ProxyInfo:
    """Read the value of a ProxyCertInfo extension; raise ValueError when it is damaged."""
    ((tag, body),) = read_der(data)
    *before, (policy_tag, policy_body) = read_der(body)
    (language_tag, language), *_policy = read_der(policy_body)
    tags = [tag, *(each for each, _ in before), policy_tag, language_tag]
    if tags not in ([SEQUENCE, SEQUENCE, OID], [SEQUENCE, INTEGER, SEQUENCE, OID]):
        raise ValueError("damaged proxy information")
    path_length = int.from_bytes(before[0][1], "big", signed=True) if before else None
    if path_length is not None and path_length < 0:
        raise ValueError("negative path length of a proxy")
    return ProxyInfo(policy=language, path_length=path_length)


def proxy_info(certificate: x509.Certificate) -> ProxyInfo | None:
    """Tell what kind of RFC 3820 proxy a certificate is; None when it is not one."""
    found = next((each for each in certificate.extensions if each.oid == PROXY_CERT_INFO), None)
    if found is None:
        return None
    if not found.critical:
        raise IdentityError("the proxy's ProxyCertInfo is not marked critical")
    return parse_proxy_info(found.value.public_bytes())


# ---- down: from the leaf to the end entity


@dataclass(frozen=True)
class Delegation:
    """The proxies of a chain, leaf first, and the certificate of the person or robot who made the first of them."""

    proxies: tuple[x509.Certificate, ...]
    end_entity: x509.Certificate
    limited: bool

    @property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        """All of them, leaf first."""
        return (*self.proxies, self.end_entity)

    @property
    def not_after(self) -> datetime:
        """When the first of them runs out."""
        return min(each.not_valid_after_utc for each in self.certificates)


def walk(chain: Sequence[x509.Certificate]) -> Delegation:
    """Find the end entity behind chain[0]; the rest may come in any order and hold certificates that do not matter."""
    proxies: list[x509.Certificate] = []
    current, limited = chain[0], False
    while (info := proxy_info(current)) is not None:
        if len(proxies) == MAX_DEPTH:
            raise IdentityError(f"more than {MAX_DEPTH} delegations")
        _check_policy(info, delegations=len(proxies))
        _check_form(current)
        limited = limited or info.policy == LIMITED
        proxies.append(current)
        current = _issuer_of(current, chain)
    _refuse_other_proxies(current)
    return Delegation(tuple(proxies), current, limited)


def _check_policy(info: ProxyInfo, *, delegations: int) -> None:
    if info.policy == INDEPENDENT:
        raise IdentityError("an independent proxy carries nothing of its owner's identity")
    if info.policy not in (INHERIT_ALL, LIMITED):
        raise IdentityError(f"proxy with an unknown policy language ({shorten(info.policy.hex())})")
    if info.path_length is not None and delegations > info.path_length:
        raise IdentityError(f"the proxy allows {info.path_length} further delegations, here are {delegations}")


def _check_form(proxy: x509.Certificate) -> None:
    if not _is_one_cn_longer(proxy.subject, proxy.issuer):
        raise IdentityError("the proxy's name is not its issuer's name and one CN more")
    extensions = {each.oid for each in proxy.extensions}
    if _is_authority(proxy) or {x509.SubjectAlternativeName.oid, x509.IssuerAlternativeName.oid} & extensions:
        raise IdentityError("a proxy can be neither an authority nor have alternative names")


def _issuer_of(proxy: x509.Certificate, chain: Iterable[x509.Certificate]) -> x509.Certificate:
    for candidate in chain:
        if candidate.subject == proxy.issuer and is_signed_by(proxy, candidate):
            if not _may_sign_proxies(candidate):
                raise IdentityError("the key usage of the proxy's issuer does not allow it to make proxies")
            return candidate
    raise IdentityError("the issuer of the proxy is not in the chain (a resumed TLS session?)")


def _may_sign_proxies(certificate: x509.Certificate) -> bool:
    usages = [each.value for each in certificate.extensions if isinstance(each.value, x509.KeyUsage)]
    return not _is_authority(certificate) and all(usage.digital_signature for usage in usages)


def _is_authority(certificate: x509.Certificate) -> bool:
    return any(isinstance(each.value, x509.BasicConstraints) and each.value.ca for each in certificate.extensions)


def _refuse_other_proxies(certificate: x509.Certificate) -> None:
    if any(each.oid == DRAFT_PROXY_CERT_INFO for each in certificate.extensions):
        raise IdentityError("a proxy of the draft before RFC 3820; make one with grid-proxy-init -rfc")
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    legacy = bool(names) and names[-1].value in LEGACY_NAMES
    if legacy and _is_one_cn_longer(certificate.subject, certificate.issuer):
        raise IdentityError("a legacy proxy; make an RFC 3820 one, with grid-proxy-init -rfc")
    if _is_authority(certificate):
        raise IdentityError("the certificate of an authority is nobody's identity")


def is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Tell whether the names fit and the signature is right."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


# ---- up: from the end entity to an authority


@dataclass(frozen=True)
class Authority:
    """A trusted authority with those of its revocation lists that it really signed."""

    certificate: x509.Certificate
    crls: tuple[x509.CertificateRevocationList, ...]


class TrustStore:
    """The authorities in a directory such as /etc/grid-security/certificates; follows what fetch-crl changes in it."""

    def __init__(
        self, directory: Path, *, recheck_s: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.directory = directory
        self.generation = 0
        self._recheck_s, self._clock = recheck_s, clock
        self._lock = threading.Lock()
        self._seen: frozenset[tuple[str, int, int]] | None = None
        self._next_look = clock()
        self._authorities: dict[x509.Name, list[Authority]] = {}
        self.refresh()

    def refresh(self) -> int:
        """Read the directory again when it has changed; give a number that grows with each change."""
        with self._lock:
            if self._clock() >= self._next_look:
                self._next_look = self._clock() + self._recheck_s
                self._look()
            return self.generation

    def _look(self) -> None:
        try:
            entries = [each for each in self.directory.iterdir() if _CA_FILE.fullmatch(each.name)]
            seen = frozenset((each.name, each.stat().st_mtime_ns, each.stat().st_size) for each in entries)
        except OSError:
            if self._seen is None:
                raise
            log.exception("cannot read %s: going on with what was read before", self.directory)
            return
        if seen != self._seen:
            self._authorities = load_authorities(entries)
            self._seen = seen
            self.generation += 1
            log.info("%d authorities in %s", len(self._authorities), self.directory)

    def check(self, certificate: x509.Certificate, *, now: datetime) -> None:
        """Refuse a certificate that no authority here issued, or that its authority has revoked."""
        self.refresh()
        for authority in self._authorities.get(certificate.issuer, []):
            if is_signed_by(certificate, authority.certificate):
                _check_authority(authority, now=now)
                _check_revocation(certificate, authority, now=now)
                return
        raise IdentityError(f"no authority in {self.directory} has issued this certificate")


def load_authorities(files: Iterable[Path]) -> dict[x509.Name, list[Authority]]:
    """Read certificates (*.0) and revocation lists (*.r0); what cannot be read is logged and left out."""
    certificates: dict[x509.Certificate, None] = {}  # in order, each once: most stand there under two names
    crls: dict[bytes, x509.CertificateRevocationList] = {}
    for path in sorted(files):
        try:
            data = path.read_bytes()
            if path.suffix.startswith(".r"):
                crls[data] = x509.load_pem_x509_crl(data)
            else:
                certificates.update(dict.fromkeys(x509.load_pem_x509_certificates(data)))
        except (OSError, ValueError) as error:
            log.warning("%s is left out: %s", path, error)
    authorities: dict[x509.Name, list[Authority]] = {}
    for each in filter(_is_authority, certificates):
        own = tuple(crl for crl in crls.values() if crl.issuer == each.subject and _has_signed(each, crl))
        authorities.setdefault(each.subject, []).append(Authority(each, own))
    return authorities


def _has_signed(authority: x509.Certificate, crl: x509.CertificateRevocationList) -> bool:
    try:
        return crl.is_signature_valid(authority.public_key())  # type: ignore[arg-type]  # other keys: TypeError
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def _check_authority(authority: Authority, *, now: datetime) -> None:
    if not authority.certificate.not_valid_before_utc <= now <= authority.certificate.not_valid_after_utc:
        raise IdentityError("the authority's own certificate is not valid now")


def _check_revocation(certificate: x509.Certificate, authority: Authority, *, now: datetime) -> None:
    current = [crl for crl in authority.crls if crl.next_update_utc is None or now <= crl.next_update_utc]
    if not current:
        raise IdentityError("the authority's revocation list is missing or has run out; run fetch-crl on the server")
    if any(crl.get_revoked_certificate_by_serial_number(certificate.serial_number) for crl in current):
        raise IdentityError("the certificate has been revoked")
