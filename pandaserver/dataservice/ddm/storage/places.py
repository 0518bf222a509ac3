"""Where a file lies at an endpoint: given by its name alone, the same for server, pilots and clients."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pandaserver.errors import ConfigError, DDMFatal, shorten
from pandaserver.model.grid import Endpoint

_LONGEST_NAME_B = 255  # of any file system


def below_root(scope: str, lfn: str) -> str:
    """Give the place of a file below an endpoint's root: scope/xx/yy/lfn, xx and yy from the MD5 of scope:lfn.

    Raises:
        DDMFatal: a name that would lead elsewhere.
    """
    digest = hashlib.md5(f"{scope}:{lfn}".encode(), usedforsecurity=False).hexdigest()
    parts = [*scope.split("."), digest[0:2], digest[2:4], lfn]
    if not all(_is_name(part) for part in parts):
        text = f"{shorten(scope)}:{shorten(lfn)} is no name of a file: no part of it may be empty, .. or hold a /"
        raise DDMFatal(text, field="lfn", value=lfn)
    return "/".join(parts)


def _is_name(part: str) -> bool:
    too_long = len(part.encode(errors="replace")) > _LONGEST_NAME_B
    return part not in ("", ".", "..") and "/" not in part and part.isprintable() and not too_long


def file_path(endpoint: Endpoint, scope: str, lfn: str) -> Path:
    """Give the place of a file at an endpoint that is a folder."""
    return folder(endpoint) / below_root(scope, lfn)


def file_url(endpoint: Endpoint, scope: str, lfn: str) -> str:
    """Give the URL of a file at any endpoint, by the same rule."""
    return f"{endpoint.url.rstrip('/')}/{below_root(scope, lfn)}"


def folder(endpoint: Endpoint) -> Path:
    """Give the folder of an endpoint.

    Raises:
        ConfigError: the endpoint is not a local folder.
    """
    url = urlsplit(endpoint.url)
    if url.scheme != "file" or url.netloc not in ("", "localhost"):
        raise ConfigError(f"endpoint {endpoint.name} is no file:///folder", field="url", value=endpoint.url)
    return Path(unquote(url.path))
