"""`panda-server`: help, the checks, and the care of the database."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from factories import Pki, write_config

from pandaserver.command import main


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """`start` sets the logs up, for streams that end with its test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def config(tmp_path: Path, pki: Pki) -> Path:
    return write_config(tmp_path / "server", pki, f"sqlite:///{tmp_path / 'panda.db'}")


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = main([str(a) for a in arguments])
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    return code, told.out, told.err


_HELPED = [[], ["start"], ["db"], ["check"], ["sites", "import"], ["sites", "status"]]


@pytest.mark.parametrize("arguments", _HELPED, ids=str)
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
    parts = ("configuration", "certificates", "database", "queues")
    assert (code, json.loads(text)) == (0, dict.fromkeys(parts, "good"))
    code, text, _ = run(capsys, "check", "--config", config)
    assert code == 0 and text.count("good") == 4


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


# --- sites


def test_a_sites_file_is_checked_without_a_server(capsys: pytest.CaptureFixture[str], config: Path):
    sites = config.with_name("sites.cfg")
    code, text, _ = run(capsys, "sites", "check", sites)
    assert (code, text) == (0, f"{sites}: good, 2 queues and 2 endpoints\n")
    sites.write_text(sites.read_text().replace("tier = ", "tier = x").replace("cloud = US", "colour = US"))
    code, text, _ = run(capsys, "sites", "check", sites)
    assert code == 1 and text.splitlines()[-1] == f"{sites}: 6 mistakes" and len(text.splitlines()) == 7
    code, text, _ = run(capsys, "sites", "check", "--json", sites)
    told = json.loads(text)
    assert (code, told["good"]) == (1, False)
    assert {(one["place"], one["key"], one["value"]) for one in told["mistakes"]} >= {
        (f"{sites} [queue BNL]", "tier", "x1"), (f"{sites} [queue UTA]", "cloud", None),
    }  # fmt: skip
    code, text, _ = run(capsys, "sites", "check", sites.with_name("nothing.cfg"))
    assert code == 1 and "1 mistake" in text and "No such file" in text


def test_an_import_by_hand(capsys: pytest.CaptureFixture[str], config: Path, tmp_path: Path):
    run(capsys, "db", "upgrade", "--config", config)
    queues, disks = tmp_path / "queues.json", tmp_path / "disks.json"
    queues.write_text('{"A": {"cloud": "US", "status": "online", "astorages": {"pr": ["D"]}}, "B": 5}')
    disks.write_text('{"D": {"site": "A", "arprotocols": {"read_lan": [{"endpoint": "root://a:1094", "path": "/a"}]}}}')
    bring = ("sites", "import", "--config", config)
    code, text, _ = run(capsys, *bring, "--cric", queues, "--endpoints", disks, "--dry-run")
    assert code == 0 and text.splitlines() == [
        "queue A added",
        "endpoint D added",
        f"{queues} queue B: entry = 5: an object is expected; left out",
        "1 queue and 1 endpoint read: 2 changes; 1 entry left out, nothing is changed by this dry run",
    ]
    assert "nothing is changed" not in run(capsys, *bring, "--cric", queues, "--endpoints", disks)[1]
    told = json.loads(run(capsys, *bring, "--cric", queues, "--json")[1])
    assert (told["changes"], told["queues"], told["endpoints"], len(told["left_out"])) == ([], 1, 0, 1)
    code, text, _ = run(capsys, "sites", "status", "--config", config)
    assert code == 1 and "import from CRIC" in text and "    queue A added" in text and "WRONG since" in text
    code, _, error = run(capsys, *bring)
    assert code == 1 and "import from where?" in error
    code, _, error = run(capsys, *bring, "--cric", "http://localhost/x")
    assert code == 1 and "a file or an https URL is expected" in error


def test_where_queues_are_described_is_told(capsys: pytest.CaptureFixture[str], config: Path):
    run(capsys, "db", "upgrade", "--config", config)
    assert run(capsys, "sites", "status", "--config", config)[:2] == (
        0, "no server has read any description of queues yet\n",
    )  # fmt: skip
    assert json.loads(run(capsys, "sites", "status", "--json", "--config", config)[1]) == {"good": True, "sources": []}


def test_a_wrong_sites_file_does_not_keep_operators_from_other_work(capsys: pytest.CaptureFixture[str], config: Path):
    config.with_name("sites.cfg").write_text("[queue A]")
    assert run(capsys, "db", "upgrade", "--config", config)[0] == 0
    assert run(capsys, "ban", "/CN=Mallory", "--config", config)[0] == 0
    code, _, error = run(capsys, "start", "--config", config)
    assert code == 1 and "[queue A]: key site is missing" in error, "there is no grid to go on with"
    code, _, error = run(capsys, "check", "--config", config)
    assert code == 1 and "[queue A]: key site is missing" in error


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("cric = http://cric.example.org/q.json", "the full path of a file or an https URL is expected"),
        ("cric = queues.json", "the full path of a file"),
        ("cric_endpoints = /data/e.json", "it belongs to cric, which is empty"),
        ("cric = /q.json\ncric_period_s = 0", "cric_period_s = 0"),
    ],
)
def test_mistakes_about_the_import_are_named(capsys: pytest.CaptureFixture[str], config: Path, more: str, words: str):
    config.write_text(config.read_text() + f"{more}\n")
    code, _, error = run(capsys, "check", "--config", config)
    assert code == 1 and words in error and "[grid]" in error
