"""The tools that prepare the environment, run the tests and check the tree."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"


@pytest.fixture
def venv(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("_venv.py", monkeypatch)


@pytest.fixture
def test_tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("test", monkeypatch)


@pytest.fixture
def check_tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("check", monkeypatch)


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import a tool, with or without suffix, afresh."""
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = importlib.machinery.SourceFileLoader(f"tool_{name.removesuffix('.py')}", str(TOOLS / name))
    specification = importlib.util.spec_from_loader(loader.name, loader)
    assert specification is not None
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, loader.name, module)
    loader.exec_module(module)
    return module


# --- the environment ---


@pytest.fixture
def tree(venv: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree of packaging files only, and an environment with a stamp that fits."""
    for folder in (tmp_path / "tree", *(tmp_path / "tree" / name for name in venv.SUBFOLDERS)):
        folder.mkdir()
        for name in ("setup.cfg", "pyproject.toml"):
            (folder / name).write_text(f"[{folder.name}]\n", encoding="utf-8")
    monkeypatch.setattr(venv, "ROOT", tmp_path / "tree")
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "python").symlink_to(sys.executable)
    stamp(venv, tmp_path / "env")
    return tmp_path / "tree"


def stamp(venv: ModuleType, directory: Path) -> None:
    venv.stamp_file(directory).write_text(venv.fingerprint(directory), encoding="utf-8")


def test_environment_is_ready_when_nothing_has_changed(venv: ModuleType, tree: Path) -> None:
    assert venv.is_ready(tree.parent / "env")


@pytest.mark.parametrize("changed", ["setup.cfg", "pyproject.toml", "pandapilot/setup.cfg", "schedulers/setup.cfg"])
def test_environment_is_stale_when_a_declaration_changes(venv: ModuleType, tree: Path, changed: str) -> None:
    (tree / changed).write_text("[other]\n", encoding="utf-8")
    assert not venv.is_ready(tree.parent / "env")


def test_environment_is_stale_when_its_python_changes(venv: ModuleType, tree: Path) -> None:
    python = tree.parent / "env" / "bin" / "python"
    python.unlink()
    python.symlink_to("/bin/sh")
    assert not venv.is_ready(tree.parent / "env")


def test_environment_made_by_hand_is_not_ready(venv: ModuleType, tree: Path) -> None:
    venv.stamp_file(tree.parent / "env").unlink()
    assert not venv.is_ready(tree.parent / "env")


def test_incomplete_checkout(venv: ModuleType, tree: Path) -> None:
    (tree / "schedulers" / "setup.cfg").unlink()
    with pytest.raises(venv.SetupError, match=r"schedulers/setup.cfg: No such file"):
        venv.fingerprint(tree.parent / "env")


def test_environment_variable_names_the_directory(
    venv: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANDA_VENV", str(tmp_path))
    assert venv.environment_directory() == tmp_path
    monkeypatch.setenv("PANDA_VENV", "")
    assert venv.environment_directory() == ROOT / ".venv"


def test_only_one_tool_at_a_time_prepares_it(
    venv: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order = []
    started = threading.Event()

    def second() -> None:
        started.set()
        with venv.locked(tmp_path):
            order.append("second")

    with venv.locked(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        started.wait()
        thread.join(timeout=0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert "waiting for another tool" in capsys.readouterr().err


@pytest.mark.parametrize("made_before", [True, False])
def test_build_makes_and_installs_and_leaves_the_stamp(
    venv: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch, made_before: bool
) -> None:
    environment = tree.parent / "env"
    venv.stamp_file(environment).unlink()
    done: list[str] = []
    monkeypatch.setattr(venv, "answers", lambda *_: made_before)
    monkeypatch.setattr(venv, "create", lambda directory: done.append(f"create {directory.name}"))
    monkeypatch.setattr(venv, "install", lambda python: done.append("install"))
    venv.build(environment)
    assert done == (["install"] if made_before else ["create env", "install"])
    assert venv.is_ready(environment)


def test_failed_installation_leaves_no_stamp(venv: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = tree.parent / "env"
    venv.stamp_file(environment).unlink()
    monkeypatch.setattr(venv, "answers", lambda *_: True)
    monkeypatch.setattr(venv, "run_showing_progress", lambda command: (1, ["ERROR: no space left"]))
    with pytest.raises(venv.SetupError, match="no space left"):
        venv.build(environment)
    assert not venv.stamp_file(environment).exists()


def test_all_four_distributions_are_installed(venv: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(venv, "run_showing_progress", lambda command: commands.append(command) or (0, []))
    venv.install(Path(sys.executable))
    [command] = commands
    editable = [word for before, word in itertools.pairwise(command) if before == "-e"]
    assert editable == [f"{ROOT}[test,demo]", *(str(ROOT / name) for name in venv.SUBFOLDERS)]
    assert "pythia8mc" in command[command.index("--only-binary") + 1]


def test_progress_names_what_is_installed(venv: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; print('Collecting numpy'); print('noise'); print('ERROR: x', file=sys.stderr); sys.exit(3)"
    returncode, lines = venv.run_showing_progress([sys.executable, "-c", code])
    assert returncode == 3 and {"Collecting numpy", "noise", "ERROR: x"} == set(lines)
    shown = capsys.readouterr().err
    assert "Collecting numpy" in shown and "noise" not in shown


# --- the choice of the interpreter ---


def choose(venv: ModuleType, monkeypatch: pytest.MonkeyPatch, *, root: bool, works: set[tuple[str, str]]) -> list[str]:
    """Let the tool choose among interpreters that answer these (python, word of the statement); note installations."""
    installed: list[str] = []

    def answers(python: str, statement: str) -> bool:
        if "ensurepip" in statement and python == venv.SYSTEM_PYTHON and "python3-venv" in installed:
            return True
        return any(python == name and word in statement for name, word in works)

    monkeypatch.setattr(venv, "answers", answers)
    monkeypatch.setattr(venv, "apt_install", installed.extend)
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    return installed


def both(python: str) -> set[tuple[str, str]]:
    return {(python, "version_info"), (python, "ensurepip")}


def test_the_python_of_the_system_is_preferred(venv: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(venv, monkeypatch, root=False, works=both(venv.SYSTEM_PYTHON) | both(sys.executable))
    assert venv.find_interpreter() == venv.SYSTEM_PYTHON


def test_an_old_python_of_the_system_is_passed_over(venv: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/opt/python/bin/python3")
    choose(venv, monkeypatch, root=True, works=both(sys.executable))
    assert venv.find_interpreter() == sys.executable


def test_root_installs_the_missing_venv_module(venv: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = choose(venv, monkeypatch, root=True, works={(venv.SYSTEM_PYTHON, "version_info")})
    assert venv.find_interpreter() == venv.SYSTEM_PYTHON
    assert installed == ["python3-venv"]


def test_others_are_told_the_command(venv: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = choose(venv, monkeypatch, root=False, works={(venv.SYSTEM_PYTHON, "version_info")})
    with pytest.raises(venv.SetupError, match="sudo apt-get install -y python3-venv"):
        venv.find_interpreter()
    assert installed == []


def test_no_python_is_new_enough(venv: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(venv, monkeypatch, root=True, works=set())
    with pytest.raises(venv.SetupError, match=r"Python 3\.11 or newer is needed"):
        venv.find_interpreter()


def test_an_interpreter_that_does_not_exist_answers_nothing(venv: ModuleType) -> None:
    assert not venv.answers("/no/such/python", "pass")
    assert not venv.answers(sys.executable, "import no_such_module")
    assert venv.answers(sys.executable, "import json")


# --- what is said when it fails ---


def test_missing_wheel_of_pythia_is_explained(venv: ModuleType) -> None:
    lines = [
        "Collecting flask",
        "ERROR: Could not find a version that satisfies the requirement pythia8mc<8.318 (from versions: none)",
        "ERROR: No matching distribution found for pythia8mc<8.318,>=8.312; extra == 'demo'",
    ]
    text = venv.explain(lines, "3.14.1 on Linux x86_64")
    assert "no binary wheel for Python 3.14.1 on Linux x86_64" in text
    assert venv.PYTHIA_WHEELS in text and "Collecting flask" not in text


def test_missing_network_is_not_blamed_on_pythia(venv: ModuleType) -> None:
    lines = [
        "  WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'",
        "ERROR: No matching distribution found for pythia8mc<8.318",
    ]
    text = venv.explain(lines, "3.11.2 on Linux x86_64")
    assert "could not be reached" in text and "no binary wheel" not in text


def test_any_other_failure_shows_the_end_of_the_output(venv: ModuleType) -> None:
    text = venv.explain([f"line {number}" for number in range(50)], "3.11")
    assert "line 49" in text and "line 39" not in text


def test_a_failure_ends_the_tool_with_its_reason(
    venv: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(directory: Path) -> None:
        raise venv.SetupError("no space left")

    monkeypatch.setenv("PANDA_VENV", str(tmp_path / "env"))
    monkeypatch.setattr(venv, "build", fail)
    monkeypatch.setattr(sys, "argv", ["tools/demo"])
    with pytest.raises(SystemExit, match="demo: no space left"):
        venv.enter()


def test_enter_starts_the_tool_again_in_the_environment(
    venv: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    monkeypatch.setenv("PANDA_VENV", str(tree.parent / "env"))
    monkeypatch.setattr(os, "execv", lambda *words: started.append(words))
    monkeypatch.setattr(sys, "argv", ["tools/demo", "--json"])
    venv.enter()
    python = str(tree.parent / "env" / "bin" / "python")
    assert started == [(python, [python, "tools/demo", "--json"])]


def test_enter_returns_inside_the_environment(venv: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANDA_VENV", str(tree.parent / "env"))
    monkeypatch.setattr(sys, "prefix", str(tree.parent / "env"))
    monkeypatch.setattr(os, "execv", lambda *words: pytest.fail("started again without end"))
    venv.enter()


# --- Debian packages ---


@pytest.fixture
def apt(venv: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stand in for apt-get, as root; keeps the commands."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        failed = "no-such-package" in command
        return subprocess.CompletedProcess(command, 100 if failed else 0, stdout="", stderr="E: Unable to locate")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return commands


def test_packages_are_installed_without_recommendations(venv: ModuleType, apt: list[list[str]]) -> None:
    venv.apt_install(["curl"])
    waits = ["-o", "DPkg::Lock::Timeout=300"]
    assert apt == [
        ["apt-get", *waits, "update"],
        ["apt-get", *waits, "install", "-y", "--no-install-recommends", "curl"],
    ]


def test_failed_installation_of_a_package(venv: ModuleType, apt: list[list[str]]) -> None:
    with pytest.raises(venv.SetupError, match=r"(?s)install -y .*no-such-package.*Unable to locate"):
        venv.apt_install(["no-such-package"])


def test_who_is_not_root_is_told_the_command(
    venv: ModuleType, apt: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(venv.SetupError, match="sudo apt-get install -y --no-install-recommends curl"):
        venv.apt_install(["curl"])
    assert apt == []


def test_missing_commands_are_found(test_tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"google-chrome", "openssl"}
    monkeypatch.setattr(test_tool.shutil, "which", lambda name, path: name if name in there else None)
    missing = test_tool.missing_packages()
    assert {"mariadb-server", "curl"} <= set(missing) and not {"chromium", "openssl"} & set(missing)


def test_missing_modules_are_found(test_tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(test_tool, "PACKAGES", {})
    monkeypatch.setattr(test_tool, "MODULES", {"one": tmp_path, "other": tmp_path / "mod_other.so"})
    assert test_tool.missing_packages() == ["other"]


def test_no_service_is_started_by_an_installation(test_tool: ModuleType, tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    with test_tool.no_services_started(policy):
        assert subprocess.run([policy], check=False).returncode == 101
    assert not policy.exists()


def test_the_policy_of_the_machine_is_left_alone(test_tool: ModuleType, tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text("mine", encoding="utf-8")
    with test_tool.no_services_started(policy):
        assert policy.read_text(encoding="utf-8") == "mine"
    assert policy.read_text(encoding="utf-8") == "mine"


def test_missing_packages_end_the_run(test_tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(test_tool, "missing_packages", lambda: ["curl"])
    monkeypatch.setattr(test_tool, "POLICY", tmp_path / "policy")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit, match=r"test: not installed: curl\. Run: sudo apt-get install"):
        test_tool.install_missing()


# --- running the tests ---


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--only", "batch"], ["-m", "batch"]),
        (["--only=zoo", "-x"], ["-m", "zoo", "-x"]),
        (["tests/unit", "-k", "states", "--allow-skips"], ["tests/unit", "-k", "states", "--allow-skips"]),
    ],
)
def test_arguments_for_pytest(test_tool: ModuleType, arguments: list[str], expected: list[str]) -> None:
    assert test_tool.pytest_arguments(*test_tool.parse_arguments(arguments)) == expected


@pytest.mark.parametrize(("processors", "processes"), [(1, "2"), (2, "4"), (64, "4"), (None, "2")])
def test_the_whole_run_uses_some_processors(
    test_tool: ModuleType, monkeypatch: pytest.MonkeyPatch, processors: int | None, processes: str
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    given = test_tool.pytest_arguments(*test_tool.parse_arguments(["--durations=5"]))
    assert given == ["-n", processes, "--dist", "loadfile", *test_tool.SECOND_CHANCE, "--durations=5"]


def test_fast_leaves_out_every_group_that_is_declared(test_tool: ModuleType, pytestconfig: pytest.Config) -> None:
    """A new marker in setup.cfg has to be thought about here."""
    declared = {line.partition(":")[0] for line in pytestconfig.getini("markers")}
    ours = {name for name in declared if name.isidentifier()} - built_in_markers()
    assert set(test_tool.NOT_FAST) == ours
    assert test_tool.pytest_arguments(*test_tool.parse_arguments(["--fast", "-q"]))[4:] == ["-q"]


def built_in_markers() -> set[str]:
    return {"skip", "skipif", "xfail", "parametrize", "usefixtures", "tryfirst", "trylast", "filterwarnings"} | {
        "hypothesis",
        "xdist_group",
        "no_cover",
    }


def test_fast_and_only_exclude_each_other(test_tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        test_tool.parse_arguments(["--fast", "--only", "mysql"])
    assert "not allowed with" in capsys.readouterr().err


@pytest.mark.parametrize("fast", [True, False])
def test_the_tool_becomes_pytest(test_tool: ModuleType, monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(test_tool, "enter", lambda: calls.append("enter"))
    monkeypatch.setattr(test_tool, "install_missing", lambda: calls.append("install"))
    monkeypatch.setattr(os, "chdir", lambda path: calls.append(path))
    monkeypatch.setattr(os, "execv", lambda python, words: calls.append(words[1:3]))
    monkeypatch.setattr(sys, "argv", ["tools/test", *(["--fast"] if fast else [])])
    monkeypatch.setenv("PANDA_TEST_STARTED", "0")
    test_tool.main()
    assert calls == ["enter", *([] if fast else ["install"]), ROOT, ["-m", "pytest"]]


SAMPLE = """
import pytest

def test_passes(): pass

def test_skips(): pytest.skip("no reason")

@pytest.mark.skip(reason="not today")
def test_marked(): pass

@pytest.mark.xfail(reason="known")
def test_known(): assert False
"""


@pytest.mark.parametrize(
    ("arguments", "code", "summary"),
    [([], 1, "1 failed, 1 passed, 1 xfailed, 1 error"), (["--allow-skips"], 0, "1 passed, 2 skipped, 1 xfailed")],
)
def test_skipped_tests_fail(tmp_path: Path, arguments: list[str], code: int, summary: str) -> None:
    done = run_pytest(tmp_path, SAMPLE, *arguments)
    assert done.returncode == code
    assert summary in done.stdout.splitlines()[-1]


def test_a_whole_module_that_is_skipped_fails(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "import pytest\npytest.importorskip('no_such_module')\n")
    assert done.returncode != 0
    assert "was skipped" in done.stdout


def test_wall_time_comes_before_the_last_line(tmp_path: Path) -> None:
    *_, before, last = run_pytest(tmp_path, "def test_passes(): pass\n").stdout.splitlines()
    assert before.startswith("wall time") and "1 passed" in last


def run_pytest(folder: Path, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one test file under the rules of this tree."""
    (folder / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "test_sample.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "--rootdir", str(folder), "-p", "no:cacheprovider", str(folder)]
    environment = {**os.environ, "PANDA_TEST_STARTED": "0", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{ROOT / 'tools'}"}
    return subprocess.run([*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


# --- checking the tree ---


def test_scripts_are_found_by_their_first_line(
    check_tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tools").mkdir()
    for name, content in {
        "demo": "#!/usr/bin/env python3\n",
        "run": "#!/bin/sh\npython\n",
        "_x.py": "",
        "data": "",
    }.items():
        (tmp_path / "tools" / name).write_text(content, encoding="utf-8")
    monkeypatch.setattr(check_tool, "ROOT", tmp_path)
    assert check_tool.scripts() == ["tools/demo"]
    assert check_tool.modules() == ["tools/_x.py"]


def test_every_script_of_the_tree_is_checked(check_tool: ModuleType) -> None:
    assert {"tools/check", "tools/test"} <= set(check_tool.scripts())
    for step in check_tool.checks()[:2]:
        assert "tools/check" in step.command


@pytest.mark.parametrize("name", ["a program that fails", "a program that passes"])
def test_a_step_is_reported_in_one_line(
    check_tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    fails = name.endswith("fails")
    python = Path(sys.executable).name
    step = check_tool.Step("style", (python, "-c", f"print('line 3 is bad'); raise SystemExit({int(fails)})"))
    assert check_tool.passes(step) is not fails
    shown = capsys.readouterr().out
    assert shown == "ok      style\n" if not fails else shown.startswith("FAILED  style: ") and "line 3 is bad" in shown


@pytest.mark.parametrize(("failing", "code"), [(None, 0), ("layers", 1)])
def test_all_checks_run_even_after_a_failure(
    check_tool: ModuleType, monkeypatch: pytest.MonkeyPatch, failing: str | None, code: int
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(check_tool, "enter", lambda: None)
    monkeypatch.setattr(check_tool, "passes", lambda step: ran.append(step.title) or step.title != failing)
    monkeypatch.setattr(sys, "argv", ["tools/check", "--fix"])
    monkeypatch.setenv("NO_COLOR", "1")
    assert check_tool.main() == code
    assert ran == [
        "repair style",
        "repair format",
        "format",
        "style",
        "layers",
        "types",
        "security",
        "dependencies",
        "packaging",
    ]


@pytest.mark.parametrize("name", ["test", "check"])
def test_help_has_examples_and_needs_no_environment(name: str, tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "PANDA_VENV": str(tmp_path / "none")}
    command = [sys.executable, str(TOOLS / name), "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert f"tools/{name}" in done.stdout and not (tmp_path / "none").exists()


@pytest.mark.parametrize("path", ["tools/test", "tools/check", ".ci/run"])
def test_tools_can_be_executed(path: str) -> None:
    assert os.access(ROOT / path, os.X_OK)
    assert (ROOT / path).read_text(encoding="utf-8").startswith("#!/usr/bin/env ")
