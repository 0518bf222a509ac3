"""Fair share: which lane of a queue is served next, so that groups get their parts and nobody starves the others."""

from __future__ import annotations

import math
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pandaserver.errors import ConfigError
from pandaserver.model.lane import Lane, LaneKey
from pandaserver.model.priority import JOBS_PER_POINT

OTHERS = "others"
_PRODUCTION, _ANALYSIS = "production", "analysis"

Chance = Callable[[float], float]  # a random number: the larger the weight, the likelier it is less than another's


@dataclass(frozen=True, kw_only=True)
class Share:
    """A part of every queue for the jobs that match all three shell patterns."""

    name: str
    weight: float
    vo: str = "*"
    working_group: str = "*"
    label: str = "*"  # prodSourceLabel, or a kind: production, analysis

    def covers(self, key: LaneKey) -> bool:
        """Say whether jobs of this lane are of this share, if of none before it."""
        kind = _PRODUCTION if key.production else _ANALYSIS
        return (
            fnmatchcase(key.vo, self.vo)
            and fnmatchcase(key.working_group, self.working_group)
            and (self.label == kind or fnmatchcase(key.label, self.label))
        )


@dataclass(frozen=True)
class Shares:
    """All shares, in order: a lane is of the first that covers it; what none covers forms one more, of weight 1."""

    shares: tuple[Share, ...] = ()

    def standing(self, everything: Iterable[Lane], *, chance: Chance = random.expovariate) -> Standing:
        """Count what runs in a queue; `everything` are all its lanes, those where jobs run and none wait included."""
        return Standing(self, everything, chance=chance)

    def order(
        self, lanes: Iterable[Lane], everything: Iterable[Lane], *, chance: Chance = random.expovariate
    ) -> list[Lane]:
        """Sort lanes in the order of Standing, best first, as if nothing of them were taken meanwhile."""
        return self.standing(everything, chance=chance).order(lanes)

    def place_of(self, key: LaneKey) -> int:
        """Tell which share a lane is of; the place after the last means the others."""
        return next((n for n, share in enumerate(self.shares) if share.covers(key)), len(self.shares))

    @property
    def all(self) -> tuple[Share, ...]:
        """The shares as configured, and that of the others."""
        return (*self.shares, Share(name=OTHERS, weight=1.0))


_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_PATTERNS = ("vo", "working_group", "label")
_LARGEST_WEIGHT = 1_000_000


def read_shares(lines: Mapping[str, str], where: str = "[shares]") -> Shares:
    """Read shares, `name -> weight vo=PATTERN working_group=PATTERN label=PATTERN`; `where` is for the text of errors.

    Raises:
        ConfigError: naming the share, and what is wrong with it.
    """
    return Shares(tuple(_read(name, text, f"{where} {name} = {text!r}") for name, text in lines.items()))


def _read(name: str, text: str, where: str) -> Share:
    def refusal(what: str) -> ConfigError:
        return ConfigError(f"{where}: {what}", field=name, value=text)

    if not _NAME.fullmatch(name) or name == OTHERS:
        raise refusal(f"a share's name is made of letters, digits and _ . : -, and is not {OTHERS}")
    weight, *rest = text.split() or [""]
    patterns: dict[str, str] = {}
    for part in rest:
        key, sign, pattern = part.partition("=")
        if key not in _PATTERNS or not sign or not pattern:
            raise refusal(f"{part!r} is none of {', '.join(f'{each}=PATTERN' for each in _PATTERNS)}")
        if key in patterns:
            raise refusal(f"{key} is there twice")
        patterns[key] = pattern
    return Share(name=name, weight=_weight(weight, refusal), **patterns)


def _weight(text: str, refusal: Callable[[str], ConfigError]) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 < weight <= _LARGEST_WEIGHT:
        raise refusal(f"a weight above 0 and up to {_LARGEST_WEIGHT} comes first, as in 60 vo=atlas label=production")
    return weight


class Standing:
    """Who runs how much in one queue, counted on while jobs are taken; not for several threads at once.

    The order of service:
    1. the share with the fewest running cores for its weight; between equals chance decides, by weight, so that also
       in a queue with fewer slots than there are shares each has its part in time;
    2. in it the highest priority of a lane's first job; in analysis, five jobs of the same owner that run in this
       queue weigh as much as one point of priority, as they do at submission;
    3. the owner with fewer running jobs of this kind;
    4. the older lane.
    """

    def __init__(self, shares: Shares, everything: Iterable[Lane], *, chance: Chance = random.expovariate) -> None:
        self._shares, self._chance = shares, chance
        self._weights = [share.weight for share in shares.all]
        self._cores = [0] * len(self._weights)
        self._running: defaultdict[tuple[str, bool], int] = defaultdict(int)
        self._places: dict[tuple[str, str, str], int] = {}
        self._known: dict[int, tuple[int, tuple[str, bool]]] = {}
        for lane in everything:
            self._count(lane, lane.running)

    def best(self, lanes: Sequence[Lane]) -> Lane | None:
        """Choose the lane to be served next, in one pass; None if there is no lane."""
        if not lanes:
            return None
        places = [self._place(lane) for lane in lanes]
        candidates = set(places)
        if len(candidates) > 1:
            place = min(sorted(candidates), key=self._load)  # sorted, so that chance is the only one there is
            lanes = [lane for lane, its in zip(lanes, places, strict=True) if its == place]
        return min(lanes, key=self._rank)

    def order(self, lanes: Iterable[Lane]) -> list[Lane]:
        """Sort lanes, best first."""
        loads = [self._load(place) for place in range(len(self._weights))]
        return sorted(lanes, key=lambda lane: (loads[self._place(lane)], self._rank(lane)))

    def took(self, lane: Lane) -> None:
        """Count a job taken from a lane; the lane's own count of running jobs grows too."""
        lane.running += 1
        self._count(lane, 1)

    def running_cores(self) -> dict[str, int]:
        """Tell how many cores run for each share, that of the others last."""
        return {share.name: cores for share, cores in zip(self._shares.all, self._cores, strict=True)}

    def _count(self, lane: Lane, jobs: int) -> None:
        place, owner = self._known_of(lane)
        self._cores[place] += jobs * lane.key.cores
        self._running[owner] += jobs

    def _load(self, place: int) -> tuple[float, float, int]:
        weight = self._weights[place]
        return (self._cores[place] / weight, self._chance(weight), place)

    def _rank(self, lane: Lane) -> tuple[int, int, int]:
        owner = self._known_of(lane)[1]
        running = self._running[owner]
        worth = lane.priority * JOBS_PER_POINT - (0 if owner[1] else running)
        return (-worth, running, lane.lane_id)

    def _place(self, lane: Lane) -> int:
        return self._known_of(lane)[0]

    def _known_of(self, lane: Lane) -> tuple[int, tuple[str, bool]]:
        """Give the share of a lane and who owns it; lanes are many, what the shares look at is not."""
        known = self._known.get(lane.lane_id)
        if known is None:
            key = lane.key
            seen = (key.vo, key.working_group, key.label)
            if seen not in self._places:
                self._places[seen] = self._shares.place_of(key)
            known = self._known[lane.lane_id] = (self._places[seen], (key.owner, key.production))
        return known
