"""Storage that speaks the protocol of XRootD: `root://`. Needs the package xrootd, which is an extra of ours."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from XRootD import client
from XRootD.client.env import EnvPutInt
from XRootD.client.flags import DirListFlags, OpenFlags, QueryCode, StatInfoFlags

from pandaserver.dataservice.ddm.storage.protocol import BLOCK, Credentials, Stat
from pandaserver.errors import DDMError, DDMFatal

_TIMEOUT_S = 300  # a server may read a large file again for its checksum
_PATIENCE = {"ConnectionWindow": 10, "ConnectionRetry": 1, "StreamErrorWindow": 10}  # instead of half an hour
_NOT_FOUND, _EXISTS = 3011, 3018  # kXR_NotFound, kXR_ItExists


class Xroot:
    """Implements `Storage`."""

    reads_back = True

    def __init__(self, url: str, credentials: Credentials) -> None:
        parts = urlsplit(url)
        self._server = f"root://{parts.netloc}"
        self._root = f"/{parts.path.strip('/')}".rstrip("/")
        self._rights = _rights(credentials)
        self._files = client.FileSystem(f"{self._server}/{self._rights}")

    def stat(self, path: str) -> Stat | None:
        """See `Storage`."""
        status, found = self._files.stat(self._place(path), timeout=_TIMEOUT_S)
        if status.errno == _NOT_FOUND:
            return None
        _check(status, "cannot read", path)
        if found.flags & StatInfoFlags.IS_DIR:
            raise DDMError(f"{path} is a folder")
        return Stat(int(found.size), self._checksum(path))

    def _checksum(self, path: str) -> str | None:
        status, told = self._files.query(QueryCode.CHECKSUM, self._place(path), timeout=_TIMEOUT_S)
        if not status.ok:
            return None
        kind, _, value = told.decode(errors="replace").strip("\x00 \n").partition(" ")
        return value.lower().zfill(8) if kind == "adler32" and value else None

    def read(self, path: str) -> Iterator[bytes]:
        """See `Storage`."""
        file, offset = self._open(path, OpenFlags.READ), 0
        try:
            while True:
                status, block = file.read(offset, BLOCK, timeout=_TIMEOUT_S)
                _check(status, "cannot read", path)
                if not block:
                    return
                yield block
                offset += len(block)
        finally:
            file.close(timeout=_TIMEOUT_S)

    def write(self, path: str, blocks: Iterable[bytes], *, size_bytes: int) -> None:
        """See `Storage`."""
        file, offset, whole = self._open(path, OpenFlags.DELETE | OpenFlags.MAKEPATH), 0, False
        try:
            for block in blocks:
                status, _ = file.write(block, offset, timeout=_TIMEOUT_S)
                _check(status, "cannot write", path)
                offset += len(block)
            whole = True
        finally:
            status, _ = file.close(timeout=_TIMEOUT_S)
            if whole:
                _check(status, "cannot write", path)

    def rename(self, path: str, new: str) -> bool:
        """See `Storage`."""
        status, _ = self._files.stat(self._place(new), timeout=_TIMEOUT_S)
        if status.ok:
            return False
        status, _ = self._files.mv(self._place(path), self._place(new), timeout=_TIMEOUT_S)
        if status.errno == _EXISTS:
            return False
        _check(status, "cannot rename", path)
        return True

    def remove(self, path: str) -> None:
        """See `Storage`."""
        status, _ = self._files.rm(self._place(path), timeout=_TIMEOUT_S)
        if status.errno != _NOT_FOUND:
            _check(status, "cannot remove", path)

    def beside(self, path: str) -> list[str]:
        """See `Storage`."""
        folder = path.rpartition("/")[0]
        status, found = self._files.dirlist(self._place(folder), DirListFlags.NONE, timeout=_TIMEOUT_S)
        if status.errno == _NOT_FOUND:
            return []
        _check(status, "cannot list the folder of", path)
        return [f"{folder}/{entry.name}" for entry in found]

    def _open(self, path: str, flags: int) -> Any:
        file = client.File()
        status, _ = file.open(f"{self._server}/{self._place(path)}{self._rights}", flags, 0o644, timeout=_TIMEOUT_S)
        _check(status, "cannot open", path)
        return file

    def _place(self, path: str) -> str:
        if "?" in path:  # the library would take the rest for something else
            raise DDMFatal(f"{path}: no ? in names of files at {self._server}", field="lfn", value=path)
        return f"{self._root}/{path}"


def _rights(credentials: Credentials) -> str:
    """Say with which proxy to log in; the library looks into the environment for the authorities."""
    for name, value in _PATIENCE.items():
        EnvPutInt(name, value)
    if credentials.ca_dir:
        os.environ.setdefault("X509_CERT_DIR", str(credentials.ca_dir))
    certificate, key = credentials.certificate, credentials.key
    if not certificate:
        return ""
    own_key = key is not None and key != certificate
    return f"?xrd.gsiusrcrt={certificate}&xrd.gsiusrkey={key}" if own_key else f"?xrd.gsiusrpxy={certificate}"


def _check(status: Any, what: str, path: str) -> None:
    if not status.ok:
        name = path.rpartition("/")[2]
        raise DDMError(f"{what} {name}: {str(status.message).strip()}", field="lfn", value=name)
