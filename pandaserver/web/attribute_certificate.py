"""The layout of VOMS attribute certificates (RFC 5755 and more): reads them and believes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from cryptography import x509
from cryptography.hazmat import asn1

from pandaserver.model.fqan import read_fqan
from pandaserver.web.chain import SEQUENCE, read_der

IN_PROXY = x509.ObjectIdentifier("1.3.6.1.4.1.8005.100.100.5")  # the extension of a proxy that holds them
_GROUPS = x509.ObjectIdentifier("1.3.6.1.4.1.8005.100.100.4")
_SIGNERS = x509.ObjectIdentifier("1.3.6.1.4.1.8005.100.100.10")
_GENERIC = x509.ObjectIdentifier("1.3.6.1.4.1.8005.100.100.11")
_TARGETS = x509.ObjectIdentifier("2.5.29.55")
_NO_REVOCATION = x509.ObjectIdentifier("2.5.29.56")
_ISSUER_KEY = x509.ObjectIdentifier("2.5.29.35")
_KNOWN = frozenset({_SIGNERS, _GENERIC, _TARGETS, _NO_REVOCATION, _ISSUER_KEY})

_TARGET_NAME, _DNS, _DIRECTORY, _URI = 0xA0, 0x82, 0xA4, 0x86
_VERSION_2 = 1
_MOST, _MOST_GROUPS, _DEEPEST = 10, 300, 6
_AUTHORITY = re.compile(rb"([A-Za-z0-9][A-Za-z0-9_.-]{0,127})://[A-Za-z0-9_.:-]{1,300}")  # it becomes a folder's name
_NO_CAPABILITY = "/Capability=NULL"


# ---- what it is made of; the library reads these declarations


@asn1.sequence
class _Algorithm:
    oid: x509.ObjectIdentifier
    parameters: asn1.Null | None


@asn1.sequence
class _Signed:
    info: asn1.TLV
    algorithm: _Algorithm
    signature: asn1.BitString


@asn1.sequence
class _InProxy:
    certificates: list[_Signed]


@asn1.sequence
class _IssuerAndSerial:
    issuer: list[asn1.TLV]
    serial: int
    unique_id: asn1.BitString | None


@asn1.sequence
class _Holder:
    certificate: Annotated[_IssuerAndSerial | None, asn1.Implicit(0)]
    names: Annotated[list[asn1.TLV] | None, asn1.Implicit(1)]


@asn1.sequence
class _Issuer:
    names: list[asn1.TLV]


@asn1.sequence
class _Period:
    start: asn1.GeneralizedTime
    end: asn1.GeneralizedTime


@asn1.sequence
class _Attribute:
    oid: x509.ObjectIdentifier
    values: asn1.SetOf[asn1.TLV]


@asn1.sequence
class _Extension:
    oid: x509.ObjectIdentifier
    critical: Annotated[bool, asn1.Default(False)]
    value: bytes


@asn1.sequence
class _Info:
    version: int
    holder: _Holder
    issuer: Annotated[_Issuer, asn1.Implicit(0)]
    algorithm: _Algorithm
    serial: int
    period: _Period
    attributes: list[_Attribute]
    unique_id: asn1.BitString | None
    extensions: list[_Extension] | None


@asn1.sequence
class _Groups:
    authority: Annotated[list[asn1.TLV] | None, asn1.Implicit(0)]
    fqans: list[bytes]


@asn1.sequence
class _Signers:
    chain: list[x509.Certificate]


# ---- what it says


@dataclass(frozen=True)
class AttributeCertificate:
    """What an attribute certificate says; nothing of it is verified. Names are DER."""

    holder_name: bytes
    holder_serial: int
    issuer_name: bytes
    start: datetime
    end: datetime
    vo: str
    fqans: tuple[str, ...]
    targets: tuple[str, ...] | None  # host names; None: for everybody
    signers: tuple[x509.Certificate, ...]  # the one who signed comes first
    algorithm: x509.ObjectIdentifier
    signature: bytes
    signed: bytes


def read_attribute_certificates(value: bytes) -> list[AttributeCertificate]:
    """Read the value of a proxy's extension.

    Raises:
        ValueError: it is damaged, or says what is not understood and must be.
    """
    found = asn1.decode_der(_InProxy, value).certificates
    if not 0 < len(found) <= _MOST:
        raise ValueError(f"{len(found)} attribute certificates, 1 to {_MOST} are expected")
    return [_read(each) for each in found]


def _read(outer: _Signed) -> AttributeCertificate:
    info: _Info = outer.info.parse(_Info)
    if info.version != _VERSION_2:
        raise ValueError(f"version {info.version} of attribute certificates is not known")
    if asn1.encode_der(info.algorithm) != asn1.encode_der(outer.algorithm):
        raise ValueError("it names two signature algorithms")
    if info.holder.certificate is None:
        raise ValueError("it does not say by serial number who its holder is")
    extensions = _extensions(info.extensions or [])
    vo, fqans = _groups(info.attributes)
    return AttributeCertificate(
        holder_name=_directory_name(info.holder.certificate.issuer),
        holder_serial=info.holder.certificate.serial,
        issuer_name=_directory_name(info.issuer.names),
        start=info.period.start.as_datetime(),
        end=info.period.end.as_datetime(),
        vo=vo,
        fqans=fqans,
        targets=_targets(extensions.get(_TARGETS)),
        signers=_signers(extensions.get(_SIGNERS)),
        algorithm=outer.algorithm.oid,
        signature=outer.signature.as_bytes(),
        signed=asn1.encode_der(outer.info),  # DER has one form only: the bytes as they came
    )


def _directory_name(names: list[asn1.TLV]) -> bytes:
    if [each.tag_bytes for each in names] != [bytes([_DIRECTORY])]:
        raise ValueError("one directory name is expected")
    return bytes(names[0].data)


def _extensions(found: Iterable[_Extension]) -> dict[x509.ObjectIdentifier, bytes]:
    extensions: dict[x509.ObjectIdentifier, bytes] = {}
    for each in found:
        if each.oid in extensions:
            raise ValueError(f"extension {each.oid.dotted_string} is there twice")
        if each.critical and each.oid not in _KNOWN:
            raise ValueError(f"critical extension {each.oid.dotted_string} is not known")
        extensions[each.oid] = each.value
    return extensions


def _signers(value: bytes | None) -> tuple[x509.Certificate, ...]:
    chain = asn1.decode_der(_Signers, value).chain if value is not None else []
    if not 0 < len(chain) <= _MOST:
        raise ValueError("the certificate of its signer is missing")
    return tuple(chain)


def _groups(attributes: list[_Attribute]) -> tuple[str, tuple[str, ...]]:
    """Give the organisation and the groups, which must all be of it."""
    values = [value for each in attributes if each.oid == _GROUPS for value in each.values.as_list()]
    if len(values) != 1:
        raise ValueError("one list of groups is expected")
    groups: _Groups = values[0].parse(_Groups)
    authorities = [bytes(each.data) for each in groups.authority or [] if each.tag_bytes == bytes([_URI])]
    authority = _AUTHORITY.fullmatch(authorities[0]) if len(authorities) == 1 else None
    if authority is None:
        raise ValueError("it does not name its organisation and server as vo://host:port")
    vo = authority[1].decode("ascii")
    if not 0 < len(groups.fqans) <= _MOST_GROUPS:
        raise ValueError(f"{len(groups.fqans)} groups, 1 to {_MOST_GROUPS} are expected")
    fqans = tuple(each.decode("ascii").removesuffix(_NO_CAPABILITY) for each in groups.fqans)
    if any(read_fqan(each).vo != vo for each in fqans):
        raise ValueError(f"it has groups that are not of its organisation, {vo}")
    return vo, fqans


def _targets(value: bytes | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(_hosts(value, depth=0))


def _hosts(der: bytes, *, depth: int) -> Iterator[str]:
    """Find the names of hosts; makers of attribute certificates wrap them in more or fewer sequences."""
    if depth > _DEEPEST:
        raise ValueError("its targets are not understood")
    for tag, content in read_der(der):
        if tag in (SEQUENCE, _TARGET_NAME):
            yield from _hosts(content, depth=depth + 1)
        elif tag in (_DNS, _URI):
            yield _host(content.decode("ascii"))


def _host(text: str) -> str:
    """Take the name of a host out of a URI; VOMS writes it there alone."""
    return text.rpartition("://")[2].partition("/")[0].partition(":")[0].lower()
