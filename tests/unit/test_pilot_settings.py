"""The command line, the proxy and the package's own make-up."""

from __future__ import annotations

import ast
import configparser
import contextlib
import ssl
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

import pandapilot
from pandapilot import main as command
from pandapilot.certificates import expiry
from pandapilot.failures import CannotWork
from pandapilot.settings import Settings, find_identity, is_loopback, server_url

PACKAGE = Path(pandapilot.__file__).parent
HTTPS = "https://panda.example.org:25443"


@pytest.mark.parametrize("url", [HTTPS, HTTPS + "/", "https://[::1]:25443"])
def test_https_urls_are_accepted(url):
    assert server_url(url, insecure_http=False) == url.rstrip("/")


@pytest.mark.parametrize(
    "url", ["panda.example.org", "ftp://x", "https://", "https://host/path", "https://host?x=1", ""]
)
def test_other_urls_are_refused(url):
    with pytest.raises(ValueError, match="must look like"):
        server_url(url, insecure_http=True)


@pytest.mark.parametrize(
    ("url", "flag", "good"),
    [
        ("http://localhost:1", True, True),
        ("http://127.0.0.9:1", True, True),
        ("http://[::1]:1", True, True),
        ("http://localhost:1", False, False),
        ("http://panda.example.org:1", True, False),
        ("http://localhost.evil.org:1", True, False),
        ("http://10.0.0.1:1", True, False),
    ],
)
def test_plain_http_is_for_this_machine_with_a_flag(url, flag, good):
    if good:
        assert server_url(url, insecure_http=flag) == url
    else:
        with pytest.raises(ValueError, match="use https"):
            server_url(url, insecure_http=flag)


def test_loopback():
    assert is_loopback("127.1.2.3") and not is_loopback("192.168.0.1") and not is_loopback("example.org")


def make_pem(*ends: datetime) -> bytes:
    """Make a file with certificates that expire at the given times, and the key of the first."""
    text = b""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Alice")])
    for end in ends:
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        builder = builder.serial_number(5).not_valid_before(datetime(2000, 1, 1, tzinfo=UTC)).not_valid_after(end)
        text += builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    form = serialization.PrivateFormat.PKCS8
    return text + key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


LATER = datetime(2049, 5, 6, 7, 8, 9, tzinfo=UTC)


@pytest.mark.parametrize("end", [LATER, datetime(2051, 1, 1, tzinfo=UTC), datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)])
def test_expiry_is_read_in_both_time_formats(end):
    assert expiry(make_pem(end).decode()) == end


def test_chain_expires_with_its_first_certificate():
    assert expiry(make_pem(LATER, LATER - timedelta(days=1), LATER).decode()) == LATER - timedelta(days=1)


@given(st.binary(max_size=400))
def test_damaged_certificates_are_refused_with_a_value_error(raw):
    with pytest.raises(ValueError, match=r".+"):
        expiry("-----BEGIN CERTIFICATE-----\n" + raw.hex() + "\n-----END CERTIFICATE-----")


@given(st.integers(0, 300), st.integers(0, 255))
def test_no_flipped_byte_breaks_the_reading(position, value):
    block = GOOD_DER[:position] + bytes([value]) + GOOD_DER[position + 1 :]
    with contextlib.suppress(ValueError):
        assert expiry(ssl.DER_cert_to_PEM_cert(block)).tzinfo is UTC


GOOD_DER = x509.load_pem_x509_certificate(make_pem(LATER)).public_bytes(serialization.Encoding.DER)


@pytest.fixture
def proxy(tmp_path):
    path = tmp_path / "proxy.pem"
    path.write_bytes(make_pem(LATER))
    path.chmod(0o600)
    return path


def test_identity_comes_from_options_before_the_environment(proxy, tmp_path, monkeypatch):
    monkeypatch.setenv("X509_USER_PROXY", "/nowhere")
    monkeypatch.setenv("X509_CERT_DIR", "/nowhere")
    identity = find_identity(HTTPS, str(proxy), str(tmp_path))
    assert (identity.proxy, identity.ca_directory) == (proxy, tmp_path)


def test_identity_comes_from_the_environment(proxy, tmp_path, monkeypatch):
    monkeypatch.setenv("X509_USER_PROXY", str(proxy))
    monkeypatch.setenv("X509_CERT_DIR", str(tmp_path))
    assert find_identity(HTTPS, None, None).proxy == proxy


@pytest.mark.parametrize("content", [None, b"", b"no certificate", make_pem(datetime(2001, 1, 1, tzinfo=UTC))])
def test_useless_proxy_is_explained(tmp_path, content):
    path = tmp_path / "proxy.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CannotWork, match=r"proxy .*proxy\.pem is no use") as caught:
        find_identity(HTTPS, str(path), str(tmp_path))
    assert caught.value.exit_code == 65


def test_missing_ca_directory_is_explained(proxy):
    with pytest.raises(CannotWork, match="X509_CERT_DIR") as caught:
        find_identity(HTTPS, str(proxy), "/nowhere")
    assert caught.value.exit_code == 66


def test_open_proxy_is_warned_of(proxy, tmp_path, caplog):
    proxy.chmod(0o644)
    find_identity(HTTPS, str(proxy), str(tmp_path))
    assert "0600" in caplog.text


def test_plain_http_shows_no_proxy(monkeypatch):
    monkeypatch.setenv("X509_USER_PROXY", "/nowhere")
    assert find_identity("http://localhost:1", None, None).proxy is None


def test_reserve_is_a_part_of_the_lifetime(tmp_path):
    def reserve(lifetime_s):
        identity = find_identity("http://localhost", None, None)
        return Settings("s", "q", identity, tmp_path, "p", "s", lifetime_s=lifetime_s).reserve_s

    assert (reserve(86400), reserve(100)) == (600, 10)


def test_help_shows_example_environment_and_exit_codes(capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for part in ("example:", "X509_USER_PROXY", "65 no proxy", "128 + n", "--final-update-time"):
        assert part in text


@pytest.mark.parametrize(
    "option", ["--lifetime=-1", "--lifetime=nan", "--max-jobs=-1", "--label=other", "--heartbeat=x"]
)
def test_wrong_options_are_refused(option, capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(["--server", HTTPS, "--queue", "Q", option])
    assert caught.value.code == 2
    assert option[2:].split("=")[0] in capsys.readouterr().err


def test_package_list_is_complete():
    setup = configparser.ConfigParser()
    setup.read(PACKAGE / "setup.cfg")
    folders = {"pandapilot"} | {f"pandapilot.{path.parent.name}" for path in PACKAGE.glob("[a-z]*/__init__.py")}
    assert set(setup["options"]["packages"].split()) == folders
    assert "panda-pilot = pandapilot.main:main" in setup["options.entry_points"]["console_scripts"]
    assert not (PACKAGE / "setup.py").exists()


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_module_imports_nothing_of_the_other_packages_and_keeps_its_size(path):
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    roots = {name.split(".")[0] for name in names if name}
    assert roots <= sys.stdlib_module_names | {"pandapilot", "requests", "psutil"}
    assert "requests" not in roots or path.stem == "server"
    assert ast.get_docstring(tree)
    assert path.stem not in sys.stdlib_module_names
    assert len(path.read_text().splitlines()) <= 400
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    assert all(node.end_lineno - node.lineno < 50 for node in functions)
