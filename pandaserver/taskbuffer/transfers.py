"""The built-in DDM's transfers: what is wanted where, and the copies that this takes.

A copy goes over the link from its source to its destination. A link has lanes; who holds a lane, which is a piece of
background work, takes some of the link's copies at a time and marks them with the lane and a token of its own. So
copies that are marked with a lane when somebody else takes that lane are those of a process that has ended.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.model.file import Replica
from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.catalogue import FileName, in_parts
from pandaserver.taskbuffer.database import upsert
from pandaserver.taskbuffer.statements import Prepared, Upsert, values

_subscriptions, _transfers = schema.ddm_subscriptions, schema.ddm_transfers

Link = tuple[str, str]  # source, destination
QUEUED, DONE, FAILED = "queued", "done", "failed"
NOWHERE = ""  # the source of what has no copy anywhere
_LOOK_AGAIN = timedelta(seconds=5)  # where another lane copies the same file
_FIRST_DELAY_S, _LONGEST_DELAY_S = 1.0, 300.0


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """A copy to be made, made or failed; `lane` of one that is being made."""

    transfer_id: int
    dataset: str
    scope: str
    lfn: str
    destination: str
    source: str | None
    state: str
    size_bytes: int
    message: str | None
    created_at: datetime
    ended_at: datetime | None
    seconds: float | None
    lane: str | None = None
    tries: int = 0
    first_tried_at: datetime | None = None
    due_at: datetime | None = None

    @property
    def name(self) -> FileName:
        """Give scope and lfn."""
        return self.scope, self.lfn


@dataclass(frozen=True)
class Lane:
    """One of the copies that a link makes at once, and its holder's token."""

    source: str
    destination: str
    number: int
    token: str

    @property
    def slot(self) -> str:
        """Name the lane, whoever holds it."""
        return f"{self.source}>{self.destination}#{self.number}"

    @property
    def mark(self) -> str:
        """Give what copies in this lane are marked with."""
        return f"{self.slot}/{self.token}"


# --- what is wanted


def subscribe(connection: Connection, datasets: Iterable[str], endpoint: str, now: datetime) -> None:
    """Let datasets be complete at an endpoint, now and for what comes in later."""
    rows = [{"dataset": name, "endpoint": endpoint, "created_at": now} for name in sorted(datasets)]
    upsert(connection, _subscriptions, rows, update={})


def unsubscribe(connection: Connection, dataset: str, endpoint: str) -> None:
    """End a subscription and drop what is still queued for it."""
    match = sa.and_(_subscriptions.c.dataset == dataset, _subscriptions.c.endpoint == endpoint)
    connection.execute(sa.delete(_subscriptions).where(match))
    connection.execute(sa.delete(_transfers).where(_of(dataset, endpoint), _transfers.c.state == QUEUED))


def subscriptions(connection: Connection, datasets: Iterable[str]) -> list[tuple[str, str]]:
    """List where datasets shall be, as (dataset, endpoint)."""
    return [(row[0], row[1]) for row in _SUBSCRIPTIONS.rows(connection, datasets=sorted(datasets))]


_SUBSCRIPTIONS = Prepared(
    sa.select(_subscriptions.c.dataset, _subscriptions.c.endpoint)
    .where(_subscriptions.c.dataset.in_(values("datasets")))
    .order_by(_subscriptions.c.dataset, _subscriptions.c.endpoint)
)


def _of(dataset: Any, destination: Any) -> sa.ColumnElement[bool]:
    return sa.and_(_transfers.c.dataset == dataset, _transfers.c.destination == destination)


# --- queueing


def queue(
    connection: Connection, dataset: str, destination: str, missing: Mapping[FileName, int], now: datetime
) -> None:
    """Queue copies of what is missing, with its sizes; one given up, or whose result was lost, is queued again."""
    for scope, lfns in in_parts(missing):
        _QUEUE_AGAIN.run(connection, now=now, name=dataset, place=destination, its_scope=scope, lfns=lfns)
    same = {"dataset": dataset, "destination": destination, "state": QUEUED, "created_at": now, "due_at": now}
    _ADD.many(connection, [same | {"scope": n[0], "lfn": n[1], "size_bytes": missing[n]} for n in sorted(missing)])


_QUEUE_AGAIN = Prepared(
    sa.update(_transfers)
    .where(
        _of(sa.bindparam("name"), sa.bindparam("place")),
        _transfers.c.scope == sa.bindparam("its_scope"),
        _transfers.c.lfn.in_(values("lfns")),
        _transfers.c.state != QUEUED,
    )
    .values(
        state=QUEUED, source=sa.null(), message=sa.null(), ended_at=sa.null(), seconds=sa.null(), lane=sa.null(),
        tries=0, first_tried_at=sa.null(), due_at=sa.bindparam("now", type_=schema.UTC6),
    )
)  # fmt: skip
_ADD = Upsert(_transfers, lambda new: {"dataset": new.dataset})


def unplanned(connection: Connection, dataset: str, destination: str) -> list[Transfer]:
    """List the queued copies of a dataset that have no source yet."""
    return _load(connection, _of(dataset, destination), _transfers.c.state == QUEUED, _transfers.c.source.is_(None))


def by_ids(connection: Connection, transfer_ids: Sequence[int]) -> list[Transfer]:
    """Load those of these copies that are queued and have no source yet."""
    wanted = _transfers.c.transfer_id.in_(transfer_ids)
    return _load(connection, wanted, _transfers.c.state == QUEUED, _transfers.c.source.is_(None))


def queued(connection: Connection, dataset: str, destination: str) -> list[Transfer]:
    """List the copies of a dataset still to be made."""
    return _load(connection, _of(dataset, destination), _transfers.c.state == QUEUED)


def _load(connection: Connection, *conditions: sa.ColumnElement[bool]) -> list[Transfer]:
    statement = sa.select(_transfers).where(*conditions).order_by(_transfers.c.transfer_id)
    return [Transfer(**row._mapping) for row in connection.execute(statement)]


def any_queued(connection: Connection, dataset: str, destination: str) -> bool:
    """Say whether a dataset has copies still to be made."""
    return bool(_ANY_QUEUED.rows(connection, dataset=dataset, destination=destination))


_ANY_QUEUED = Prepared(
    sa.select(_transfers.c.transfer_id)
    .where(_of(sa.bindparam("dataset"), sa.bindparam("destination")), _transfers.c.state == QUEUED)
    .limit(1)
)


def plan(
    connection: Connection,
    waiting: Sequence[Transfer],
    copies: Mapping[FileName, Sequence[Replica]],
    sites: Mapping[str, str],
    now: datetime,
) -> Counter[Link]:
    """Give each copy a source: each try the next one. Tell how many copies each link got.

    A source at the site of the destination comes first, then that from which the fewest bytes are taken here. `sites`
    are those of the endpoints that there are.
    """
    taken, planned, links = Counter[str](), list[Transfer](), Counter[Link]()
    for one in waiting:
        home = sites.get(one.destination)
        known = sorted(r.endpoint for r in copies.get(one.name, ()) if r.endpoint in sites)
        if one.tries and one.source in known:
            place = known.index(one.source) + 1
            known = known[place:] + known[:place]
        elif known:
            known.sort(key=lambda name: (sites[name] != home, taken[name]))
        source = known[0] if known else NOWHERE
        taken[source] += one.size_bytes
        links[source, one.destination] += 1
        all_tried = one.tries % max(1, len(known)) == 0
        rests = _delay(one.tries // max(1, len(known))) if all_tried else timedelta()
        planned.append(replace(one, source=source, due_at=now + rests, lane=None))
    save(connection, planned)
    return links


def _delay(rounds: int) -> timedelta:
    return timedelta(seconds=min(_FIRST_DELAY_S * 2.0 ** (rounds - 1), _LONGEST_DELAY_S) if rounds else 0.0)


# --- lanes


def take(connection: Connection, lane: Lane, now: datetime, *, files: int, size_bytes: int) -> list[Transfer]:
    """Mark copies that are due for a lane, up to so many files and about so many bytes; one for each file.

    What others want of the same files at the same place is marked with them; what another lane has waits for it.
    """
    told = {"source": lane.source, "destination": lane.destination, "now": now, "limit": files}
    due = [_transfer(row) for row in _DUE.rows(connection, **told)]
    chosen, room = dict[FileName, Transfer](), size_bytes
    for one in due:
        if room > 0 or not chosen:
            room -= 0 if one.name in chosen else one.size_bytes
            chosen.setdefault(one.name, one)
    for scope, lfns in in_parts(chosen):
        places = {"place": lane.destination, "its_scope": scope}
        busy = {row[0] for row in _BUSY.rows(connection, lfns=lfns, **places)}
        _WAIT.run(connection, lfns=sorted(busy), until=now + _LOOK_AGAIN, **places)
        _MARK.run(connection, lfns=sorted(set(lfns) - busy), mark=lane.mark, now=now, **places)
        for lfn in busy:
            del chosen[scope, lfn]
    return [replace(one, lane=lane.mark, first_tried_at=one.first_tried_at or now) for one in chosen.values()]


_COLUMNS = tuple(column.name for column in _transfers.columns)


def _transfer(row: Sequence[Any]) -> Transfer:
    return Transfer(**dict(zip(_COLUMNS, row, strict=True)))


_link = sa.and_(
    _transfers.c.state == QUEUED,
    _transfers.c.source == sa.bindparam("source"),
    _transfers.c.destination == sa.bindparam("destination"),
    _transfers.c.lane.is_(None),
)
_DUE = Prepared(
    sa.select(_transfers)
    .where(_link, _transfers.c.due_at <= sa.bindparam("now"))
    .order_by(_transfers.c.due_at, _transfers.c.transfer_id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
    .with_for_update(skip_locked=True)
)
_same_copies = sa.and_(
    _transfers.c.destination == sa.bindparam("place"),
    _transfers.c.scope == sa.bindparam("its_scope"),
    _transfers.c.lfn.in_(values("lfns")),
    _transfers.c.state == QUEUED,
)
_BUSY = Prepared(sa.select(_transfers.c.lfn).distinct().where(_same_copies, _transfers.c.lane.is_not(None)))
_WAIT = Prepared(
    sa.update(_transfers).where(_same_copies, _transfers.c.lane.is_(None)).values(due_at=sa.bindparam("until"))
)
_MARK = Prepared(
    sa.update(_transfers)
    .where(_same_copies, _transfers.c.lane.is_(None))
    .values(
        lane=sa.bindparam("mark"),
        first_tried_at=sa.func.coalesce(_transfers.c.first_tried_at, sa.bindparam("now", type_=schema.UTC6)),
    )
)


def next_due(connection: Connection, lane: Lane) -> datetime | None:
    """Tell when the next copy of a link is due."""
    ((due,),) = _NEXT.rows(connection, source=lane.source, destination=lane.destination)
    return due  # type: ignore[no-any-return]


_NEXT = Prepared(sa.select(sa.func.min(_transfers.c.due_at, type_=schema.UTC6)).where(_link))


def abandoned(connection: Connection, lane: Lane) -> list[Transfer]:
    """List the copies that an earlier holder of this lane has left."""
    lanes = _transfers.c.lane.between(f"{lane.slot}/", f"{lane.slot}/~")
    return _load(connection, lanes, _transfers.c.lane != lane.mark, _transfers.c.state == QUEUED)


def release(connection: Connection, left: Collection[Transfer], now: datetime) -> None:
    """Let copies that were left be made by whoever comes; a try has failed."""
    marks = {one.lane for one in left}
    match = sa.and_(_transfers.c.lane.in_(marks), _transfers.c.state == QUEUED)
    again = {"lane": None, "due_at": now, "tries": _transfers.c.tries + 1}
    connection.execute(sa.update(_transfers).where(match).values(again))


def marked(connection: Connection, lane: Lane) -> list[Transfer]:
    """List the copies that this holder of a lane has."""
    return _load(connection, _transfers.c.lane == lane.mark, _transfers.c.state == QUEUED)


# --- how they end


def of_files(connection: Connection, destination: str, names: Iterable[FileName]) -> list[Transfer]:
    """Load all queued copies of files to an endpoint, for whichever datasets."""
    found = list[Transfer]()
    for scope, lfns in in_parts(names):
        found += [_transfer(row) for row in _SAME.rows(connection, place=destination, its_scope=scope, lfns=lfns)]
    return found


_SAME = Prepared(sa.select(_transfers).where(_same_copies).order_by(_transfers.c.transfer_id))


def save(connection: Connection, changed: Iterable[Transfer]) -> None:
    """Write what has changed of copies, each for itself."""
    rows = [vars(transfer) for transfer in sorted(changed, key=lambda t: t.transfer_id)]
    _SAVE.many(connection, rows)


# The rows are there: an "insert" of many is how MariaDB changes many rows, each in its own way, with one statement.
_CHANGING = ("state", "source", "seconds", "message", "ended_at", "lane", "tries", "first_tried_at", "due_at")
_SAVE = Upsert(_transfers, lambda new: {name: new[name] for name in _CHANGING})


def forget(connection: Connection, dataset: str) -> None:
    """Forget where a dataset shall be, and all its copies."""
    connection.execute(sa.delete(_subscriptions).where(_subscriptions.c.dataset == dataset))
    connection.execute(sa.delete(_transfers).where(_transfers.c.dataset == dataset))


def troubles(connection: Connection, datasets: Iterable[str]) -> dict[tuple[str, str], str]:
    """Tell what went wrong last with copies that are not made, by dataset and destination."""
    statement = sa.select(_transfers.c.dataset, _transfers.c.destination, sa.func.max(_transfers.c.message)).where(
        _transfers.c.dataset.in_(sorted(datasets)), _transfers.c.state != DONE, _transfers.c.message.is_not(None)
    )
    rows = connection.execute(statement.group_by(_transfers.c.dataset, _transfers.c.destination))
    return {(row[0], row[1]): row[2] for row in rows}


def by_link(waiting: Iterable[Transfer]) -> dict[Link, list[Transfer]]:
    """Sort copies by their links."""
    found: dict[Link, list[Transfer]] = defaultdict(list)
    for one in waiting:
        found[one.source or NOWHERE, one.destination].append(one)
    return dict(found)
