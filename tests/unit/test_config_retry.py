"""The retry rules file: what is read, in which order it counts, and that every mistake is called by its name."""

from __future__ import annotations

import configparser
import re
from dataclasses import fields
from pathlib import Path

import pytest

from pandaserver.app import read_installation
from pandaserver.config import RetrySection
from pandaserver.errors import ConfigError
from pandaserver.externalinterface.retry_rules import load_retry_rules, rule_data
from pandaserver.model.codes import ErrorFamily
from pandaserver.model.retry import RULES, RetryAction, RetryRule

SAMPLE = Path(__file__).parents[2] / "conf" / "retry.cfg"
QUEUES = ("BNL", "UTA")
SERVER = """
[database]
write = sqlite:///panda.db
[cache]
directory = cache
[grid]
sites = sites.cfg
"""
SITES = """
[queue BNL]
site = BNL
cloud = US
tier = 1
endpoint = BNL_DISK
[endpoint BNL_DISK]
site = BNL
url = file:///data/BNL
"""
WHOLE = """
[rule one]
action = more_memory
family = exe
codes =
    65
    -9
pattern = std::bad_alloc|%
labels = user
queues =
    BNL
    UTA
vos = atlas
factor = 2
max_attempts = 4
wished = no
passive = yes

[rule the other]
action = no_retry
"""


def load(folder: Path, text: str, *, builtin: bool = True) -> tuple[RetryRule, ...]:
    (folder / "retry.cfg").write_text(text, encoding="utf-8")
    return load_retry_rules(RetrySection(rules=folder / "retry.cfg", builtin=builtin), QUEUES)


def test_every_key_is_read(tmp_path: Path) -> None:
    one, other = load(tmp_path, WHOLE, builtin=False)
    assert one == RetryRule(
        name="one", action=RetryAction.MORE_MEMORY, family=ErrorFamily.PAYLOAD, codes=(65, -9), factor=2.0,
        pattern="std::bad_alloc|%", labels=("user",), queues=("BNL", "UTA"), vos=("atlas",), max_attempts=4,
        passive=True,
    )  # fmt: skip
    assert other == RetryRule(name="the other", action=RetryAction.NO_RETRY)


def test_the_built_in_rules_come_last_or_not_at_all(tmp_path: Path) -> None:
    assert [rule.name for rule in load(tmp_path, WHOLE)] == ["one", "the other", *(rule.name for rule in RULES)]
    assert load_retry_rules(RetrySection(), QUEUES) == RULES
    assert load_retry_rules(RetrySection(builtin=False), QUEUES) == ()
    assert load(tmp_path, "") == RULES


@pytest.mark.parametrize(
    ("text", "said", "field"),
    [
        ("[rules]", "sections are [rule NAME]", "rules"),
        ("[rule]", "sections are [rule NAME]", "rule"),
        (f"[rule {'x' * 65}]", "at most 64 characters", f"rule {'x' * 65}"),
        ("[rule x]", "key action is missing; known are retry, elsewhere", "action"),
        ("[rule x]\naction =", "action = ''", "action"),
        ("[rule x]\naction = again", "action = 'again': known are retry, elsewhere", "action"),
        ("[rule x]\naction = retry\nfamily = payload", "family = 'payload': known are pilot, exe", "family"),
        ("[rule x]\naction = retry\ncodes = 1099, 1100", "codes: '1099,' is no whole number", "codes"),
        ("[rule x]\naction = retry\ncodes = 0x10", "codes: '0x10' is no whole number", "codes"),
        ("[rule x]\naction = retry\npattern = (", "pattern = '(' is no regular expression", "pattern"),
        ("[rule x]\naction = retry\nfactor = 1", "factor = 1: more than 1", "factor"),
        ("[rule x]\naction = retry\nfactor = 11", "factor = 11: more than 1 and at most 10", "factor"),
        ("[rule x]\naction = retry\nfactor = nan", "factor = 'nan' is not acceptable", ""),
        ("[rule x]\naction = retry\nmax_attempts = -1", "max_attempts = '-1' is not acceptable", ""),
        ("[rule x]\naction = retry\npassive = maybe", "say yes or no", ""),
        ("[rule x]\naction = retry\nqueues = SLAC", "there is no queue SLAC; known are BNL, UTA", "queues"),
        ("[rule x]\naction = retry\ncode = 1", "unknown key code", "code"),
        ("[rule x]\naction = retry\nname = y", "unknown key name", "name"),
        ("[rule x]\naction = retry\n[rule x]\naction = retry", "cannot read configuration", "config"),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path: Path, text: str, said: str, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert said in str(caught.value)
    assert "retry.cfg" in str(caught.value)
    if field:
        assert caught.value.field == field


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read configuration .*nowhere\.cfg"):
        load_retry_rules(RetrySection(rules=tmp_path / "nowhere.cfg"), QUEUES)


def test_the_rules_belong_to_the_installation(tmp_path: Path) -> None:
    (tmp_path / "sites.cfg").write_text(SITES)
    (tmp_path / "own.cfg").write_text("[rule mine]\naction = retry\nqueues = BNL\n")
    (tmp_path / "server.cfg").write_text(SERVER + "[retry]\nrules = own.cfg\nbuiltin = no\n")
    assert [rule.name for rule in read_installation(tmp_path / "server.cfg").retry_rules] == ["mine"]
    (tmp_path / "server.cfg").write_text(SERVER)
    assert read_installation(tmp_path / "server.cfg").retry_rules == RULES


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_built_in_rule_could_be_in_a_file(tmp_path: Path, rule: RetryRule) -> None:
    told = {k: v for k, v in rule_data(rule).items() if k != "name" and v is not None}
    lines = [f"{k} = " + ("\n  ".join(map(str, v)) if isinstance(v, tuple) else str(v)) for k, v in told.items()]
    assert load(tmp_path, "\n".join([f"[rule {rule.name}]", *lines]), builtin=False) == (rule,)


# --- the sample


def sample() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(SAMPLE, encoding="utf-8")
    return parser


def test_every_key_is_in_the_sample_in_the_order_of_the_code() -> None:
    first = sample()[sample().sections()[0]]
    assert list(first) == [f.name for f in fields(RetryRule) if f.name != "name"]


def test_every_key_of_the_sample_is_explained_with_its_default() -> None:
    text = SAMPLE.read_text(encoding="utf-8")
    for field in fields(RetryRule):
        if field.name == "name":
            continue
        found = re.search(rf"((?:^#.*\n)+){field.name} =", text, re.M)
        assert found is not None, field.name
        comment = " ".join(line.removeprefix("#").strip() for line in found[1].splitlines())
        if field.name == "action":
            assert "No default." in comment and all(action in comment for action in RetryAction)
        elif isinstance(field.default, bool):
            assert comment.endswith("Default: no.")
        elif isinstance(field.default, int | float):
            assert f"Default: {field.default:g}" in comment
        else:
            assert comment.endswith("Default: empty, any.")
    assert all(family in text for family in ErrorFamily)


def test_the_sample_loads() -> None:
    rules = load_retry_rules(RetrySection(rules=SAMPLE), QUEUES)
    assert len(rules) == len(RULES) + 2
    assert rules[0].codes == (1110, 1186) and rules[1].passive
