"""Copies of dataset files: verified before they count, and never written where they do not belong."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from pandaserver.client.answers import FileInfo, ReplicaInfo
from pandaserver.client.download import fetch

CONTENT = b"events" * 300_000


def catalogued(*urls: str, lfn: str = "events.root", content: bytes = CONTENT) -> FileInfo:
    replicas = tuple(ReplicaInfo(f"DISK{n}", url) for n, url in enumerate(urls))
    return FileInfo("user.a", lfn, "guid", len(content), f"{zlib.adler32(content):08x}", replicas)


def stored(path: Path, content: bytes = CONTENT) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path.as_uri()


def leftovers(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "here"


def test_copy(tmp_path: Path, here: Path) -> None:
    done = fetch(catalogued(stored(tmp_path / "se" / "a file%.root")), here)
    assert (done.path, done.error, done.size_bytes) == (here / "events.root", "", len(CONTENT))
    assert (here / "events.root").read_bytes() == CONTENT
    assert (here / "events.root").stat().st_mode & 0o777 == 0o644
    assert leftovers(here) == ["events.root"]


def test_empty_file(tmp_path: Path, here: Path) -> None:
    done = fetch(catalogued(stored(tmp_path / "se" / "x", b""), content=b""), here)
    assert done.path is not None
    assert done.path.read_bytes() == b""


@pytest.mark.parametrize(
    ("content", "said"), [(CONTENT[:-1], "bytes, the catalogue says"), (CONTENT[:-1] + b"X", "adler32")]
)
def test_damaged_copy_is_not_kept(tmp_path: Path, here: Path, content: bytes, said: str) -> None:
    done = fetch(catalogued(stored(tmp_path / "se" / "x", content)), here)
    assert done.path is None
    assert said in done.error
    assert leftovers(here) == []


def test_second_copy_is_tried(tmp_path: Path, here: Path) -> None:
    bad, good = stored(tmp_path / "a" / "x", b"bad"), stored(tmp_path / "b" / "x")
    done = fetch(catalogued("root://far//x", (tmp_path / "none").as_uri(), bad, good), here)
    assert done.path == here / "events.root"
    assert leftovers(here) == ["events.root"]


@pytest.mark.parametrize(
    "url",
    ["root://far//x", "file://far.example.org/etc/hostname", "https://x/y", "", "file:///no/such", "file:///etc", "file:///a%00b"],
)  # fmt: skip
def test_no_copy_here(here: Path, url: str) -> None:
    done = fetch(catalogued(url), here)
    assert (done.path, done.error) == (None, "no copy can be read from this machine (it is at DISK0)")
    assert not here.exists()


def test_no_copy_at_all(here: Path) -> None:
    assert "nowhere" in fetch(catalogued(), here).error


@pytest.mark.parametrize("lfn", ["", ".", "..", "../x", "/etc/passwd", "a/b", ".bashrc", "a\nb", "a\\b", "a\x00"])
def test_names_that_lead_elsewhere(tmp_path: Path, here: Path, lfn: str) -> None:
    done = fetch(catalogued(stored(tmp_path / "se" / "x"), lfn=lfn), here)
    assert done.path is None
    assert "no name for a file" in done.error
    assert not here.exists()


def test_right_file_from_before_is_left_alone(tmp_path: Path, here: Path) -> None:
    stored(here / "events.root")
    before = (here / "events.root").stat()
    assert fetch(catalogued(stored(tmp_path / "se" / "x")), here).path == here / "events.root"
    assert (here / "events.root").stat().st_ino == before.st_ino


def test_other_file_from_before_is_not_overwritten(tmp_path: Path, here: Path) -> None:
    stored(here / "events.root", b"precious")
    done = fetch(catalogued(stored(tmp_path / "se" / "x")), here)
    assert "is another file" in done.error
    assert (here / "events.root").read_bytes() == b"precious"


def test_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = fetch(catalogued(stored(tmp_path / "se" / "x")), tmp_path / "file" / "here")
    assert done.path is None
    assert "Not a directory" in done.error
