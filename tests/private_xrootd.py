"""A private XRootD on this machine: `root://` with and without GSI, and `https://` with proxies (XrdHttp).

It listens on every address, which cannot be told otherwise, but answers this machine only.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import factories
import pki as making
from cryptography import x509
from private_webdav import StorageServer, make_folders, unprivileged

PLAIN = """all.export /
oss.localroot {root}/data
all.adminpath {run}
all.pidpath {run}
xrd.allow host localhost
xrd.port {port}
xrd.network nodnr norpipa
xrootd.chksum max 2 adler32 md5 crc32c
ofs.persist off
"""
GUARDED = """xrootd.seclib libXrdSec.so
sec.protocol gsi -certdir:{root}/pki/certificates -cert:{root}/run/hostcert.pem -key:{root}/run/hostkey.pem -crl:3 \
-gridmap:{root}/gridmap -gmapopt:trymap -d:0
sec.protbind * only gsi
acc.authdb {root}/authdb
ofs.authorize
xrd.tls {root}/run/hostcert.pem {root}/run/hostkey.pem
xrd.tlsca certdir {root}/pki/certificates crlcheck all proxies
xrd.protocol http:{http_port} libXrdHttp.so
http.gridmap {root}/gridmap
http.listingdeny no
"""


def make_rsa_certificates(root: Path) -> Path:
    """Make what GSI of XRootD needs: it knows RSA only. Give the host's key."""
    made = making.lasting(days=7)
    authority = making.read_credential(root / "pki/ca.pem", root / "pki/cakey.pem")
    names = [x509.DNSName("localhost")]
    host = making.issue(authority, "localhost", period=made, hosts=names, key=making.rsa_key())
    making.write(root / "run/hostcert.pem", host.certificate_pem(), mode=0o644)
    robot = making.read_credential(root / "pki/ddmcert.pem", root / "pki/ddmkey.pem")
    making.write(root / "pki/ddm.pem", making.delegate(robot, key=making.rsa_key()).pem(), mode=0o600)
    return making.write(root / "run/hostkey.pem", host.key_pem(), mode=0o400)


@contextlib.contextmanager
def private_xrootd(pki: factories.Pki, port: int, *, http_port: int | None = None) -> Iterator[StorageServer]:
    """Run one in a folder of its own; with a port for HTTPS it wants a proxy of the test grid's robot at both doors."""
    with factories.open_folder() as root, tempfile.TemporaryDirectory(prefix="panda-xrd-") as run:
        user = unprivileged("xrootd")
        make_folders(root, pki, user)
        key = make_rsa_certificates(root)
        (root / "gridmap").write_text(f'"{pki.dn("ddm")}" robot\n')
        (root / "authdb").write_text("u robot / a\n")
        text = PLAIN + (GUARDED if http_port else "")
        (root / "xrootd.cfg").write_text(text.format(root=root, run=run, port=port, http_port=http_port))
        if os.geteuid() == 0:
            for path in (key, Path(run)):
                shutil.chown(path, user, pwd.getpwnam(user).pw_gid)
        program = shutil.which("xrootd") or "xrootd"
        command = [program, "-c", str(root / "xrootd.cfg"), "-n", "test", "-l", str(root / "log/xrootd.log")]
        url, root_url = f"https://localhost:{http_port}", f"root://localhost:{port}/"
        server = StorageServer(root, url, user, command, http_port or port, as_user=True, root_url=root_url)
        server.clear()
        try:
            server.start()
            yield server
        finally:
            server.stop()
