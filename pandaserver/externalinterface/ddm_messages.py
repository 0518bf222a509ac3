"""What Rucio's hermes posts: messages of many kinds, each at least once and in any order; some are hints for us."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from pandaserver.dataservice.ddm.polling import NEXT
from pandaserver.dataservice.service import DataService, ask_for_datasets
from pandaserver.taskbuffer import datasets
from pandaserver.taskbuffer.database import Connection

log = logging.getLogger(__name__)

ARRIVALS = frozenset({"RULE_OK", "DATASETLOCK_OK"})

_REMEMBERED = 20000


class Heard:
    """The ids of messages that this process has heard; to hear one twice does no harm, it is work in vain."""

    def __init__(self, size: int = _REMEMBERED) -> None:
        self._size, self._lock = size, threading.Lock()
        self._ids: OrderedDict[str, None] = OrderedDict()

    def is_new(self, message_id: str) -> bool:
        """Say whether a message was not heard before; one without id always is."""
        with self._lock:
            new = not message_id or message_id not in self._ids
            if message_id:
                self._ids[message_id] = None
                self._ids.move_to_end(message_id)
            while len(self._ids) > self._size:
                self._ids.popitem(last=False)
        return new

    def forget(self, message_ids: Sequence[str]) -> None:
        """Be ready to hear messages again, with which nothing could be done."""
        with self._lock:
            for message_id in message_ids:
                self._ids.pop(message_id, None)


HEARD = Heard()


def take_messages(service: DataService, messages: Sequence[Any], heard: Heard = HEARD) -> int:
    """Have those datasets looked at of which messages say that they have arrived; tell how many those are.

    What a message says is not believed: activator and finisher look into the catalogue.
    """
    new = [m for m in messages if isinstance(m, Mapping) and "event_type" in m and heard.is_new(_text(m.get("id")))]
    names = {name for m in new if _text(m["event_type"]) in ARRIVALS and (name := _name(m.get("payload")))}
    if not names:
        return 0
    try:
        found = service.buffer.run(lambda c: _ask(c, service, names))
    except Exception:
        heard.forget([_text(m.get("id")) for m in new])
        raise
    log.info("%d messages of the DDM, %d datasets are said to have arrived", len(new), found)
    return found


def _ask(connection: Connection, service: DataService, names: set[str]) -> int:
    found = [dataset for dataset in datasets.load_many(connection, names) if dataset.type in NEXT]
    for kind, work in NEXT.items():
        wanted = [dataset.name for dataset in found if dataset.type is kind]
        ask_for_datasets(connection, work, wanted, service.buffer.now())
    return len(found)


def _name(payload: Any) -> str:
    return _text(payload.get("name")) if isinstance(payload, Mapping) else ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
