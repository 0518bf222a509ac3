"""Attribute certificates as VOMS servers make them, good ones and bad ones, for the proxies of a test grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pki
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

IN_PROXY = x509.ObjectIdentifier("1.3.6.1.4.1.8005.100.100.5")
FQANS = "1.3.6.1.4.1.8005.100.100.4"
SIGNERS = "1.3.6.1.4.1.8005.100.100.10"
TARGETS, NO_REVOCATION = "2.5.29.55", "2.5.29.56"
ALGORITHMS = {
    (True, "sha1"): "1.2.840.113549.1.1.5",
    (True, "md5"): "1.2.840.113549.1.1.4",
    (True, "sha256"): "1.2.840.113549.1.1.11",
    (False, "sha1"): "1.2.840.10045.4.1",
    (False, "sha256"): "1.2.840.10045.4.3.2",
}
TRUE = b"\x01\x01\xff"
VO, SECOND_VO = "testvo", "physics"
SERVER = "voms.test"
LASTING = pki.lasting(hours=12)
DIGESTS = {"sha256": hashes.SHA256(), "sha1": hashes.SHA1(), "md5": hashes.MD5()}


@dataclass(frozen=True)
class Claim:
    """What an attribute certificate shall say, faults included."""

    vo: str = VO
    fqans: tuple[str, ...] = (f"/{VO}/Role=NULL/Capability=NULL",)
    period: pki.Period = LASTING
    targets: tuple[str, ...] | None = None
    digest: str = "sha256"
    outer_digest: str = ""  # another name for the algorithm outside than inside
    names_subject: bool = False  # the holder by its own name instead of its issuer's
    issuer: x509.Name | None = None  # instead of the signer's name
    critical: str = ""  # a critical extension that nobody knows
    hides_signer: bool = False


def attribute_certificate(signer: pki.Credential, holder: x509.Certificate, claim: Claim) -> bytes:
    """Make one."""
    info = _info(signer, holder, claim)
    outer = claim.outer_digest or claim.digest
    return _sequence(info, _algorithm(signer, outer), pki.der(0x03, b"\0", _sign(signer, info, DIGESTS[claim.digest])))


def extension(*certificates: bytes) -> x509.UnrecognizedExtension:
    """Give the extension of a proxy that holds them."""
    return x509.UnrecognizedExtension(IN_PROXY, _sequence(_sequence(*certificates)))


def voms_proxy(
    user: pki.Credential, signer: pki.Credential, *claims: Claim, holder: x509.Certificate | None = None
) -> pki.Credential:
    """Make a proxy with attributes, as voms-proxy-init does."""
    made = [attribute_certificate(signer, holder or user.certificate, each) for each in claims or (Claim(),)]
    return pki.delegate(user, more=extension(*made))


def _info(signer: pki.Credential, holder: x509.Certificate, claim: Claim) -> bytes:
    name = holder.subject if claim.names_subject else holder.issuer
    return _sequence(
        _integer(1),
        _sequence(pki.der(0xA0, _sequence(_directory(name)), _integer(holder.serial_number))),
        pki.der(0xA0, _sequence(_directory(claim.issuer or signer.certificate.subject))),
        _algorithm(signer, claim.digest),
        _integer(7),
        _sequence(_time(claim.period.start), _time(claim.period.end)),
        _sequence(_sequence(pki.der_oid(FQANS), pki.der(0x31, _groups(claim)))),
        _sequence(*_extensions(signer, claim)),
    )


def _groups(claim: Claim) -> bytes:
    authority = pki.der(0xA0, pki.der(0x86, f"{claim.vo}://{SERVER}:15000".encode()))
    return _sequence(authority, _sequence(*(pki.der(0x04, fqan.encode()) for fqan in claim.fqans)))


def _extensions(signer: pki.Credential, claim: Claim) -> Sequence[bytes]:
    made = [_extension(NO_REVOCATION, b"\x05\x00")]
    if not claim.hides_signer:
        der = signer.certificate.public_bytes(serialization.Encoding.DER)
        made.append(_extension(SIGNERS, _sequence(_sequence(der))))
    if claim.targets is not None:
        named = (_sequence(pki.der(0xA0, pki.der(0x86, host.encode()))) for host in claim.targets)
        made.append(_extension(TARGETS, _sequence(_sequence(*named)), TRUE))
    if claim.critical:
        made.append(_extension(claim.critical, b"\x05\x00", TRUE))
    return made


def _extension(oid: str, value: bytes, critical: bytes = b"") -> bytes:
    return _sequence(pki.der_oid(oid), critical, pki.der(0x04, value))


def _sequence(*parts: bytes) -> bytes:
    return pki.der(pki.SEQUENCE, *parts)


def _integer(number: int) -> bytes:
    return pki.der(pki.INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _directory(name: x509.Name) -> bytes:
    return pki.der(0xA4, name.public_bytes())


def _time(moment: datetime) -> bytes:
    return pki.der(0x18, moment.strftime("%Y%m%d%H%M%SZ").encode())


def _algorithm(signer: pki.Credential, digest: str) -> bytes:
    is_rsa = isinstance(signer.key, rsa.RSAPrivateKey)
    return _sequence(pki.der_oid(ALGORITHMS[is_rsa, digest]), b"\x05\x00" if is_rsa else b"")


def _sign(signer: pki.Credential, data: bytes, digest: hashes.HashAlgorithm) -> bytes:
    if isinstance(signer.key, rsa.RSAPrivateKey):
        return signer.key.sign(data, padding.PKCS1v15(), digest)
    return signer.key.sign(data, ec.ECDSA(digest))


# ---- the VOMS servers of a test grid, and proxies of every kind


@dataclass(frozen=True)
class VomsServers:
    """Those who sign attributes: one good, and others of whom something is wrong."""

    authority: pki.Credential
    good: pki.Credential
    unlisted: pki.Credential
    revoked: pki.Credential
    expired: pki.Credential
    impostor: pki.Credential  # the same names, from an authority that nobody trusts


def make_servers(*, period: pki.Period) -> VomsServers:
    """Make them; keys are RSA where grid tools insist on it."""
    name = "PanDA Test VOMS CA"
    authority = pki.make_authority(name, period=period, key=pki.rsa_key())
    strange = pki.make_authority(name, period=period)
    return VomsServers(
        authority=authority,
        good=_server(authority, SERVER, period=period, key=pki.rsa_key()),
        unlisted=_server(authority, "other.test", period=period, key=pki.rsa_key()),
        revoked=_server(authority, "revoked.test", period=period),
        expired=_server(authority, "expired.test", period=pki.over()),
        impostor=_server(strange, SERVER, period=period),
    )


def _server(authority: pki.Credential, host: str, *, period: pki.Period, key: pki.Key | None = None) -> pki.Credential:
    return pki.issue(authority, host, period=period, hosts=[x509.DNSName(host)], key=key)


def write_vomsdir(directory: Path, servers: VomsServers) -> None:
    """Say which servers may speak for the organisations; the unlisted one is not among them."""
    listed = (servers.good, servers.revoked, servers.expired)
    chains = [[pki.slash_form(each.certificate.subject), pki.slash_form(each.certificate.issuer)] for each in listed]
    text = "\n------ NEXT CHAIN ------\n".join("\n".join(chain) for chain in chains)
    for vo in (VO, SECOND_VO):
        pki.write(directory / vo / f"{SERVER}.lsc", f"{text}\n".encode(), mode=pki.PUBLIC)


def write_authority(directory: Path, servers: VomsServers) -> None:
    """Write the authority of the servers into the folder of authorities, with its revocation list."""
    last = pki.Period(pki.BACKDATED, servers.authority.certificate.not_valid_after_utc)
    crl = pki.revocation_list(servers.authority, [servers.revoked.certificate], period=last)
    pki.write_ca_directory(directory, servers.authority, crl=crl)


PRODUCTION = f"/{VO}/Role=production/Capability=NULL"
MEMBER = f"/{VO}/Role=NULL/Capability=NULL"


def good_credentials(user: pki.Credential, servers: VomsServers) -> dict[str, pki.Credential]:
    """Give the VOMS proxies that the server must accept."""
    good = servers.good
    production = Claim(fqans=(PRODUCTION, MEMBER))
    plain = voms_proxy(user, good)
    second = Claim(vo=SECOND_VO, fqans=(f"/{SECOND_VO}/higgs/Role=NULL/Capability=NULL",))
    made = attribute_certificate(good, user.certificate, Claim())
    return {
        "default": plain,
        "prod": voms_proxy(user, good, production),
        "group": voms_proxy(user, good, Claim(fqans=(f"/{VO}/higgs/Role=production", MEMBER))),
        "pilot": voms_proxy(user, good, Claim(fqans=(f"/{VO}/Role=pilot/Capability=NULL",))),
        "limited": pki.delegate(user, pki.proxy_cert_info(pki.LIMITED), more=extension(made)),
        "depth2": pki.delegate(plain),
        "two_vos": voms_proxy(user, good, Claim(), second),
        "by_subject": voms_proxy(user, good, Claim(names_subject=True)),
        "target_here": voms_proxy(user, good, Claim(targets=("elsewhere.test", "localhost"))),
    }


def bad_credentials(user: pki.Credential, other: pki.Credential, servers: VomsServers) -> dict[str, pki.Credential]:
    """Give the VOMS proxies that the server must refuse: TLS finds nothing wrong with them."""
    good, claim = servers.good, Claim(fqans=(PRODUCTION,))
    late = pki.Period(pki.NOW + timedelta(hours=1), pki.NOW + timedelta(hours=2))
    foreign = Claim(fqans=("/othervo/Role=production/Capability=NULL",))
    faults = {
        "expired_ac": replace(claim, period=pki.over()),
        "early_ac": replace(claim, period=late),
        "sha1": replace(claim, digest="sha1"),
        "md5": replace(claim, digest="md5"),
        "two_algorithms": replace(claim, outer_digest="sha1"),
        "other_vo": foreign,
        "unknown_vo": replace(foreign, vo="othervo"),
        "path_as_vo": replace(claim, vo="../testvo"),
        "target_elsewhere": replace(claim, targets=("elsewhere.test",)),
        "target_nobody": replace(claim, targets=()),
        "other_issuer": replace(claim, issuer=user.certificate.subject),
        "without_signer": replace(claim, hides_signer=True),
        "critical_extension": replace(claim, critical="1.2.3.4"),
        "no_groups": replace(claim, fqans=()),
    }
    made = {name: voms_proxy(user, good, fault) for name, fault in faults.items()}
    signers = {
        "wrong_server": servers.unlisted,
        "revoked_signer": servers.revoked,
        "expired_signer": servers.expired,
        "untrusted_signer": servers.impostor,
        "signed_by_user": user,
        "wrong_signature": pki.Credential(good.certificate, servers.unlisted.key),
    }
    return {
        **made,
        **{name: voms_proxy(user, signer, claim) for name, signer in signers.items()},
        "wrong_holder": voms_proxy(user, good, claim, holder=other.certificate),
        "one_bad_of_two": voms_proxy(user, good, Claim(), faults["expired_ac"]),
        "damaged": pki.delegate(user, more=x509.UnrecognizedExtension(IN_PROXY, b"\x30\x03\x30\x05\x01")),
        "empty": pki.delegate(user, more=extension()),
    }
