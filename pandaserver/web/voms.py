"""Verifies VOMS attributes: who says that this person has these groups, and may he say so?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import SignatureAlgorithmOID

from pandaserver.errors import shorten
from pandaserver.web.attribute_certificate import IN_PROXY, AttributeCertificate, read_attribute_certificates
from pandaserver.web.chain import Delegation, IdentityError, TrustStore, proxy_info, slash_dn

CLOCK_SKEW = timedelta(minutes=5)
_NEXT_CHAIN = "NEXT CHAIN"

_WEAK = {
    SignatureAlgorithmOID.RSA_WITH_SHA1: "SHA-1",
    SignatureAlgorithmOID.ECDSA_WITH_SHA1: "SHA-1",
    SignatureAlgorithmOID.RSA_WITH_MD5: "MD5",
}
_RSA: Mapping[x509.ObjectIdentifier, hashes.HashAlgorithm] = {
    SignatureAlgorithmOID.RSA_WITH_SHA256: hashes.SHA256(),
    SignatureAlgorithmOID.RSA_WITH_SHA384: hashes.SHA384(),
    SignatureAlgorithmOID.RSA_WITH_SHA512: hashes.SHA512(),
}
_EC: Mapping[x509.ObjectIdentifier, hashes.HashAlgorithm] = {
    SignatureAlgorithmOID.ECDSA_WITH_SHA256: hashes.SHA256(),
    SignatureAlgorithmOID.ECDSA_WITH_SHA384: hashes.SHA384(),
    SignatureAlgorithmOID.ECDSA_WITH_SHA512: hashes.SHA512(),
}


class AttributesError(IdentityError):
    """The VOMS attributes do not count, and so the proxy does not: a person who shows them relies on them."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"VOMS attributes refused: {reason}", field="certificate")


@dataclass(frozen=True)
class Attributes:
    """The groups and roles that somebody has, the primary one first, and until when."""

    fqans: tuple[str, ...]
    not_after: datetime


@dataclass(frozen=True)
class VomsVerifier:
    """Knows which servers may speak for whom (vomsdir/VO/HOST.lsc); `hosts` is what this server is called."""

    trust: TrustStore
    vomsdir: Path
    hosts: frozenset[str] = frozenset()

    def attributes(self, delegation: Delegation, *, now: datetime) -> Attributes | None:
        """Give what the proxy nearest to the leaf that has attributes says; None when no proxy has any.

        Raises:
            AttributesError: there are some that do not count; one bad certificate among several spoils all.
        """
        try:
            found = _find(delegation)
        except ValueError as error:
            raise AttributesError(shorten(str(error))) from error
        for each in found:
            self._verify(each, delegation.end_entity, now=now)
        if not found:
            return None
        fqans = dict.fromkeys(fqan for each in found for fqan in each.fqans)
        ends = [end for each in found for end in (each.end, each.signers[0].not_valid_after_utc)]
        return Attributes(tuple(fqans), min(ends))

    def _verify(self, told: AttributeCertificate, person: x509.Certificate, *, now: datetime) -> None:
        _check_holder(told, person)
        _check_times(told, now=now)
        self._check_targets(told)
        signer = told.signers[0]
        if told.issuer_name != signer.subject.public_bytes():
            raise AttributesError("they name another issuer than the certificate that comes with them")
        self._check_names(signer, told.vo)
        self._check_signer(signer, now=now)
        _check_signature(told, signer)

    def _check_targets(self, told: AttributeCertificate) -> None:
        if told.targets is not None and not self.hosts & set(told.targets):
            targets = shorten(", ".join(told.targets) or "nobody")
            raise AttributesError(f"they are for {targets}, and this server is {', '.join(sorted(self.hosts))}")

    def _check_names(self, signer: x509.Certificate, vo: str) -> None:
        names = [slash_dn(signer.subject), slash_dn(signer.issuer)]
        chains = [chain for path in sorted((self.vomsdir / vo).glob("*.lsc")) for chain in read_lsc(path)]
        if not chains:
            raise AttributesError(f"this server knows no VOMS server of {vo} (no {self.vomsdir / vo}/*.lsc)")
        if names not in [chain[:2] for chain in chains]:
            raise AttributesError(
                f"{names[0]}, certified by {names[1]}, is no VOMS server of {vo} ({self.vomsdir / vo})"
            )

    def _check_signer(self, signer: x509.Certificate, *, now: datetime) -> None:
        if not signer.not_valid_before_utc <= now <= signer.not_valid_after_utc:
            raise AttributesError("the certificate of the VOMS server is not valid now")
        if signer.signature_algorithm_oid not in {**_RSA, **_EC}:
            weak = _said(signer.signature_algorithm_oid)
            raise AttributesError(f"the certificate of the VOMS server is signed with {weak}, which is not accepted")
        if proxy_info(signer) is not None or not _may_sign(signer):
            raise AttributesError("the certificate of the VOMS server is none that may sign attributes")
        try:
            self.trust.check(signer, now=now)
        except IdentityError as error:
            raise AttributesError(f"the VOMS server: {error}") from error


def _find(delegation: Delegation) -> list[AttributeCertificate]:
    for proxy in delegation.proxies:
        values = [each.value.public_bytes() for each in proxy.extensions if each.oid == IN_PROXY]
        if values:
            return read_attribute_certificates(values[0])
    return []


def _check_holder(told: AttributeCertificate, person: x509.Certificate) -> None:
    """The attributes were given to this very certificate; servers write its issuer's name, or its own."""
    names = (person.issuer.public_bytes(), person.subject.public_bytes())
    if told.holder_serial != person.serial_number or told.holder_name not in names:
        raise AttributesError("they were given to another certificate")


def _check_times(told: AttributeCertificate, *, now: datetime) -> None:
    if now > told.end:
        raise AttributesError(f"they expired at {told.end:%Y-%m-%d %H:%M} UTC; make a new proxy")
    if now < told.start - CLOCK_SKEW:
        raise AttributesError("they are not valid yet: is a clock wrong?")


def read_lsc(path: Path) -> list[list[str]]:
    """Read a file with the names of a VOMS server and its authorities; it may hold several such chains."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise AttributesError(f"{path} cannot be read") from error
    chains: list[list[str]] = [[]]
    for line in lines:
        if _NEXT_CHAIN in line:
            chains.append([])
        elif line.startswith("/"):
            chains[-1].append(line)
    return [chain for chain in chains if chain]


def _said(algorithm: x509.ObjectIdentifier) -> str:
    return _WEAK.get(algorithm, f"algorithm {shorten(algorithm.dotted_string)}")


def _may_sign(certificate: x509.Certificate) -> bool:
    usages = [each.value for each in certificate.extensions if isinstance(each.value, x509.KeyUsage)]
    limits = [each.value for each in certificate.extensions if isinstance(each.value, x509.BasicConstraints)]
    return all(usage.digital_signature for usage in usages) and not any(limit.ca for limit in limits)


def _check_signature(told: AttributeCertificate, signer: x509.Certificate) -> None:
    key = signer.public_key()
    try:
        if isinstance(key, rsa.RSAPublicKey) and told.algorithm in _RSA:
            key.verify(told.signature, told.signed, padding.PKCS1v15(), _RSA[told.algorithm])
        elif isinstance(key, ec.EllipticCurvePublicKey) and told.algorithm in _EC:
            key.verify(told.signature, told.signed, ec.ECDSA(_EC[told.algorithm]))
        else:
            raise AttributesError(f"they are signed with {_said(told.algorithm)}, which is not accepted")
    except (InvalidSignature, UnsupportedAlgorithm) as error:
        raise AttributesError("the signature is wrong") from error
