"""The parts of the benchmark in front of the server: doors, people with their proxies, Apache in its folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from benchmark import behind_apache, processes
from benchmark import people as people_module
from benchmark.apache import Ports, install_options
from benchmark.door import Door
from benchmark.people import PEOPLE, VOMS, all_variables, client_variables, make_certificates, with_test_people
from benchmark.processes import BenchError
from pandaserver.web.identity import IdentityCache, TrustStore, from_environ
from pandaserver.web.voms import VomsVerifier

# --- doors and people


@pytest.mark.parametrize(
    ("kind", "tls", "keep_alive", "voms"),
    [("http", False, True, False), ("https", True, True, False), ("new", True, False, True)],
)
def test_what_a_kind_of_connection_means(kind: str, tls: bool, keep_alive: bool, voms: bool) -> None:
    door = Door("apache", kind)
    assert (door.tls, door.keep_alive, door.voms, str(door)) == (tls, keep_alive, voms, f"apache {kind}")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("people") / "pki"
    with pytest.MonkeyPatch.context() as patch:  # the tests run inside the environment already
        patch.setattr(people_module, "TOOLS", without_environment(directory.parent))
        dns = make_certificates(directory)
    assert set(PEOPLE) <= set(dns)
    return directory


def without_environment(folder: Path) -> Path:
    text = "import runpy, sys\nsys.path.insert(0, {0!r})\nimport _venv\n_venv.enter = lambda: None\n"
    text += "runpy.run_path({0!r} + '/make-certs', run_name='__main__')\n"
    (folder / "make-certs").write_text(text.format(str(people_module.TOOLS)))
    return folder


def test_voms_proxies_are_good_and_remembered(people: Path) -> None:
    trust = TrustStore(people / "certificates")
    verifier = Counting(trust, people / "vomsdir")
    cache = IdentityCache(trust, voms=verifier)
    variables = client_variables(people / VOMS / "pilot.pem")
    for _ in range(3):  # a new connection each
        identity = from_environ(dict(variables), cache.identify)
    assert identity is not None
    assert identity.fqans[0] == "/testvo/Role=pilot"
    assert verifier.asked == 1


class Counting(VomsVerifier):
    asked = 0

    def attributes(self, *given: Any, **named: Any) -> Any:
        Counting.asked += 1
        return super().attributes(*given, **named)


def test_plain_clients_are_believed_who_they_are(people: Path) -> None:
    seen: list[dict[str, Any]] = []

    def application(environ: dict[str, Any], _start: Any) -> list[bytes]:
        seen.append(environ)
        return []

    served = with_test_people(application, all_variables(people))
    for name in ("pilot", "nobody"):
        list(served({"HTTP_X_BENCH_PERSON": name, "SSL_CLIENT_VERIFY": "SUCCESS"}, lambda *_: lambda _: None))  # type: ignore[arg-type]
    assert [one["SSL_CLIENT_VERIFY"] for one in seen] == ["SUCCESS", "NONE"]
    assert from_environ(seen[0], IdentityCache(TrustStore(people / "certificates")).identify) is not None


# --- Apache


def test_other_processes_are_not_apache() -> None:
    assert not processes.is_httpd(os.getpid())
    assert not processes.is_httpd(2**22 + 1)


def test_options_of_the_installation_name_all_that_is_known(tmp_path: Path) -> None:
    told = install_options(tmp_path, Ports(1, 2), tmp_path / "pki")
    assert told[told.index("--tls-port") + 1] == "1"
    assert told[told.index("--host-key") + 1] == str(tmp_path / "pki/hostkey.pem")
    assert "--monitor-port" not in told
    assert "--monitor-port" in install_options(tmp_path, Ports(1, 2, 3), tmp_path / "pki")


def test_packages_are_those_of_the_test_tool() -> None:
    tool = behind_apache._test_tool()
    assert set(behind_apache.NEEDED) <= {*tool.PACKAGES, *tool.MODULES}


def test_missing_packages_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = behind_apache._test_tool()
    installed: list[list[str]] = []
    monkeypatch.setattr(behind_apache, "_test_tool", lambda: tool)
    monkeypatch.setattr(tool, "missing_packages", lambda: ["chromium", "gridsite"])
    monkeypatch.setattr(tool, "POLICY", tmp_path / "policy")
    monkeypatch.setattr(tool, "apt_install", installed.append)
    behind_apache.install_missing()
    assert installed == [["gridsite"]]

    def refuse(_packages: list[str]) -> None:
        raise tool.SetupError("Run: sudo apt-get install gridsite")

    monkeypatch.setattr(tool, "apt_install", refuse)
    with pytest.raises(BenchError, match="sudo apt-get install gridsite"):
        behind_apache.install_missing()
