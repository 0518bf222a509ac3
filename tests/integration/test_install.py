"""`panda-server install` as an operator runs it: dry, for real, and what it says about what is wrong."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import Pki, open_folder
from private_httpd import USER, Ports, command, give_to_server, install_options, prepare

PORTS = Ports(25443, 25080, 25943)


@pytest.fixture
def root(pki: Pki) -> Iterator[Path]:
    with open_folder() as folder:
        shutil.copytree(pki.directory, folder / "pki")
        (folder / "pki").chmod(0o755)
        yield folder


def install(root: Path, *more: str, expect: int = 1) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(
        command(root, "install", *install_options(root, PORTS), "--json", *more, expect=expect)
    )
    return said


def verdicts(said: dict[str, Any]) -> dict[str, str]:
    return {finding["subject"]: finding["verdict"] for finding in said["findings"]}


def test_a_dry_run_changes_nothing_and_says_what_is_missing(root: Path) -> None:
    said = install(root, "--dry-run")
    assert {step["act"] for step in said["steps"]} <= {"made", "written", "linked", "unchanged"}
    assert sorted(path.name for path in root.iterdir()) == ["pki"]
    assert verdicts(said)["configuration"] == "bad" and said["good"] is False


def test_the_first_time_it_says_what_is_left_to_do(root: Path) -> None:
    said = install(root)
    assert verdicts(said) | {"database": "bad", "callback certificate": "bad", "Apache": "good"} == verdicts(said)
    words = " ".join(finding["words"] for finding in said["findings"])
    assert "Syntax OK" in words and "robotcert.pem cannot be read" in words
    assert "CHANGE-ME" not in words


@pytest.mark.parametrize("layout", ["debian", "rhel"])
def test_apache_likes_both_layouts(root: Path, layout: str) -> None:
    """The paths of the other family do not exist here: its modules are those of this machine."""
    options = install_options(root, PORTS)
    options[options.index("--layout") + 1] = layout
    options += ["--apache-user", USER]
    said = json.loads(command(root, "install", *options, "--json", expect=1))
    name = "etc/httpd/conf.d" if layout == "rhel" else "etc/apache2/sites-available"
    assert (root / name / "panda.conf").is_file()
    assert verdicts(said)["Apache"] == ("good" if layout == "debian" else "bad")


def test_when_all_is_done_all_is_good(pki: Pki) -> None:
    with open_folder() as folder:
        prepare(folder, pki, f"sqlite:///{folder}/panda.db", PORTS)
        said = json.loads(command(folder, "install", "--check", "--json", *install_options(folder, PORTS)))
        assert said["good"] is True and said["steps"] == []
        text = command(folder, "install", *install_options(folder, PORTS))
        assert "GOOD     database" in text and "kept" in text


def test_an_error_in_the_configuration_of_apache_is_told(root: Path) -> None:
    install(root)
    local = root / "etc/panda/httpd-local"
    (local / "mine.conf").write_text("Nonsense on\n")
    said = install(root, "--check")
    (words,) = [finding["words"] for finding in said["findings"] if finding["subject"] == "Apache"]
    assert "Invalid command 'Nonsense'" in words and "mine.conf" in words


def test_what_the_servers_user_cannot_read_is_told(pki: Pki) -> None:
    if os.geteuid() != 0:
        return  # an ordinary user installs for himself
    with open_folder() as folder:
        httpd = prepare(folder, pki, f"sqlite:///{folder}/panda.db", PORTS)
        os.chown(httpd.pki / "ddm.pem", 0, 0)
        (httpd.pki / "certificates").chmod(0o700)
        said = install(folder, "--check")
        words = " ".join(finding["words"] for finding in said["findings"] if finding["verdict"] == "bad")
        assert "ddm.pem cannot be read by" in words and "certificates cannot be read by" in words
        give_to_server(httpd.pki / "ddm.pem")


def test_nonsense_is_refused_with_words(root: Path) -> None:
    options = install_options(root, PORTS)
    command(root, "install", *options, "--server-name", "x\ny", expect=1)
    command(root, "install", *options, "--layout", "solaris", expect=2)
    assert sorted(path.name for path in root.iterdir()) == ["pki"]
