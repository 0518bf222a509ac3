"""What data management systems do as the server asks it: a table of tests and back ends, at the end of a run."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

_TEST = re.compile(r"test_ddm_conformance\.py::test_(\w+)\[(\w+)")  # the back end is the first of the parameters


def lines(outcomes: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Say of each behaviour which back ends have it; `outcomes` are ids of tests with what came of them.

    A behaviour may have several tests; all of them have to pass.
    """
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for test, outcome in outcomes:
        if match := _TEST.search(test):
            behaviour, back_end = match.groups()
            found[behaviour.replace("_", " ")][back_end].add(outcome)
    if found:
        width, back_ends = max(map(len, found)), sorted({name for row in found.values() for name in row})
        yield f"{'behaviour':<{width}}  {'  '.join(back_ends)}"
        for behaviour, row in sorted(found.items()):
            yield f"{behaviour:<{width}}  {'  '.join(_word(row[name]).ljust(len(name)) for name in back_ends)}".rstrip()


def _word(outcomes: set[str]) -> str:
    if not outcomes:
        return "-"
    return "yes" if outcomes == {"passed"} else "NO"
