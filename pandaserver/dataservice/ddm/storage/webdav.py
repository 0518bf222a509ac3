"""Storage that speaks WebDAV over TLS: `https://`, with Apache's mod_dav and with XrdHttp.

They differ: Apache makes no folders by itself and knows no checksums; XrdHttp answers PUT and DELETE with 200, and
says some failures in the body of a 201.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import requests

from pandaserver.dataservice.ddm.storage.protocol import BLOCK, Credentials, Stat
from pandaserver.errors import DDMError

_TIMEOUTS_S = (10, 300)  # connect; a server may read a large file again for its checksum
_DONE = (200, 201, 204)
_FAILURE = b"failure:"
_MOST_FOLDERS = 100_000  # that are remembered


class WebDav:
    """Implements `Storage`."""

    reads_back = True

    def __init__(self, url: str, credentials: Credentials) -> None:
        parts = urlsplit(url)
        self._base = f"https://{parts.netloc}"
        self._root = unquote(parts.path).strip("/")
        self._credentials = credentials
        self._own = threading.local()
        self._folders: set[str] = set()

    def stat(self, path: str) -> Stat | None:
        """See `Storage`."""
        with closing(self._ask("HEAD", path, headers=_WANT_DIGEST)) as answer:
            if answer.status_code == 404:
                return None
            self._expect(answer, 200)
            length = answer.headers.get("Content-Length", "")
            size = int(length) if length.isdigit() else sum(map(len, self.read(path)))  # Apache says no 0 here
            return Stat(size, _digest(answer.headers.get("Digest", "")))

    def read(self, path: str) -> Iterator[bytes]:
        """See `Storage`."""
        with closing(self._ask("GET", path, headers=_AS_IT_IS, stream=True)) as answer:
            self._expect(answer, 200)
            try:
                yield from answer.iter_content(BLOCK)
            except requests.RequestException as error:
                raise DDMError(f"{answer.url} broke off: {error}") from error

    def write(self, path: str, blocks: Iterable[bytes], *, size_bytes: int) -> None:
        """See `Storage`."""
        self._make_folder(path.rpartition("/")[0])
        body = _Body(blocks, size_bytes) if size_bytes else b"".join(blocks)
        with closing(self._ask("PUT", path, data=body)) as answer:
            if answer.status_code in (404, 409):
                self._folders.clear()  # somebody has removed some
            self._expect(answer, *_DONE)

    def rename(self, path: str, new: str) -> bool:
        """See `Storage`."""
        if self.stat(new) is not None:  # not every server minds the header
            return False
        headers = {"Destination": self._url(new), "Overwrite": "F"}
        with closing(self._ask("MOVE", path, headers=headers)) as answer:
            if answer.status_code == 412:
                return False
            self._expect(answer, *_DONE)
        return True

    def remove(self, path: str) -> None:
        """See `Storage`."""
        with closing(self._ask("DELETE", path)) as answer:
            self._expect(answer, *_DONE, 404)

    def beside(self, path: str) -> list[str]:
        """See `Storage`."""
        folder = path.rpartition("/")[0]
        with closing(self._ask("PROPFIND", f"{folder}/", headers={"Depth": "1"})) as answer:
            if answer.status_code == 404:
                return []
            self._expect(answer, 207)
            names = [unquote(urlsplit(href).path) for href in _HREF.findall(answer.text)]
        return [f"{folder}/{name.rpartition('/')[2]}" for name in names if not name.endswith("/")]

    def _make_folder(self, folder: str) -> None:
        if not folder or folder in self._folders:
            return
        if self._make(folder) == 409:  # its parent is missing
            self._make_folder(folder.rpartition("/")[0])
            self._make(folder)
        if len(self._folders) >= _MOST_FOLDERS:
            self._folders.clear()
        self._folders.add(folder)

    def _make(self, folder: str) -> int:
        """Make one folder; what is wrong with it is seen when something is written there."""
        with closing(self._ask("MKCOL", f"{folder}/")) as answer:
            return answer.status_code

    def _url(self, path: str) -> str:
        return f"{self._base}/{quote(f'{self._root}/{path}'.lstrip('/'))}"

    def _ask(self, method: str, path: str, **told: Any) -> requests.Response:
        try:
            return self._session().request(
                method, self._url(path), timeout=_TIMEOUTS_S, allow_redirects=method in ("GET", "HEAD"), **told
            )
        except OSError as error:  # of requests too; a certificate that is not there is one
            raise DDMError(f"{method} {self._url(path)} failed: {error}") from error

    def _session(self) -> requests.Session:
        """Give this thread's session, which keeps its connection."""
        session: requests.Session | None = getattr(self._own, "session", None)
        if session is None:
            session = self._own.session = requests.Session()
            session.trust_env = False  # or variables like REQUESTS_CA_BUNDLE would say whom we believe
            told = self._credentials
            session.verify = str(told.ca_dir) if told.ca_dir else True
            if told.certificate:
                session.cert = (str(told.certificate), str(told.key or told.certificate))
        return session

    @staticmethod
    def _expect(answer: requests.Response, *statuses: int) -> None:
        method = answer.request.method
        if answer.status_code not in statuses:
            raise DDMError(f"{method} {answer.url} was answered {answer.status_code} {answer.reason}")
        last = b"" if method in ("GET", "HEAD") else answer.content.strip().rpartition(b"\n")[2]
        if last.startswith(_FAILURE):
            raise DDMError(f"{method} {answer.url}: {last[:200].decode(errors='replace')}")


_WANT_DIGEST = {"Want-Digest": "adler32", "Accept-Encoding": "identity"}
_AS_IT_IS = {"Accept-Encoding": "identity"}
_HREF = re.compile(r"<(?:\w+:)?href>([^<]*)</")
_ADLER = re.compile(r"\badler32=([0-9a-fA-F]{1,8})\b")


def _digest(header: str) -> str | None:
    found = _ADLER.search(header)
    return found.group(1).lower().zfill(8) if found else None


@dataclass(frozen=True)
class _Body:
    """A body of a known length that is made as it is sent."""

    blocks: Iterable[bytes]
    size_bytes: int

    def __len__(self) -> int:
        return self.size_bytes

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.blocks)
