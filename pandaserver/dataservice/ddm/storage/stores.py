"""The storage of each endpoint, made when it is first used."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pandaserver.dataservice.ddm.storage.folder import Folder
from pandaserver.dataservice.ddm.storage.places import folder
from pandaserver.dataservice.ddm.storage.protocol import Credentials, Storage
from pandaserver.dataservice.ddm.storage.webdav import WebDav
from pandaserver.errors import ConfigError
from pandaserver.model.grid import Endpoint

SCHEMES = ("file", "https", "root")
NOBODY = Credentials()
_XROOT = "pandaserver.dataservice.ddm.storage.xroot"


@dataclass
class Stores:
    """Gives the storage of endpoints; one for all threads."""

    credentials: Credentials = NOBODY
    _made: dict[str, Storage] = field(default_factory=dict)  # by URL

    def at(self, endpoint: Endpoint) -> Storage:
        """Give the storage of an endpoint.

        Raises:
            ConfigError: we cannot speak with it.
        """
        if endpoint.url not in self._made:
            self._made[endpoint.url] = self._open(endpoint)
        return self._made[endpoint.url]

    def _open(self, endpoint: Endpoint) -> Storage:
        scheme = urlsplit(endpoint.url).scheme
        if scheme == "file":
            return Folder(folder(endpoint))
        if scheme == "https":
            return WebDav(endpoint.url, self.credentials)
        if scheme == "root":
            made: Storage = _xroot(endpoint).Xroot(endpoint.url, self.credentials)
            return made
        text = f"endpoint {endpoint.name}: the local DDM knows {', '.join(f'{s}://' for s in SCHEMES)}"
        raise ConfigError(text, field="url", value=endpoint.url)


def _xroot(endpoint: Endpoint) -> Any:
    """Load what few installations need, and not all have."""
    try:
        return importlib.import_module(_XROOT)
    except ImportError as error:
        text = f"endpoint {endpoint.name}: root:// needs `pip install pandaserver[xrootd]`: {error}"
        raise ConfigError(text, field="url", value=endpoint.url) from error
