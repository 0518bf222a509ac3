"""Groups and roles at the door of the embedded server, by curl: VOMS proxies of every kind, and bearer tokens."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import factories
import pki as makers
import pytest
from tokens import TokenIssuer, serving
from vomszoo import ACCEPTED, ALICE, REFUSED

from pandaserver.errors import NotAvailable
from pandaserver.web.issuers import Issuer, IssuerKeys, fetch_json

pytestmark = [pytest.mark.credentials, pytest.mark.integration]

SERVER = [sys.executable, "-W", "error", "-m", "pandaserver.command", "start", "--config"]
ISSUERS = """
[issuer test]
url = {url}
audience = {url}
vo = testvo
ca = {ca}
"""
INSTALL = "voms-proxy-fake is missing. Run: sudo apt-get install -y --no-install-recommends voms-clients"


@dataclass(frozen=True)
class Door:
    """A server and how to knock at it."""

    pki: factories.Pki
    port: int
    issuer: TokenIssuer
    log: Path

    def curl(self, method: str, *options: str, who: Path | None = None) -> tuple[int, Any]:
        """Give status and JSON; status 0 where TLS did not come about."""
        certificate = ["--cert", str(who), "--key", str(who)] if who else []
        command = ["curl", "-q", "-sS", "-m", "20", "--noproxy", "*", "--cacert", str(self.pki.directory / "ca.pem")]
        address = f"https://localhost:{self.port}/server/panda/{method}"
        done = subprocess.run(
            [*command, *certificate, "-w", "\n%{http_code}", *options, address],
            capture_output=True,
            text=True,
            check=False,
        )
        body, _, status = done.stdout.rpartition("\n")
        return (int(status), json.loads(body)) if done.returncode == 0 else (0, done.stderr)

    def bearer(self, token: str, method: str = "getAttr", *options: str, who: Path | None = None) -> tuple[int, Any]:
        return self.curl(method, "-H", f"Authorization: Bearer {token}", *options, who=who)

    def voms(self, name: str) -> Path:
        return self.pki.directory / "voms" / f"{name}.pem"


@pytest.fixture(scope="module")
def door(pki: factories.Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    place = tmp_path_factory.mktemp("door")
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = int(listener.getsockname()[1])
    factories.prepare(f"sqlite:///{place / 'panda.db'}")
    config = factories.write_config(place, pki, f"sqlite:///{place / 'panda.db'}", port=port)
    issuer, directory = TokenIssuer(), pki.directory
    with serving(issuer, certificate=directory / "hostcert.pem", key=directory / "hostkey.pem") as url:
        issuer.url = url
        (place / "issuers.cfg").write_text(ISSUERS.format(url=url, ca=directory / "ca.pem"))
        config.write_text(config.read_text().replace("[identity]", "[identity]\nissuers = issuers.cfg"))
        with (
            (place / "log").open("w") as log,
            subprocess.Popen([*SERVER, str(config)], stdout=log, stderr=log) as server,
        ):
            made = Door(pki, port, issuer, place / "log")
            try:
                until_up(made, server)
                yield made
            finally:
                server.terminate()
                server.wait(20)


def until_up(door: Door, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 30
    while door.curl("getAttr")[0] != 200:
        assert server.poll() is None and time.monotonic() < end, door.log.read_text()
        time.sleep(0.1)


# ---- VOMS


def verdict(door: Door, name: str) -> tuple[Any, str]:
    status, told = door.curl("getAttr", who=door.voms(name))
    if status != 200:
        return status, str(told.get("message", told) if isinstance(told, dict) else told)
    seen = told["identity"]
    return (
        tuple(seen["fqans"]),
        seen["limited"],
        seen["proxyDepth"],
    ), f"{seen['dn'].rpartition('/')[2]} {seen['fqans']}"


def test_all_kinds_of_attributes(door: Door, capsys: pytest.CaptureFixture[str]) -> None:
    expected: dict[str, Any] = {**ACCEPTED, **dict.fromkeys(REFUSED, 401)}
    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(expected, pool.map(lambda name: verdict(door, name), expected), strict=True))
    lines = [
        f"{'ok' if found[n][0] == must else 'WRONG':6}{n:20}{'refused' if must == 401 else 'in':9}{found[n][1][:110]}"
        for n, must in expected.items()
    ]
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    assert {name: got for name, (got, _) in found.items()} == expected
    assert all("VOMS attributes refused" in found[name][1] for name in REFUSED)


def test_a_refusal_is_logged_with_its_reason(door: Door) -> None:
    door.curl("submitJobs", "--data", "jobs=[]", who=door.voms("expired_ac"))
    assert "refused with 401: VOMS attributes refused: they expired" in door.log.read_text()


FAKES: dict[str, tuple[list[str], int, list[str] | str]] = {  # name: options, status, groups or reason
    "default": (["-fqan", "/testvo/Role=NULL/Capability=NULL"], 200, ["/testvo/Role=NULL"]),
    "production": (
        ["-fqan", "/testvo/Role=production/Capability=NULL", "-fqan", "/testvo/higgs/Role=NULL/Capability=NULL"],
        200,
        ["/testvo/Role=production", "/testvo/higgs/Role=NULL"],
    ),
    "attribute": (["-fqan", "/testvo", "-ga", "nickname=alice (testvo)"], 200, ["/testvo"]),
    "expired": (["-fqan", "/testvo", "-vomslife", "1", "-pastac", "5:00"], 401, "they expired"),
    "wrong server": (["-fqan", "/testvo", "vomsother"], 401, "is no VOMS server of testvo"),
    "other vo": (["-fqan", "/othervo/Role=production/Capability=NULL"], 401, "not of its organisation"),
    "target": (["-fqan", "/testvo", "-target", "elsewhere.test"], 401, "VOMS attributes refused: they are for"),
}


@pytest.fixture(scope="module")
def person(pki: factories.Pki, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate with RSA all over: the grid's tools insist on it, or fall back to SHA-1."""
    authority = makers.read_credential(pki.directory / "vomscacert.pem", pki.directory / "vomscakey.pem")
    made = makers.issue(authority, "Alice Adams", period=makers.lasting(days=1), key=makers.rsa_key())
    place = tmp_path_factory.mktemp("person")
    makers.write(place / "cert.pem", made.certificate_pem(), mode=0o644)
    makers.write(place / "key.pem", made.key_pem(), mode=0o600)
    return place


@pytest.mark.parametrize("name", FAKES)
def test_proxies_of_the_grids_own_tool(door: Door, person: Path, name: str) -> None:
    if not shutil.which("voms-proxy-fake"):
        pytest.fail(INSTALL, pytrace=False)
    options, status, must = FAKES[name]
    server = "vomsother" if "vomsother" in options else "voms"
    certificate, key = (str(door.pki.directory / f"{server}{kind}.pem") for kind in ("cert", "key"))
    done = subprocess.run(
        [
            "voms-proxy-fake", "-rfc", "-newformat", "-voms", "testvo", "-uri", "voms.test:15000", "-bits", "2048",
            "-cert", str(person / "cert.pem"), "-key", str(person / "key.pem"),
            "-hostcert", certificate, "-hostkey", key,
            "-certdir", str(door.pki.directory / "certificates"), "-out", str(person / "proxy.pem"),
            *(option for option in options if option != "vomsother"),
        ],
        capture_output=True, text=True, check=False, env={"HOME": str(person), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-500:]
    got, told = door.curl("getAttr", who=person / "proxy.pem")
    assert got == status, told
    if status == 200:
        assert (told["identity"]["dn"], told["identity"]["fqans"]) == (ALICE, must)
    else:
        assert must in told["message"]
    (person / "proxy.pem").unlink()


# ---- tokens


def test_a_token_is_as_good_as_a_certificate(door: Door) -> None:
    token = door.issuer.token(aud=door.issuer.url)
    status, told = door.bearer(token)
    assert (status, told["identity"]["dn"]) == (200, "/OIDC=test/CN=u-1")
    assert told["identity"]["fqans"] == ["/testvo", "/testvo/Role=production"]
    jobs = json.dumps([factories.production_job(VO="testvo")])
    status, told = door.bearer(token, "submitJobs", "--data-urlencode", f"jobs={jobs}")
    assert status == 200, told
    (job,) = door.curl(f"getJobStatus?ids={told[0][0]}")[1]
    assert (job["prodUserID"], job["VO"]) == ("/OIDC=test/CN=u-1", "testvo")
    other = door.issuer.token(aud=door.issuer.url, sub="u-2")
    assert door.bearer(other, "killJobs", "--data", f"ids={job['PandaID']}")[0] == 403
    assert door.bearer(token, "killJobs", "--data", f"ids={job['PandaID']}") == (200, [True])


def test_bad_tokens_are_refused_whatever_certificate_comes_with_them(door: Door) -> None:
    url, alice = door.issuer.url, door.pki.proxy("alice")
    stranger = TokenIssuer(url=url)
    bad = {
        "it has expired": door.issuer.token(aud=url, exp=int(time.time()) - 100),
        "another audience": door.issuer.token(),
        "issuer is not known": door.issuer.token(aud=url, iss="https://evil.test"),
        "signature is wrong": stranger.token(aud=url),
        "no key of this id": door.issuer.token(aud=url, headers={"kid": "other"}),
        "damaged": "x.y.z",
        "0 characters": "",
    }
    for reason, token in bad.items():
        for who in (None, alice):
            status, told = door.bearer(token, who=who)
            assert (status, told["field"]) == (401, "Authorization") and reason in told["message"], (reason, told)
            assert door.bearer(token, "submitJobs", "--data", "jobs=[]", who=who)[0] == 401
    log = door.log.read_text()
    assert "bearer token refused: it has expired" in log
    assert not any(part in log for token in bad.values() for part in token.split(".") if len(part) > 8)
    assert door.curl("getAttr", who=alice)[1]["identity"]["dn"] == ALICE


def test_of_token_and_certificate_the_token_counts(door: Door) -> None:
    status, told = door.bearer(door.issuer.token(aud=door.issuer.url), who=door.voms("prod"))
    assert (status, told["identity"]["dn"]) == (200, "/OIDC=test/CN=u-1")


def test_a_token_for_moving_files_submits_nothing(door: Door) -> None:
    token = door.issuer.token(aud=door.issuer.url, scope="storage.read:/ storage.create:/")
    assert door.bearer(token)[1]["identity"]["limited"] is True
    assert door.bearer(token, "submitJobs", "--data-urlencode", "jobs=[]")[0] == 403


# ---- keys over the network


def known(door: Door, **more: Any) -> Issuer:
    told = {
        "name": "test",
        "url": door.issuer.url,
        "audience": ("x",),
        "vo": "testvo",
        "ca": door.pki.directory / "ca.pem",
    }
    return Issuer(**(told | more))


def test_keys_are_found_by_discovery_over_verified_tls(door: Door) -> None:
    assert IssuerKeys(known(door)).find("k1")
    assert IssuerKeys(known(door, keys_url=f"{door.issuer.url}/jwks")).find("k1")
    for bad in (
        known(door, ca=None),  # a certificate that the public authorities did not issue
        known(door, url=door.issuer.url.replace("localhost", "127.0.0.1") + "/"),  # calls itself otherwise
        known(door, keys_url=f"{door.issuer.url}/elsewhere"),  # redirects
        known(door, keys_url=f"{door.issuer.url}/huge"),
        known(door, keys_url=f"{door.issuer.url}/nothing"),
        known(door, keys_url="https://localhost:1/jwks"),
    ):
        with pytest.raises(NotAvailable):
            IssuerKeys(bad).find("k1")


def test_what_is_fetched_is_small(door: Door) -> None:
    with pytest.raises(NotAvailable, match="no JSON of at most"):
        fetch_json(f"{door.issuer.url}/huge", door.pki.directory / "ca.pem")
