"""The duty that sends jobs elsewhere which wait at the wrong queue."""

from __future__ import annotations

from pandaserver.background.duties import Duty
from pandaserver.config import BrokerageSection
from pandaserver.dataservice.rebrokering import Mover, MovingRules
from pandaserver.dataservice.service import DataService


def moving_duties(service: DataService, configured: BrokerageSection) -> list[Duty]:
    """Give it, unless the configuration says that jobs stay."""
    if configured.rebroker_most is None:
        return []
    rules = MovingRules(configured.rebroker_most, configured.overshoot_ratio, configured.overshoot_after_s)
    return [Duty("rebroker", configured.rebroker_period_s, Mover(service, rules).run_once)]
