"""VOMS attributes of every kind: which groups do they prove, or why is the proxy refused?"""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import factories
import pki
import pytest
import voms_pki
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from voms_pki import Claim
from vomszoo import ACCEPTED, ALICE, MEMBER, REFUSED

from pandaserver.web.attribute_certificate import read_attribute_certificates
from pandaserver.web.chain import TrustStore
from pandaserver.web.identity import Identity, IdentityCache, IdentityError, identify
from pandaserver.web.voms import VomsVerifier, read_lsc


def verifier(directory: Path, *hosts: str) -> VomsVerifier:
    return VomsVerifier(
        TrustStore(directory / "certificates"), directory / "vomsdir", frozenset(hosts or ["localhost"])
    )


def chain_of(pem: str) -> list[str]:
    return re.findall("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", pem, re.DOTALL)


def show(directory: Path, name: str, voms: VomsVerifier | None = None) -> Identity:
    voms = voms or verifier(directory)
    return identify(chain_of((directory / "voms" / f"{name}.pem").read_text()), trust=voms.trust, voms=voms)


def test_the_zoo_is_complete(pki: factories.Pki) -> None:
    assert {path.stem for path in (pki.directory / "voms").glob("*.pem")} == {*ACCEPTED, *REFUSED}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(pki: factories.Pki, name: str) -> None:
    seen = show(pki.directory, name)
    assert (seen.dn, (seen.fqans, seen.limited, seen.depth), seen.vo) == (ALICE, ACCEPTED[name], "testvo")


@pytest.mark.parametrize("name", REFUSED)
def test_refused(pki: factories.Pki, name: str) -> None:
    with pytest.raises(IdentityError, match=REFUSED[name]) as raised:
        show(pki.directory, name)
    assert raised.value.message.startswith("VOMS attributes refused: ") and raised.value.field == "certificate"


@pytest.mark.parametrize("name", [*ACCEPTED, *REFUSED])
def test_where_attributes_are_not_looked_at_they_give_nothing(pki: factories.Pki, name: str) -> None:
    chain = chain_of((pki.directory / "voms" / f"{name}.pem").read_text())
    assert identify(chain, trust=TrustStore(pki.directory / "certificates")).fqans == ()


def test_a_proxy_without_attributes_has_no_groups(pki: factories.Pki) -> None:
    voms = verifier(pki.directory)
    seen = identify(chain_of(pki.proxy("alice").read_text()), trust=voms.trust, voms=voms)
    assert (seen.fqans, seen.vo) == ((), "")


def test_nothing_of_one_grid_counts_in_another(pki: factories.Pki, tmp_path: Path) -> None:
    """Each step by itself: the authority of the VOMS server, and the list of servers."""
    strange = voms_pki.make_servers(period=voms_pki.LASTING)
    voms_pki.write_authority(tmp_path / "certificates", strange)
    for path in (pki.directory / "certificates").iterdir():  # who the people are is known; the VOMS server's CA is not
        if "VOMS" not in path.with_suffix(".signing_policy").read_text():
            shutil.copy(path, tmp_path / "certificates")
    voms = VomsVerifier(TrustStore(tmp_path / "certificates"), pki.directory / "vomsdir", frozenset({"localhost"}))
    with pytest.raises(IdentityError, match="the VOMS server: no authority"):
        show(pki.directory, "default", voms)
    with pytest.raises(IdentityError, match="knows no VOMS server of testvo"):
        show(pki.directory, "default", replace(verifier(pki.directory), vomsdir=tmp_path))


@pytest.mark.parametrize("text", ["", "\n", "/CN=voms.test\n", "voms.test\n", "------ NEXT CHAIN ------\n"])
def test_lists_that_name_nobody_or_half_a_chain(pki: factories.Pki, tmp_path: Path, text: str) -> None:
    (tmp_path / "testvo").mkdir()
    (tmp_path / "testvo" / "voms.test.lsc").write_text(text)
    with pytest.raises(IdentityError, match="no VOMS server of testvo"):
        show(pki.directory, "default", replace(verifier(pki.directory), vomsdir=tmp_path))


def test_the_server_and_its_authority_must_stand_in_one_chain(pki: factories.Pki, tmp_path: Path) -> None:
    base = "/DC=org/DC=panda-test/O=Grid/CN="
    (tmp_path / "testvo").mkdir()
    file = tmp_path / "testvo" / "voms.test.lsc"
    voms = replace(verifier(pki.directory), vomsdir=tmp_path)
    file.write_text(f"{base}voms.test\n{base}Other CA\n--- NEXT CHAIN ---\n{base}x\n{base}PanDA Test VOMS CA\n")
    with pytest.raises(IdentityError, match="no VOMS server"):
        show(pki.directory, "default", voms)
    file.write_text(
        f"# of testvo\n\n{base}old\n{base}x\n--- NEXT CHAIN ---\n {base}voms.test \n{base}PanDA Test VOMS CA\n"
    )
    assert show(pki.directory, "default", voms).fqans == (MEMBER,)
    assert read_lsc(file)[1] == [f"{base}voms.test", f"{base}PanDA Test VOMS CA"]
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(IdentityError, match="cannot be read"):
        show(pki.directory, "default", voms)


@pytest.mark.parametrize(
    ("target", "good"),
    [
        ("panda.test", True),
        ("PANDA.test", True),
        ("https://panda.test:25443/x", True),
        ("panda.test.evil", False),
        ("", False),
    ],
)
def test_targets(pki: factories.Pki, target: str, good: bool) -> None:
    voms = verifier(pki.directory, "panda.test")
    chain = made(pki, Claim(targets=(target,)))
    if good:
        assert identify(chain, trust=voms.trust, voms=voms).fqans == (MEMBER,)
        return
    with pytest.raises(IdentityError, match="this server is"):
        identify(chain, trust=voms.trust, voms=voms)


def credentials(directory: Path) -> tuple[pki.Credential, pki.Credential]:
    """Alice and the good VOMS server."""
    names = ("alice", "voms")
    first, second = (pki.read_credential(directory / f"{n}cert.pem", directory / f"{n}key.pem") for n in names)
    return first, second


def made(of: factories.Pki, *claims: Claim) -> list[str]:
    alice, server = credentials(of.directory)
    return chain_of(voms_pki.voms_proxy(alice, server, *claims).pem().decode())


@pytest.mark.parametrize(
    "fqan",
    [
        "testvo",
        "/testvo/Role=",
        "/testvo/Role=a/Role=b",
        "/testvo//x",
        "/testvo/../x",
        "/testvo/x y",
        "/testvo2",
        "/testvo/Role=é",
        "",
    ],
)
def test_groups_that_are_none(pki: factories.Pki, fqan: str) -> None:
    voms = verifier(pki.directory)
    with pytest.raises(IdentityError, match="VOMS attributes refused"):
        identify(made(pki, Claim(fqans=(MEMBER, fqan))), trust=voms.trust, voms=voms)


def test_a_clock_may_be_some_minutes_off_at_the_start_only(pki: factories.Pki) -> None:
    voms = verifier(pki.directory)
    chain = made(pki)
    start = voms_pki.LASTING.start
    with pytest.raises(IdentityError, match="not valid yet"):
        identify(chain, trust=voms.trust, voms=voms, now=start - timedelta(minutes=6))
    end = voms_pki.LASTING.end
    assert identify(chain, trust=voms.trust, voms=voms, now=end).not_after == end
    with pytest.raises(IdentityError, match="expired"):
        identify(chain, trust=voms.trust, voms=voms, now=end + timedelta(seconds=1))


def test_what_is_remembered_ends_with_the_attributes(pki: factories.Pki) -> None:
    end = voms_pki.pki.NOW + timedelta(minutes=2)
    chain = made(pki, Claim(period=voms_pki.pki.Period(voms_pki.pki.BACKDATED, end)))
    now = [voms_pki.pki.NOW]
    voms = verifier(pki.directory)
    cache = IdentityCache(voms.trust, voms=voms, clock=lambda: now[0])
    assert cache.identify(chain).fqans == (MEMBER,) and cache.identify(chain).not_after == end
    now[0] = end + timedelta(seconds=1)
    with pytest.raises(IdentityError, match="VOMS attributes refused: they expired"):
        cache.identify(chain)


# ---- damage


def prepared(directory: Path) -> tuple[pki.Credential, bytes]:
    alice, server = credentials(directory)
    return alice, voms_pki.attribute_certificate(server, alice.certificate, Claim(targets=("localhost",)))


@functools.cache
def once(directory: Path) -> tuple[tuple[pki.Credential, bytes], VomsVerifier]:
    return prepared(directory), verifier(directory)


def same_or_refused(alice: pki.Credential, damaged: bytes, voms: VomsVerifier) -> None:
    """Whatever was changed: it is of no use, or says what it said before."""
    chain = chain_of(pki.delegate(alice, more=voms_pki.extension(damaged)).pem().decode())
    with contextlib.suppress(IdentityError):
        assert identify(chain, trust=voms.trust, voms=voms).fqans == (MEMBER,)


def test_any_byte_changed(pki: factories.Pki) -> None:
    (alice, whole), voms = once(pki.directory)
    for position in range(0, len(whole), 3):
        same_or_refused(alice, bytes([*whole[:position], whole[position] ^ 1, *whole[position + 1 :]]), voms)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.data())
def test_bytes_cut_doubled_and_put_in(pki: factories.Pki, data: st.DataObject) -> None:
    (alice, whole), voms = once(pki.directory)
    start = data.draw(st.integers(0, len(whole) - 1))
    end = start + data.draw(st.integers(0, 40))
    piece = data.draw(st.one_of(st.binary(max_size=20), st.just(whole[start:end] * 2)))
    same_or_refused(alice, whole[:start] + piece + whole[end:], voms)


@settings(max_examples=200)
@given(st.binary(max_size=80))
def test_any_bytes_end_in_an_error_that_is_expected(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        read_attribute_certificates(data)
