"""The distribution says in a file what Python would otherwise leave out in silence."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

import pytest

from schedulers.batch import load
from schedulers.batch.fork import ForkBatch, open_batch
from schedulers.batch.protocol import BatchSettings
from schedulers.errors import ConfigError

FOLDER = Path(__file__).parents[2] / "schedulers"
SOURCES = [path for path in FOLDER.rglob("*.py") if "build" not in path.relative_to(FOLDER).parts]


@pytest.fixture
def declared() -> ConfigParser:
    parser = ConfigParser()
    parser.read(FOLDER / "setup.cfg")
    return parser


def test_every_package_is_listed(declared):
    there = {path.parent for path in SOURCES if path.name == "__init__.py"}
    names = {".".join(("schedulers", *path.relative_to(FOLDER).parts)) for path in there}
    assert set(declared["options"]["packages"].split()) == names
    assert not (FOLDER / "setup.py").exists(), "it would be shipped as a module"


def test_the_command_and_the_back_end_are_declared(declared):
    points = declared["options.entry_points"]
    assert points["console_scripts"].strip() == "panda-scheduler = schedulers.main:main"
    assert points["panda.batch"].strip() == "fork = schedulers.batch.fork:open_batch"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_nothing_of_the_other_packages_is_imported(path):
    assert not re.search(r"(?m)^\s*(from|import) (pandaserver|pandapilot|pandamonitor)\b", path.read_text())


def test_the_built_in_back_end_opens_without_installation(tmp_path):
    settings = BatchSettings(tmp_path, "me", slots={})
    assert isinstance(load.open_batch_system("fork", settings), ForkBatch)


def test_a_back_end_of_an_installed_package_is_found(tmp_path, monkeypatch):
    settings = BatchSettings(tmp_path, "me", slots={})

    class Entry:
        name = "ours"

        @staticmethod
        def load():
            return open_batch

    def entry_points(*, group: str, name: str = "ours") -> list[type[Entry]]:
        return [Entry] if (group, name) == ("panda.batch", "ours") else []

    monkeypatch.setattr(load, "entry_points", entry_points)
    assert isinstance(load.open_batch_system("ours", settings), ForkBatch)
    assert load.known_back_ends() == ("fork", "ours")
    with pytest.raises(ConfigError, match="back_end = theirs: no such back end; known here: fork, ours"):
        load.open_batch_system("theirs", settings)
