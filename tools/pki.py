"""A throw-away certification authority and RFC 3820 proxies: the parts from which make-certs builds a test grid."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

PROXY_CERT_INFO = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14")
INHERIT_ALL = "1.3.6.1.5.5.7.21.1"
INDEPENDENT = "1.3.6.1.5.5.7.21.2"
LIMITED = "1.3.6.1.4.1.3536.1.1.1.9"

NOW = datetime.now(UTC).replace(microsecond=0)
BACKDATED = NOW - timedelta(minutes=5)  # other machines' clocks may be slow
PUBLIC, PRIVATE = 0o644, 0o600
SEQUENCE, SET, INTEGER, OID, UTF8 = 0x30, 0x31, 0x02, 0x06, 0x0C


@dataclass(frozen=True)
class Credential:
    """A certificate, its key, and the certificates that lead from it to the authority (which is left out)."""

    certificate: x509.Certificate
    key: Key
    chain: tuple[x509.Certificate, ...] = ()

    def certificate_pem(self) -> bytes:
        """Give the certificate alone."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self) -> bytes:
        """Give the key alone, in the traditional form that grid tools read."""
        form = serialization.PrivateFormat.TraditionalOpenSSL
        return self.key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())

    def pem(self) -> bytes:
        """Give everything in one piece, in the order of a proxy file."""
        issuers = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in self.chain)
        return self.certificate_pem() + self.key_pem() + issuers


@dataclass(frozen=True)
class Period:
    """From when until when a certificate is good."""

    start: datetime
    end: datetime


def lasting(**duration: float) -> Period:
    """Give the period from now for this long, in the words of timedelta."""
    return Period(BACKDATED, NOW + timedelta(**duration))


def over() -> Period:
    """Give a period that ended an hour ago."""
    return Period(NOW - timedelta(days=2), NOW - timedelta(hours=1))


# ---- names


def grid_name(common_name: str) -> x509.Name:
    """Give the full name of somebody in the test grid."""
    parts = [(NameOID.DOMAIN_COMPONENT, "org"), (NameOID.DOMAIN_COMPONENT, "panda-test")]
    parts += [(NameOID.ORGANIZATION_NAME, "Grid"), (NameOID.COMMON_NAME, common_name)]
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in parts])


def longer_name(name: x509.Name, common_name: str) -> x509.Name:
    """Append one common name, as every proxy does to the name of its issuer."""
    return x509.Name([*name, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def slash_form(name: x509.Name) -> str:
    """Write a name of this grid as grid tools do."""
    return "".join(f"/{part.rfc4514_attribute_name}={part.value!s}" for part in name)


# ---- DER


def der(tag: int, *parts: bytes) -> bytes:
    """Encode one element; 65535 bytes are enough for everything here."""
    body = b"".join(parts)
    size = len(body)
    length = bytes([size]) if size < 0x80 else bytes([0x82, size >> 8, size & 0xFF])
    return bytes([tag]) + length + body


def der_oid(dotted: str) -> bytes:
    """Encode an object identifier, base 128 with the high bit on all digits but the last."""
    first, second, *rest = map(int, dotted.split("."))
    body = bytearray()
    for number in (40 * first + second, *rest):
        digits = [number & 0x7F]
        while number := number >> 7:
            digits.append(number & 0x7F | 0x80)
        body += bytes(reversed(digits))
    return der(OID, bytes(body))


def proxy_cert_info(policy: str, path_length: int | None = None) -> x509.UnrecognizedExtension:
    """Give the extension that makes a certificate an RFC 3820 proxy."""
    limit = b"" if path_length is None else der(INTEGER, bytes([path_length]))
    return x509.UnrecognizedExtension(PROXY_CERT_INFO, der(SEQUENCE, limit, der(SEQUENCE, der_oid(policy))))


def _canonical(part: x509.NameAttribute[str] | x509.NameAttribute[bytes]) -> bytes:
    value = " ".join(str(part.value).lower().split())
    return der(SET, der(SEQUENCE, der_oid(part.oid.dotted_string), der(UTF8, value.encode())))


def subject_hashes(name: x509.Name) -> tuple[str, str]:
    """Give the file name stems under which OpenSSL 1.0 and later, and OpenSSL 0.9, look for an authority."""
    parts = (
        der(
            SET,
            der(
                SEQUENCE, der_oid(part.oid.dotted_string), der(UTF8, " ".join(str(part.value).lower().split()).encode())
            ),
        )
        for part in name
    )
    new = hashlib.sha1(b"".join(parts), usedforsecurity=False)
    old = hashlib.md5(name.public_bytes(), usedforsecurity=False)
    stems = [f"{int.from_bytes(digest.digest()[:4], 'little'):08x}" for digest in (new, old)]
    return stems[0], stems[1]


# ---- certificates


def ec_key() -> Key:
    """Make the usual key: P-256 takes no time, RSA does."""
    return ec.generate_private_key(ec.SECP256R1())


def rsa_key() -> Key:
    """Make the key that older grid software insists on."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def unsigned(
    issuer: x509.Name, subject: x509.Name, *, key: Key, period: Period, serial: int
) -> x509.CertificateBuilder:
    """Begin a certificate that says nothing but names, key and period."""
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=serial,
        not_valid_before=period.start,
        not_valid_after=period.end,
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_encipherment=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def make_authority(common_name: str, *, period: Period, key: Key | None = None) -> Credential:
    """Make a certification authority, certified by itself."""
    key, name = key or ec_key(), grid_name(common_name)
    builder = (
        unsigned(name, name, key=key, period=period, serial=x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Credential(builder.sign(key, hashes.SHA256()), key)


def issue(
    authority: Credential,
    common_name: str,
    *,
    period: Period,
    hosts: Sequence[x509.GeneralName] = (),
    key: Key | None = None,
) -> Credential:
    """Certify a person or robot, or a host when names for it are given."""
    key, uses = key or ec_key(), [ExtendedKeyUsageOID.CLIENT_AUTH]
    uses += [ExtendedKeyUsageOID.SERVER_AUTH] if hosts else []
    issuer, serial = authority.certificate, x509.random_serial_number()
    issuer_key_name = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        unsigned(issuer.subject, grid_name(common_name), key=key, period=period, serial=serial)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key_name), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    return Credential(builder.sign(authority.key, hashes.SHA256()), key)


def delegate(
    issuer: Credential,
    info: x509.UnrecognizedExtension | None = None,
    *,
    period: Period | None = None,
    subject: x509.Name | None = None,
    key: Key | None = None,
    more: x509.UnrecognizedExtension | None = None,
) -> Credential:
    """Make a proxy as grid-proxy-init does; without `info` it may do all that its issuer may."""
    key, serial = key or ec_key(), secrets.randbelow(2**31 - 1) + 1
    signer = issuer.certificate
    period = period or lasting(hours=12)
    period = Period(period.start, min(period.end, signer.not_valid_after_utc))
    subject = subject or longer_name(signer.subject, str(serial))
    builder = (
        unsigned(signer.subject, subject, key=key, period=period, serial=serial)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(info or proxy_cert_info(INHERIT_ALL), critical=True)
    )
    if more is not None:
        builder = builder.add_extension(more, critical=False)
    return Credential(builder.sign(issuer.key, hashes.SHA256()), key, (signer, *issuer.chain))


def bare_certificate(issuer: Credential, subject: x509.Name, *, key: Key) -> Credential:
    """Sign a certificate that says nothing about itself; Globus 2 proxies are such, and clumsy forgeries."""
    name, serial = issuer.certificate.subject, issuer.certificate.serial_number
    builder = unsigned(name, subject, key=key, period=lasting(hours=12), serial=serial)
    return Credential(builder.sign(issuer.key, hashes.SHA256()), key, (issuer.certificate, *issuer.chain))


def revocation_list(authority: Credential, revoked: Iterable[x509.Certificate], *, period: Period) -> bytes:
    """Give the authority's list of revoked certificates in PEM."""
    builder = x509.CertificateRevocationListBuilder(
        issuer_name=authority.certificate.subject, last_update=period.start, next_update=period.end
    ).add_extension(x509.CRLNumber(1), critical=False)
    for certificate in revoked:
        entry = x509.RevokedCertificateBuilder(certificate.serial_number, period.start).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


# ---- files


def write(path: Path, data: bytes, *, mode: int) -> Path:
    """Write a file that nobody sees half done, nor for an instant with a wider mode than it shall have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        os.fchmod(file.fileno(), mode)
    return draft.replace(path)


def read_credential(certificate: Path, key: Path) -> Credential:
    """Read back what was written as two files."""
    loaded = serialization.load_pem_private_key(key.read_bytes(), password=None)
    if not isinstance(loaded, Key):
        raise ValueError(f"{key} holds a key that is neither EC nor RSA")
    return Credential(x509.load_pem_x509_certificate(certificate.read_bytes()), loaded)


def write_ca_directory(directory: Path, authority: Credential, *, crl: bytes) -> None:
    """Write what X509_CERT_DIR names: the authority, its signing policy and its revocation list."""
    namespace = slash_form(x509.Name(list(authority.certificate.subject)[:-1]))
    policy = (
        f"access_id_CA X509 '{slash_form(authority.certificate.subject)}'\n"
        "pos_rights globus CA:sign\n"
        f"cond_subjects globus '\"{namespace}/*\"'\n"
    )
    for stem in subject_hashes(authority.certificate.subject):
        write(directory / f"{stem}.0", authority.certificate_pem(), mode=PUBLIC)
        write(directory / f"{stem}.r0", crl, mode=PUBLIC)
        write(directory / f"{stem}.signing_policy", policy.encode(), mode=PUBLIC)
