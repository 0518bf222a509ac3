"""The Rucio back end under test: as the conformance suite wants it, and below a whole server."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from factories import Clock, Grid, Pki, write_config
from private_rucio import ACCOUNT, DELETION, PASSWORD, TRANSFERS, USERNAME, Rucio

from pandaserver.app import create_app, read_installation
from pandaserver.config_rucio import RucioLogin, RucioSection
from pandaserver.dataservice.ddm import storage
from pandaserver.dataservice.ddm.protocol import ProgressState, Wanted
from pandaserver.dataservice.ddm.rucio import RucioDDM
from pandaserver.dataservice.ddm.rucio_client import RucioConnection
from pandaserver.dataservice.ddm.storage import Stores
from pandaserver.model.file import Replica
from pandaserver.model.grid import Endpoint

_PATIENCE_S = 300  # what takes minutes elsewhere takes Rucio hours
GUID = "01234567-89ab-4def-8123-456789abcdef"


def section_of(rucio: Rucio, **more: object) -> RucioSection:
    """Say how the tests' Rucio is reached."""
    password = rucio.home / "password"
    password.write_text(f"{PASSWORD}\n", encoding="utf-8")
    told = {"url": rucio.url, "account": ACCOUNT, "login": RucioLogin.USERPASS, "username": USERNAME}
    return RucioSection(**(told | {"password_file": password, "make_scopes": True} | more))  # type: ignore[arg-type]


@dataclass
class RucioSystem:
    """A Rucio of our own with our back end over it."""

    rucio: Rucio
    ddm: RucioDDM
    endpoints: Mapping[str, Endpoint]
    calls: list[Wanted] = field(default_factory=list)
    told: dict[Wanted, int] = field(default_factory=dict)

    def store(self, endpoint: str, lfn: str, content: bytes, *, scope: str = "s") -> Replica:
        path = self.path(endpoint, lfn, scope=scope)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        checksum = f"{zlib.adler32(content):08x}"
        return Replica(scope=scope, lfn=lfn, endpoint=endpoint, guid=GUID, size_bytes=len(content), adler32=checksum)

    def path(self, endpoint: str, lfn: str, *, scope: str = "s") -> Path:
        return storage.file_path(self.endpoints[endpoint], scope, lfn)

    def settle(self, seconds: float = 0) -> None:
        """Let the daemons work, then do what polling does: see which of the wanted datasets are complete now."""
        if seconds >= _PATIENCE_S:
            self.rucio.tell("wait", hours=3)
        self.rucio.work(*TRANSFERS, times=3 if seconds else 1)
        if seconds:
            self.rucio.work(*DELETION)
        wanted = {(r["name"], r["rse_expression"]) for r in self.rucio.client.list_replication_rules()}
        for pair, progress in self.ddm.progress(wanted).items():
            if progress.state is ProgressState.OK and self.told.get(pair) != progress.total:
                self.told[pair] = progress.total
                self.calls.append(pair)


def make_rucio_system(rucio: Rucio, places: tuple[str, ...]) -> RucioSystem:
    """Empty the Rucio, and give it storage at these places."""
    root = rucio.home / "storage"
    rucio.add_rses(root, places)
    rucio.reset()
    endpoints = {name: Endpoint(name=name, site=name, url=f"file://{root}/{name}") for name in places}
    section = section_of(rucio)
    connection = RucioConnection(section, Path("/nowhere"))
    return RucioSystem(rucio, RucioDDM(connection, section, lambda: endpoints, Stores()), endpoints)


ENDPOINTS = {"BNL_DISK": "BNL-OSG2_DATADISK", "UTA_DISK": "UTA_DISK"}  # -> RSE; most are called the same
HERMES, HERMES_PASSWORD = "hermes", "a secret of hermes"
SETTINGS = """
[rucio]
url = {url}
account = {account}
login = userpass
username = {username}
password_file = {root}/password
rses = BNL_DISK BNL-OSG2_DATADISK
make_scopes = yes
timeout_s = 20
dataset_metadata = project test
hermes_username = {hermes}
hermes_password_file = {root}/hermes_password
"""


def refuse_callback(dataset: str, endpoint: str) -> None:
    raise AssertionError("with Rucio nobody calls back")


def write_rucio_config(rucio: Rucio, root: Path, pki: Pki, database_url: str) -> Path:
    """Write the configuration of a server over Rucio, and give the RSEs the folders of its endpoints."""
    config, storage_root = write_config(root, pki, database_url), rucio.home / "grid"
    told = {"url": rucio.url, "account": ACCOUNT, "username": USERNAME, "root": root, "hermes": HERMES}
    text = config.read_text().replace("[ddm]\n", "[ddm]\nbackend = rucio\n") + SETTINGS.format(**told)
    config.write_text(text)
    (root / "password").write_text(f"{PASSWORD}\n")
    (root / "hermes_password").write_text(f"{HERMES_PASSWORD}\n")
    sites = root / "sites.cfg"
    sites.write_text(sites.read_text().replace(f"file://{root}/", f"file://{storage_root}/"))
    rucio.add_rses(storage_root, list(ENDPOINTS.values()), folders={rse: name for name, rse in ENDPOINTS.items()})
    rucio.reset()
    return config


def make_rucio_grid(rucio: Rucio, root: Path, pki: Pki, pattern: Path) -> Grid:
    """Make a server whose data is Rucio's; nothing of both is there yet."""
    root.mkdir(parents=True)
    shutil.copyfile(pattern, root / "panda.db")
    config = write_rucio_config(rucio, root, pki, f"sqlite:///{root}/panda.db")
    clock = Clock()
    return Grid(root, pki, clock, create_app(read_installation(config), clock, callback=refuse_callback))
