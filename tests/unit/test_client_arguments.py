"""The command line: what is understood, what is refused, and what help says."""

from __future__ import annotations

import pytest

from pandaserver import __version__
from pandaserver.client.main import main

COMMANDS = ("submit", "status", "kill", "why", "wait", "files", "download", "sites", "timeouts", "whoami", "upload")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PANDA_URL_SSL", "X509_USER_PROXY", "X509_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


def exit_code(*arguments: str) -> object:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


def test_help_names_commands_exit_codes_and_environment(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--help") == 0
    out = capsys.readouterr().out
    wanted = (
        *COMMANDS,
        "exit codes",
        "PANDA_URL_SSL",
        "X509_USER_PROXY",
        "X509_CERT_DIR",
        "--json",
        "panda submit jobs.json",
    )
    assert [word for word in wanted if word not in out] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_the_common_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(command, "--help") == 0
    out = capsys.readouterr().out
    assert [option for option in ("--server", "--proxy", "--ca-dir", "--json") if option not in out] == []


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--version") == 0
    assert capsys.readouterr().out == f"panda {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "dance",
        "status",
        "status x",
        "status 9-7",
        "kill",
        "wait 1 --timeout -1",
        "wait 1 --interval soon",
        "why",
        "why 1 2",
        "why 1-2",
        "submit",
        "submit a.json --transformation run.sh",
        "submit --transformation run.sh --repeat 0",
        "submit --transformation run.sh --memory-mb 2G",
        "files",
        "upload",
        "sites --retries 9",
    ],
)
def test_wrong_usage(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(*arguments.split()) == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize("server", ["http://localhost:25080", "localhost", "https://x/y"])
def test_wrong_server(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sites", "--server", server]) == 2
    assert "no address of a PanDA server" in capsys.readouterr().err


def test_environment_may_name_the_server(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PANDA_URL_SSL", "https://localhost:1/server/panda")
    monkeypatch.setenv("X509_CERT_DIR", "/no/such/directory")
    assert main(["sites"]) == 3
    assert "CA directory /no/such/directory does not exist" in capsys.readouterr().err


def test_option_wins_over_environment(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("X509_CERT_DIR", "/no/such/directory")
    monkeypatch.setenv("X509_USER_PROXY", "/no/such/proxy")
    assert main(["sites", "--server", "https://localhost:1", "--ca-dir", "/", "--proxy", "/no/other/proxy"]) == 3
    assert "proxy file /no/other/proxy does not exist" in capsys.readouterr().err
