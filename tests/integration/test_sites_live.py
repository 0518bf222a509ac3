"""A server process whose sites file is edited, that imports queues, and whose queues `panda sites` switches."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import factories
import pytest
import requests

from pandaserver.client.main import main as panda
from pandaserver.command import main as panda_server

pytestmark = pytest.mark.integration

_LONG_S = 40.0
CRIC = {"CRIC_Q": {"cloud": "US", "status": "online", "astorages": {"pr": ["BNL_DISK"]}}, "BAD": {"status": "?"}}


@dataclass(frozen=True)
class Server:
    """A server process, its files and the ways to it."""

    url: str
    config: Path
    pki: factories.Pki
    log: Path

    @property
    def sites(self) -> Path:
        return self.config.with_name("sites.cfg")

    def get(self, path: str) -> Any:
        with requests.Session() as session:
            session.trust_env = False
            session.verify = str(self.pki.directory / "certificates")
            return session.get(f"{self.url}{path}", timeout=30).json()


def eventually(true: Callable[[], object]) -> Any:
    end = time.monotonic() + _LONG_S
    while not (found := true()) and time.monotonic() < end:
        time.sleep(0.2)
    assert found, "it did not come true"
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, pki: factories.Pki) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("live")
    port = factories_port()
    config = factories.write_config(root / "grid", pki, f"sqlite:///{root / 'panda.db'}", port=port)
    cric = root / "cric.json"
    cric.write_text(json.dumps(CRIC))
    config.write_text(config.read_text() + f"cric = {cric}\ncric_period_s = 1\n")
    assert panda_server(["db", "upgrade", "--config", str(config)]) == 0
    log = root / "server.log"
    command = [sys.executable, "-m", "pandaserver.command", "start", "--config", str(config)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    found = Server(f"https://localhost:{port}", config, pki, log)

    def alive() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return bool(found.get("/api/v1/system/is_alive"))
        except requests.ConnectionError:
            return False

    try:
        eventually(alive)
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def factories_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def run(server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run `panda sites`, as somebody; gives exit code and output."""
    monkeypatch.setenv("PANDA_URL_SSL", server.url)
    monkeypatch.setenv("X509_CERT_DIR", str(server.pki.directory / "certificates"))

    def run_it(*arguments: str, who: str = "prodman") -> tuple[int, str, str]:
        monkeypatch.setenv("X509_USER_PROXY", str(server.pki.proxy(who)))
        code = panda(["sites", *arguments])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run_it


def status_of(server: Server, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = panda_server(["sites", "status", "--json", "--config", str(server.config)])
    return code, json.loads(capsys.readouterr().out)


def test_the_file_is_edited_while_the_server_runs(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    good = server.sites.read_text()
    address = "/cache/schedconfig/UTA.all.json"
    assert server.get(address)["maxrss"] == 2000
    server.sites.write_text(good.replace("memory_mb = 2000", "memory_mb = 3000\nparams = container_type=x"))
    told = eventually(lambda: (now := server.get(address))["maxrss"] == 3000 and now)
    assert told["container_type"] == "x"
    eventually(lambda: "queue UTA changed: memory_mb 2000 -> 3000; params +container_type=x" in server.log.read_text())

    server.sites.write_text(good.replace("tier = 2", "tier = two").replace("UTA_DISK\nmem", "NOWHERE\nmem"))
    (source,) = eventually(
        lambda: [s for s in status_of(server, capsys)[1]["sources"] if s["source"] == "file" and s["problem"]]
    )
    assert "tier = 'two'" in source["problem"] and "endpoint = NOWHERE" in source["problem"]
    assert panda_server(["check", "--config", str(server.config)]) == 1
    assert "tier = 'two'" in capsys.readouterr().err
    assert server.get(address)["maxrss"] == 3000, "what was good goes on to hold"
    eventually(lambda: "2 mistakes in" in server.log.read_text())

    server.sites.write_text(good)
    eventually(lambda: server.get(address)["maxrss"] == 2000)
    assert not [s for s in status_of(server, capsys)[1]["sources"] if s["source"] == "file" and s["problem"]]


def test_queues_are_imported_again_and_again(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    address = "/cache/schedconfig/CRIC_Q.all.json"
    eventually(lambda: server.get(address).get("status") == "online")
    path = server.config.parents[1] / "cric.json"
    path.write_text(json.dumps(CRIC | {"CRIC_Q": CRIC["CRIC_Q"] | {"maxrss": 7000, "pledgedcpu": 5}}))
    told = eventually(lambda: (now := server.get(address))["maxrss"] == 7000 and now)
    assert told["pledgedcpu"] == 5
    code, document = status_of(server, capsys)
    (source,) = (one for one in document["sources"] if one["source"] == "cric")
    assert code == 1 and "1 entry left out" in source["problem"] and "queue BAD" in source["problem"]


def test_queues_are_imported_over_tls(server: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cache = server.config.with_name("cache")
    (cache / "queues.json").write_text(json.dumps(CRIC))
    arguments = ["sites", "import", "--config", str(server.config), "--dry-run", "--json", "--cric"]
    assert panda_server([*arguments, f"{server.url}/cache/queues.json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["dry_run"], told["queues"]) == (True, 1) and [one["key"] for one in told["left_out"]] == ["astorages"]
    assert panda_server([*arguments, f"{server.url}/cache/nothing.json"]) == 1
    assert "answers with HTTP status 404" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    untrusting = tmp_path / "server.cfg"
    text = re.sub("ca_dir = .*", f"ca_dir = {tmp_path}/empty", server.config.read_text())
    untrusting.write_text(text.replace("directory = ", f"directory = {tmp_path}/"))
    arguments[3] = str(untrusting)
    assert panda_server([*arguments, f"{server.url}/cache/queues.json"]) == 1
    assert "certificate verify failed" in capsys.readouterr().err


def test_an_operator_switches_and_everybody_sees_it(server: Server, run: Callable[..., Any]) -> None:
    code, out, _ = run("set", "UTA", "offline", "--reason", "storage is moved", "--until", "6h")
    assert code == 0 and re.fullmatch(
        r"UTA is offline by Production Manager: storage is moved \(until [0-9: -]{16} UTC\)\n", out
    )
    table = run(who="alice")[1].splitlines()
    assert table[0].split()[:3] == ["QUEUE", "SITE", "STATUS"] and table[0].endswith("WHY")
    (line,) = (one for one in table if one.startswith("UTA "))
    assert line.split()[:3] == ["UTA", "UTA", "offline"] and "Production Manager  storage is moved (until 2" in line
    told = json.loads(run("--json", who="alice")[1])
    assert told["UTA"]["standing"]["by"] == "Production Manager" and told["BNL"]["jobs"] == {}
    assert run("set", "UTA", "online", "--reason", "x", who="alice")[0] == 1
    code, out, _ = run("clear", "UTA", "--reason", "all is well")
    assert (code, out) == (0, "UTA is online by sites file\n")
    history = run("history", "UTA", who="alice")[1].splitlines()
    assert [line.split()[2] for line in history[1:3]] == ["cleared", "set"] and "all is well" in history[1]
    assert json.loads(run("history", "UTA", "--json")[1])[0]["to"] == "online"
    for arguments, words in (
        (("set", "NOWHERE", "offline", "--reason", "x"), "there is no queue NOWHERE"),
        (("history", "NOWHERE"), "there is no queue NOWHERE"),
    ):
        code, _, err = run(*arguments)
        assert code == 1 and words in err
    assert run("set", "UTA", "offline", "--reason", "x", "--until", "tomorrow")[0] == 2
    assert run("set", "UTA", "offline", "--reason", "x", "--until", "2020-01-01")[0] == 2
