"""A private Apache with mod_dav on 127.0.0.1, with the certificates of the test grid: a storage endpoint of a kind."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import factories

PATIENCE_S = 60.0
MODULES = Path("/usr/lib/apache2/modules")
PLACES = ("A", "B", "C", "D")

CONFIG = """ServerRoot {root}
ServerName localhost
PidFile {root}/run/httpd.pid
ErrorLog {root}/log/error.log
LogLevel warn
DefaultRuntimeDir {root}/run
Mutex file:{root}/run default
{user}
Listen 127.0.0.1:{port}
StartServers 1
ThreadsPerChild 16
MinSpareThreads 1
MaxRequestWorkers 32
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule dir_module {modules}/mod_dir.so
LoadModule mime_module {modules}/mod_mime.so
LoadModule env_module {modules}/mod_env.so
LoadModule socache_shmcb_module {modules}/mod_socache_shmcb.so
LoadModule dav_module {modules}/mod_dav.so
LoadModule dav_fs_module {modules}/mod_dav_fs.so
LoadModule ssl_module {modules}/mod_ssl.so
LoadModule gridsite_module {modules}/mod_gridsite.so
TypesConfig /dev/null
DocumentRoot {root}/data
DAVLockDB {root}/run/dav-lock
LimitRequestBody 0
DirectorySlash Off
<Directory {root}/data>
  Dav On
  EnableSendfile Off
  Require expr "%{{SSL_CLIENT_VERIFY}} == 'SUCCESS'"
</Directory>
SSLEngine on
SSLCertificateFile {root}/pki/hostcert.pem
SSLCertificateKeyFile {root}/pki/hostkey.pem
SSLCACertificatePath {root}/pki/certificates
SSLCARevocationPath {root}/pki/certificates
SSLCARevocationCheck chain
SSLVerifyClient optional
SSLVerifyDepth 10
SSLSessionCache none
SSLSessionTickets off
SSLOptions +StdEnvVars
GridSiteSessionsDir {root}/run
<Location />
  GridSiteAuth off
  GridSiteIndexes off
  GridSiteEnvs on
  GridSiteGSIProxyLimit 9
</Location>
"""


@dataclass
class StorageServer:
    """A server over the folder `data` of its own folder; tests look into it behind its back."""

    root: Path
    url: str  # of the folder
    user: str
    command: Sequence[str]
    port: int
    process: subprocess.Popen[bytes] | None = None
    as_user: bool = False  # started as that user; else it becomes that user itself
    root_url: str = ""  # of the folder, for root://

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def proxy(self) -> Path:
        """What the server's robot shows."""
        return self.root / "pki/ddm.pem"

    @property
    def certificates(self) -> Path:
        return self.root / "pki/certificates"

    def start(self) -> None:
        told = (
            {"user": self.user, "group": pwd.getpwnam(self.user).pw_gid} if self.as_user and os.geteuid() == 0 else {}
        )
        with (self.root / "log/said.log").open("ab") as said:
            self.process = subprocess.Popen(
                list(self.command), stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
                cwd=self.root, **told,  # type: ignore[call-overload]
            )  # fmt: skip
        wait_until(self.answers, f"{self.command[0]} answers", self.log)

    def answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.log()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
            return True
        return False

    def stop(self) -> None:
        """End it with all its processes."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
            self.process = None

    def own(self, path: Path) -> None:
        """Give a file below `data`, and the folders that lead there, to the server's user."""
        if os.geteuid() == 0:
            for one in [path, *path.parents]:
                if one == self.data:
                    break
                shutil.chown(one, self.user, pwd.getpwnam(self.user).pw_gid)

    def clear(self) -> None:
        """Empty all endpoints."""
        for name in PLACES:
            shutil.rmtree(self.data / name, ignore_errors=True)
            (self.data / name).mkdir()
            self.own(self.data / name)

    def log(self) -> str:
        files = sorted((self.root / "log").rglob("*"))
        return "\n".join(f.read_text(errors="replace")[-3000:] for f in files if f.is_file())


def wait_until(good: Callable[[], bool], what: str, log: Callable[[], str]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not good():
        assert time.monotonic() < end, f"not in {PATIENCE_S:.0f} s: {what}\n{log()}"
        time.sleep(0.05)


def unprivileged(*names: str) -> str:
    """Name the first of these users that there is; ourselves where we are nobody special."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in (*names, "nobody") if name in known)


def make_folders(root: Path, pki: factories.Pki, user: str) -> None:
    """Make what both kinds of servers need below `root`; the user may write where it has to."""
    shutil.copytree(pki.directory, root / "pki")
    (root / "pki").chmod(0o755)
    for name in ("data", "run", "log"):
        (root / name).mkdir()
        if os.geteuid() == 0:
            shutil.chown(root / name, user, pwd.getpwnam(user).pw_gid)


@contextlib.contextmanager
def private_webdav(pki: factories.Pki, port: int) -> Iterator[StorageServer]:
    """Run one in a folder of its own; it ends with all its processes."""
    with factories.open_folder() as root:
        user = unprivileged("www-data")
        make_folders(root, pki, user)
        become = f"User {user}\nGroup #{pwd.getpwnam(user).pw_gid}" if os.geteuid() == 0 else ""
        config = CONFIG.format(root=root, port=port, user=become, modules=MODULES)
        (root / "httpd.conf").write_text(config)
        program = shutil.which("apache2", path=f"{os.environ['PATH']}:/usr/sbin") or "apache2"
        command = [program, "-f", str(root / "httpd.conf"), "-DFOREGROUND"]
        server = StorageServer(root, f"https://localhost:{port}", user, command, port)
        server.clear()
        try:
            server.start()
            yield server
        finally:
            server.stop()
