"""What a page was asked for: checked parameters, in one normal form that is link, cache key and filter at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from pandaserver.errors import BadInput
from pandaserver.model.codes import ErrorFamily
from pandaserver.model.dataset import DatasetStatus, DatasetType
from pandaserver.model.states import JobState
from pandaserver.taskbuffer.monitoring import SORTS
from pandaserver.taskbuffer.monitoring_data import DATASET_SORTS

LONGEST_TEXT = 255
LARGEST_ID = 2**63 - 1
PAGE_SIZES = (25, 50, 100, 250, 500)
NO_SITE = "none"  # stands for jobs without a site

Change = str | int | None | Sequence[str]


@dataclass(frozen=True)
class Parameter:
    """One name that may stand behind the question mark."""

    normal: Callable[[str], str]  # gives the one way to write a value, or raises ValueError saying what is allowed
    several: bool = False


def _text(value: str) -> str:
    if len(value) > LONGEST_TEXT:
        raise ValueError(f"at most {LONGEST_TEXT} characters")
    return value


def _whole(low: int, high: int) -> Callable[[str], str]:
    def normal(value: str) -> str:
        if not (value.isascii() and value.isdecimal() and len(value) < 20 and low <= int(value) <= high):
            raise ValueError(f"a whole number from {low} to {high}")
        return str(int(value))

    return normal


def _one_of(allowed: Iterable[object]) -> Callable[[str], str]:
    known = [str(value) for value in allowed]

    def normal(value: str) -> str:
        if value not in known:
            raise ValueError(f"one of {', '.join(known)}")
        return value

    return normal


def _sort(allowed: Iterable[str]) -> Callable[[str], str]:
    known = list(allowed)

    def normal(value: str) -> str:
        if value.removeprefix("-") not in known:
            raise ValueError(f"one of {', '.join(known)}, with a minus in front for descending")
        return value

    return normal


def _error(value: str) -> str:
    family, colon, code = value.partition(":")
    families = [f.value for f in ErrorFamily]
    if family not in families or not colon or not (code.isascii() and code.isdecimal() and len(code) < 10):
        raise ValueError(f"FAMILY:CODE, with a family of {', '.join(families)}")
    return f"{family}:{int(code)}"


PARAMETERS: dict[str, Parameter] = {
    "format": Parameter(_one_of(("html", "json", "csv"))),
    "state": Parameter(_one_of(JobState), several=True),
    "site": Parameter(_text, several=True),
    "owner": Parameter(_text, several=True),
    "label": Parameter(_text, several=True),
    "task": Parameter(_whole(0, LARGEST_ID)),
    "definition": Parameter(_whole(0, LARGEST_ID)),
    "dataset": Parameter(_text),
    "name": Parameter(_text),
    "error": Parameter(_error),
    "family": Parameter(_one_of(ErrorFamily)),
    "hours": Parameter(_whole(1, 24 * 366)),
    "sort": Parameter(_sort(SORTS)),
    "order": Parameter(_sort(DATASET_SORTS)),
    "page": Parameter(_whole(1, 1_000_000)),
    "size": Parameter(_one_of(PAGE_SIZES)),
    "type": Parameter(_one_of(DatasetType)),
    "status": Parameter(_one_of([*DatasetStatus, "frozen", "open"])),
    "transfer": Parameter(_one_of(("queued", "done", "failed")), several=True),
    "destination": Parameter(_text),
    "source": Parameter(_text),
    "member": Parameter(_whole(0, 1_000_000)),
    "file": Parameter(_whole(1, LARGEST_ID)),
    "q": Parameter(_text),
}


@dataclass(frozen=True)
class Query:
    """A page and its parameters in normal form."""

    root: str  # what the web server puts in front of all addresses
    path: str  # not yet quoted
    values: Mapping[str, tuple[str, ...]]

    def text(self, name: str, default: str = "") -> str:
        """Give a parameter that stands once."""
        return self.values[name][0] if name in self.values else default

    def texts(self, name: str) -> tuple[str, ...]:
        """Give a parameter that may stand several times."""
        return self.values.get(name, ())

    def number(self, name: str, default: int) -> int:
        """Give a parameter that is a whole number."""
        return int(self.text(name, str(default)))

    @property
    def key(self) -> str:
        """Give what tells this query from all others."""
        return self.href()

    def href(self, **changes: Change) -> str:
        """Give the address of this page with some parameters changed; a change of filter starts at page one."""
        values = dict(self.values)
        if set(changes) - {"format"}:
            values.pop("page", None)
        for name, change in changes.items():
            values[name] = as_texts(change)
        return address(self.root, self.path, values)

    def without(self, name: str, value: str) -> str:
        """Give the address of this page with one value of a parameter taken away."""
        return self.href(**{name: tuple(text for text in self.texts(name) if text != value)})

    def link(self, path: str, **values: Change) -> str:
        """Give the address of another page."""
        return address(self.root, path, {name: as_texts(value) for name, value in values.items()})


def as_texts(change: Change) -> tuple[str, ...]:
    """Write what a link was given as the values of a parameter."""
    if change is None or change == "":
        return ()
    return (str(change),) if isinstance(change, str | int) else tuple(map(str, change))


def address(root: str, path: str, values: Mapping[str, Sequence[str]]) -> str:
    """Write an address; the order of the parameters is always the same."""
    pairs = [(name, text) for name in sorted(values) for text in values[name]]
    return f"{root}{quote(path)}{'?' if pairs else ''}{urlencode(pairs)}"


def read_query(root: str, path: str, given: Mapping[str, Sequence[str]], *, allowed: Sequence[str]) -> Query:
    """Check and normalise parameters; empty ones count as not given.

    Raises:
        BadInput: naming the first parameter that is unknown here or has a value that is not allowed.
    """
    values: dict[str, tuple[str, ...]] = {}
    for name in sorted(given):
        if name not in allowed:
            text = f"there is no parameter {name} on this page; there are {', '.join(allowed)}"
            raise BadInput(text, field=name)
        told = _normal(name, [text for text in given[name] if text])
        if told:
            values[name] = told
    return Query(root, path, values)


def _normal(name: str, texts: Sequence[str]) -> tuple[str, ...]:
    parameter = PARAMETERS[name]
    if len(texts) > (50 if parameter.several else 1):
        raise BadInput(f"parameter {name} is given {len(texts)} times", field=name)
    found = set()
    for text in texts:
        try:
            found.add(parameter.normal(text))
        except ValueError as error:
            raise BadInput(f"parameter {name}: allowed is {error}", field=name, value=text) from error
    return tuple(sorted(found))
