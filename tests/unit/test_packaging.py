"""Guards of the four distributions: what is declared is what is there, and nobody imports what he must not."""

from __future__ import annotations

import configparser
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from setuptools import find_packages

ROOT = Path(__file__).resolve().parents[2]
VERSION = re.compile(r'^__version__ = "(\d+\.\d+\.\d+)"$', re.MULTILINE)


@dataclass(frozen=True)
class Distribution:
    """Where a distribution is declared, and the import name of its package."""

    name: str
    package: str
    folder: Path

    def declaration(self) -> configparser.ConfigParser:
        parser = configparser.ConfigParser()
        parser.read_string((self.folder / "setup.cfg").read_text(encoding="utf-8"))
        return parser

    def lines(self, section: str, option: str) -> list[str]:
        return [line for line in self.declaration()[section][option].splitlines() if line and not line.startswith("#")]

    def source(self) -> Path:
        return ROOT / self.package


SERVER = Distribution("pandaserver", "pandaserver", ROOT)
SEPARATE = [
    Distribution("pandapilot", "pandapilot", ROOT / "pandapilot"),
    Distribution("pandaschedulers", "schedulers", ROOT / "schedulers"),
    Distribution("pandamonitor", "pandamonitor", ROOT / "pandamonitor"),
]
ALL = [SERVER, *SEPARATE]
COMMANDS = {
    "pandaserver": {"panda": "pandaserver.client.main:main", "panda-server": "pandaserver.command:main"},
    "pandapilot": {"panda-pilot": "pandapilot.main:main"},
    "pandaschedulers": {"panda-scheduler": "schedulers.main:main"},
    "pandamonitor": {"panda-monitor": "pandamonitor.main:main"},
}


def by_name(distribution: Distribution) -> str:
    return distribution.name


each_separate = pytest.mark.parametrize("distribution", SEPARATE, ids=by_name)
each = pytest.mark.parametrize("distribution", ALL, ids=by_name)


# --- what a wheel holds ---


@each_separate
def test_every_sub_package_is_listed(distribution: Distribution) -> None:
    """One that is left out is missing from the wheel, without a word."""
    found = [f"{distribution.package}.{name}" for name in find_packages(str(distribution.folder))]
    assert sorted(distribution.lines("options", "packages")) == sorted([distribution.package, *found])


@each
def test_every_folder_with_modules_is_a_package(distribution: Distribution) -> None:
    folders = {path.parent for path in distribution.source().rglob("*.py") if "build" not in path.parts}
    without = sorted(
        str(folder.relative_to(ROOT))
        for folder in folders
        if "migrations" not in folder.parts and not (folder / "__init__.py").is_file()
    )
    assert without == []


def test_the_server_takes_nothing_of_the_others() -> None:
    include = SERVER.lines("options.packages.find", "include")
    found = find_packages(str(ROOT), include=include)
    assert "pandaserver" in found
    assert {name.partition(".")[0] for name in found} == {"pandaserver"}


@each
def test_declared_data_files_match_something_and_nothing_is_forgotten(distribution: Distribution) -> None:
    """Whatever is no Python module has to be named in package_data, or an installed package lacks it."""
    declared: set[Path] = set()
    parser = distribution.declaration()
    for package in parser["options.package_data"] if parser.has_section("options.package_data") else ():
        folder = distribution.source().joinpath(*package.split(".")[1:])
        for pattern in distribution.lines("options.package_data", package):
            declared |= set(folder.glob(pattern))
    assert sorted(str(path.relative_to(ROOT)) for path in data_files(distribution) - declared) == []


def data_files(distribution: Distribution) -> set[Path]:
    ignored = {"build", "__pycache__", ".ruff_cache", ".mypy_cache", "dist"}
    packaging = {
        distribution.folder / name for name in ("setup.cfg", "pyproject.toml", "ruff.toml", "README.md", "LICENSE")
    }
    return {
        path
        for path in distribution.source().rglob("*")
        if path.is_file()
        and path.suffix not in (".py", ".pyc")
        and path not in packaging
        and not ignored & set(path.parts)
        and not any(part.endswith(".egg-info") for part in path.parts)
    }


@each_separate
def test_no_setup_py_inside(distribution: Distribution) -> None:
    """It would be shipped as a module of the package."""
    assert not (distribution.folder / "setup.py").exists()


@each_separate
def test_the_build_system_is_three_lines(distribution: Distribution) -> None:
    text = (distribution.folder / "pyproject.toml").read_text(encoding="utf-8")
    assert text.splitlines()[0] == "[build-system]"
    assert "setuptools.build_meta" in text
    assert len(text.split("\n[")) == 1


def test_root_setup_py_calls_setup_and_nothing_else() -> None:
    code = (ROOT / "setup.py").read_text(encoding="utf-8").partition('"""\n')[2]
    assert code.split() == ["from", "setuptools", "import", "setup", "setup()"]


def test_root_pyproject_holds_build_system_and_ruff_only() -> None:
    sections = re.findall(r"^\[+([\w.-]+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert {name for name in sections if name != "build-system" and not name.startswith("tool.ruff")} == set()


# --- names and versions ---


@each
def test_distribution_name(distribution: Distribution) -> None:
    assert distribution.declaration()["metadata"]["name"] == distribution.name


@each
def test_version_is_read_from_the_package(distribution: Distribution) -> None:
    assert distribution.declaration()["metadata"]["version"] == f"attr: {distribution.package}.__version__"


def test_all_versions_are_equal() -> None:
    found = {each.name: VERSION.findall((each.source() / "__init__.py").read_text(encoding="utf-8")) for each in ALL}
    assert all(len(versions) == 1 for versions in found.values()), found
    assert len({versions[0] for versions in found.values()}) == 1, found


@each
def test_no_module_is_named_like_one_of_the_standard_library(distribution: Distribution) -> None:
    """Commands that run inside the folder would import it in place of the right one."""
    modules = [path for path in distribution.source().rglob("*.py") if "build" not in path.parts]
    names = {path.stem if path.stem != "__init__" else path.parent.name for path in modules}
    assert names & set(sys.stdlib_module_names) - {"__main__"} == set()


@each
def test_commands_are_those_of_the_documents(distribution: Distribution) -> None:
    assert commands(distribution) == COMMANDS[distribution.name]


def commands(distribution: Distribution) -> dict[str, str]:
    lines = distribution.lines("options.entry_points", "console_scripts")
    return {name.strip(): target.strip() for name, _, target in (line.partition("=") for line in lines)}


@pytest.mark.parametrize("target", [target for each in COMMANDS.values() for target in each.values()])
def test_command_leads_to_a_function(target: str) -> None:
    module, _, name = target.partition(":")
    assert callable(getattr(importlib.import_module(module), name))


@each_separate
def test_entry_points_lead_somewhere(distribution: Distribution) -> None:
    for group in distribution.declaration()["options.entry_points"]:
        for line in distribution.lines("options.entry_points", group):
            module, _, name = line.partition("=")[2].strip().partition(":")
            assert hasattr(importlib.import_module(module), name), line


# --- who may import whom ---

# Where it is planted, what is planted, and the contract that has to notice.
WRONG_IMPORTS = [
    ("pandaserver/taskbuffer/planted.py", "import pandaserver.web", "rooms"),
    ("pandaserver/web/planted.py", "import pandaserver.background", "rooms"),
    ("pandaserver/model/planted.py", "import pandaserver.taskbuffer", "rooms"),
    ("pandaserver/errors.py", "import pandaserver.model", "rooms"),
    ("pandaserver/newroom.py", "import pandaserver.model", "rooms"),
    ("pandaserver/web/planted.py", "import pandaserver.client", "rooms"),
    ("pandaserver/client/planted.py", "import pandaserver.taskbuffer", "client"),
    ("pandapilot/planted.py", "import pandaserver.model", "wire"),
    ("schedulers/planted.py", "import pandapilot", "wire"),
    ("pandaserver/web/planted.py", "import schedulers", "wire"),
    ("pandamonitor/planted.py", "import pandapilot", "window"),
    ("schedulers/planted.py", "import pandamonitor", "window"),
    ("pandamonitor/planted.py", "import pandaserver.web", "monitor"),
    ("pandaserver/web/planted.py", "import pandamonitor", "unwatched"),
    ("pandaserver/web/planted.py", "import sqlalchemy", "database"),
    ("pandamonitor/planted.py", "import pymysql", "database"),
]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "300"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources and of the rules."""
    copy = tmp_path_factory.mktemp("tree")
    shutil.copy(ROOT / "setup.cfg", copy)
    for distribution in ALL:
        unwanted = shutil.ignore_patterns("build", "__pycache__", "*.egg-info")
        shutil.copytree(distribution.source(), copy / distribution.package, ignore=unwanted)
    return copy


@contextmanager
def planted(tree: Path, *, path: str, statement: str) -> Iterator[None]:
    """Add a line to a module of the copy, or a module, for as long as the block lasts."""
    module = tree / path
    before = module.read_text(encoding="utf-8") if module.exists() else None
    module.write_text(f"{before or ''}\n{statement}\n", encoding="utf-8")
    try:
        yield
    finally:
        module.unlink()
        if before is not None:
            module.write_text(before, encoding="utf-8")


def test_all_imports_keep_to_the_layers(tree: Path) -> None:
    done = lint_imports(tree)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("path", "statement", "contract"), WRONG_IMPORTS)
def test_a_wrong_import_is_found(tree: Path, path: str, statement: str, contract: str) -> None:
    name = SERVER.declaration()[f"importlinter:contract:{contract}"]["name"]
    with planted(tree, path=path, statement=statement):
        done = lint_imports(tree)
    assert done.returncode == 1
    assert f"{name} BROKEN" in done.stdout, done.stdout + done.stderr


# --- what is committed ---

# Written so that this file does not match itself.
FORBIDDEN = {
    "a path of one machine": re.compile(r"(?<![\w./:-])/(?:work|root|home/(?!panda\b)\w+|Users)/\w"),
    "a package index": re.compile(
        r"(?:extra-)?index[-_]url\s*=|trusted[-]host|find[-]links|//[\w.-]+/(?:simple|pypi)/"
    ),
    "a container registry": re.compile(r"\b(?:docker\.io|ghcr\.io|quay\.io|gcr\.io|registry\.[\w-]+\.\w+)\b"),
}


def committed_files() -> list[Path]:
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_no_committed_text_names_a_machine_or_a_registry() -> None:
    findings = []
    for path in committed_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            findings += [
                f"{path.relative_to(ROOT)}:{number}: {what}" for what, rule in FORBIDDEN.items() if rule.search(line)
            ]
    assert findings == []


@pytest.mark.parametrize(
    "line",
    ["see /" + "work/main/x", "cd /" + "root/panda", "extra-index" + "-url = https://x", "FROM ghcr" + ".io/x"],
)
def test_the_rules_find_what_they_shall(line: str) -> None:
    assert any(rule.search(line) for rule in FORBIDDEN.values())


@pytest.mark.parametrize(
    "line", ["tmp/work/main", "https://example.org/work/x", "/home/panda/site", "an index of urls"]
)
def test_the_rules_leave_the_rest_alone(line: str) -> None:
    assert not any(rule.search(line) for rule in FORBIDDEN.values())


def test_the_licence_is_there() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "Version 2.0, January 2004" in text
    assert SERVER.declaration()["metadata"]["license"] == "Apache-2.0"
