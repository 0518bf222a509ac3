"""Storage that server and pilots share as different users: the kernel refuses hard links to the other's files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pandaserver.dataservice.ddm.storage.folder import Folder
from pandaserver.errors import DDMError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    def refuse(*_paths: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "staged").write_text("new")
    return Folder(tmp_path)


def test_a_file_of_somebody_else_is_put_in_place(folder: Folder, tmp_path: Path) -> None:
    assert folder.rename("staged", "place") is True
    assert (tmp_path / "place").read_text() == "new" and not (tmp_path / "staged").exists()


def test_it_never_takes_the_place_of_another(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "place").write_text("old")
    assert folder.rename("staged", "place") is False
    assert (tmp_path / "place").read_text() == "old" and (tmp_path / "staged").read_text() == "new"


def test_what_else_is_wrong_is_told(folder: Folder) -> None:
    with pytest.raises(DDMError, match="cannot rename missing: No such file"):
        folder.rename("missing", "place")
