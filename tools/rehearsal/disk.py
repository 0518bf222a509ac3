"""Makes the disk of the rehearsed machine: a fresh Debian, and on it what an operator brings along."""

from __future__ import annotations

import configparser
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from rehearsal.machine import RehearsalError

SUITE, PYTHON = "bookworm", "3.11"  # Debian 12
NAME = "panda.example.org"
INSIDE = "/usr/local/lib/rehearsal"  # where the machine finds what stands in for systemd
_DISTRIBUTIONS = ("", "pandapilot", "schedulers", "pandamonitor")
_WHEEL_PLATFORMS = ("manylinux2014", "manylinux_2_28", "manylinux_2_34", "manylinux_2_17")
_OWN_TOOLS = ("__init__.py", "units.py", "systemctl.py", "submitter.py", "balancer.py")
_SMALLER = ("path-exclude=/usr/share/man/*", "path-exclude=/usr/share/locale/*", "path-exclude=/usr/share/doc/*")

Say = Callable[[str], None]


def make_disk(root: Path, *, source: Path, say: Say) -> None:
    """Make everything that is there before the first command of the page.

    Raises:
        RehearsalError: it cannot be made.
    """
    say("a fresh Debian")
    make_debian(root, sources_of_apt())
    say("Python packages")
    fetch_wheels(source, root / "wheels")
    copy_tree(source, root / "root/panda")
    put_tools(root)
    say("an authority, certificates, VOMS")
    put_certificates(root)


# ---- Debian


def sources_of_apt() -> list[str]:
    """Ask apt on this machine where it has Debian 12 from."""
    form = "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    words = ["apt-get", "indextargets", "--format", form, "Identifier: Packages"]
    found = sorted({line for line in _call(words).splitlines() if line.split()[2].startswith(SUITE)})
    if not found:
        raise RehearsalError(f"apt on this machine knows no {SUITE}: it is needed in /etc/apt/sources.list.d")
    return found


def settings_of_apt() -> list[str]:
    """Give what apt on this machine was told about the way to its mirror."""
    lines = _call(["apt-config", "dump", "Acquire::http", "Acquire::https"]).splitlines()
    return [line for line in lines if not line.endswith('"";')]


def make_debian(root: Path, sources: list[str]) -> None:
    """Unpack Debian as a minimal installation has it, with no service started by a package."""
    options = [f"--aptopt={each}" for each in ('APT::Get::Assume-Yes "true"', *settings_of_apt())]
    options += [f"--dpkgopt={each}" for each in _SMALLER]
    words = ["mmdebstrap", "--quiet", "--variant=important", *options, "", str(root), "-"]
    _call(words, told="\n".join(sources) + "\n")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.0.1 {NAME}\n", encoding="utf-8")
    (root / "etc/hostname").write_text(f"{NAME}\n", encoding="utf-8")
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    write_program(root / "usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n")


def write_program(path: Path, text: str) -> None:
    """Write a file that can be executed."""
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


# ---- what the operator brings along


def requirements(source: Path) -> list[str]:
    """Read what the four distributions need, from their declarations."""
    wanted = ["setuptools>=68", "wheel"]
    for folder in _DISTRIBUTIONS:
        declared = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=("#",))
        declared.read(source / folder / "setup.cfg", encoding="utf-8")
        wanted += declared["options"]["install_requires"].split("\n")
    return sorted({each.strip() for each in wanted if each.strip() not in ("", "pandaserver")})


def fetch_wheels(source: Path, folder: Path) -> None:
    """Fetch the Python packages as this machine has them, for the machine that will have no network."""
    machine = platform.machine()
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:", "--python-version", PYTHON]
    words += [word for name in _WHEEL_PLATFORMS for word in ("--platform", f"{name}_{machine}")]
    _call([*words, "--dest", str(folder), *requirements(source)])


def copy_tree(source: Path, target: Path) -> None:
    """Copy the sources as an operator would get them: what belongs to the tree, and nothing that lies about."""
    if (source / ".git").exists():
        words = ["git", "-C", str(source), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        names = [Path(name) for name in _call(words).split("\0") if name]
    else:
        names = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
    for name in names:
        if (source / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)


def put_tools(root: Path) -> None:
    """Put in what the rehearsal needs inside."""
    package = root / INSIDE.lstrip("/") / "rehearsal"
    package.mkdir(parents=True)
    for name in _OWN_TOOLS:
        shutil.copy(Path(__file__).with_name(name), package / name)
    script = f'#!/bin/sh\nPYTHONPATH={INSIDE} exec /usr/bin/python3 -m rehearsal.systemctl "$@"\n'
    write_program(root / "usr/local/sbin/systemctl", script)


def put_certificates(root: Path) -> None:
    """Make a grid for a test, and put things where grid sites have them."""
    made, grid, home = root / "root/pki", root / "etc/grid-security", root / "root"
    _call([sys.executable, str(Path(__file__).parents[1] / "make-certs"), str(made), "--all", "--host", NAME])
    shutil.copytree(made / "certificates", grid / "certificates")
    shutil.copytree(made / "vomsdir", grid / "vomsdir")
    for name in ("hostcert.pem", "hostkey.pem"):
        shutil.copy2(made / name, grid / name)
    for old, new in (("ddmcert", "robotcert"), ("ddmkey", "robotkey"), ("pilot", "pilot-proxy")):
        shutil.copy2(made / f"{old}.pem", home / f"{new}.pem")


def _call(words: list[str], told: str = "") -> str:
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(words, input=told, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise RehearsalError(f"{error.filename} is not installed") from error
    if done.returncode:
        raise RehearsalError(f"{words[0]} failed: {re.sub(r'(?m)^', '  ', (done.stdout + done.stderr)[-3000:])}")
    return done.stdout
