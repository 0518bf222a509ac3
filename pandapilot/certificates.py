"""When a proxy expires: the one thing about certificates that the standard library does not tell."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from datetime import datetime, timezone

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE = 0x30
_VERSION = 0xA0
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_FORMS = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}


def expiry(pem: str) -> datetime:
    """Return when the first certificate of a chain expires; raises ValueError for what is no certificate."""
    ends = [_not_after(ssl.PEM_cert_to_DER_cert(block)) for block in _PEM.findall(pem)]
    if not ends:
        raise ValueError("there is no certificate")
    return min(ends)


def _not_after(der: bytes) -> datetime:
    """Walk to the validity: past version, serial number, signature algorithm and issuer."""
    ((_, certificate),) = list(_items(der))
    (_, body), *_ = _items(certificate)
    fields = [item for item in _items(body) if item[0] != _VERSION]
    kind, validity = fields[3] if len(fields) > 3 else (0, b"")
    times = list(_items(validity))
    if kind != _SEQUENCE or len(times) != 2 or times[1][0] not in _FORMS:
        raise ValueError("the certificate is malformed")
    kind, text = times[1]
    return datetime.strptime(text.decode("ascii"), _FORMS[kind]).replace(tzinfo=timezone.utc)


def _items(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the elements of a DER sequence as tag and content."""
    while der:
        if len(der) < 2:
            raise ValueError("the certificate is cut off")
        tag, length, start = der[0], der[1], 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(der[2:start], "big")
        if len(der) < start + length:
            raise ValueError("the certificate is cut off")
        yield tag, der[start : start + length]
        der = der[start + length :]
