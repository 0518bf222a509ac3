"""The rehearsal of the operator's page: commands out of the page, a shell, unit files, the transcript."""

from __future__ import annotations

import contextlib
import io
import os
import pwd
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pandaserver.deploy.layout import DEBIAN
from pandaserver.deploy.plan import Choices, make_plan
from rehearsal import disk, story
from rehearsal.machine import RehearsalError, Result, Session, end
from rehearsal.page import Block, PageError, read_page, split
from rehearsal.stage import Stage
from rehearsal.transcript import Transcript, shortened
from rehearsal.units import (
    Unit,
    UnitError,
    assignments,
    command,
    environment,
    full_name,
    identity,
    load,
    parse,
    sandbox,
    working_directory,
)

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
ME = pwd.getpwuid(os.geteuid()).pw_name


# ---- the page


def test_every_block_of_the_page_is_rehearsed_or_says_why_not() -> None:
    told = re.findall(r'stage\.block\("([a-z-]+)"', Path(story.__file__).read_text())
    loops = re.findall(r"for name in \(([^)]*)\):\n        stage\.block\(name\)", Path(story.__file__).read_text())
    told += [name for loop in loops for name in re.findall(r'"([a-z-]+)"', loop)]
    assert set(read_page(PAGE)) == {*told, "packages"}


@pytest.mark.parametrize("name", ["panda", "database", "start", "job", "upgrade", "change-over", "backup", "restore"])
def test_the_page_has_what_the_story_needs(name: str) -> None:
    assert read_page(PAGE)[name].commands


def test_a_page() -> None:
    text = "x\n<!-- rehearsed: one, ends with 3: of course -->\n```bash\na \\\n  b\n# note\n\nc | d  # why\n```\n"
    text += "<!-- not rehearsed: other system -->\n```\nnonsense (\n```\n<!-- rehearsed: two -->\n```sh\ne\n```\n"
    assert read_page(text) == {"one": Block("one", ("a \\\n  b", "c | d  # why"), 3), "two": Block("two", ("e",))}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("```bash\na\n```\n", "no mark"),
        ("<!-- tested: a -->\n```bash\na\n```\n", "no mark"),
        ("<!-- rehearsed: a, ends with 1 -->\n```bash\na\n```\n", "no mark"),
        ("<!-- rehearsed: a -->\n```bash\nx\n```\n<!-- rehearsed: a -->\n```bash\ny\n```\n", "name a"),
        ("<!-- rehearsed: a -->\n```bash\nx )\n```\n", "no shell"),
        ("<!-- rehearsed: a -->\n```bash\nx 'y\n```\n", "no end"),
    ],
)
def test_a_page_with_a_fault(text: str, words: str) -> None:
    with pytest.raises(PageError, match=words):
        read_page(text)


@pytest.mark.parametrize(
    "whole",
    [
        "cat > f <<'END'\n[a]\n\n# no comment\nb = 1\nEND",
        "f() {\n  a\n}",
        "curl 'jobs=[{\n  \"x\": 1}]' $URL",
        "a \\\n  b",
        "until a | b; do sleep 1; done",
        "if a\nthen b\nfi",
        "mariadb <<A; cat <<B\nx\nA\ny\nB",
    ],
)
def test_commands_of_several_lines_stay_whole(whole: str) -> None:
    assert split(f"before\n{whole}\n\n# comment\nafter\n") == ["before", whole, "after"]


# ---- the shell


@pytest.fixture
def session() -> Iterator[Session]:
    words = ["bash", "--noprofile", "--norc"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, start_new_session=True)
    yield Session("me", process)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    end(process)


def told(session: Session, command: str) -> tuple[int, str]:
    result = session.run(command, limit_s=30)
    return result.exit_code, result.output


def test_commands_follow_each_other_as_on_a_terminal(session: Session) -> None:
    assert told(session, "a='x y'; f() { echo \"f $1\"; }; cd /") == (0, "")
    assert told(session, 'echo "$a"; f 1; pwd; false') == (1, "x y\nf 1\n/\n")
    assert told(session, "cat <<END\n$a\nEND") == (0, "x y\n")
    assert told(session, "echo out; echo 'it''s' >&2; (exit 7)") == (7, "out\nits\n")
    assert told(session, "cat") == (0, "")  # nobody types anything
    assert told(session, "printf '%s' no-newline") == (0, "no-newline")
    assert told(session, "seq 100000 | tail -c 7") == (0, "100000\n")


def test_a_command_that_hangs_or_ends_the_shell(session: Session) -> None:
    with pytest.raises(RehearsalError, match="too long"):
        session.run("echo here; sleep 60", limit_s=0.3)


def test_a_shell_that_ends(session: Session) -> None:
    with pytest.raises(RehearsalError, match="ended"):
        session.run("exit 3", limit_s=30)


class FakeMachine:
    """Shells on this machine."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def session(self, _user: str, _folder: str) -> FakeMachine:
        return self

    def __enter__(self) -> Session:
        return self._session

    def __exit__(self, *_error: object) -> None:
        return None


def test_a_block_stops_at_the_first_command_that_fails(session: Session) -> None:
    page = {"good": Block("good", ("echo 1", "(exit 4)"), 4), "bad": Block("bad", ("(exit 4)", "echo never"), 4)}
    said = io.StringIO()
    with Stage(FakeMachine(session), page, Transcript([said])) as stage:  # type: ignore[arg-type]
        assert stage.block("good") == ["1\n", ""]
        assert stage.left_out() == ["bad"]
        with pytest.raises(RehearsalError, match=r"\(exit 4\): ended with 4 instead of 0"):
            stage.block("bad")
    assert "root# echo 1\n1\n" in said.getvalue() and "[exit code 4]" in said.getvalue()
    assert "never" not in said.getvalue()


# ---- unit files


def unit(text: str, name: str = "a.service") -> Unit:
    sections: dict[str, dict[str, list[str]]] = {}
    parse(text, sections)
    return Unit(name, sections)


def test_unit_files() -> None:
    read = unit("# c\n[Service]\nExecStart=/a \\\n  b\nX=1\nX=2\nY=1\nY=\nY=3\n; d\n[Install]\nX=4\n")
    assert (read.all("X"), read.one("X"), read.one("X", section="Install")) == (["1", "2"], "2", "4")
    assert (read.one("ExecStart"), read.all("Y"), read.one("Z", "z")) == ("/a    b", ["3"], "z")
    assert unit("[Service]\nA=%i %n 5%%\n", "m@80.service").one("A") == "80 m@80.service 5%"


def test_units_are_found_with_templates_and_drop_ins(tmp_path: Path) -> None:
    early, late = tmp_path / "early", tmp_path / "late"
    for folder in (early, late / "m@.service.d"):
        folder.mkdir(parents=True)
    (late / "m@.service").write_text("[Service]\nUser=a\nExecStart=/x %i\n")
    (late / "m@.service.d/user.conf").write_text("[Service]\nUser=b\n")
    (late / "both.service").write_text("[Service]\nUser=late\n")
    (early / "both.service").write_text("[Service]\nUser=early\n")
    folders = (early, late)
    assert load("m@5", folders).one("User") == "b" and load("m@5", folders).one("ExecStart") == "/x 5"
    assert load("both", folders).one("User") == "early"
    with pytest.raises(UnitError, match=r"Unit no\.timer not found"):
        load("no.timer", folders)
    assert full_name("a@b") == "a@b.service" and full_name("a.timer") == "a.timer"


@pytest.mark.parametrize(
    ("line", "words", "may_fail", "as_root"),
    [
        ("/bin/a 'b c' d", ["/bin/a", "b c", "d"], False, False),
        ("-/bin/a", ["/bin/a"], True, False),
        ("-+/bin/a", ["/bin/a"], True, True),
        ("/a $TWO ${ONE}x $NONE ${TWO}", ["/a", "p", "q", "1x", "p q"], False, False),
        ('"/a b" "$(c)"', ["/a b", "$(c)"], False, False),
    ],
)
def test_command_lines(line: str, words: list[str], may_fail: bool, as_root: bool) -> None:
    found = command(line, {"ONE": "1", "TWO": "p q"})
    assert (found.words, found.may_fail, found.as_root) == (words, may_fail, as_root)


def test_the_environment_of_a_unit_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    (tmp_path / "file").write_text("A=1\n# B=2\nC='three'\n")
    text = f"[Service]\nUser={ME}\nEnvironment=D=4 'E=5 6'\nEnvironmentFile={tmp_path}/file\nEnvironmentFile=-/no\n"
    found = environment(unit(text), tmp_path)
    assert {"A": "1", "C": "three", "D": "4", "E": "5 6", "USER": ME}.items() <= found.items()
    assert not {"SECRET", "B"} & found.keys()
    assert assignments("x\nA = 1\n") == {"A": "1"}


def test_the_user_of_a_unit() -> None:
    assert identity(unit("[Service]\n")) == []
    group = pwd.getpwnam("nobody").pw_gid
    words = ["setpriv", "--reuid=nobody", f"--regid={group}", "--init-groups", "--"]
    assert identity(unit("[Service]\nUser=nobody\n")) == words
    assert "--regid=adm" in identity(unit("[Service]\nUser=nobody\nGroup=adm\n"))
    assert identity(unit("[Service]\nNoNewPrivileges=true\n")) == ["setpriv", "--no-new-privs", "--"]
    home = pwd.getpwnam(ME).pw_dir
    assert working_directory(unit(f"[Service]\nUser={ME}\nWorkingDirectory=~\n")) == home
    assert (working_directory(unit("[Service]\nWorkingDirectory=-/x\n")), working_directory(unit(""))) == ("/x", "/")


def test_the_sandbox_of_a_unit() -> None:
    assert sandbox(unit("[Service]\nPrivateTmp=no\n")) == []
    script = sandbox(unit("[Service]\nProtectSystem=full\nProtectHome=read-only\nPrivateTmp=true\n"))[-2]
    assert "remount,bind,ro /etc" in script and "remount,bind,ro /home" in script and "tmpfs /tmp" in script
    assert script.endswith('&& exec "$@"')
    hidden = sandbox(unit("[Service]\nProtectSystem=yes\nProtectHome=yes\n"))[-2]
    assert "tmpfs /root" in hidden and "/etc" not in hidden


@pytest.mark.parametrize("name", ["panda-worker", "panda-monitor@25981", "panda-scheduler@generic", "panda-reload"])
def test_our_units_are_understood(name: str, tmp_path: Path) -> None:
    for file in make_plan(Choices(layout=DEBIAN), None).files:
        if file.path.parent.name == "system":
            (tmp_path / file.path.name).write_text(file.text)
    found = load(name, (tmp_path,))
    (line,) = found.all("ExecStart")
    words = command(line, {}).words
    assert Path(words[0]).is_absolute() and "%" not in line
    assert found.kind == ("oneshot" if name == "panda-reload" else "simple")
    assert found.stop_s == (30.0 if name == "panda-worker" else 90.0)


# ---- disk and transcript


def test_what_pip_has_to_fetch_is_what_the_tree_declares() -> None:
    found = disk.requirements(ROOT)
    names = {re.split(r"[ >=<]", each)[0] for each in found}
    assert {"flask", "sqlalchemy", "requests", "mako", "setuptools", "wheel"} <= names
    assert "pandaserver" not in names and not any("#" in each for each in found)


def test_the_tree_is_copied_without_what_lies_about(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    for name in (".gitignore", "a", "sub/b", "junk"):
        (source / name).write_text("junk\n" if name == ".gitignore" else name)
    subprocess.run(["git", "init", "--quiet", str(source)], check=True)
    disk.copy_tree(source, tmp_path / "target")
    found = {str(path.relative_to(tmp_path / "target")) for path in (tmp_path / "target").rglob("*") if path.is_file()}
    assert found == {".gitignore", "a", "sub/b"}


def test_only_debian_12_is_taken_from_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["deb http://mirror.test/debian bookworm main", "deb http://mirror.test/debian trixie main",
             "deb http://mirror.test/security bookworm-security main"]  # fmt: skip
    monkeypatch.setattr(disk, "_call", lambda _words: "\n".join([*lines, lines[0]]))
    assert disk.sources_of_apt() == [lines[0], lines[2]]
    monkeypatch.setattr(disk, "_call", lambda _words: lines[1])
    with pytest.raises(RehearsalError, match="knows no bookworm"):
        disk.sources_of_apt()


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        ("", ""),
        ("\n\n", ""),
        ("a\n\nb", "a\n\nb\n"),
        ("10%\r50%\r100%\r\ndone\n", "100%\ndone\n"),
        ("x" * 500, "x" * 240 + "\n"),
        ("".join(f"{n}\n" for n in range(100)), "0\n1\n2\n3\n4\n5\n[... 80 lines ...]\n" + "".join(
            f"{n}\n" for n in range(86, 100))),
    ],
)  # fmt: skip
def test_outputs_in_the_transcript(output: str, shown: str) -> None:
    assert shortened(output) == shown


def test_a_transcript() -> None:
    one, two = io.StringIO(), io.StringIO()
    transcript = Transcript([one, two])
    with transcript.part("first"):
        transcript.command("root#", "sleep 3", Result(0, "", 3.1))
    assert one.getvalue() == two.getvalue() == "\n=== first\nroot# sleep 3\n[3 s]\n"
    assert list(transcript.seconds) == ["first"]


def test_after_a_failure_the_logs_are_shown(tmp_path: Path) -> None:
    for name in ("panda/server.log", "apache2/panda-error.log", "apache2/panda-access.log"):
        (tmp_path / "var/log" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "var/log" / name).write_text(f"said {name}\n")
    said = io.StringIO()
    Transcript([said]).evidence(tmp_path)
    assert "--- the end of /var/log/panda/server.log\nsaid panda/server.log\n" in said.getvalue()
    assert "panda-error.log" in said.getvalue() and "access" not in said.getvalue()


# ---- the tool


def rehearse(*words: str) -> subprocess.CompletedProcess[str]:
    tool = [sys.executable, str(ROOT / "tools/rehearse"), *words]
    environment = {**os.environ, "PANDA_VENV": sys.prefix}
    return subprocess.run(tool, capture_output=True, text=True, check=False, env=environment)


def test_ending_a_process_does_not_wait_for_what_it_started() -> None:
    process = subprocess.Popen(["bash", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    end(process)
    assert process.returncode == -signal.SIGKILL
    os.kill(child, signal.SIGKILL)  # it was still there


def test_the_tool_has_a_help_with_examples() -> None:
    done = rehearse("--help")
    assert done.returncode == 0 and "tools/rehearse --transcript" in done.stdout and "needs root" in done.stdout
