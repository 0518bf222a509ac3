"""The brokerage over any jobs, queues, loads and rules: what must be true of every choice."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from hypothesis import event, given
from hypothesis import strategies as st

from pandaserver.brokerage.advice import advise, changed
from pandaserver.brokerage.choice import SHOWN, choose_all
from pandaserver.brokerage.criteria import QUESTIONS, refusal
from pandaserver.model.choice import BYTES_PER_MB, Access, BrokerRules, Choice, Load, Request, Snapshot, Wish
from pandaserver.model.grid import Queue, QueueStatus, Topology

NAMES = [f"Q{n}" for n in range(6)]
SITES = ["S0", "S1", "S2"]
PLACES = [f"{name}_DISK" for name in NAMES]
RELEASES = ["13", "14", "15"]
OWNERS = ["/CN=a", "/CN=b"]

some_places = st.sets(st.sampled_from([*NAMES, *SITES]), max_size=2).map(frozenset)
wishes = st.builds(
    Wish,
    owner=st.sampled_from(OWNERS),
    label=st.sampled_from(["user", "managed", "test"]),
    site=st.sampled_from([None, None, None, *NAMES]),
    only=st.one_of(st.just(frozenset()), some_places),
    without=st.one_of(st.just(frozenset()), some_places),
    cloud=st.sampled_from(["", "", "US", "DE"]),
    vo=st.sampled_from(["", "atlas", "cms"]),
    releases=st.lists(st.sampled_from(RELEASES), max_size=2, unique=True).map(tuple),
    platform=st.sampled_from(["", "x86", "arm"]),
    memory_mb=st.integers(0, 4000),
    disk_mb=st.integers(0, 40),
    cores=st.integers(1, 8),
    wall_time_s=st.integers(0, 100),
    production=st.booleans(),
    avoid=st.sets(st.sampled_from(NAMES), max_size=2).map(frozenset),
)


@st.composite
def requests(draw: st.DrawFn, job_id: int = 1) -> Request:
    at = draw(st.dictionaries(st.sampled_from(PLACES), st.integers(1, 5), max_size=3))
    size = max(at.values(), default=0)
    names = tuple(("s", f"f{n}") for n in range(draw(st.integers(1, 25)) if at else 0))
    return Request(
        job_id=job_id,
        wish=replace(draw(wishes), input_mb=size),
        priority=draw(st.integers(0, 1000)),
        inputs=names,
        input_bytes=size * BYTES_PER_MB,
        bytes_at={place: number * BYTES_PER_MB for place, number in at.items()},
        files_at=dict.fromkeys(at, 1),
    )


def some_requests(most: int = 12) -> st.SearchStrategy[list[Request]]:
    def numbered(found: list[Request]) -> list[Request]:
        return [replace(one, job_id=number) for number, one in enumerate(found, start=1)]

    return st.lists(requests(), min_size=1, max_size=most).map(numbered)


def any_queue(name: str) -> st.SearchStrategy[Queue]:
    some = st.lists(st.sampled_from(RELEASES), max_size=3, unique=True).map(tuple)
    return st.builds(
        Queue,
        name=st.just(name),
        site=st.sampled_from(SITES),
        cloud=st.sampled_from(["US", "DE"]),
        tier=st.sampled_from([1, 2]),
        status=st.sampled_from([QueueStatus.ONLINE] * 4 + list(QueueStatus)),
        endpoint=st.just(f"{name}_DISK"),
        memory_mb=st.sampled_from([0, 2000, 4000]),
        cores=st.sampled_from([1, 8, 8]),
        max_wall_time_s=st.sampled_from([0, 50]),
        max_work_dir_mb=st.sampled_from([0, 20]),
        max_input_mb=st.sampled_from([0, 0, 2]),
        releases=some,
        platforms=st.sampled_from([(), ("x86",), ("x86", "arm")]),
        vos=st.sampled_from([(), ("atlas",), ("cms", "")]),
    )


queues = st.lists(st.sampled_from(NAMES), unique=True).flatmap(lambda names: st.tuples(*map(any_queue, names)))
access = st.lists(st.builds(Access, st.sampled_from(["Q*", "S1", "Q2"]), st.sampled_from(["*a", "/CN=b"])), max_size=1)
rules = st.builds(
    BrokerRules,
    seed=st.sampled_from(["", "x"]),
    spread=st.sampled_from([0.0, 0.1, 1.0]),
    finalists=st.integers(1, 3),
    much_worse=st.sampled_from([1.0, 2.0, 10.0]),
    pilots_within_s=st.sampled_from([None, 100.0]),
    silent_jobs=st.sampled_from([0, 10]),
    bunch_jobs=st.integers(1, 3),
    allow=access.map(tuple),
    deny=access.map(tuple),
)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    amount = st.integers(0, 50)
    return Snapshot(
        topology=Topology(queues={q.name: q for q in draw(queues)}, endpoints={}),
        loads=draw(st.dictionaries(st.sampled_from(NAMES), st.builds(Load, queued=amount, running=amount))),
        pilots=draw(st.dictionaries(st.sampled_from(NAMES), st.integers(0, 2))),
        free_mb=draw(st.dictionaries(st.sampled_from(PLACES), st.sampled_from([0, 5000, 10**6]), max_size=2)),
        backlog_mb=draw(
            st.dictionaries(st.tuples(st.sampled_from(PLACES), st.sampled_from(PLACES)), st.floats(0, 1e6), max_size=3)
        ),
        rules=draw(rules),
    )


def fitting(request: Request, snapshot: Snapshot) -> set[str]:
    """The queues against which no hard criterion stands."""
    grid = snapshot.topology.queues
    return {name for name, q in grid.items() if not any(ask(request.wish, q, snapshot) for ask in QUESTIONS)}


def verdicts(choice: Choice) -> list[str]:
    return [*(one.queue for one in choice.candidates), *(name for one in choice.rejected for name in one.queues)]


@given(some_requests(), snapshots())
def test_every_choice_is_sound(asked: list[Request], snapshot: Snapshot) -> None:
    choices = choose_all(asked, snapshot)
    assert len(choices) == len(asked)
    for request, choice in zip(asked, choices, strict=True):
        fit = fitting(request, snapshot)
        event(f"{len(fit)} of {len(snapshot.topology.queues)} queues can take the job")
        assert (choice.queue is None) == (not fit)
        assert choice.queue is None or choice.queue in fit, "never a site that fails a hard criterion"
        assert {one.queue for one in choice.candidates} <= fit
        assert sorted(verdicts(choice)) == sorted(snapshot.topology.queues) and choice.more == 0
        assert [choice.queue] == [one.queue for one in choice.candidates[:1]] or choice.queue is None
        assert all(one.reason and one.criterion for one in choice.rejected)
        if request.wish.site is not None:
            assert choice.queue in (None, request.wish.site)


@given(some_requests(), snapshots())
def test_what_may_pass_is_what_would_fit_if_all_were_open(asked: list[Request], snapshot: Snapshot) -> None:
    grid = snapshot.topology
    opened = {name: replace(q, status=QueueStatus.ONLINE) for name, q in grid.queues.items()}
    better = replace(snapshot, topology=replace(grid, queues=opened), free_mb={})
    for request, choice in zip(asked, choose_all(asked, snapshot), strict=True):
        if choice.queue is None:
            assert choice.may_pass == bool(fitting(request, better))


@given(some_requests(), snapshots(), st.randoms())
def test_the_same_snapshot_and_seed_give_the_same_choices_in_whatever_order_queues_come(
    asked: list[Request], snapshot: Snapshot, chance: random.Random
) -> None:
    shuffled = list(snapshot.topology.queues.items())
    chance.shuffle(shuffled)
    other = replace(snapshot, topology=replace(snapshot.topology, queues=dict(shuffled)))
    assert choose_all(asked, snapshot) == choose_all(asked, other) == choose_all(asked, snapshot)


@given(some_requests(), snapshots())
def test_jobs_that_are_answered_together_are_answered_as_each_alone(asked: list[Request], snapshot: Snapshot) -> None:
    together = choose_all(asked, snapshot)
    for request, choice in zip(asked, together, strict=True):
        (alone,) = choose_all([request], snapshot)
        assert (choice.rejected, choice.may_pass, choice.advice) == (alone.rejected, alone.may_pass, alone.advice)


MORE = st.sampled_from(["memory", "cores", "wall", "disk", "input", "open", "releases", "free", "pilots", "queue"])


def enlarged(snapshot: Snapshot, what: str) -> Snapshot:
    """The same with more capacity of a kind, everywhere."""
    changes: Mapping[str, dict[str, object]] = {
        "memory": {"memory_mb": 10**6},
        "cores": {"cores": 64},
        "wall": {"max_wall_time_s": 0},
        "disk": {"max_work_dir_mb": 10**6},
        "input": {"max_input_mb": 0},
        "open": {"status": QueueStatus.ONLINE},
        "releases": {"releases": tuple(RELEASES)},
    }
    if what == "free":
        return replace(snapshot, free_mb=dict.fromkeys(snapshot.free_mb, 10**9))
    if what == "pilots":
        return replace(snapshot, pilots=dict.fromkeys(NAMES, 9))
    grid = snapshot.topology.queues
    if what == "queue":
        extra = Queue(name="NEW", site="NEW", cloud="US", tier=2, status=QueueStatus.ONLINE, endpoint="NEW_DISK")
        return replace(snapshot, topology=replace(snapshot.topology, queues=grid | {"NEW": extra}))
    larger = {name: replace(q, **changes[what]) for name, q in grid.items()}  # type: ignore[arg-type]
    return replace(snapshot, topology=replace(snapshot.topology, queues=larger))


@given(some_requests(), snapshots(), MORE)
def test_more_capacity_never_makes_a_job_unrunnable(asked: list[Request], snapshot: Snapshot, what: str) -> None:
    before, after = choose_all(asked, snapshot), choose_all(asked, enlarged(snapshot, what))
    for old, new in zip(before, after, strict=True):
        assert old.queue is None or new.queue is not None


@given(requests(), snapshots())
def test_the_proposed_change_makes_the_job_runnable(request: Request, snapshot: Snapshot) -> None:
    advice, fit = advise(request.wish, snapshot), fitting(request, snapshot)
    if fit:
        assert advice is None
        return
    (choice,) = choose_all([request], snapshot)
    assert choice.advice == advice
    if advice is None:
        event("nothing would help")
        assert not choice.may_pass
        return
    event(f"{len(advice.changes)} changes")
    better = replace(request, wish=changed(request.wish, advice.changes))
    against = refusal(better.wish, snapshot.topology.queues[advice.queue], snapshot)
    if "wait for" not in advice.text or "; then " in advice.text:
        assert against is None
        assert choose_all([better], snapshot)[0].queue is not None
    else:
        assert against is not None and against.passing
        assert choose_all([better], snapshot)[0].may_pass


@given(requests(), snapshots())
def test_the_winner_is_not_much_worse_and_has_most_bytes_among_the_finalists(
    request: Request, snapshot: Snapshot
) -> None:
    (choice,) = choose_all([request], snapshot)
    if choice.queue is None:
        return
    weights = {one.queue: one.weight for one in choice.candidates}
    rules, best = snapshot.rules, min(weights.values())
    assert len(weights) <= SHOWN
    assert weights[choice.queue] <= max(rules.much_worse, 1 + rules.spread) * best * (1 + 1e-9)
    local = request.bytes_at.get(f"{choice.queue}_DISK", 0)
    if not rules.spread:
        lighter = _in_order(weights, request)[: rules.finalists]
        rivals = [name for name in lighter if weights[name] <= rules.much_worse * best]
        assert choice.queue in rivals
        assert local == max(request.bytes_at.get(f"{name}_DISK", 0) for name in rivals)


def _in_order(weights: Mapping[str, float], request: Request) -> Sequence[str]:
    return sorted(weights, key=lambda name: (weights[name], -request.bytes_at.get(f"{name}_DISK", 0), name))
