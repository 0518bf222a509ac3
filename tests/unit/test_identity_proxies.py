"""Proxies that only a hostile user makes: each breaks one rule of RFC 3820."""

from __future__ import annotations

import importlib
import itertools
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from pandaserver.web.chain import MAX_DEPTH, slash_dn
from pandaserver.web.identity import IdentityError, compact_name, identify

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
pki = importlib.import_module("pki")

ALICE = "/DC=org/DC=panda-test/O=Grid/CN=Alice Adams"
AUTHORITY = pki.make_authority("Some CA", period=pki.lasting(days=1))
USER = pki.issue(AUTHORITY, "Somebody", period=pki.lasting(days=1))


def pem_chain(credential: pki.Credential) -> list[str]:
    certificates = (credential.certificate, *credential.chain)
    return [each.public_bytes(pki.serialization.Encoding.PEM).decode() for each in certificates]


def strange_proxy(issuer: pki.Credential, *extensions: tuple[x509.ExtensionType, bool]) -> pki.Credential:
    """Sign a proxy with these extensions and no others."""
    key, name = pki.ec_key(), issuer.certificate.subject
    builder = pki.unsigned(name, pki.longer_name(name, "1"), key=key, period=pki.lasting(hours=1), serial=1)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return pki.Credential(builder.sign(issuer.key, SHA256()), key, (issuer.certificate, *issuer.chain))


INFO = (pki.proxy_cert_info(pki.INHERIT_ALL), True)


def test_strange_proxy_is_otherwise_good() -> None:
    assert identify(pem_chain(strange_proxy(USER, INFO))).dn.endswith("/CN=Somebody")


def test_proxy_information_must_be_critical() -> None:
    with pytest.raises(IdentityError, match="not marked critical"):
        identify(pem_chain(strange_proxy(USER, (INFO[0], False))))


@pytest.mark.parametrize(
    "extension",
    [
        x509.BasicConstraints(ca=True, path_length=None),
        x509.SubjectAlternativeName([x509.DNSName("localhost")]),
        x509.IssuerAlternativeName([x509.DNSName("localhost")]),
    ],
)
def test_proxy_that_wants_to_be_more(extension: x509.ExtensionType) -> None:
    with pytest.raises(IdentityError, match="neither an authority nor"):
        identify(pem_chain(strange_proxy(USER, INFO, (extension, False))))


def test_proxy_made_with_a_key_that_may_not_sign() -> None:
    usage = x509.KeyUsage(False, False, True, False, False, False, False, False, False)
    silent = strange_proxy(USER, INFO, (usage, True))
    assert identify(pem_chain(silent)).depth == 1
    with pytest.raises(IdentityError, match="key usage"):
        identify(pem_chain(pki.delegate(silent)))


def test_proxy_of_an_authority_that_claims_it_may() -> None:
    key, name = pki.ec_key(), pki.grid_name("Own CA")
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    builder = pki.unsigned(name, name, key=key, period=pki.lasting(hours=1), serial=1)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    authority = pki.Credential(builder.add_extension(usage, critical=True).sign(key, SHA256()), key)
    with pytest.raises(IdentityError, match="does not allow it to make proxies"):
        identify(pem_chain(pki.delegate(authority)))


def test_draft_proxy() -> None:
    draft = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.3536.1.222"), INFO[0].value)
    with pytest.raises(IdentityError, match="draft"):
        identify(pem_chain(strange_proxy(USER, (draft, True))))


@pytest.mark.parametrize("policies", list(itertools.product([pki.INHERIT_ALL, pki.LIMITED], repeat=3)))
def test_limited_anywhere_is_limited(policies: tuple[str, ...]) -> None:
    credential = USER
    for policy in policies:
        credential = pki.delegate(credential, pki.proxy_cert_info(policy))
    assert identify(pem_chain(credential)).limited == (pki.LIMITED in policies)


def test_depth_limit() -> None:
    credential = USER
    for _ in range(MAX_DEPTH):
        credential = pki.delegate(credential)
    assert identify(pem_chain(credential)).depth == MAX_DEPTH
    with pytest.raises(IdentityError, match=f"more than {MAX_DEPTH}"):
        identify(pem_chain(pki.delegate(credential)))


def test_path_length_counts_from_the_proxy_that_sets_it() -> None:
    credential = pki.delegate(pki.delegate(USER), pki.proxy_cert_info(pki.INHERIT_ALL, 1))
    credential = pki.delegate(credential)
    assert identify(pem_chain(credential)).depth == 3
    with pytest.raises(IdentityError, match="allows 1 further delegations, here are 2"):
        identify(pem_chain(pki.delegate(credential)))


def test_unknown_policy_language() -> None:
    with pytest.raises(IdentityError, match="unknown policy"):
        identify(pem_chain(pki.delegate(USER, pki.proxy_cert_info("1.2.3.4"))))


def test_independent_proxy_further_up() -> None:
    independent = pki.delegate(USER, pki.proxy_cert_info(pki.INDEPENDENT))
    with pytest.raises(IdentityError, match="independent"):
        identify(pem_chain(pki.delegate(independent)))


def test_fresh_proxy_of_an_expired_one() -> None:
    expired = pki.delegate(USER, period=pki.over())
    with pytest.raises(IdentityError, match="expired"):
        identify(pem_chain(strange_proxy(expired, INFO)))


def test_two_common_names_more_than_the_issuer() -> None:
    subject = pki.longer_name(pki.longer_name(USER.certificate.subject, "1"), "2")
    with pytest.raises(IdentityError, match="one CN more"):
        identify(pem_chain(pki.delegate(USER, subject=subject)))


def test_proxy_with_the_name_of_its_issuer() -> None:
    with pytest.raises(IdentityError, match="one CN more"):
        identify(pem_chain(pki.delegate(USER, subject=USER.certificate.subject)))


def test_another_attribute_than_a_common_name() -> None:
    extra = x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "12345")
    with pytest.raises(IdentityError, match="one CN more"):
        identify(pem_chain(pki.delegate(USER, subject=x509.Name([*USER.certificate.subject, extra]))))


def test_proxy_of_an_authority() -> None:
    authority = AUTHORITY
    with pytest.raises(IdentityError, match="does not allow it to make proxies"):
        identify(pem_chain(pki.delegate(authority)))


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x30",
        b"\x30\x00",
        b"\x30\x80",
        b"\x30\x84\xff\xff\xff\xff",
        b"\x30\x02\x30\x00",
        b"\x04\x00",
        b"\xff" * 40,
        bytes.fromhex("300f0201ff300a06082b06010505071501"),  # path length -1
        bytes.fromhex("300c300a06082b0601050507150100"),  # something after the end
        bytes.fromhex("300c300a04082b06010505071501"),  # the policy language is not an object identifier
    ],
)
def test_damaged_proxy_information(value: bytes) -> None:
    info = x509.UnrecognizedExtension(pki.PROXY_CERT_INFO, value)
    with pytest.raises(IdentityError, match="damaged"):
        identify(pem_chain(pki.delegate(USER, info)))


# ---- names


def name_of(*parts: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in parts])


def test_slash_form() -> None:
    name = name_of(
        (NameOID.COUNTRY_NAME, "CH"),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "IT"),
        (NameOID.COMMON_NAME, "host/panda.example.org"),
        (NameOID.EMAIL_ADDRESS, "a@example.org"),
        (x509.ObjectIdentifier("1.2.3.4"), "odd"),
    )
    assert slash_dn(name) == "/C=CH/OU=IT/CN=host/panda.example.org/emailAddress=a@example.org/1.2.3.4=odd"


@pytest.mark.parametrize(
    "value", ["x/CN=Alice Adams", "x/O=Grid", "x+CN=y", "x/1.2.3=y", "line\nbreak", "nul\x00", "a\u202eb"]
)
def test_names_that_could_imitate_another(value: str) -> None:
    with pytest.raises(IdentityError, match="ambiguous"):
        slash_dn(name_of((NameOID.COMMON_NAME, value)))


def test_no_name_at_all() -> None:
    with pytest.raises(IdentityError, match="no subject"):
        slash_dn(x509.Name([]))


@pytest.mark.parametrize(
    ("dn", "name"),
    [
        (ALICE, "Alice Adams"),
        (ALICE + "/CN=1234567", "Alice Adams"),
        (ALICE + "/CN=proxy/CN=limited proxy", "Alice Adams"),
        ("/DC=ch/DC=cern/OU=Users/CN=aadams/CN=712345/CN=Alice Adams", "Alice Adams"),
        ("/C=UK/O=eScience/OU=Lab/L=CSD/CN=alice adams 2", "alice adams"),
        ("/O=Grid/CN=Alice_77 (Group)", "Alice Group"),
        ("/O=Grid/CN=Alice O'Hara", "Alice OHara"),
        ("/O=Grid/CN=Alice/Email=alice@example.org", "Alice"),
        ("/O=Grid/CN=Alice/CN=nickname:aadams", "Alice"),
        ("/O=Grid/CN=factory/CN=Robot: Pilot", "factory"),
        ("/O=Grid/CN=Robot: Pilot", "Pilot"),
        ("/O=Grid/CN=host/panda.example.org", "host/panda.example.org"),
        ("/O=Grid/CN=2nd Lab", "2nd Lab"),
        ("/O=Grid/CN=Lab 2nd", "Lab 2nd"),
        ("/O=Grid/OU=Nobody", "/O=Grid/OU=Nobody"),
        ("/O=Grid/CN=12345", "/O=Grid/CN=12345"),
        ("", ""),
    ],
)
def test_compact_name(dn: str, name: str) -> None:
    assert compact_name(dn) == name
