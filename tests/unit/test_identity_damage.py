"""Certificates come from outside: however they are damaged, the end is a refusal and never another error."""

from __future__ import annotations

import base64
import contextlib
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))

import pki

from pandaserver.web.chain import parse_proxy_info, read_der
from pandaserver.web.identity import IdentityError, TrustStore, identify

# The parser warns of odd but readable certificates. In the server that is a line in a log.
pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")

AUTHORITY = pki.make_authority("Damaged CA", period=pki.lasting(days=1))
USER = pki.issue(AUTHORITY, "Somebody", period=pki.lasting(days=1))
HOST = pki.issue(AUTHORITY, "localhost", period=pki.lasting(days=1), hosts=[pki.x509.DNSName("localhost")])
PROXY = pki.delegate(pki.delegate(USER, pki.proxy_cert_info(pki.LIMITED, 3)))
CHAIN = [certificate.public_bytes(pki.serialization.Encoding.DER) for certificate in (PROXY.certificate, *PROXY.chain)]
OTHERS = [each.certificate.public_bytes(pki.serialization.Encoding.DER) for each in (AUTHORITY, HOST)]


def pem(der: bytes) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE-----\n"


@st.composite
def damaged(draw: st.DrawFn, original: bytes) -> bytes:
    """Overwrite, cut out, repeat or insert a few bytes."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(data) - 1)))
        end = min(len(data), start + draw(st.integers(0, 8)))
        data[start:end] = draw(st.one_of(st.binary(max_size=8), st.just(bytes(data[start:end]) * 2)))
    return bytes(data)


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> TrustStore:
    directory = tmp_path_factory.mktemp("certificates")
    pki.write_ca_directory(directory, AUTHORITY, crl=pki.revocation_list(AUTHORITY, [], period=pki.lasting(days=1)))
    return TrustStore(directory)


def assert_same_or_refused(chain: list[bytes], trust: TrustStore) -> None:
    """Whatever was changed: the chain is of no use, or it says what it said before."""
    with contextlib.suppress(IdentityError):
        identity = identify([pem(each) for each in chain], trust=trust)
        assert (identity.dn, identity.limited, identity.depth) == ("/DC=org/DC=panda-test/O=Grid/CN=Somebody", True, 2)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damaged_link(trust: TrustStore, data: st.DataObject) -> None:
    chain = list(CHAIN)
    position = data.draw(st.integers(0, len(chain) - 1))
    chain[position] = data.draw(damaged(chain[position]))
    assert_same_or_refused(chain, trust)


def test_every_single_byte_of_the_leaf(trust: TrustStore) -> None:
    leaf, *issuers = CHAIN
    for position in range(len(leaf)):
        changed = bytes([*leaf[:position], leaf[position] ^ 1, *leaf[position + 1 :]])
        assert_same_or_refused([changed, *issuers], trust)


def test_every_cut(trust: TrustStore) -> None:
    leaf, *issuers = CHAIN
    for length in range(0, len(leaf), 3):
        with pytest.raises(IdentityError):
            identify([pem(leaf[:length]), *map(pem, issuers)], trust=trust)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(OTHERS).flatmap(damaged))
def test_damaged_certificate_alone_or_among_others(trust: TrustStore, der: bytes) -> None:
    with contextlib.suppress(IdentityError):
        identify([pem(der)])
    assert_same_or_refused([*CHAIN, der], trust)


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_der_reader_gives_everything_or_an_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        elements = read_der(data)
        assert sum(len(content) + 2 for _, content in elements) <= len(data)
        for _, content in elements:
            assert content in data
    with contextlib.suppress(ValueError):
        parse_proxy_info(data)


@settings(max_examples=50)
@given(st.text(max_size=100))
def test_any_text(text: str) -> None:
    with pytest.raises(IdentityError):
        identify([text])


def test_many_small_elements_do_not_take_long() -> None:
    assert len(read_der(b"\x05\x00" * 200_000)) == 200_000
