"""Files at storage endpoints: where they lie, their checksums, and copies that are verified before they count."""

from __future__ import annotations

import hashlib
import os
import uuid
import zlib
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pandaserver.errors import ConfigError, DDMError, DDMFatal
from pandaserver.model.grid import Endpoint

_BLOCK = 1024 * 1024


def file_path(endpoint: Endpoint, scope: str, lfn: str) -> Path:
    """Give the deterministic place of a file: root/scope/xx/yy/lfn, xx and yy from the MD5 of scope:lfn."""
    return root(endpoint).joinpath(*_below_root(scope, lfn))


def file_url(endpoint: Endpoint, scope: str, lfn: str) -> str:
    """Give the URL of a file at any endpoint, by the same rule."""
    return "/".join([endpoint.url.rstrip("/"), *_below_root(scope, lfn)])


def _below_root(scope: str, lfn: str) -> list[str]:
    digest = hashlib.md5(f"{scope}:{lfn}".encode(), usedforsecurity=False).hexdigest()
    return [*scope.split("."), digest[0:2], digest[2:4], lfn]


def root(endpoint: Endpoint) -> Path:
    """Give the folder of an endpoint.

    Raises:
        ConfigError: the endpoint is not a local folder.
    """
    url = urlsplit(endpoint.url)
    if url.scheme != "file" or url.netloc not in ("", "localhost"):
        raise ConfigError(
            f"endpoint {endpoint.name}: the local DDM needs file:///folder", field="url", value=endpoint.url
        )
    return Path(unquote(url.path))


def adler32(path: Path) -> str:
    """Compute the adler32 of a file as 8 hex digits."""
    value = 1
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            value = zlib.adler32(block, value)
    return f"{value:08x}"


def verify(path: Path, *, size_bytes: int, checksum: str) -> None:
    """Check size and adler32 of a file.

    Raises:
        DDMError: the file is not there.
        DDMFatal: its bytes are not what they should be.
    """
    try:
        size = path.stat().st_size
        found = adler32(path) if size == size_bytes else ""
    except OSError as error:
        raise DDMError(f"cannot read {path.name}: {error.strerror}", field="lfn", value=path.name) from error
    if size != size_bytes:
        raise DDMFatal(f"{path.name} has {size} bytes, {size_bytes} were announced", field="fsize", value=size)
    if found != checksum:
        raise DDMFatal(f"{path.name} has adler32 {found}, {checksum} was announced", field="adler32", value=found)


def copy(source: Path, target: Path, *, size_bytes: int, checksum: str) -> None:
    """Copy a file so that it is at the target whole and right, or not at all.

    Raises:
        DDMError: reading or writing failed, or the copy is not what it should be.
    """
    part = target.with_name(f".{target.name[:200]}.{uuid.uuid4().hex}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy_bytes(source, part)
        verify(part, size_bytes=size_bytes, checksum=checksum)
        part.replace(target)
    except OSError as error:
        raise DDMError(f"copy of {source.name} failed: {error}", field="lfn", value=source.name) from error
    finally:
        part.unlink(missing_ok=True)


def _copy_bytes(source: Path, part: Path) -> None:
    with source.open("rb") as reader, part.open("xb") as writer:
        while block := reader.read(_BLOCK):
            writer.write(block)
        writer.flush()
        os.fsync(writer.fileno())
