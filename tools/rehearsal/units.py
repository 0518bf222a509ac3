"""Reads unit files as systemd does: what a unit runs, as whom, and with which environment.

It goes into the rehearsed machine together with its systemctl, so both use the standard library only.
"""

from __future__ import annotations

import pwd
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

UNIT_FOLDERS = (Path("/etc/systemd/system"), Path("/run/systemd/system"), Path("/usr/lib/systemd/system"))
STATE = Path("/run/rehearsal-units")
JOURNAL = Path("/var/log/rehearsal-units")
_YES = ("yes", "true", "on", "1")
PREFIXES = "@-:+!"
_STOP_S = 90.0
SHELL_VARIABLES = "rehearsal-environment"


class UnitError(Exception):
    """A unit cannot do what it is told; the text says why."""


@dataclass(frozen=True)
class Unit:
    """A unit file with its drop-ins: each section's keys with all their values."""

    name: str
    sections: Mapping[str, Mapping[str, list[str]]]

    def all(self, key: str, section: str = "Service") -> list[str]:
        """Give all values of a key."""
        return [self._specific(value) for value in self.sections.get(section, {}).get(key, [])]

    def one(self, key: str, default: str = "", section: str = "Service") -> str:
        """Give the value that counts: the last."""
        return (self.all(key, section) or [default])[-1]

    def _specific(self, value: str) -> str:
        instance = self.name.partition("@")[2].rpartition(".")[0]
        return value.replace("%%", "\0").replace("%i", instance).replace("%n", self.name).replace("\0", "%")

    def says(self, key: str) -> bool:
        """Tell whether a key is set to yes, in one of its spellings."""
        return self.one(key).lower() in _YES

    @property
    def kind(self) -> str:
        """Tell how it says that it is ready."""
        return self.one("Type", "simple")

    @property
    def stop_s(self) -> float:
        """Tell how long it may take to stop."""
        text = self.one("TimeoutStopSec", str(_STOP_S))
        return float(text) if text.replace(".", "").isdigit() else _STOP_S

    @property
    def is_timer(self) -> bool:
        """Tell whether it is a clock for another unit."""
        return self.name.endswith(".timer")


# ---- unit files


def full_name(name: str) -> str:
    """Add what may be left out."""
    return name if name.endswith((".service", ".timer")) else f"{name}.service"


def parse(text: str, sections: dict[str, dict[str, list[str]]]) -> None:
    """Add a unit file to what is known; an empty value forgets the ones before, as with systemd."""
    section = ""
    for line in text.replace("\\\n", " ").splitlines():
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        if line.startswith("["):
            section = line.strip("[]")
            continue
        key, _, value = (part.strip() for part in line.partition("="))
        values = sections.setdefault(section, {}).setdefault(key, [])
        if value:
            values.append(value)
        else:
            values.clear()


def load(name: str, folders: tuple[Path, ...] = UNIT_FOLDERS) -> Unit:
    """Read a unit; of NAME@INSTANCE the template NAME@.

    Raises:
        UnitError: there is none.
    """
    unit_name = full_name(name)
    stem, _, suffix = unit_name.rpartition(".")
    template = f"{stem.partition('@')[0]}@.{suffix}" if "@" in stem else unit_name
    for folder in folders:
        for candidate in (folder / unit_name, folder / template):
            if candidate.is_file():
                return Unit(unit_name, _with_drop_ins(candidate, (unit_name, template), folders))
    raise UnitError(f"Unit {unit_name} not found.")


def _with_drop_ins(path: Path, names: tuple[str, str], folders: tuple[Path, ...]) -> dict[str, dict[str, list[str]]]:
    sections: dict[str, dict[str, list[str]]] = {}
    parse(path.read_text(encoding="utf-8"), sections)
    for extra in sorted({each for folder in folders for name in names for each in folder.glob(f"{name}.d/*.conf")}):
        parse(extra.read_text(encoding="utf-8"), sections)
    return sections


@dataclass(frozen=True)
class Command:
    """A line of a unit, as words; `may_fail` and `as_root` are its first characters."""

    words: list[str]
    may_fail: bool = False
    as_root: bool = False


def command(line: str, variables: Mapping[str, str]) -> Command:
    """Split a line into words; $NAME as a word of its own becomes as many words as it has."""
    flags = line[: len(line) - len(line.lstrip(PREFIXES))]
    words = list[str]()
    for word in shlex.split(line[len(flags) :]):
        if word.startswith("$") and word[1:].replace("_", "a").isalnum():
            words += variables.get(word[1:], "").split()
        else:
            for name, value in variables.items():
                word = word.replace(f"${{{name}}}", value)
            words.append(word)
    return Command(words, "-" in flags, "+" in flags or "!" in flags)


# ---- the environment of a unit


def environment(unit: Unit, state: Path = STATE) -> dict[str, str]:
    """Give the variables of a unit: no more than systemd gives."""
    user = unit.one("User", "root")
    home = pwd.getpwnam(user).pw_dir
    values = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "LANG": "C.UTF-8", "USER": user,
              "LOGNAME": user, "HOME": home, "SYSTEMD_EXEC_PID": ""}  # fmt: skip
    for line in unit.all("Environment"):
        values |= dict(word.split("=", 1) for word in shlex.split(line))
    for name in unit.all("EnvironmentFile"):
        path = Path(name.lstrip("-"))
        if path.is_file() or not name.startswith("-"):
            values |= assignments(path.read_text(encoding="utf-8"))
    set_by_hand = state / SHELL_VARIABLES
    return values | (assignments(set_by_hand.read_text(encoding="utf-8")) if set_by_hand.exists() else {})


def assignments(text: str) -> dict[str, str]:
    """Read lines of NAME=value."""
    lines = [line for line in text.splitlines() if "=" in line and not line.lstrip().startswith("#")]
    return {line.partition("=")[0].strip(): line.partition("=")[2].strip().strip("\"'") for line in lines}


def working_directory(unit: Unit) -> str:
    """Give the folder in which a unit starts; ~ is its user's home."""
    told = unit.one("WorkingDirectory", "/").removeprefix("-")
    return pwd.getpwnam(unit.one("User", "root")).pw_dir if told == "~" else told


def sandbox(unit: Unit) -> list[str]:
    """Give the words before a command that hide and protect what the unit says."""
    steps = list[str]()
    protected = {"yes": ["/usr", "/boot"], "full": ["/usr", "/boot", "/etc"], "strict": ["/"]}
    for path in protected.get("yes" if unit.says("ProtectSystem") else unit.one("ProtectSystem"), []):
        steps += [f"mount --bind {path} {path}", f"mount -o remount,bind,ro {path}"]
    home = "yes" if unit.says("ProtectHome") else unit.one("ProtectHome")
    for path in ["/home", "/root"] if home in ("yes", "read-only") else []:
        how = ["mount -t tmpfs -o ro,mode=0 tmpfs"] if home == "yes" else [f"mount --bind {path}"]
        steps += [f"{how[0]} {path}", *([f"mount -o remount,bind,ro {path}"] if home == "read-only" else [])]
    if unit.says("PrivateTmp"):
        steps += ["mount -t tmpfs -o mode=1777 tmpfs /tmp", "mount -t tmpfs -o mode=1777 tmpfs /var/tmp"]
    if not steps:
        return []
    script = " && ".join([*steps, 'exec "$@"'])
    return ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", script, "sh"]


def identity(unit: Unit) -> list[str]:
    """Give the words before a command that make it another user's."""
    user, group = unit.one("User", "root"), unit.one("Group")
    words = ["setpriv"]
    if user != "root":
        words += [f"--reuid={user}", f"--regid={group or pwd.getpwnam(user).pw_gid}", "--init-groups"]
    if unit.says("NoNewPrivileges"):
        words.append("--no-new-privs")
    return [*words, "--"] if len(words) > 1 else []
