"""Where files lie at endpoints, and that no name leads elsewhere."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandaserver.dataservice.ddm import moving, storage
from pandaserver.dataservice.ddm.moving import Bytes, Place
from pandaserver.dataservice.ddm.storage.folder import Folder
from pandaserver.errors import ConfigError, DDMError, DDMFatal
from pandaserver.model.grid import Endpoint

DISK = Endpoint(name="DISK", site="S", url="file:///data/a%20b")


def test_the_place_is_given_by_scope_and_name() -> None:
    assert storage.below_root("user.alice", "f.root") == "user/alice/a6/f9/f.root"
    assert storage.file_path(DISK, "mc", "x") == Path("/data/a b") / storage.below_root("mc", "x")
    assert storage.file_url(DISK, "mc", "x") == f"file:///data/a%20b/{storage.below_root('mc', 'x')}"


HOSTILE = ["", ".", "..", "../x", "a/b", "/etc/passwd", "a\0b", "a\nb", "x" * 256, "\u202e", "a/../b"]


@pytest.mark.parametrize("name", HOSTILE, ids=repr)
def test_hostile_names_are_refused(name: str) -> None:
    with pytest.raises(DDMFatal, match="no name of a file"):
        storage.below_root("mc", name)
    if name not in (".", "..", "../x", "a/../b") or name == "..":
        with pytest.raises(DDMFatal):
            storage.below_root(name, "x")


@pytest.mark.parametrize("scope", ["a..b", ".a", "a.", "a./.b", "../..", "a/b"])
def test_hostile_scopes_are_refused(scope: str) -> None:
    with pytest.raises(DDMFatal):
        storage.below_root(scope, "x")


@given(scope=st.text(max_size=30), lfn=st.text(max_size=80))
def test_whatever_the_name_the_place_is_below_the_root(scope: str, lfn: str) -> None:
    try:
        place = storage.below_root(scope, lfn)
    except DDMFatal:
        return
    whole = (Path("/some/folder") / place).resolve()
    assert whole.is_relative_to("/some/folder") and whole.name == lfn
    assert len(Path(place).parts) == len(scope.split(".")) + 3


@pytest.mark.parametrize("url", ["https://host/x", "file://elsewhere/x"])
def test_only_folders_of_this_machine_have_paths(url: str) -> None:
    with pytest.raises(ConfigError, match="no file:///folder"):
        storage.file_path(Endpoint(name="X", site="S", url=url), "mc", "x")


# --- bytes


def wanted(content: bytes, lfn: str = "f") -> Bytes:
    return Bytes(lfn, len(content), f"{zlib.adler32(content):08x}")


@pytest.mark.parametrize(
    ("blocks", "told"),
    [([b"12"], "has 2 bytes"), ([b"12", b"34"], "more than 3"), ([b"12X"], "has adler32"), ([], "has 0 bytes")],
)
def test_blocks_that_are_not_the_right_ones_end_with_an_error(blocks: list[bytes], told: str) -> None:
    with pytest.raises(DDMFatal, match=told):
        list(moving.checked(blocks, wanted(b"123")))
    assert list(moving.checked([b"1", b"", b"23"], wanted(b"123"))) == [b"1", b"", b"23"]


@pytest.mark.parametrize("before", [None, b"123", b"other"])
def test_a_copy_takes_the_place_of_what_does_not_count(tmp_path: Path, before: bytes | None) -> None:
    folder = Folder(tmp_path)
    source, target = Place(folder, "a/f"), Place(folder, "b/f")
    folder.write("a/f", [b"123"], size_bytes=3)
    if before is not None:
        folder.write("b/f", [before], size_bytes=len(before))
    moving.copy(source, target, wanted(b"123"), mark="m")
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["f"]
    assert (tmp_path / "b/f").read_bytes() == b"123"


def test_a_copy_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write("a/f", [b"12X"], size_bytes=3)
    folder.write("b/f", [b"old"], size_bytes=3)
    with pytest.raises(DDMFatal, match="adler32"):
        moving.copy(Place(folder, "a/f"), Place(folder, "b/f"), wanted(b"123"), mark="m")
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "b").iterdir()] == [("f", b"old")]
    with pytest.raises(DDMError, match="cannot read none"):
        moving.copy(Place(folder, "a/none"), Place(folder, "b/f"), wanted(b"123"), mark="m")


def test_names_of_parts_are_never_too_long(tmp_path: Path) -> None:
    for lfn in ("x" * 255, "ä" * 127):
        part = moving.part_of(Place(Folder(tmp_path), f"a/{lfn}"), "0123456789ab")
        assert len(part.name.encode()) <= 255 and part.name.startswith(".") and part.name.endswith("ab.part")


def test_folders_say_what_is_wrong(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    (tmp_path / "file").write_text("x")
    for act in (
        lambda: folder.write("file/x", [b"1"], size_bytes=1),
        lambda: list(folder.read("none")),
        lambda: folder.rename("none", "new"),
        lambda: folder.stat("file/x"),
    ):
        with pytest.raises(DDMError, match=r"cannot (write|read|rename)"):
            act()
    assert folder.stat("none") is None and folder.beside("none/x") == []
    folder.remove("none")
