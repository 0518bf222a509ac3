"""`panda-server`: help, the checks, and the care of the database."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from factories import Pki, write_config

from pandaserver.command import main


@pytest.fixture
def config(tmp_path: Path, pki: Pki) -> Path:
    return write_config(tmp_path / "server", pki, f"sqlite:///{tmp_path / 'panda.db'}")


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = main([str(a) for a in arguments])
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    return code, told.out, told.err


@pytest.mark.parametrize("arguments", [[], ["start"], ["db"], ["check"]], ids=str)
def test_help(capsys: pytest.CaptureFixture[str], arguments: list[str]):
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--help"])
    text = capsys.readouterr().out
    assert left.value.code == 0 and "usage: panda-server" in text
    if not arguments:
        assert "example:" in text and all(command in text for command in ("start", "db", "check"))
    else:
        assert "--config" in text


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["db"], ["db", "drop"], ["check", "--bogus"]], ids=str)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2 and "usage" in capsys.readouterr().err


def test_the_database_is_made_and_looked_at(capsys: pytest.CaptureFixture[str], config: Path):
    code, text, _ = run(capsys, "db", "status", "--config", config)
    assert code == 0 and "schema (none), this version knows up to 0" in text
    for _ in range(2):
        code, text, _ = run(capsys, "db", "upgrade", "--config", config)
        found, newest = re.findall(r"schema (\w+), this version knows up to (\w+)", text)[0]
        assert code == 0 and found == newest and "up to date" in text
    assert run(capsys, "db", "status", "--config", config)[1] == text


def test_a_check_finds_everything_good(capsys: pytest.CaptureFixture[str], config: Path):
    run(capsys, "db", "upgrade", "--config", config)
    code, text, _ = run(capsys, "check", "--json", "--config", config)
    assert (code, json.loads(text)) == (0, {"configuration": "good", "certificates": "good", "database": "good"})
    code, text, _ = run(capsys, "check", "--config", config)
    assert code == 0 and text.count("good") == 3


def test_a_check_says_what_to_do_about_the_database(capsys: pytest.CaptureFixture[str], config: Path):
    code, text, _ = run(capsys, "check", "--json", "--config", config)
    told = json.loads(text)
    assert code == 1 and "panda-server db upgrade" in told["database"]
    assert told["certificates"] == told["configuration"] == "good"


def test_a_check_says_which_certificate_is_not_there(capsys: pytest.CaptureFixture[str], config: Path):
    run(capsys, "db", "upgrade", "--config", config)
    config.write_text(config.read_text().replace("hostcert.pem", "nothing.pem"))
    code, text, _ = run(capsys, "check", "--json", "--config", config)
    assert code == 1 and "nothing.pem" in json.loads(text)["certificates"]


@pytest.mark.parametrize("command", [["check"], ["db", "status"], ["db", "upgrade"], ["start"]], ids=" ".join)
def test_mistakes_in_the_configuration_are_one_line(
    capsys: pytest.CaptureFixture[str], config: Path, command: list[str]
):
    config.write_text(config.read_text() + "\n[sever]\nport = 1\n")
    code, out, err = run(capsys, *command, "--config", config)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("panda-server: ") and str(config) in err and "[sever]" in err


def test_the_configuration_is_found_by_the_environment(capsys: pytest.CaptureFixture[str], config: Path, monkeypatch):
    monkeypatch.setenv("PANDA_CONFIG", str(config))
    assert run(capsys, "db", "status")[0] == 0
    monkeypatch.setenv("PANDA_CONFIG", str(config) + ".not")
    code, _, err = run(capsys, "db", "status")
    assert code == 1 and f"{config}.not" in err and "No such file" in err


def test_a_server_does_not_start_on_a_database_without_tables(capsys: pytest.CaptureFixture[str], config: Path):
    code, _, err = run(capsys, "start", "--config", config)
    assert code == 1 and "run panda-server db upgrade" in err
