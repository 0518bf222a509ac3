"""The retry rules file: what an installation says of failed attempts, in front of the built-in rules."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pandaserver.config import RetrySection
from pandaserver.errors import ConfigError
from pandaserver.ini import build, read_ini
from pandaserver.model.codes import ErrorFamily
from pandaserver.model.retry import RULES, RetryAction, RetryRule

_NAME = re.compile(r"\S.{0,62}\S|\S")
_CODE = re.compile(r"-?[0-9]{1,10}")
_LARGEST_FACTOR = 10


def load_retry_rules(section: RetrySection, queues: Collection[str] | None) -> tuple[RetryRule, ...]:
    """Read the rules in force, in the order in which they are asked.

    Args:
        queues: those that rules may name; any where that is not known.

    Raises:
        ConfigError: a section of the rules file is wrong.
    """
    own = _load(section.rules, queues) if section.rules else ()
    return (*own, *RULES) if section.builtin else own


def _load(path: Path, queues: Collection[str] | None) -> tuple[RetryRule, ...]:
    parser = read_ini(path)
    rules = []
    for section in parser.sections():
        kind, _, name = section.partition(" ")
        where = f"{path} [{section}]"
        if kind != "rule" or not _NAME.fullmatch(name):
            raise ConfigError(f"{where}: sections are [rule NAME], the name at most 64 characters", field=section)
        rule = _rule(name, dict(parser[section]), where, path.parent)
        _check(rule, where, queues)
        rules.append(rule)
    return tuple(rules)


def _rule(name: str, told: dict[str, str], where: str, base: Path) -> RetryRule:
    if "action" not in told:
        raise ConfigError(f"{where}: key action is missing; known are {', '.join(RetryAction)}", field="action")
    given: dict[str, Any] = {"name": name, "action": RetryAction(_known(told, "action", RetryAction, where))}
    family = _known(told, "family", ErrorFamily, where)
    given |= {"family": ErrorFamily(family) if family else None, "codes": _codes(told.pop("codes", ""), where)}
    return build(RetryRule, told, where=where, base=base, **given)


def _known(told: dict[str, str], key: str, known: type[RetryAction] | type[ErrorFamily], where: str) -> str:
    """Take a value out that is one of a few; empty is for what needs not be said."""
    value = told.pop(key, "")
    if value not in {one.value for one in known} and (value or key == "action"):
        raise ConfigError(f"{where} {key} = {value!r}: known are {', '.join(known)}", field=key, value=value)
    return value


def _codes(text: str, where: str) -> tuple[int, ...]:
    lines = text.split()
    wrong = next((line for line in lines if not _CODE.fullmatch(line)), None)
    if wrong is not None:
        raise ConfigError(f"{where} codes: {wrong!r} is no whole number; one per line", field="codes", value=wrong)
    return tuple(int(line) for line in lines)


def _check(rule: RetryRule, where: str, queues: Collection[str] | None) -> None:
    if not 1 < rule.factor <= _LARGEST_FACTOR:
        text = f"{where} factor = {rule.factor:g}: more than 1 and at most {_LARGEST_FACTOR} is expected"
        raise ConfigError(text, field="factor", value=rule.factor)
    try:
        re.compile(rule.pattern)
    except re.error as error:
        text = f"{where} pattern = {rule.pattern!r} is no regular expression: {error}"
        raise ConfigError(text, field="pattern", value=rule.pattern) from error
    strange = None if queues is None else next((queue for queue in rule.queues if queue not in queues), None)
    if queues is not None and strange is not None:
        known = ", ".join(sorted(queues))
        raise ConfigError(
            f"{where} queues: there is no queue {strange}; known are {known}", field="queues", value=strange
        )


def rule_data(rule: RetryRule) -> dict[str, Any]:
    """Describe a rule, in the words of the file."""
    return vars(rule) | {"action": rule.action.value, "family": rule.family.value if rule.family else None}
