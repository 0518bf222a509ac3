"""Makes the Rucio back end where it is configured; without that, nothing of Rucio is needed."""

from __future__ import annotations

import importlib

from pandaserver.config import Config
from pandaserver.dataservice.ddm.protocol import DDM
from pandaserver.dataservice.ddm.storage import Stores
from pandaserver.errors import ConfigError
from pandaserver.taskbuffer import topology
from pandaserver.taskbuffer.buffer import TaskBuffer

_FOLDER = "pandaserver.dataservice.ddm"


def make_rucio(config: Config, buffer: TaskBuffer, stores: Stores) -> DDM:
    """Make the back end for the grid that is in the database.

    Raises:
        ConfigError: rucio-clients is not installed, or cannot log in with what the configuration says.
    """
    try:
        client, rucio = (importlib.import_module(f"{_FOLDER}.{name}") for name in ("rucio_client", "rucio"))
    except ModuleNotFoundError as error:
        text = f"[ddm] backend = rucio needs the package rucio-clients ({error}): pip install 'pandaserver[rucio]'"
        raise ConfigError(text, field="backend", value="rucio") from error
    connection = client.RucioConnection(config.rucio, config.server.ca_dir)
    made: DDM = rucio.RucioDDM(connection, config.rucio, lambda: topology.of(buffer).endpoints, stores)
    return made
