"""Makes copies: background work of the lanes of links."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pandaserver.dataservice.ddm import moving
from pandaserver.dataservice.ddm.lanes import ask_callbacks, ask_copies, ask_lane
from pandaserver.dataservice.ddm.moving import Bytes, Place
from pandaserver.dataservice.ddm.removing import ask_removals
from pandaserver.dataservice.ddm.space import Space
from pandaserver.dataservice.ddm.storage import Stores, below_root
from pandaserver.errors import ConfigError, DDMError
from pandaserver.model.file import Replica
from pandaserver.model.grid import at_once
from pandaserver.taskbuffer import catalogue, deletions, links, topology, transfers
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.catalogue import FileFacts, FileName
from pandaserver.taskbuffer.database import Connection
from pandaserver.taskbuffer.links import Carried
from pandaserver.taskbuffer.transfers import DONE, FAILED, Lane, Transfer
from pandaserver.taskbuffer.work import WorkItem

log = logging.getLogger(__name__)

_FILES_AT_ONCE, _BYTES_AT_ONCE = 50, 256 * 1024 * 1024  # taken by a lane; what comes later waits for all of them
_TURN_S = 10.0  # of a lane; then that of another link may come
_MESSAGE = 500


@dataclass(frozen=True)
class _Outcome:
    """What came of a copy; an error where it was not made."""

    transfer: Transfer
    facts: FileFacts | None
    seconds: float
    error: str = ""


class Carrier:
    """Looks after lanes; one for all threads."""

    def __init__(self, buffer: TaskBuffer, stores: Stores, give_up_after_s: float) -> None:
        self._buffer, self._stores, self._space = buffer, stores, Space(buffer)
        self._give_up_after = timedelta(seconds=give_up_after_s)

    def plan(self, items: Sequence[WorkItem]) -> None:
        """Plan copies of which each was asked for by itself: background work of kind `ddm_copy`."""
        ids, now = [item.payload["transfer_id"] for item in items], self._buffer.now()
        self._buffer.run(lambda c: ask_copies(c, transfers.by_ids(c, ids), topology.load(c), now))

    def run(self, item: WorkItem) -> None:
        """Make the copies of a lane that are due: background work of kind `ddm_link`."""
        source, destination = item.payload["link"]
        lane = Lane(source, destination, item.payload["lane"], uuid.uuid4().hex[:12])
        self._take_over(lane)
        grid, turn_ends_s = topology.of(self._buffer), time.monotonic() + _TURN_S
        if lane.number >= at_once(grid.links, lane.source, lane.destination):
            return  # the link had more lanes once
        while time.monotonic() < turn_ends_s and (mine := self._buffer.run(lambda c: self._take(c, lane))):
            outcomes = self._copy_all(mine)
            self._buffer.run(lambda c, outcomes=outcomes: self._note(c, lane, outcomes))  # type: ignore[misc]
        self._buffer.run(lambda c: self._look_again(c, lane))

    def _take_over(self, lane: Lane) -> None:
        """Clear up after an earlier holder of the lane that has not come to its end."""
        left = self._buffer.read(lambda c: transfers.abandoned(c, lane))
        for one in left:
            log.info("%s: the copy of %s to %s was not ended", lane.slot, one.lfn, one.destination)
            try:
                moving.part_of(self._place(one.destination, one.name), _token(one)).remove()
            except (DDMError, ConfigError) as error:
                log.warning("a part of %s may be left at %s: %s", one.lfn, one.destination, error)
        if left:
            self._buffer.run(lambda c: transfers.release(c, left, self._buffer.now()))

    def _take(self, connection: Connection, lane: Lane) -> list[Transfer]:
        now = self._buffer.now()
        return transfers.take(connection, lane, now, files=_FILES_AT_ONCE, size_bytes=_BYTES_AT_ONCE)

    # --- copying

    def _copy_all(self, mine: Sequence[Transfer]) -> list[_Outcome]:
        known, copies = self._buffer.read(lambda c: _look(c, [one.name for one in mine]))
        return [self._copy(one, known.get(one.name), copies.get(one.name, [])) for one in mine]

    def _copy(self, transfer: Transfer, facts: FileFacts | None, copies: Sequence[Replica]) -> _Outcome:
        """Make a copy, unless it is there already."""
        if facts is None or any(copy.endpoint == transfer.destination for copy in copies):
            return _Outcome(transfer, facts, 0.0)
        begun_s = time.monotonic()
        try:
            self._carry(transfer, facts, copies)
        except (DDMError, ConfigError) as error:
            log.warning("%s cannot be copied to %s: %s", transfer.lfn, transfer.destination, error)
            return _Outcome(transfer, facts, time.monotonic() - begun_s, f"{transfer.source or 'nowhere'}: {error}")
        return _Outcome(transfer, facts, time.monotonic() - begun_s)

    def _carry(self, transfer: Transfer, facts: FileFacts, copies: Sequence[Replica]) -> None:
        if not any(copy.endpoint == transfer.source for copy in copies):
            raise DDMError(f"no good copy of {transfer.lfn} is there", field="lfn", value=transfer.lfn)
        wanted = Bytes(transfer.lfn, facts.size_bytes, facts.adler32)
        target = self._place(transfer.destination, transfer.name)
        if moving.is_there(target, wanted):
            return  # whoever copied it did not live to tell
        self._space.check(transfer.destination, facts.size_bytes)
        moving.copy(self._place(transfer.source or "", transfer.name), target, wanted, mark=_token(transfer))
        self._space.fill(transfer.destination, facts.size_bytes)

    def _place(self, endpoint: str, name: FileName) -> Place:
        known = topology.of(self._buffer).endpoints
        if endpoint not in known:
            raise DDMError(f"there is no endpoint {endpoint}", field="endpoint", value=endpoint)
        return Place(self._stores.at(known[endpoint]), below_root(*name))

    # --- telling

    def _note(self, connection: Connection, lane: Lane, outcomes: Sequence[_Outcome]) -> None:
        now, grid = self._buffer.now(), topology.load(connection)
        good = [outcome for outcome in outcomes if not outcome.error]
        failed = {outcome.transfer.name: outcome.error for outcome in outcomes if outcome.error}
        for_whom = transfers.of_files(connection, lane.destination, [outcome.transfer.name for outcome in outcomes])
        catalogue.lock(connection, {one.dataset for one in for_whom})  # or two lanes that end would wait for each other
        _note_good(connection, lane, good, for_whom, now)
        bad = [self._failed(one, failed[one.name], now) for one in for_whom if one.name in failed and _is(one, lane)]
        transfers.save(connection, [one for one in bad if one.state == FAILED])
        ask_copies(connection, [one for one in bad if one.state != FAILED], grid, now)
        links.note(connection, (lane.source, lane.destination), _carried(good, len(failed)), now)

    def _failed(self, one: Transfer, error: str, now: datetime) -> Transfer:
        told = replace(one, tries=one.tries + 1, message=error[:_MESSAGE], lane=None)
        if one.first_tried_at is None or now - one.first_tried_at <= self._give_up_after:
            return told
        log.error("%s to %s is given up after %d tries: %s", one.lfn, one.destination, told.tries, error)
        return replace(told, state=FAILED, ended_at=now)

    def _look_again(self, connection: Connection, lane: Lane) -> None:
        now, due = self._buffer.now(), transfers.next_due(connection, lane)
        if due is not None:
            ask_lane(connection, [lane], now, delay_s=max(0.0, (due - now).total_seconds()))


def _look(
    connection: Connection, names: Sequence[FileName]
) -> tuple[dict[FileName, FileFacts], dict[FileName, list[Replica]]]:
    return catalogue.facts(connection, names), catalogue.replicas(connection, names)


def _token(transfer: Transfer) -> str:
    return (transfer.lane or "").rpartition("/")[2]


def _is(one: Transfer, lane: Lane) -> bool:
    return one.lane == lane.mark


def _note_good(
    connection: Connection, lane: Lane, good: Sequence[_Outcome], for_whom: Sequence[Transfer], now: datetime
) -> None:
    """Record copies that are there, for all datasets that wanted them; call back for those that are complete."""
    still = catalogue.lock_files(connection, [outcome.transfer.name for outcome in good])
    made = {o.transfer.name: _replica(o.transfer, o.facts) for o in good if o.facts}
    catalogue.add_replicas(connection, [r for name, r in made.items() if name in still], now)
    orphans = [replica for name, replica in made.items() if name not in still]  # forgotten while we copied them
    deletions.add(connection, orphans, now)
    ask_removals(connection, {replica.endpoint for replica in orphans}, now)
    seconds = {outcome.transfer.name: outcome.seconds for outcome in good}
    ended = [
        replace(one, state=DONE, source=lane.source, seconds=seconds[one.name], ended_at=now, lane=None, message=None)
        for one in for_whom
        if one.name in seconds
    ]
    transfers.save(connection, ended)
    wanted = sorted({(one.dataset, one.destination) for one in ended})
    ask_callbacks(connection, [pair for pair in wanted if not transfers.any_queued(connection, *pair)], now)


def _replica(transfer: Transfer, facts: FileFacts) -> Replica:
    return Replica(
        scope=transfer.scope,
        lfn=transfer.lfn,
        endpoint=transfer.destination,
        guid=facts.guid,
        size_bytes=facts.size_bytes,
        adler32=facts.adler32,
    )


def _carried(good: Sequence[_Outcome], failures: int) -> Carried:
    copied = [outcome for outcome in good if outcome.seconds]
    size = sum(outcome.transfer.size_bytes for outcome in copied)
    return Carried(len(copied), size, sum(outcome.seconds for outcome in copied), failures)
