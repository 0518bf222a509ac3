"""The section [rucio]: what is wrong is named at the start; without it nothing of Rucio is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pandaserver import config
from pandaserver.app import create_app, read_installation
from pandaserver.config_rucio import RucioLogin, RucioSection, pairs, secret
from pandaserver.errors import ConfigError

BASE = """
[database]
write = sqlite:///panda.db
[cache]
directory = cache
[grid]
sites = sites.cfg
[ddm]
backend = {backend}
[rucio]
{rucio}
"""
GOOD = """url = https://rucio.example
proxy = x509
"""


def load(folder: Path, rucio: str, backend: str = "rucio") -> RucioSection:
    (folder / "panda_server.cfg").write_text(BASE.format(rucio=rucio, backend=backend))
    return config.load(folder / "panda_server.cfg").rucio


def test_what_is_told_is_read(tmp_path):
    text = """rses = BNL_DISK BNL-OSG2_DATADISK
    UTA_DISK   UTA_DATADISK
dataset_metadata = project mc23
make_scopes = yes
login = userpass
username = panda
password_file = password
"""
    section = load(tmp_path, f"url = https://rucio.example:443\n{text}")
    assert section.rse_of == {"BNL_DISK": "BNL-OSG2_DATADISK", "UTA_DISK": "UTA_DATADISK"}
    assert section.login is RucioLogin.USERPASS and section.make_scopes
    assert section.password_file == tmp_path / "password"
    assert pairs(section.dataset_metadata) == {"project": "mc23"}


@pytest.mark.parametrize(
    ("rucio", "words"),
    [
        ("", ("url", "say where it is")),
        ("url = https://rucio.example", ("proxy", "needs the file of a proxy")),
        ("url = rucio.example\nproxy = x", ("url", "say https://HOST:PORT")),
        ("url = ftp://rucio.example\nproxy = x", ("url", "say https://HOST:PORT")),
        ("url = http://rucio.example\nproxy = x", ("url", "https is needed")),
        (f"{GOOD}auth_url = http://auth.example", ("auth_url", "https is needed")),
        (f"{GOOD}login = userpass", ("username", "needs username and password_file")),
        (f"{GOOD}login = userpass\nusername = panda", ("username", "needs username and password_file")),
        (f"{GOOD}login = kerberos", ("login", "kerberos")),
        (f"{GOOD}rses = BNL_DISK", ("rses", "two words")),
        (f"{GOOD}rses = A X\n    B X", ("rses", "two endpoints cannot be the same RSE")),
        (f"{GOOD}dataset_metadata = project", ("dataset_metadata", "two words")),
        (f"{GOOD}name_pattern = [a", ("name_pattern", "no regular expression")),
        (f"{GOOD}scope_pattern = (", ("scope_pattern", "no regular expression")),
        (f"{GOOD}hermes_username = h", ("hermes_username", "it goes with hermes_password_file")),
        (f"{GOOD}hermes_password_file = h", ("hermes_username", "it goes with hermes_password_file")),
        (f"{GOOD}timeout_s = 0", ("timeout_s", "above 0")),
        (f"{GOOD}lifetime = 5", ("lifetime", "unknown key")),
    ],
)
def test_mistakes_are_named(tmp_path, rucio, words):
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, rucio)
    for word in ("[rucio]", *words):
        assert word in refused.value.message


def test_http_is_good_enough_for_this_machine(tmp_path):
    for url in ("http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080"):
        assert load(tmp_path, f"url = {url}\nproxy = x").url == url


def test_without_rucio_nothing_is_needed(tmp_path):
    assert load(tmp_path, "", backend="local") == RucioSection()


def test_a_password_is_the_text_of_its_file(tmp_path):
    path = tmp_path / "password"
    for text, said in ((None, "cannot read"), ("  \n", "is empty")):
        if text is not None:
            path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            secret(path, "password_file")
    path.write_text("  se cret \n")
    assert secret(path, "password_file") == "se cret"


IMPORTS = "import sys, pandaserver.app; print(sorted(name for name in sys.modules if name.split('.')[0] == 'rucio'))"


def test_rucio_is_imported_only_where_it_is_configured():
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_package_is_named(tmp_path, pki, sqlite_pattern, monkeypatch):
    from factories import write_config

    path = write_config(tmp_path, pki, f"sqlite:///{sqlite_pattern}")
    (tmp_path / "x509").touch()
    text = path.read_text().replace("[ddm]\n", "[ddm]\nbackend = rucio\n")
    path.write_text(f"{text}\n[rucio]\n{GOOD}")
    for name in [n for n in sys.modules if n.startswith("pandaserver.dataservice.ddm.rucio")]:
        if name != "pandaserver.dataservice.ddm.rucio_factory":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rucio.client", None)
    with pytest.raises(ConfigError, match=r"needs the package rucio-clients .*pip install 'pandaserver\[rucio\]'"):
        create_app(read_installation(path))


def test_an_unknown_back_end_is_named(tmp_path, pki, sqlite_pattern):
    from factories import write_config

    path = write_config(tmp_path, pki, f"sqlite:///{sqlite_pattern}")
    path.write_text(path.read_text().replace("[ddm]\n", "[ddm]\nbackend = lfc\n"))
    with pytest.raises(ConfigError, match="say local or rucio"):
        create_app(read_installation(path))
