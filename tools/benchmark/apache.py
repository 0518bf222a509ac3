"""An Apache of its own in a folder, as `panda-server install --prefix` puts it in place."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
USER = "www-data" if os.geteuid() == 0 else Path.home().owner()
_SBIN = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])


def is_user() -> bool:
    """Say whether the user exists as whom Apache and the server run."""
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwnam(USER))
    return False


@dataclass(frozen=True)
class Ports:
    """Where it listens; no monitor without a port for it."""

    tls: int
    plain: int
    monitor: int | None = None


@dataclass(frozen=True)
class Apache:
    """What is in the folder, and the processes that come of it."""

    root: Path

    @property
    def conf(self) -> Path:
        """Give the main file of its configuration."""
        return self.root / "etc/panda/httpd.conf"

    def command(self, action: str, *more: str) -> list[str]:
        """Give the command that starts, stops or reloads it, as apachectl would.

        Raises:
            FileNotFoundError: Apache is not installed.
        """
        found = shutil.which("apache2", path=_SBIN) or shutil.which("httpd", path=_SBIN)
        if not found:
            raise FileNotFoundError("Apache is not installed: tools/test installs it")
        return [found, "-f", str(self.conf), *more, "-k", action]

    def pid(self) -> int:
        """Give the parent of all its processes."""
        return int((self.root / "run/apache2/httpd.pid").read_text())

    def processes(self) -> dict[int, str]:
        """Give all its processes with what they are called, the parent among them."""
        found = {}
        for place in Path("/proc").iterdir():
            if place.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if str(self.conf) in words and (place / "comm").read_text().strip() in ("apache2", "httpd"):
                        found[int(place.name)] = words
        return found

    def daemons(self) -> list[int]:
        """Give the processes in which PanDA's application lives."""
        return sorted(pid for pid, words in self.processes().items() if words.startswith("(wsgi:panda)"))

    def log(self) -> str:
        """Give the end of what it complained about."""
        logs = sorted((self.root / "var/log/apache2").glob("*error.log"))
        return "\n".join(path.read_text(errors="replace")[-3000:] for path in logs)


def install_options(root: Path, ports: Ports, pki: Path) -> list[str]:
    """Give the options of `panda-server install` for a folder with certificates of tools/make-certs."""
    told = {
        "prefix": root, "layout": "debian", "user": USER, "group": USER, "address": "127.0.0.1",
        "tls-port": ports.tls, "plain-port": ports.plain, "monitor-port": ports.monitor,
        "host-cert": pki / "hostcert.pem", "host-key": pki / "hostkey.pem", "ca-dir": pki / "certificates",
    }  # fmt: skip
    return [word for name, value in told.items() if value is not None for word in (f"--{name}", str(value))]


def panda_server(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run panda-server of this tree in a folder."""
    run = [sys.executable, "-W", "error", "-m", "pandaserver.command", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(run, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def give_to_server(path: Path) -> None:
    """Let the server's user own a folder and all below it; an ordinary user's server is his own already."""
    if os.geteuid() == 0:
        for each in (path, *path.rglob("*")):
            shutil.chown(each, USER, USER)
