"""Pickles of old clients: what honest ones say is read, everything else is refused, and nothing is ever called."""

from __future__ import annotations

import pickle
import pickletools
import random
import sys
import types
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pandaserver.errors import BadInput, TooLarge
from pandaserver.web import pickles
from pandaserver.web.attributes import FILE_ATTRIBUTES, FILES, JOB_ATTRIBUTES
from pandaserver.web.jobwire import read_jobs
from pandaserver.web.pickle_answers import job_spec, write_pickle
from pandaserver.web.pickles import looks_pickled, read_pickle

MODULES = ("pandaserver.taskbuffer", "taskbuffer")


class _OldSpec:
    """What the classes of those clients have in common: a list of values is their state."""

    values: list[Any]

    def __init__(self, *values: Any) -> None:
        self.values = list(values)

    def __getstate__(self) -> list[Any]:
        return self.values

    def __setstate__(self, state: list[Any]) -> None:
        self.values = state


@pytest.fixture(params=MODULES)
def old(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[types.SimpleNamespace]:
    """The classes of an old client, under the names that it knows them by."""
    found = {}
    for name in ("JobSpec", "FileSpec"):
        path = f"{request.param}.{name}"
        module = types.ModuleType(path)
        found[name] = type(name, (_OldSpec,), {"__module__": path})
        setattr(module, name, found[name])
        monkeypatch.setitem(sys.modules, path, module)
    monkeypatch.setitem(sys.modules, "taskbuffer", types.ModuleType("taskbuffer"))
    yield types.SimpleNamespace(**found)


def dumped(data: Any) -> str:
    """As an old client makes it: the text protocol, and the text that travels in a form."""
    return pickle.dumps(data, protocol=0).decode("latin-1")


def refusal(text: str) -> str:
    with pytest.raises(BadInput) as caught:
        read_pickle(text, "jobs")
    assert caught.value.field == "jobs"
    return caught.value.message


# --- what honest clients send


@pytest.mark.parametrize(
    "data",
    [
        [],
        [1, 2, 3],
        [2**31, -5, 2**40, 0],
        ["NULL", "", "it's", 'a "quote"', "tab\tand\nline", "back\\slash", "λ", "\U0001f600", "x\\u0041"],
        [None, True, False, 1.5, -2.25e-10],
        [{"jobsetID": 7, "name": "x"}],
        [[1, [2]], ["NULL", "NULL"]],
    ],
    ids=str,
)
def test_plain_data(data: Any) -> None:
    text = dumped(data)
    assert looks_pickled(text) and read_pickle(text, "jobs") == data


def test_tuples_become_lists() -> None:
    assert read_pickle(dumped([(1, "a"), (2, "b", None, 4.0)]), "ids") == [[1, "a"], [2, "b", None, 4.0]]


def test_jobs_with_files_become_positional_lists(old: types.SimpleNamespace) -> None:
    files = [old.FileSpec(*["NULL"] * 3, f"out.{n}", "output", "user.alice.x", *["NULL"] * 12, None) for n in (1, 2)]
    jobs = [old.JobSpec("NULL", 5, "NULL", files), old.JobSpec("NULL", 5, "NULL", [])]
    assert read_pickle(dumped(jobs), "jobs") == [
        ["NULL", 5, "NULL", [f.values for f in files]],
        ["NULL", 5, "NULL", []],
    ]


def test_the_job_that_a_file_belongs_to_is_not_followed_round(old: types.SimpleNamespace) -> None:
    """Clients of 2008 put the job itself where later ones put nothing."""
    job = old.JobSpec("NULL", 7)
    job.values.append([old.FileSpec("NULL", "a", job), old.FileSpec("NULL", "b", job)])
    assert read_pickle(dumped([job]), "jobs") == [["NULL", 7, [["NULL", "a", None], ["NULL", "b", None]]]]


def test_a_job_of_2008_can_be_submitted(old: types.SimpleNamespace) -> None:
    """It has 73 attributes, and its files have no scope."""
    told = {"transformation": "run.py", "prodSourceLabel": "user", "destinationDBlock": "user.alice.out"}
    file = {"lfn": "out.$PANDAID.root", "type": "output", "dataset": "user.alice.out"}
    spec = old.FileSpec(*(file.get(name, "NULL") for name in FILE_ATTRIBUTES[:17]), None)
    job = old.JobSpec(*(told.get(name, "NULL") for name in JOB_ATTRIBUTES[:73]), [spec])
    (read,) = read_jobs(read_pickle(dumped([job]), "jobs"))
    assert (read.transformation, read.label, read.output_dataset) == ("run.py", "user", "user.alice.out")
    assert [(f.lfn, f.dataset, f.scope) for f in read.files] == [("out.$PANDAID.root", "user.alice.out", "user.alice")]


def test_what_python_2_writes() -> None:
    text = "(lp0\nS'NULL'\np1\nag1\naS'it\\'s \\xce\\xbb \\\\n'\np2\naL5L\naI01\naVx\\u03bb\np3\na."
    assert read_pickle(text, "jobs") == ["NULL", "NULL", "it's λ \\n", 5, True, "xλ"]


def test_thousands_of_jobs_in_seconds(old: types.SimpleNamespace) -> None:
    jobs = [old.JobSpec(*["NULL"] * 73, [old.FileSpec(*["NULL"] * 18)]) for _ in range(1000)]
    read = read_pickle(dumped(jobs), "jobs")
    assert len(read) == 1000 and read[999] == [*["NULL"] * 73, [["NULL"] * 18]]


# --- what nobody honest sends

MARKER = "ccopy_reg\n_reconstructor\n"
JOB = f"{MARKER}(cpandaserver.taskbuffer.JobSpec\nJobSpec\nc__builtin__\nobject\nNtR"


class _Bomb:
    """Leaves a sign when it is unpickled as usual."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("import sys; sys.panda_was_called = True",))


HOSTILE = {
    "reduce": "cos\nsystem\n(S'touch /tmp/x'\ntR.",
    "reduce in a list": "(lp0\ncposix\nsystem\n(S'id'\ntRa.",
    "reduce of builtins": "(lp0\nc__builtin__\neval\n(S'1'\ntRa.",
    "reduce of a job": "(lp0\ncpandaserver.taskbuffer.JobSpec\nJobSpec\n(tRa.",
    "reduce of object": "(lp0\nc__builtin__\nobject\n(tRa.",
    "reconstruct something else": f"(lp0\n{MARKER}(c__builtin__\nobject\nc__builtin__\nobject\nNtRa.",
    "reconstruct with a base": f"(lp0\n{MARKER}(ctaskbuffer.JobSpec\nJobSpec\nctaskbuffer.JobSpec\nJobSpec\nNtRa.",
    "reconstruct with a state": f"(lp0\n{MARKER}(ctaskbuffer.JobSpec\nJobSpec\nc__builtin__\nobject\nI5\ntRa.",
    "reconstruct without arguments": f"(lp0\n{MARKER}(tRa.",
    "reconstruct with a list": f"(lp0\n{MARKER}(lRa.",
    "global alone": "(lp0\ncos\nsystem\na.",
    "a class as value": "(lp0\ncpandaserver.taskbuffer.JobSpec\nJobSpec\na.",
    "a function as value": f"(lp0\n{MARKER}a.",
    "a class of that module": "(lp0\ncpandaserver.taskbuffer.JobSpec\nos\na.",
    "a module of that package": "(lp0\ncpandaserver.taskbuffer.database\nDatabase\na.",
    "a dotted name": "(lp0\ncpandaserver.taskbuffer.JobSpec\nJobSpec.__init__.__globals__\na.",
    "python 3's name of a module": "(lp0\nccopyreg\n_reconstructor\na.",
    "inst": "(lp0\n(S'id'\nios\nsystem\na.",
    "inst of a job": "(lp0\n(ipandaserver.taskbuffer.JobSpec\nJobSpec\na.",
    "obj": "(lp0\n(cos\nsystem\nS'id'\noa.",
    "newobj": "(lp0\nctaskbuffer.JobSpec\nJobSpec\n)\x81a.",
    "newobj_ex": "(lp0\nctaskbuffer.JobSpec\nJobSpec\n)}\x92a.",
    "stack_global": "(lp0\nS'os'\nS'system'\n\x93a.",
    "ext1": "(lp0\n\x82\x01a.",
    "ext2": "(lp0\n\x83\x01\x01a.",
    "ext4": "(lp0\n\x84\x01\x01\x01\x01a.",
    "persistent id": "(lp0\nPsome id\na.",
    "binary persistent id": "(lp0\nS'x'\nQa.",
    "protocol 2": "\x80\x02]q\x00.",
    "protocol 1 list": "]q\x00.",
    "frame": "(lp0\n\x95\x01\x00\x00\x00\x00\x00\x00\x00.",
    "bytearray": "(lp0\n\x96\x01\x00\x00\x00\x00\x00\x00\x00xa.",
    "out of band buffer": "(lp0\n\x97a.",
    "build with a dictionary": f"(lp0\n{JOB}(dS'x'\nI1\nsba.",
    "build with a pair": f"(lp0\n{JOB}(N(dtba.",
    "build twice": f"(lp0\n{JOB}(lb(lba.",
    "build of a list": "(lp0\n(lb.",
    "build of a class": "(lp0\nctaskbuffer.JobSpec\nJobSpec\n(lba.",
    "no build": f"(lp0\n{JOB}a.",
    "a job in itself": f"(lp0\n{JOB}p1\n(lg1\naba.",
    "a job twice": f"(lp0\n{JOB}p1\n(lbag1\na.",
    "a file with another's job": f"(lp0\n{JOB}p1\n(lg1\nNaba.",
    "a list in itself": "(lp0\ng0\na.",
    "the same list twice": "(l(lp1\nag1\na.",
    "the same tuple twice": "(l(tp1\nag1\na.",
    "the same dictionary twice": "(l(dp1\nag1\na.",
    "dup": "(lI1\n2a.",
    "laughs": "(lp0\n" + "".join(f"(lp{n}\n" + f"g{n - 1}\na" * 10 for n in range(1, 30)) + ".",
    "nested lists": "(l" * 1000 + "a" * 999 + ".",
    "very deep lists": "(l" * 400_000 + "a" * 399_999 + ".",
    "very deep tuples": "(" * 400_000 + "t" * 400_000 + ".",
    "very deep dictionaries": "(dS'a'\n" * 50_000 + "(d" + "s" * 50_000 + ".",
    "very deep jobs": f"(l{JOB}" * 20_000 + "(l" + "ba" * 20_000 + ".",
    "many marks": "(" * 1_000_000 + ".",
    "huge int": "(lI" + "9" * 10_000 + "\na.",
    "huge long": "(lL" + "9" * 1_000_000 + "L\na.",
    "huge float": "(lF" + "9" * 10_000 + "\na.",
    "int with blanks": "(lI 1\na.",
    "int with underscores": "(lI1_000\na.",
    "int in other digits": "(lI٣\na.",
    "hexadecimal": "(lI0x10\na.",
    "infinity": "(lFinf\na.",
    "nan": "(lFnan\na.",
    "overflow": "(lF1e999\na.",
    "no float": "(lF1.2.3\na.",
    "a string without quotes": "(lSabc\na.",
    "a string of one quote": "(lS'\na.",
    "a string with odd quotes": "(lS'abc\"\na.",
    "a string that ends in an escape": "(lS'abc\\'\na.",
    "a string with octal": "(lS'\\101'\na.",
    "a string with a named character": "(lV\\N{BULLET}\\ud800\na.",
    "half a hexadecimal": "(lS'\\x4'\na.",
    "bytes that are no text": "(lS'\\xff\\xfe'\na.",
    "half a character": "(lV\\ud800\na.",
    "no such character": "(lV\\U00110000\na.",
    "no such character at all": "(lV\\Uffffffff\na.",
    "a number as key": "(lp0\n(dI1\nI2\nsa.",
    "a list as key": "(lp0\n(d(lI2\nsa.",
    "a key alone": "(lp0\n(S'x'\nda.",
    "put of nothing": "p0\n.",
    "put of a mark": "(p0\n.",
    "put far away": "(lp99999999999999999999\n.",
    "put with a name": "(lpx\n.",
    "get of nothing": "(lg7\na.",
    "pop of nothing": "0.",
    "append to nothing": "I1\na.",
    "append to text": "(lS'x'\nI1\na.",
    "append of nothing": "(la.",
    "append over a mark": "(l(a.",
    "set in a list": "(lS'x'\nI1\ns.",
    "list without mark": "l.",
    "tuple without mark": "I1\nt.",
    "empty": "",
    "nothing": ".",
    "a mark": "(.",
    "two values": "(l(l.",
    "something behind": "(l.(l.",
    "a line behind": "(l.\n",
    "cut": "(lp0\nI1\na",
    "cut in a line": "(lp0\nI1",
    "cut in a name": "(lcos\n",
    "no pickle": "(hello)",
    "JSON": '[{"transformation": "t"}]',
    "zero bytes": "(l\x00\x00.",
    "surrogates": "(l\ud800.",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused(name: str) -> None:
    assert "pickle is not read" in refusal(HOSTILE[name])


def test_the_list_of_instructions_is_complete() -> None:
    """Each instruction of any protocol that is not among the few known ones is refused by name."""
    known = set(pickles._STEPS)
    assert known == set("(0NILFSVcltdaspgRb")
    for opcode in pickletools.opcodes:
        if opcode.code not in {*known, "."}:
            assert "is not known here" in refusal(f"(l{opcode.code}")


def test_nothing_is_imported_or_called() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        refusal(pickle.dumps([_Bomb()], protocol=protocol).decode("latin-1"))
    refusal("(lp0\ncantigravity\ngeohash\na.")
    assert not hasattr(sys, "panda_was_called") and "antigravity" not in sys.modules


def test_texts_that_are_meant_again_and_again_are_counted() -> None:
    text = "(lS'" + "x" * 100_000 + "'\np1\na" + "g1\na" * 200 + "."
    assert "repeats itself" in refusal(text)
    assert len(read_pickle(text.replace("g1\na" * 200, "g1\na" * 100), "jobs")) == 101


def test_pickles_that_are_too_long_are_not_looked_at() -> None:
    with pytest.raises(TooLarge):
        read_pickle("(l" + "N0" * (pickles.MOST_CHARACTERS // 2) + ".", "jobs")
    assert "instructions" in refusal("(l" + "N0" * (pickles.MOST_STEPS // 2) + ".")


# --- anything


def specs() -> st.SearchStrategy[Any]:
    scalars = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.text(max_size=10)
    scalars |= st.floats(allow_nan=False, allow_infinity=False)
    return st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner), max_leaves=8
    )


@given(st.lists(specs(), max_size=4))
def test_what_a_client_wrote_is_read(data: Any) -> None:
    try:
        assert read_pickle(dumped(data), "jobs") == data
    except BadInput as error:
        assert "nested" in error.message or "twice" in error.message, "an empty list may be one and the same object"


SAMPLES = [
    dumped([1, 2**40, "NULL", "x\n", None, 1.5, {"a": [True]}, ("t", 1)]),
    f"(lp0\n{JOB}p1\n(lp2\nS'NULL'\np3\nag3\naI5\na(l{JOB.replace('JobSpec', 'FileSpec')}(lVa\nag1\nabababa.",
    *(text for text in HOSTILE.values() if len(text) < 300),
]
PIECES = [
    *"(.0123FGIJKLMNOPQRSTUVabcdeghijlopqrstu]})\n'\"\\", "\x80\x02", "\x81", "\x82\x01", "\x93", JOB, MARKER, "(lp0\n",
    "cos\nsystem\n", "g0\n", "g1\n", "p1\n", "(S'id'\ntR", "I1\n", "S'x'\n", "V\\ud800\n", "NtR", "(l", "b", "a",
]  # fmt: skip


def mutated(seed: int) -> str:
    chance = random.Random(seed)
    text = chance.choice(SAMPLES[:2] if chance.random() < 0.5 else SAMPLES)
    for _ in range(chance.randint(1, 6)):
        at = chance.randint(0, len(text))
        to = at if chance.random() < 0.4 else min(len(text), at + chance.randint(1, 8))
        put = chance.choice([chance.choice(PIECES), chr(chance.randint(0, 255)), text[at : at + 30], ""])
        text = text[:at] + put + text[to:]
    return text


def only_data(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(only_data, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and only_data(inner) for key, inner in value.items())
    return value is None or type(value) in (bool, int, float, str)


def check_any(text: str) -> bool:
    try:
        read = read_pickle(text, "jobs")
    except BadInput:
        return False
    assert only_data(read), text
    return True


@settings(max_examples=1500)
@given(st.integers(0, 2**32).map(mutated))
def test_mutated_pickles_give_data_or_bad_input(text: str) -> None:
    check_any(text)


@settings(max_examples=500)
@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join) | st.text(max_size=60))
@example("(lI1\na.")
def test_any_text_gives_data_or_bad_input(text: str) -> None:
    check_any(text)


@pytest.mark.fuzz
@pytest.mark.slow
def test_very_many_mutated_pickles_give_data_or_bad_input() -> None:
    good = sum(check_any(mutated(seed)) for seed in range(100_000))
    assert 1000 < good < 99_000, "some are still readable, or nothing deep is tried"


# --- answers


def test_answers_can_be_read_by_every_python() -> None:
    data = [
        None, True, False, 5, -7, 2**40, 1.25, "NULL", "it's λ\\ \n \U0001f600", [], [[1], (2, "x")], {"jobsetID": 3},
        datetime(2026, 11, 22, 12, 30, 1),  # noqa: DTZ001 - those clients have no time zones
    ]  # fmt: skip
    text = write_pickle(data)
    assert pickle.loads(text.encode("ascii")) == data
    assert {opcode.proto for opcode, _, _ in pickletools.genops(text.encode("ascii"))} == {0}


def test_described_jobs_become_objects_of_the_old_client(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JobSpec", "FileSpec"):
        module = types.ModuleType(f"pandaserver.taskbuffer.{name}")
        setattr(module, name, type(name, (_OldSpec,), {"__module__": module.__name__}))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    described = dict.fromkeys(JOB_ATTRIBUTES) | {"PandaID": 7, FILES: [{"lfn": "a", "fsize": 3}]}
    job, nothing = pickle.loads(write_pickle([job_spec(described), job_spec(None)]).encode("ascii"))
    assert nothing is None and type(job).__name__ == "JobSpec"
    assert job.values[: len(JOB_ATTRIBUTES)] == [7, *["NULL"] * (len(JOB_ATTRIBUTES) - 1)]
    (file,) = job.values[-1]
    told = dict(zip(FILE_ATTRIBUTES, file.values, strict=False))
    assert (told["lfn"], told["fsize"], told["scope"], file.values[-1]) == ("a", 3, "NULL", None)
    assert len(file.values) == len(FILE_ATTRIBUTES) + 1
