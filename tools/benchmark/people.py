"""Who takes part in a measurement: certificates, proxies with and without VOMS attributes, and test people."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import pki
import voms_pki

from benchmark.processes import BenchError

TOOLS = Path(__file__).resolve().parent.parent
PERSON_HEADER = "HTTP_X_BENCH_PERSON"
PEOPLE = ("alice", "prodman", "pilot", "ddm")
VOMS = "voms"  # the folder of proxies with attributes
_FQANS = {
    "pilot": (f"/{voms_pki.VO}/Role=pilot", voms_pki.MEMBER),
    "prodman": (voms_pki.PRODUCTION, voms_pki.MEMBER),
}
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.S)


def make_certificates(directory: Path) -> dict[str, str]:
    """Make certificates, proxies and VOMS proxies in a new folder; give everybody's DN.

    Raises:
        BenchError: tools/make-certs failed.
    """
    tool = [sys.executable, str(TOOLS / "make-certs"), str(directory), "--json"]
    done = subprocess.run(tool, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"tools/make-certs failed:\n{done.stdout}{done.stderr}")
    _add_voms(directory)
    return {person["name"]: person["dn"] for person in json.loads(done.stdout)["people"]}


def _add_voms(directory: Path) -> None:
    """Make a VOMS server that the grid believes, and proxies with attributes of it."""
    servers = voms_pki.make_servers(period=voms_pki.LASTING)
    voms_pki.write_authority(directory / "certificates", servers)
    voms_pki.write_vomsdir(directory / "vomsdir", servers)
    for name in PEOPLE:
        holder = pki.read_credential(directory / f"{name}cert.pem", directory / f"{name}key.pem")
        claim = voms_pki.Claim(fqans=_FQANS.get(name, (voms_pki.MEMBER,)))
        proxy = voms_pki.voms_proxy(holder, servers.good, claim)
        pki.write(directory / VOMS / f"{name}.pem", proxy.pem(), mode=pki.PRIVATE)


def client_variables(proxy: Path) -> dict[str, str]:
    """Give what a TLS front end would tell of the holder of a proxy."""
    leaf, *issuers = _CERTIFICATE.findall(proxy.read_text(encoding="ascii"))
    chain = {f"SSL_CLIENT_CERT_CHAIN_{number}": pem for number, pem in enumerate(issuers)}
    return {"SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_CERT": leaf} | chain


def all_variables(certificates: Path) -> dict[str, dict[str, str]]:
    """Give them for everybody."""
    return {name: client_variables(certificates / f"{name}.pem") for name in PEOPLE}


def with_test_people(application: WSGIApplication, people: Mapping[str, dict[str, str]]) -> WSGIApplication:
    """Believe the header X-Bench-Person: only for measurements without TLS, on the loopback interface."""

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ.update(people.get(environ.get(PERSON_HEADER, ""), {"SSL_CLIENT_VERIFY": "NONE"}))
        return application(environ, start_response)

    return serve
