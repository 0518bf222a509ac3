"""Copies files of datasets to the user's directory, where a copy of them is a file that this machine can read."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO
from urllib.parse import unquote, urlsplit

from pandaserver.client.answers import FileInfo
from pandaserver.client.failures import FileTrouble

_BLOCK = 1024 * 1024


@dataclass(frozen=True)
class Download:
    """What became of one file: it is at `path`, or `error` says why not."""

    lfn: str
    size_bytes: int
    path: Path | None = None
    error: str = ""


def fetch(file: FileInfo, directory: Path) -> Download:
    """Copy one file; a copy from before that is right is left alone."""
    try:
        return Download(file.lfn, file.size_bytes, path=_fetch(file, directory))
    except FileTrouble as trouble:
        return Download(file.lfn, file.size_bytes, error=trouble.message)
    except OSError as error:
        return Download(file.lfn, file.size_bytes, error=f"{error.filename or directory}: {error.strerror}")


def _fetch(file: FileInfo, directory: Path) -> Path:
    target = directory / _plain_name(file.lfn)
    if target.exists():
        return _checked_before(target, file)
    sources = [path for path in (_local_path(replica.url) for replica in file.replicas) if path and path.is_file()]
    if not sources:
        places = ", ".join(replica.endpoint for replica in file.replicas) or "nowhere"
        raise FileTrouble(f"no copy can be read from this machine (it is at {places})", field="lfn", value=file.lfn)
    directory.mkdir(parents=True, exist_ok=True)
    return _copy_first_good(sources, target, file)


def _plain_name(lfn: str) -> str:
    """Let no file name lead out of the directory."""
    if not lfn or lfn.startswith(".") or "/" in lfn or "\\" in lfn or not lfn.isprintable():
        raise FileTrouble(f"{lfn!r} is no name for a file here", field="lfn", value=lfn)
    return lfn


def _local_path(url: str) -> Path | None:
    parts = urlsplit(url)
    local = parts.scheme == "file" and parts.netloc in ("", "localhost") and "%00" not in parts.path
    return Path(unquote(parts.path)) if local else None


def _checked_before(target: Path, file: FileInfo) -> Path:
    with target.open("rb") as reader:
        problem = _problem(reader, None, file)
    if problem:
        text = f"{target} is there already and is another file ({problem}): remove it, or choose another directory"
        raise FileTrouble(text, field="lfn", value=file.lfn)
    return target


def _copy_first_good(sources: list[Path], target: Path, file: FileInfo) -> Path:
    problems = []
    for source in sources:
        problem = _copy(source, target, file)
        if not problem:
            return target
        problems.append(f"{source}: {problem}")
    raise FileTrouble("no good copy: " + "; ".join(problems), field="lfn", value=file.lfn)


def _copy(source: Path, target: Path, file: FileInfo) -> str:
    """Copy a file so that it is at the target whole and right, or not at all; tell the problem otherwise."""
    with NamedTemporaryFile(dir=target.parent, prefix=".panda-", delete=False) as writer:
        part = Path(writer.name)
        try:
            with source.open("rb") as reader:
                problem = _problem(reader, writer, file)
            writer.flush()
            if not problem:
                part.chmod(0o644)
                part.rename(target)
            return problem
        except PermissionError as error:
            return str(error.strerror)
        finally:
            part.unlink(missing_ok=True)


def _problem(reader: IO[bytes], writer: IO[bytes] | None, file: FileInfo) -> str:
    """Compare bytes with what the catalogue says while copying them; empty when all is right."""
    size, adler32 = 0, 1
    while block := reader.read(_BLOCK):
        size, adler32 = size + len(block), zlib.adler32(block, adler32)
        if writer is not None:
            writer.write(block)
    if size != file.size_bytes:
        return f"{size} bytes, the catalogue says {file.size_bytes}"
    found = f"{adler32:08x}"
    return "" if found == file.adler32 else f"adler32 {found}, the catalogue says {file.adler32}"
