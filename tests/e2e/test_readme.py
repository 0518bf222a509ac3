"""Does what the README tells a reader to do, word for word."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = dict(re.findall(r"<!-- tested: (\w+) -->\n```bash\n(.*?)```", README, re.S))
ALIVE = "curl -s --cacert pki/ca.pem https://localhost:25443/server/panda/isAlive"
WAIT = f"for _ in $(seq 200); do {ALIVE} && break; sleep 0.1; done"


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A tree like the reader's, with what the README uses."""
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    yield tmp_path
    pid_file = tmp_path / "my-panda" / "server.pid"
    if pid_file.exists():
        os.kill(int(pid_file.read_text()), signal.SIGTERM)


def run(where: Path, text: str) -> str:
    words = ["bash", "-e", "-o", "pipefail", "-c", text]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(where)}
    done = subprocess.run(words, cwd=where, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def with_port(text: str, port: int) -> str:
    """Let the README's server use a free port, so that it disturbs nobody."""
    return text.replace("25443", str(port))


def test_the_readme_by_hand(tree: Path, free_port: int) -> None:
    said: Callable[[str], str] = lambda text: with_port(text, free_port)  # noqa: E731
    for sample in (tree / "conf" / "embedded").glob("*.cfg"):
        sample.write_text(said(sample.read_text()))
    server = said(BLOCKS["server"]).replace("server.pid &", "server.pid > server.log 2>&1 &")
    run(tree, f"{server}\n{said(WAIT)}")
    home = tree / "my-panda"
    enter = ". ../.venv/bin/activate\n"
    told = run(home, enter + said(BLOCKS["submit"])).splitlines()
    assert told[0] == "True"
    assert json.loads(told[1])[0][0] == 1
    (job,) = json.loads(told[2])
    assert job["prodUserID"] == "/DC=org/DC=panda-test/O=Grid/CN=Alice Adams"
    assert job["jobStatus"] in ("defined", "activated")
    json.loads(told[3])

    run(home, f"{enter}for _ in $(seq 100); do {said(STATUS)} | grep -q activated && break; sleep 0.1; done")
    run(home, enter + said(BLOCKS["pilot"]))
    run(home, f"{enter}for _ in $(seq 100); do {said(STATUS)} | grep -q finished && break; sleep 0.1; done")
    listed, submitted, killed = run(home, enter + said(FUNCTIONS + BLOCKS["kill"])).splitlines()
    (file,) = json.loads(listed)
    assert file["lfn"] == "hello.00001.txt"
    assert Path(file["replicas"][0]["url"].removeprefix("file://")).read_text().startswith("hello from ")
    assert json.loads(submitted)[0][0] == 2
    assert json.loads(killed) == [True]


STATUS = "curl -s --cacert pki/ca.pem 'https://localhost:25443/server/panda/getJobStatus?ids=1'"
FUNCTIONS = "".join(
    line + "\n" for line in BLOCKS["submit"].splitlines() if re.match(r"export|panda_curl\(\)|PANDA=", line)
)
