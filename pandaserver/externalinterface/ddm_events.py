"""What the DDM tells: a dataset has arrived somewhere."""

from __future__ import annotations

import logging

from pandaserver.dataservice.service import ACTIVATE, FINISH, ask_for_datasets
from pandaserver.errors import BadInput, NotFound
from pandaserver.model.dataset import DatasetType
from pandaserver.taskbuffer import datasets
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection

log = logging.getLogger(__name__)

_NEXT = {DatasetType.DISPATCH: ACTIVATE, DatasetType.SUB: FINISH}


def dataset_completed(buffer: TaskBuffer, name: str, place: str) -> None:
    """Take the word as a hint and have the dataset looked at; saying it again does no harm.

    Raises:
        NotFound: the server has no such dataset.
        BadInput: it is no dataset the server waits for.
    """

    def work(connection: Connection) -> None:
        dataset = datasets.load(connection, name)
        if dataset is None:
            raise NotFound(f"there is no dataset {name}", field="dataset", value=name)
        if dataset.type not in _NEXT:
            text = f"{name} is an {dataset.type} dataset: nobody waits for it"
            raise BadInput(text, field="dataset", value=name)
        ask_for_datasets(connection, _NEXT[dataset.type], [name], buffer.now())

    buffer.run(work)
    log.info("%s is said to be complete at %s", name, place)
