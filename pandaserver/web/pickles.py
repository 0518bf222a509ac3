"""Reads the pickles of clients of 2007 to 2012 without unpickling: a small machine that can call nothing.

Those clients send lists of jobs or of ids in the text protocol (0). What is understood of it here is what lists,
tuples, dictionaries, texts, numbers and the four named classes need; whatever else stands in a pickle refuses it. No
class is looked up and no function is called: a class is a name, and an object is the list of its values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pandaserver.errors import BadInput, TooLarge, shorten

MOST_CHARACTERS = 16 * 1024 * 1024
MOST_STEPS = 3_000_000
MOST_DEPTH = 10  # a file's value is at the sixth level of a list of jobs
_MOST_DIGITS, _MOST_DIGITS_OF_FLOAT = 20, 40


class Kind(Enum):
    """What objects can be."""

    JOB = "JobSpec"
    FILE = "FileSpec"


@dataclass(eq=False)
class Spec:
    """A job or file: its values in the order of the wire attributes, and a job's files at the end."""

    kind: Kind
    values: list[Any] | None = None


class _Mark(Enum):
    """What stands on the stack and is no value."""

    START = "mark"
    RECONSTRUCTOR = "copy_reg._reconstructor"
    OBJECT = "object"
    SEEN = "a job or file that was there before"


_CLASSES = {
    ("pandaserver.taskbuffer.JobSpec", "JobSpec"): Kind.JOB,
    ("pandaserver.taskbuffer.FileSpec", "FileSpec"): Kind.FILE,
    ("taskbuffer.JobSpec", "JobSpec"): Kind.JOB,
    ("taskbuffer.FileSpec", "FileSpec"): Kind.FILE,
}
_NAMES: dict[tuple[str, str], Kind | _Mark] = {  # how a pickle says "an object of this class"; nothing is called
    **_CLASSES,
    ("copy_reg", "_reconstructor"): _Mark.RECONSTRUCTOR,
    ("__builtin__", "object"): _Mark.OBJECT,
}


class _Damaged(Exception):
    """A pickle that cannot be read, and why."""


def looks_pickled(value: object) -> bool:
    """Say whether a form field may be a pickle in the text protocol: it begins with a mark, which no JSON does."""
    return isinstance(value, str) and value.startswith("(")


def read_pickle(text: str, field: str) -> Any:
    """Read lists, texts, numbers, and jobs as the positional lists of the wire.

    Raises:
        BadInput: it is no such pickle; `field` is where it came.
    """
    if len(text) > MOST_CHARACTERS:
        raise TooLarge(f"{field}: a pickle of {len(text)} characters, at most {MOST_CHARACTERS}", field=field)
    try:
        return _plain(_Machine(text).run(), MOST_DEPTH)
    except _Damaged as error:
        raise BadInput(f"{field}: the pickle is not read: {error}", field=field, value=text[:60]) from None


def _plain(value: Any, depth: int) -> Any:
    """Make plain data; every list is in one place only, so this is no longer than the pickle."""
    if isinstance(value, Kind | _Mark):
        raise _Damaged(f"{value.value} is no value")
    if not isinstance(value, list | tuple | dict | Spec):
        return value
    if depth == 0:
        raise _Damaged(f"it is nested more than {MOST_DEPTH} levels deep")
    if isinstance(value, dict):
        return {key: _plain(inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, Spec):
        return _values_of(value, depth)
    return [_plain(inner, depth - 1) for inner in value]


def _values_of(spec: Spec, depth: int) -> list[Any]:
    if spec.values is None:
        raise _Damaged(f"a {spec.kind.value} without values")
    values = spec.values
    if spec.kind is Kind.FILE and values and values[-1] is _Mark.SEEN:  # the job that it belongs to and was found in
        values = [*values[:-1], None]
    return [_plain(inner, depth - 1) for inner in values]


class _Machine:
    """Follows the instructions of one pickle."""

    def __init__(self, text: str) -> None:
        self._text, self._place = text, 0
        self._stack: list[Any] = []
        self._memo: dict[str, Any] = {}
        self._repeated = 0  # characters that stand in it once and are meant more often

    def run(self) -> Any:
        """Give what the pickle holds."""
        for _ in range(MOST_STEPS):
            code = self._text[self._place : self._place + 1]
            self._place += 1
            if code == ".":
                return self._last()
            step = _STEPS.get(code)
            if step is None:
                raise _Damaged(f"instruction {shorten(code)!r} is not known here" if code else "it ends too early")
            step(self)
        raise _Damaged(f"it has more than {MOST_STEPS} instructions")

    def _last(self) -> Any:
        if len(self._stack) != 1 or self._place != len(self._text):
            raise _Damaged("there is more than one value in it")
        return self._stack.pop()

    # --- what stands in the text and on the stack

    def _line(self) -> str:
        end = self._text.find("\n", self._place)
        if end < 0:
            raise _Damaged("it ends too early")
        line, self._place = self._text[self._place : end], end + 1
        return line

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _Mark.START:
            raise _Damaged("a value is missing")
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while self._stack:
            item = self._stack.pop()
            if item is _Mark.START:
                return items[::-1]
            items.append(item)
        raise _Damaged("a mark is missing")

    def _top(self, kind: type[Any], what: str) -> Any:
        if not self._stack or not isinstance(self._stack[-1], kind):
            raise _Damaged(f"a {what} is missing")
        return self._stack[-1]

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    # --- instructions

    def mark(self) -> None:
        self._push(_Mark.START)

    def pop(self) -> None:
        if not self._stack:
            raise _Damaged("a value is missing")
        self._stack.pop()

    def none(self) -> None:
        self._push(None)

    def integer(self) -> None:
        line = self._line()
        self._push({"00": False, "01": True}[line] if line in ("00", "01") else _whole(line))

    def long(self) -> None:
        self._push(_whole(self._line().removesuffix("L")))

    def float(self) -> None:
        self._push(_number(self._line()))

    def string(self) -> None:
        self._push(_string(self._line()))

    def unicode(self) -> None:
        self._push(_unicode(self._line()))

    def name(self) -> None:
        module, name = self._line(), self._line()
        known = _NAMES.get((module, name))
        if known is None:
            raise _Damaged(f"{shorten(f'{module}.{name}')} is not one of the classes that may stand in it")
        self._push(known)

    def list(self) -> None:
        self._push(self._pop_to_mark())

    def tuple(self) -> None:
        self._push(tuple(self._pop_to_mark()))

    def dict(self) -> None:
        items, made = self._pop_to_mark(), dict[str, Any]()
        if len(items) % 2:
            raise _Damaged("a key without value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            _set(made, key, value)
        self._push(made)

    def append(self) -> None:
        value = self._pop()
        self._top(list, "list").append(value)

    def set_item(self) -> None:
        value, key = self._pop(), self._pop()
        _set(self._top(dict, "dictionary"), key, value)

    def put(self) -> None:
        number = self._line()
        if not self._stack or self._stack[-1] is _Mark.START or not _MEMO.fullmatch(number):
            raise _Damaged("nothing to remember")
        self._memo[number] = self._stack[-1]

    def get(self) -> None:
        number = self._line()
        if number not in self._memo:
            raise _Damaged(f"nothing is remembered as {shorten(number)}")
        found = self._memo[number]
        if isinstance(found, list | tuple | dict):
            raise _Damaged("the same list stands in it twice")
        self._repeated += len(found) if isinstance(found, str) else 0
        if self._repeated > MOST_CHARACTERS:
            raise _Damaged("it repeats itself too often")
        self._push(_Mark.SEEN if isinstance(found, Spec) else found)

    def reduce(self) -> None:
        told, what = self._pop(), self._pop()
        fits = isinstance(told, tuple) and len(told) == 3 and isinstance(told[0], Kind)
        if what is not _Mark.RECONSTRUCTOR or not fits or told[1:] != (_Mark.OBJECT, None):
            raise _Damaged("something is to be called that is no plain job or file")
        self._push(Spec(told[0]))

    def build(self) -> None:
        state = self._pop()
        spec = self._top(Spec, "job or file")
        if not isinstance(state, list) or spec.values is not None:
            raise _Damaged("a job or file has one list of values, and nothing else")
        spec.values = state


_STEPS: dict[str, Callable[[_Machine], None]] = {
    "(": _Machine.mark,
    "0": _Machine.pop,
    "N": _Machine.none,
    "I": _Machine.integer,
    "L": _Machine.long,
    "F": _Machine.float,
    "S": _Machine.string,
    "V": _Machine.unicode,
    "c": _Machine.name,
    "l": _Machine.list,
    "t": _Machine.tuple,
    "d": _Machine.dict,
    "a": _Machine.append,
    "s": _Machine.set_item,
    "p": _Machine.put,
    "g": _Machine.get,
    "R": _Machine.reduce,
    "b": _Machine.build,
}
_MEMO = re.compile(r"[0-9]{1,8}")
_WHOLE = re.compile(r"-?[0-9]{1,20}")
_FLOAT = re.compile(r"-?[0-9.]+(e[+-]?[0-9]{1,3})?", re.IGNORECASE)
_ESCAPES = {"n": b"\n", "r": b"\r", "t": b"\t", "\\": b"\\", "'": b"'", '"': b'"'}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|([nrt\\'\"]))|([^\\]+)")
_CODE = re.compile(r"\\u([0-9a-fA-F]{4})|\\U([0-9a-fA-F]{8})")


def _set(target: dict[str, Any], key: Any, value: Any) -> None:
    if not isinstance(key, str):
        raise _Damaged("the key of a dictionary is text")
    target[key] = value


def _whole(line: str) -> int:
    if not _WHOLE.fullmatch(line):
        raise _Damaged(f"{shorten(line, 40)!r} is no whole number of at most {_MOST_DIGITS} digits")
    return int(line)


def _number(line: str) -> float:
    try:
        read = float(line) if _FLOAT.fullmatch(line) and len(line) <= _MOST_DIGITS_OF_FLOAT else math.nan
    except ValueError:
        read = math.nan
    if not math.isfinite(read):
        raise _Damaged(f"{shorten(line, 40)!r} is no number")
    return read


def _string(line: str) -> str:
    """Read a string of bytes as Python 2 showed it."""
    if len(line) < 2 or line[0] != line[-1] or line[0] not in "'\"":
        raise _Damaged("a string without quotes")
    read, place, inner = [], 0, line[1:-1]
    while place < len(inner):
        found = _ESCAPE.match(inner, place)
        if found is None:
            raise _Damaged(f"a string with a strange escape: {shorten(inner[place : place + 4])}")
        read.append(_bytes_of(found))
        place = found.end()
    try:
        return b"".join(read).decode()
    except UnicodeDecodeError:
        raise _Damaged("a string that is no UTF-8") from None


def _bytes_of(found: re.Match[str]) -> bytes:
    code, letter, plain = found.groups()
    if code is not None:
        return bytes([int(code, 16)])
    return _ESCAPES[letter] if letter is not None else plain.encode("utf-8", "surrogatepass")


def _unicode(line: str) -> str:
    """Read text with \\u escapes; a character beyond 16 bits may come as a pair."""
    try:
        text = _CODE.sub(lambda found: chr(int(found[1] or found[2], 16)), line)
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except (ValueError, OverflowError):
        raise _Damaged("text with a character that there is not") from None
