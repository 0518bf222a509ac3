"""tools/make-certs makes what grid software expects, and never loses or exposes a key."""

from __future__ import annotations

import importlib
import json
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools"))
pki = importlib.import_module("pki")

RUN_TOOL = """
import runpy, sys, types
sys.modules["_venv"] = types.SimpleNamespace(enter=lambda: None)  # the tests run inside the environment already
sys.path.insert(0, sys.argv[1])
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
PEOPLE = ("alice", "bob", "prodman", "pilot", "ddm")


def make_certs(*arguments: str) -> subprocess.CompletedProcess[str]:
    tool = [sys.executable, "-c", RUN_TOOL, str(ROOT / "tools"), str(ROOT / "tools" / "make-certs")]
    return subprocess.run([*tool, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("grid") / "certs"
    assert make_certs(str(directory)).returncode == 0
    return directory


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files(grid: Path) -> None:
    files = {path.name for path in grid.iterdir()}
    pairs = {f"{name}{kind}.pem" for name in (*PEOPLE, "host") for kind in ("cert", "key")}
    assert files == {*pairs, *(f"{name}.pem" for name in PEOPLE), "ca.pem", "cakey.pem", "certificates"}


def test_private_things_are_private(grid: Path) -> None:
    for path in grid.glob("*.pem"):
        assert mode(path) == (0o600 if "PRIVATE KEY" in path.read_text() else 0o644), path.name
    assert {mode(path) for path in (grid / "certificates").iterdir()} == {0o644}


def test_proxy_file_is_certificate_key_chain(grid: Path) -> None:
    kinds = re.findall(r"-----BEGIN (?:EC )?([A-Z ]+)-----", (grid / "alice.pem").read_text())
    assert kinds == ["CERTIFICATE", "PRIVATE KEY", "CERTIFICATE"]
    proxy, user = x509.load_pem_x509_certificates((grid / "alice.pem").read_bytes())
    assert user == load(grid / "alicecert.pem")
    assert proxy.subject == pki.longer_name(user.subject, str(proxy.serial_number))
    assert proxy.extensions.get_extension_for_oid(pki.PROXY_CERT_INFO).critical


def test_host_certificate_names_this_machine(grid: Path) -> None:
    names = load(grid / "hostcert.pem").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert "127.0.0.1" in map(str, names.get_values_for_type(x509.IPAddress))


def test_ca_directory_has_both_hash_names(grid: Path) -> None:
    stems = pki.subject_hashes(load(grid / "ca.pem").subject)
    assert len(set(stems)) == 2
    expected = {f"{stem}.{ending}" for stem in stems for ending in ("0", "r0", "signing_policy")}
    assert {path.name for path in (grid / "certificates").iterdir()} == expected


def test_signing_policy_covers_the_people(grid: Path) -> None:
    policy = next((grid / "certificates").glob("*.signing_policy")).read_text()
    assert "access_id_CA X509 '/DC=org/DC=panda-test/O=Grid/CN=PanDA Test CA'" in policy
    assert """cond_subjects globus '"/DC=org/DC=panda-test/O=Grid/*"'""" in policy


@pytest.mark.parametrize(
    ("common_name", "hashes"),
    [("PanDA Test CA", ("f18d53fa", "75897271")), ("panda  TEST ca ", ("f18d53fa", None))],
)
def test_hashes_of_names(common_name: str, hashes: tuple[str, str | None]) -> None:
    """The values are what `openssl x509 -subject_hash` and `-subject_hash_old` say of such a certificate."""
    new, old = pki.subject_hashes(pki.grid_name(common_name))
    assert new == hashes[0], "case and spaces do not matter"
    assert (old == "75897271") == (hashes[1] is not None), "every byte matters"


def test_hashes_of_a_name_with_a_country() -> None:
    parts = [(NameOID.COUNTRY_NAME, "CH"), (NameOID.ORGANIZATION_NAME, "Some  Grid "), (NameOID.COMMON_NAME, "My CA")]
    name = x509.Name([x509.NameAttribute(kind, value) for kind, value in parts])
    assert pki.subject_hashes(name) == ("3c92432c", "1c7995f6")


def test_long_der_elements() -> None:
    assert pki.der(4, b"x" * 127)[:2] == b"\x04\x7f"
    assert pki.der(4, b"x" * 300)[:4] == b"\x04\x82\x01\x2c"


def test_json(tmp_path: Path) -> None:
    done = make_certs(str(tmp_path / "certs"), "--all", "--json", "--days", "3")
    made = json.loads(done.stdout)
    assert [person["name"] for person in made["people"]] == list(PEOPLE)
    assert made["people"][0]["dn"] == "/DC=org/DC=panda-test/O=Grid/CN=Alice Adams"
    assert Path(made["people"][0]["proxy"]).is_file()
    assert Path(made["ca_directory"]).is_dir()
    assert {"rfc_ec", "legacy", "foreign", "proxy_of_revoked"} <= set(made["creds"])
    keys = {name: load(tmp_path / "certs" / "creds" / f"{name}.pem").public_key() for name in ("rfc_ec", "rfc_rsa")}
    assert isinstance(keys["rfc_ec"], ec.EllipticCurvePublicKey)
    assert isinstance(keys["rfc_rsa"], rsa.RSAPublicKey)


def test_existing_certificates_are_kept_unless_forced(tmp_path: Path) -> None:
    directory = tmp_path / "certs"
    assert make_certs(str(directory), "--all").returncode == 0
    before = {path: path.read_bytes() for path in directory.glob("*.pem")}
    refused = make_certs(str(directory))
    assert refused.returncode == 1
    assert "--force" in refused.stderr
    assert {path: path.read_bytes() for path in directory.glob("*.pem")} == before
    assert make_certs(str(directory), "--force").returncode == 0
    assert (directory / "ca.pem").read_bytes() != before[directory / "ca.pem"]
    assert not list((directory / "creds").iterdir())


def test_renew_makes_new_proxies_only(tmp_path: Path) -> None:
    directory = tmp_path / "certs"
    assert make_certs(str(directory), "--renew").returncode == 1
    make_certs(str(directory), "--proxy-days", "1")
    before = {path.name: path.read_bytes() for path in directory.glob("*.pem")}
    done = make_certs(str(directory), "--renew", "--proxy-days", "2")
    assert "export X509_USER_PROXY=" in done.stdout
    changed = {path.name for path in directory.glob("*.pem") if path.read_bytes() != before[path.name]}
    assert changed == {f"{name}.pem" for name in PEOPLE}
    assert load(directory / "alice.pem").issuer == load(directory / "alicecert.pem").subject


def test_further_host_names(tmp_path: Path) -> None:
    make_certs(str(tmp_path), "--host", "panda.example.org")
    names = load(tmp_path / "hostcert.pem").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "panda.example.org"]


def test_owner_is_given_as_numbers(tmp_path: Path) -> None:
    done = make_certs(str(tmp_path), "--owner", "nobody")
    assert done.returncode == 2
    assert "UID:GID" in done.stderr


def test_owner_of_the_pilot_proxy(tmp_path: Path) -> None:
    mine = tmp_path.stat()
    assert make_certs(str(tmp_path), "--owner", f"{mine.st_uid}:{mine.st_gid}").returncode == 0
    assert mode(tmp_path / "pilot.pem") == 0o600


def test_help_has_an_example() -> None:
    assert "tools/make-certs ./certs" in make_certs("--help").stdout


def test_write_replaces_without_following_links(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("kept")
    link.symlink_to(target)
    pki.write(link, b"new", mode=0o600)
    assert (target.read_text(), link.read_text(), link.is_symlink(), mode(link)) == ("kept", "new", False, 0o600)
    assert {path.name for path in tmp_path.iterdir()} == {"target", "link"}
