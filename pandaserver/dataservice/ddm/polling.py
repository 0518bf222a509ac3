"""Looks how far the DDM is with what was requested: callbacks may be lost, late or never made; this is the truth."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

from pandaserver.dataservice.ddm.protocol import Progress, ProgressState, Wanted
from pandaserver.dataservice.service import ACTIVATE, FINISH, DataService, ask_for_datasets
from pandaserver.errors import DDMError
from pandaserver.model.dataset import Dataset, DatasetType
from pandaserver.taskbuffer import open_requests
from pandaserver.taskbuffer.database import Connection

log = logging.getLogger(__name__)

NEXT = {DatasetType.DISPATCH: ACTIVATE, DatasetType.SUB: FINISH}

_AT_ONCE = 200
_PAGES = 10  # in one look; the next one goes on where it ended
_LOST_AFTER = timedelta(minutes=10)  # what is not requested after so long was forgotten by the DDM


class Poller:
    """Looks at open requests, page by page, and asks for the work for which a callback asks."""

    def __init__(self, service: DataService) -> None:
        self._service, self._after = service, ""
        self._seen: dict[Wanted, Progress] = {}

    def run_once(self) -> int:
        """Look at what is open; tell how many datasets there was something to do for."""
        done = 0
        for _ in range(_PAGES):
            page = self._service.buffer.read(lambda c: open_requests.find(c, after=self._after, limit=_AT_ONCE))
            try:
                done += self._look(page)
            except DDMError as error:
                log.warning("the DDM cannot say how far it is, asking again later: %s", error)
                return done
            self._after = page[-1].name if len(page) == _AT_ONCE else ""
            if not self._after:
                break
        return done

    def _look(self, page: Sequence[Dataset]) -> int:
        by_pair = {(dataset.name, dataset.endpoint or ""): dataset for dataset in page}
        progress = self._service.ddm.progress(by_pair) if by_pair else {}
        ready = [by_pair[pair] for pair, seen in progress.items() if self._is_news(by_pair[pair].type, pair, seen)]
        lost = [pair for pair, seen in progress.items() if seen.state is ProgressState.GONE and seen.total]
        self._remember(progress)
        if ready:
            self._service.buffer.run(lambda c: self._ask(c, ready))
        old = [pair for pair in lost if self._service.buffer.now() - by_pair[pair].modified_at > _LOST_AFTER]
        for name, endpoint in old:
            log.warning("%s is not requested at %s any more, requesting it again", name, endpoint)
            self._service.ddm.request([name], endpoint)
        return len(ready) + len(old)

    def _is_news(self, kind: DatasetType, pair: Wanted, now: Progress) -> bool:
        """Say whether jobs may go on: all is there, or of outputs some more, which are waited for one by one."""
        before = self._seen.get(pair)
        if now.state is ProgressState.STUCK and (before is None or before.error != now.error):
            text = "%s is stuck on its way to %s, %d of %d files are there: %s"
            log.warning(text, *pair, now.there, now.total, now.error)
        more = now.there > (before.there if before else 0)
        return now.state is ProgressState.OK or (kind is DatasetType.SUB and more)

    def _remember(self, progress: dict[Wanted, Progress]) -> None:
        if len(self._seen) > _AT_ONCE * _PAGES * 10:
            self._seen.clear()  # all that it costs are some looks in vain
        self._seen |= progress

    def _ask(self, connection: Connection, ready: Sequence[Dataset]) -> None:
        for kind, work in NEXT.items():
            names = [dataset.name for dataset in ready if dataset.type is kind]
            ask_for_datasets(connection, work, names, self._service.buffer.now())
