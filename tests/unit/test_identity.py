"""Every kind of credential, in every order: who is it, or why is it refused?"""

from __future__ import annotations

import importlib
import itertools
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from pandaserver.errors import NotAuthenticated
from pandaserver.web.identity import (
    MAX_CERTIFICATES,
    Identity,
    IdentityCache,
    IdentityError,
    TrustStore,
    from_environ,
    identify,
)

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools"))
pki = importlib.import_module("pki")

ALICE = "/DC=org/DC=panda-test/O=Grid/CN=Alice Adams"
RUN_TOOL = """
import runpy, sys, types
sys.modules["_venv"] = types.SimpleNamespace(enter=lambda: None)  # the tests run inside the environment already
sys.path.insert(0, sys.argv[1])
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

ACCEPTED = {  # name: (limited, depth)
    "user": (False, 0),
    "rfc_ec": (False, 1),
    "rfc_rsa": (False, 1),
    "rfc_depth2": (False, 2),
    "rfc_depth3": (False, 3),
    "limited": (True, 1),
    "full_from_limited": (True, 2),
    "pathlen0": (False, 1),
}
REFUSED = {
    "expired_user": "expired",
    "expired_proxy": "expired",
    "revoked_user": "revoked",
    "proxy_of_revoked": "revoked",
    "independent": "independent",
    "pathlen_violation": "allows 0 further",
    "legacy": "legacy",
    "legacy_limited": "legacy",
    "bad_issuer_not_ca": "no authority",
    "bad_self_signed": "no authority",
    "foreign": "no authority",
    "foreign_same_name": "no authority",
    "bad_proxy_subject": "one CN more",
}
ONLY_WITH_TRUST = {"revoked", "no authority"}


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("grid")
    tool = [sys.executable, "-c", RUN_TOOL, str(ROOT / "tools"), str(ROOT / "tools" / "make-certs")]
    subprocess.run([*tool, str(directory), "--all"], check=True, capture_output=True)
    return directory


@pytest.fixture
def trust(grid: Path) -> TrustStore:
    return TrustStore(grid / "certificates")


def read_chain(path: Path) -> list[str]:
    return re.findall("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", path.read_text(), re.DOTALL)


def pem_chain(credential: pki.Credential) -> list[str]:
    certificates = (credential.certificate, *credential.chain)
    return [each.public_bytes(pki.serialization.Encoding.PEM).decode() for each in certificates]


def alice(grid: Path) -> pki.Credential:
    return pki.read_credential(grid / "alicecert.pem", grid / "alicekey.pem")


# ---- the whole zoo


def test_zoo_is_complete(grid: Path) -> None:
    assert {path.stem for path in (grid / "creds").glob("*.pem")} == {*ACCEPTED, *REFUSED}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(grid: Path, trust: TrustStore, name: str) -> None:
    identity = identify(read_chain(grid / "creds" / f"{name}.pem"), trust=trust)
    assert (identity.dn, identity.limited, identity.depth, identity.fqans) == (ALICE, *ACCEPTED[name], ())


@pytest.mark.parametrize("name", REFUSED)
def test_refused(grid: Path, trust: TrustStore, name: str) -> None:
    with pytest.raises(IdentityError, match=REFUSED[name]):
        identify(read_chain(grid / "creds" / f"{name}.pem"), trust=trust)


@pytest.mark.parametrize("name", [name for name, reason in REFUSED.items() if reason not in ONLY_WITH_TRUST])
def test_refused_without_trust_store_too(grid: Path, name: str) -> None:
    with pytest.raises(IdentityError, match=REFUSED[name]):
        identify(read_chain(grid / "creds" / f"{name}.pem"))


@pytest.mark.parametrize(
    ("name", "dn"),
    [
        ("bob", "Bob Brown"),
        ("prodman", "Production Manager"),
        ("pilot", "Robot: Pilot"),
        ("ddm", "Robot: Data Management"),
    ],
)
def test_proxies_of_people_and_robots(grid: Path, trust: TrustStore, name: str, dn: str) -> None:
    identity = identify(read_chain(grid / f"{name}.pem"), trust=trust)
    assert (identity.dn, identity.depth) == (f"/DC=org/DC=panda-test/O=Grid/CN={dn}", 1)


def test_refusal_asks_for_authentication() -> None:
    assert issubclass(IdentityError, NotAuthenticated)


def test_identity_ends_with_the_shortest_certificate(grid: Path) -> None:
    leaf = x509.load_pem_x509_certificate((grid / "alice.pem").read_bytes())
    identity = identify(read_chain(grid / "alice.pem"))
    assert identity.not_after == leaf.not_valid_after_utc
    assert identity.not_after.tzinfo is not None


# ---- what clients send


def test_issuers_in_any_order(grid: Path, trust: TrustStore) -> None:
    leaf, *issuers = read_chain(grid / "creds" / "rfc_depth3.pem")
    answers = {identify([leaf, *order], trust=trust) for order in itertools.permutations(issuers)}
    assert {(each.dn, each.depth) for each in answers} == {(ALICE, 3)}


def test_leaf_sent_twice_and_certificates_that_do_not_matter(grid: Path, trust: TrustStore) -> None:
    leaf, *issuers = read_chain(grid / "alice.pem")
    noise = read_chain(grid / "bob.pem") + read_chain(grid / "ca.pem") + read_chain(grid / "creds" / "foreign.pem")
    assert identify([leaf, leaf, *noise, *issuers], trust=trust).dn == ALICE


def test_only_the_first_certificate_is_the_client(grid: Path) -> None:
    assert identify([*read_chain(grid / "bobcert.pem"), *read_chain(grid / "alice.pem")]).dn.endswith("Bob Brown")


def test_missing_issuer(grid: Path) -> None:
    leaf, *_ = read_chain(grid / "alice.pem")
    with pytest.raises(IdentityError, match="resumed"):
        identify([leaf])


def test_issuer_of_the_same_name_with_another_key(grid: Path) -> None:
    leaf, *_ = read_chain(grid / "alice.pem")
    with pytest.raises(IdentityError, match="not in the chain"):
        identify([leaf, *read_chain(grid / "creds" / "foreign.pem")[1:]])


def test_nothing_and_too_much(grid: Path) -> None:
    leaf, *issuers = read_chain(grid / "alice.pem")
    with pytest.raises(IdentityError, match="no certificate"):
        identify([])
    with pytest.raises(IdentityError, match="too long"):
        identify([leaf, *issuers, *[leaf] * MAX_CERTIFICATES])
    with pytest.raises(IdentityError, match="too long"):
        identify([leaf + "x" * 1_000_000])


@pytest.mark.parametrize(
    "text", ["", "x", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "\udcff é"]
)
def test_not_a_certificate(text: str) -> None:
    with pytest.raises(IdentityError, match="damaged"):
        identify([text])


def test_an_authority_is_nobody(grid: Path, trust: TrustStore) -> None:
    with pytest.raises(IdentityError, match="nobody's identity"):
        identify(read_chain(grid / "ca.pem"), trust=trust)


def test_certificate_named_like_a_legacy_proxy_but_issued_by_the_authority(grid: Path, trust: TrustStore) -> None:
    authority = pki.read_credential(grid / "ca.pem", grid / "cakey.pem")
    robot = pki.issue(authority, "proxy", period=pki.lasting(hours=1))
    assert identify(pem_chain(robot), trust=trust).dn.endswith("/CN=proxy")


def test_not_yet_valid(grid: Path) -> None:
    with pytest.raises(IdentityError, match="not valid yet"):
        identify(read_chain(grid / "alice.pem"), now=datetime.now(UTC) - timedelta(hours=3))


# ---- the cache


def test_cache_remembers_for_its_life_only(grid: Path) -> None:
    now = [datetime.now(UTC)]
    cache = IdentityCache(life_s=300, clock=lambda: now[0])
    chain = read_chain(grid / "alice.pem")
    first = cache.identify(chain)
    now[0] += timedelta(seconds=299)
    assert cache.identify(chain) is first
    now[0] += timedelta(seconds=2)
    again = cache.identify(chain)
    assert again == first
    assert again is not first


def test_cache_never_outlives_the_certificate(grid: Path) -> None:
    now = [datetime.now(UTC)]
    cache = IdentityCache(life_s=10**7, clock=lambda: now[0])
    chain = read_chain(grid / "alice.pem")
    now[0] = cache.identify(chain).not_after - timedelta(seconds=1)
    assert cache.identify(chain).dn == ALICE
    now[0] += timedelta(seconds=2)
    with pytest.raises(IdentityError, match="expired"):
        cache.identify(chain)


def test_cache_tells_chains_apart(grid: Path) -> None:
    cache = IdentityCache()
    leaf, *issuers = read_chain(grid / "alice.pem")
    assert cache.identify([leaf, *issuers]).dn == ALICE
    with pytest.raises(IdentityError):
        cache.identify([leaf])
    assert cache.identify(read_chain(grid / "bob.pem")).dn != ALICE
    with pytest.raises(IdentityError):
        cache.identify(["\udcff"])


def test_cache_is_bounded(grid: Path) -> None:
    cache = IdentityCache(size=2)
    first = cache.identify(read_chain(grid / "alice.pem"))
    for name in ("bob", "pilot"):
        cache.identify(read_chain(grid / f"{name}.pem"))
    assert cache.identify(read_chain(grid / "alice.pem")) is not first


# ---- the environ of a request


def environ_of(chain: list[str]) -> dict[str, object]:
    numbered = {f"SSL_CLIENT_CERT_CHAIN_{number}": pem for number, pem in enumerate(chain[1:])}
    return {"SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_CERT": chain[0], **numbered}


def test_from_environ(grid: Path, trust: TrustStore) -> None:
    identity = from_environ(environ_of(read_chain(grid / "creds" / "rfc_depth3.pem")), IdentityCache(trust).identify)
    assert isinstance(identity, Identity)
    assert (identity.dn, identity.depth) == (ALICE, 3)


@pytest.mark.parametrize("environ", [{}, {"SSL_CLIENT_VERIFY": "NONE"}])
def test_anonymous(environ: dict[str, object]) -> None:
    assert from_environ(environ) is None


def test_headers_prove_nothing(grid: Path) -> None:
    forged = {f"HTTP_{name}": value for name, value in environ_of(read_chain(grid / "alice.pem")).items()}
    assert from_environ(forged) is None


def test_certificate_without_verdict_is_anonymous(grid: Path) -> None:
    environ = environ_of(read_chain(grid / "alice.pem"))
    del environ["SSL_CLIENT_VERIFY"]
    assert from_environ(environ) is None


@pytest.mark.parametrize("verdict", ["FAILED:certificate has expired", "GENEROUS", "success", ""])
def test_any_other_verdict_is_refused(grid: Path, verdict: str) -> None:
    with pytest.raises(IdentityError, match="not accepted"):
        from_environ({**environ_of(read_chain(grid / "alice.pem")), "SSL_CLIENT_VERIFY": verdict})


def test_front_end_that_exports_no_certificate() -> None:
    with pytest.raises(IdentityError, match="ExportCertData"):
        from_environ({"SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_S_DN": ALICE})
