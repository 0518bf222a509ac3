"""panda-server ban, unban, bans: from the command line to the door."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from factories import Pki, make_grid

from pandaserver.command import main

MALLORY = "/DC=org/O=Grid/CN=Mallory"


def run(capsys: pytest.CaptureFixture[str], config: Path, *arguments: str) -> tuple[int, str, str]:
    code = main([arguments[0], "--config", str(config), *arguments[1:]])
    out, error = capsys.readouterr()
    return code, out, error


def test_people_are_banned_and_let_in_again(tmp_path: Path, pki: Pki, capsys: pytest.CaptureFixture[str]) -> None:
    grid = make_grid(tmp_path / "grid", pki, f"sqlite:///{tmp_path / 'panda.db'}")
    config, alice = tmp_path / "grid" / "panda_server.cfg", pki.dn("alice")
    assert run(capsys, config, "bans")[:2] == (0, "nobody is banned\n")
    assert run(capsys, config, "ban", MALLORY, alice)[:2] == (0, "\n".join(sorted([alice, MALLORY])) + "\n")
    assert run(capsys, config, "ban", alice)[0] == 0, "again does no harm"
    assert json.loads(run(capsys, config, "bans", "--json", MALLORY, "/CN=x")[1]) == {"banned": [MALLORY]}
    assert grid.client("alice").post("/server/panda/submitJobs", json={"jobs": []}).status_code == 403
    assert json.loads(run(capsys, config, "unban", "--json", alice)[1]) == {"banned": [MALLORY]}
    assert run(capsys, config, "unban", alice)[0] == 0, "again does no harm"
    grid.close()


def test_wrong_usage_is_said(tmp_path: Path, pki: Pki, capsys: pytest.CaptureFixture[str]) -> None:
    make_grid(tmp_path / "grid", pki, f"sqlite:///{tmp_path / 'panda.db'}").close()
    config = tmp_path / "grid" / "panda_server.cfg"
    for arguments, words in (
        (("ban", "Mallory"), "'Mallory' is no DN in slash form"),
        (("ban", "/atlas/Role=pilot"), "is no DN in slash form"),
        (("unban", "/CN=nobody"), "/CN=nobody is not known to this server"),
    ):
        code, out, error = run(capsys, config, *arguments)
        assert (code, out) == (1, "") and words in error
    assert run(capsys, config, "bans")[1] == "nobody is banned\n"
    with pytest.raises(SystemExit):
        run(capsys, config, "ban")
