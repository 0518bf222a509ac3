"""What the configuration says of the choice of queues."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from pandaserver.config import BrokerageSection
from pandaserver.model.choice import Access, BrokerRules


def broker_rules(configured: BrokerageSection) -> BrokerRules:
    """Make the rules of the section [brokerage]."""
    told = {field.name: getattr(configured, field.name) for field in fields(BrokerRules)}
    return BrokerRules(**(told | {key: _lines(told[key]) for key in ("allow", "deny")}))


def _lines(told: Iterable[str]) -> tuple[Access, ...]:
    return tuple(Access(*line.split(None, 1)) for line in told)
