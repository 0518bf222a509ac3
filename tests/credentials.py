"""The credentials that people and robots show, with what must become of each, whichever front end they are shown to."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pki as grid_pki
from factories import Pki

ALICE = "/DC=org/DC=panda-test/O=Grid/CN=Alice Adams"
RITA = "/DC=org/DC=panda-test/O=Grid/CN=Rita Rivest"


@dataclass(frozen=True)
class In:
    """Somebody who gets in."""

    dn: str = ALICE
    limited: bool = False
    depth: int = 0

    def __str__(self) -> str:
        if not self.dn:
            return "anonymous"
        who = self.dn.rpartition("=")[2].partition(" ")[0]
        return f"in: {who}" + f", depth {self.depth}" * bool(self.depth) + ", limited" * self.limited


REFUSED = None
Expected = Mapping[str | None, In | None]

# Those that tools/make-certs writes.
MADE: Expected = {
    None: In(dn=""),
    "user": In(),
    "rfc_ec": In(depth=1),
    "rfc_rsa": In(depth=1),
    "rfc_depth2": In(depth=2),
    "rfc_depth3": In(depth=3),
    "limited": In(limited=True, depth=1),
    "full_from_limited": In(limited=True, depth=2),
    "pathlen0": In(depth=1),
    "independent": REFUSED,
    "legacy": REFUSED,
    "legacy_limited": REFUSED,
    "pathlen_violation": REFUSED,
    "expired_user": REFUSED,
    "expired_proxy": REFUSED,
    "revoked_user": REFUSED,
    "proxy_of_revoked": REFUSED,
    "foreign": REFUSED,
    "foreign_same_name": REFUSED,
    "bad_issuer_not_ca": REFUSED,
    "bad_proxy_subject": REFUSED,
    "bad_self_signed": REFUSED,
}

# Those that the grid's own tools write: what they are called here, how they are made, what becomes of them.
# They sign as the authority has signed the user, if that was with RSA; else one gives up and the other takes SHA-1.
# That one cannot make a proxy of a proxy (-noregen) together with OpenSSL 3.
VOMS, GRID = "voms-proxy-init", "grid-proxy-init"


def _of(name: str) -> tuple[str, ...]:
    return ("-cert", f"tools/{name}.pem", "-key", f"tools/{name}.pem")


BY_TOOLS: Mapping[str, tuple[Sequence[str], In | None]] = {
    "voms -rfc": ((VOMS, "-rfc"), In(RITA, depth=1)),
    "voms -rfc -limited": ((VOMS, "-rfc", "-limited"), In(RITA, depth=1, limited=True)),
    "voms -old": ((VOMS, "-old"), REFUSED),
    "voms -old -limited": ((VOMS, "-old", "-limited"), REFUSED),
    "voms -rfc, SHA-1": ((VOMS, "-rfc", "-cert", "alicecert.pem", "-key", "alicekey.pem"), REFUSED),
    "grid -rfc": ((GRID, "-rfc"), In(RITA, depth=1)),
    "grid -rfc -limited": ((GRID, "-rfc", "-limited"), In(RITA, depth=1, limited=True)),
    "grid -rfc, twice": ((GRID, "-rfc", *_of("grid -rfc")), In(RITA, depth=2)),
    "grid -draft": ((GRID, "-draft"), REFUSED),
    "grid -independent": ((GRID, "-rfc", "-independent"), REFUSED),
    "grid -old": ((GRID, "-old"), REFUSED),
    "grid -old -limited": ((GRID, "-old", "-limited"), REFUSED),
}
EXPECTED: Expected = {**MADE, **{name: must for name, (_, must) in BY_TOOLS.items()}}


def place(name: str) -> str:
    """Tell where a credential lies in the folder of certificates, without its ending."""
    return f"tools/{name}" if name in BY_TOOLS else f"creds/{name}"


def with_tools(pki: Pki, directory: Path) -> Pki:
    """Copy certificates, and add what the grid's tools make of a user of an authority with an RSA key."""
    shutil.copytree(pki.directory, directory)
    period = grid_pki.lasting(days=2)
    authority = grid_pki.make_authority("PanDA Test RSA CA", period=period, key=grid_pki.rsa_key())
    crl = grid_pki.revocation_list(authority, [], period=period)
    grid_pki.write_ca_directory(directory / "certificates", authority, crl=crl)
    user = grid_pki.issue(authority, "Rita Rivest", period=period, key=grid_pki.rsa_key())
    grid_pki.write(directory / "ritacert.pem", user.certificate_pem(), mode=grid_pki.PUBLIC)
    grid_pki.write(directory / "ritakey.pem", user.key_pem(), mode=grid_pki.PRIVATE)
    (directory / "tools").mkdir()
    for name, (words, _) in BY_TOOLS.items():
        _run(directory, words, directory / f"{place(name)}.pem")
    return replace(pki, directory=directory)


def _run(directory: Path, words: Sequence[str], out: Path) -> None:
    """Run a tool in the folder of certificates, with the files of the user where it looks for them."""
    told = {"X509_CERT_DIR": "certificates", "X509_USER_CERT": "ritacert.pem", "X509_USER_KEY": "ritakey.pem"}
    environment = os.environ | {name: str(directory / file) for name, file in told.items()}
    done = subprocess.run(
        [*words, "-out", str(out)], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert out.exists(), f"{' '.join(words)}: {done.stdout[-500:]}{done.stderr[-500:]}"


def table(found: Mapping[tuple[str, str | None], tuple[In | None, str]], fronts: Sequence[str]) -> str:
    """Write a table of who was shown to which front end, and what became of it."""
    lines = [f"{'credential':20} {'expected':27}" + "".join(f" {front:66}" for front in fronts)]
    for name, must in EXPECTED.items():
        seen = [found[front, name] for front in fronts]
        cells = (f" {'ok   ' if who == must else 'WRONG'} {words[:59]:60}" for who, words in seen)
        lines.append(f"{name or '(none)':20} {str(must) if must else 'refused':27}" + "".join(cells))
    good = sum(who == EXPECTED[name] for (_, name), (who, _) in found.items())
    lines.append(f"{len(EXPECTED)} credentials, {len(fronts)} front ends: {good} of {len(found)} as expected")
    return "\n".join(line.rstrip() for line in lines)
