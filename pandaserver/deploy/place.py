"""Puts the files of a plan in place, or says what it would do."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from pandaserver.deploy.plan import File, Folder, Link, Plan
from pandaserver.errors import ConfigError

_SECRET = 0o640  # configuration holds passwords
_PUBLIC = 0o644


@dataclass(frozen=True)
class Step:
    """One thing that is done, or would be."""

    path: Path
    act: str  # made, written, changed, unchanged, kept, linked


def place(plan: Plan, *, group: str, dry_run: bool = False) -> list[Step]:
    """Bring the system to the plan; what is right already is not touched, and what is the operator's never.

    Raises:
        ConfigError: a folder or file cannot be written, or a user is not there.
    """
    try:
        steps = [_folder(folder, dry_run) for folder in plan.folders]
        steps += [_file(file, group, dry_run) for file in plan.files]
        return steps + [_link(link, dry_run) for link in plan.links]
    except OSError as error:
        text = f"{error.filename}: {error.strerror}; run as root, or with --prefix and a folder of your own"
        raise ConfigError(text, field="prefix", value=error.filename) from error


def _folder(folder: Folder, dry_run: bool) -> Step:
    if folder.path.is_dir():
        return Step(folder.path, "unchanged")
    if not dry_run:
        folder.path.mkdir(parents=True)
        folder.path.chmod(folder.mode)
        _give(folder.path, folder.owner, folder.group)
    return Step(folder.path, "made")


def _file(file: File, group: str, dry_run: bool) -> Step:
    there = file.path.exists()
    if there and file.kept:
        return Step(file.path, "kept")
    if there and file.path.read_text(encoding="utf-8") == file.text:
        return Step(file.path, "unchanged")
    if not dry_run:
        _write(file, group)
    return Step(file.path, "changed" if there else "written")


def _write(file: File, group: str) -> None:
    """Write a file that nobody sees half done, nor for an instant with a wider mode than it shall have."""
    draft = file.path.with_name(f".{file.path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(file.text)
        opened.flush()
        os.fchmod(opened.fileno(), _SECRET if file.secret else _PUBLIC)
    if file.secret:
        _give(draft, "root", group)
    draft.replace(file.path)


def _link(link: Link, dry_run: bool) -> Step:
    if link.path.is_symlink() or link.path.exists():
        return Step(link.path, "unchanged")
    if not dry_run:
        link.path.parent.mkdir(parents=True, exist_ok=True)
        link.path.symlink_to(link.target)
    return Step(link.path, "linked")


def _give(path: Path, owner: str, group: str) -> None:
    """Change the owner, where we may; an ordinary user keeps what he makes."""
    if os.geteuid() == 0:
        try:
            os.chown(path, pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid)
        except KeyError as error:
            text = f"{path}: {error.args[0]}; make it with useradd --system --home-dir /var/lib/panda panda"
            raise ConfigError(text, field="user", value=owner) from error
