"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pandaserver.model.states import FINAL, TRANSITIONS
from pandaserver.web.application import CALLS
from pandaserver.web.roles import Role

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
README = (ROOT / "README.md").read_text()


def test_the_state_diagram_is_the_table_of_transitions() -> None:
    diagram = re.search(r"```mermaid\n(.*?)```", ARCHITECTURE, re.S)
    assert diagram is not None
    drawn = set(re.findall(r"^\s*(\S+) --> (\S+)$", diagram[1], re.M))
    arrows = {(str(old), str(new)) for old, news in TRANSITIONS.items() for new in news}
    assert drawn == arrows | {("[*]", "defined")} | {(str(state), "[*]") for state in FINAL}


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.path)
def test_every_call_is_in_the_readme(call: object) -> None:
    table = README.split("## The calls")[1]
    assert call.path in table  # type: ignore[attr-defined]
    assert call.legacy in table  # type: ignore[attr-defined]


def test_the_table_of_roles_is_that_of_the_code() -> None:
    rows = re.findall(
        r"^\| ([a-z_]+/[a-z_]+) \| (.*) \|$", README.split("## Who may do what")[1].split("\n## ")[0], re.M
    )
    assert rows == [
        (call.path, " | ".join(str(call.allows.get(role, "-")) for role in Role))
        for call in sorted(CALLS, key=lambda call: call.path)
    ]


@pytest.mark.parametrize(
    "folder", sorted(p.name for p in (ROOT / "pandaserver").iterdir() if (p / "__init__.py").exists())
)
def test_every_room_is_in_the_architecture(folder: str) -> None:
    assert f"`├ {folder}/`" in ARCHITECTURE or f"`└ {folder}/`" in ARCHITECTURE


@pytest.mark.parametrize("path", re.findall(r"`((?:[a-z]+/)+[a-z_]+\.py)`", ARCHITECTURE))
def test_files_named_in_the_architecture_exist(path: str) -> None:
    assert (ROOT / path).is_file() or (ROOT / "pandaserver" / path).is_file(), path


@pytest.mark.parametrize("path", re.findall(r"`((?:tools|conf)/[a-z/_-]+(?:\.cfg)?)`", README + ARCHITECTURE))
def test_tools_and_samples_named_in_documents_exist(path: str) -> None:
    assert (ROOT / path).exists(), path
