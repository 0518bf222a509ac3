"""Rules of Rucio as our requests: a rule says that a dataset shall be at an endpoint, and how far it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pandaserver.config_rucio import RucioSection
from pandaserver.dataservice.ddm.protocol import Progress, ProgressState
from pandaserver.dataservice.ddm.rucio_client import NOT_THERE, RULE_GONE, RULE_THERE, RucioConnection
from pandaserver.dataservice.ddm.rucio_names import Did, in_parts, is_dispatch

AT_ONCE = 500  # names in one call
_NOW = 0  # a lifetime: the rule's end is now
_SAID = 500  # characters of an error that are told
_STUCK = ("STUCK", "SUSPENDED")

Rule = dict[str, Any]


@dataclass(frozen=True)
class Rules:
    """The rules of the server's account."""

    connection: RucioConnection
    section: RucioSection

    def want(self, did: Did, rse: str) -> None:
        """Want a dataset at an RSE; a rule that is there goes on, also one that was about to end."""
        lifetime_s = self.section.input_lifetime_s if is_dispatch(did.name) else None
        if self._add([did], rse, lifetime_s) is None:
            for rule in self.of(did, rse):
                self._go_on(rule, lifetime_s)

    def _add(self, dids: Sequence[Did], rse: str, lifetime_s: int | None) -> list[str] | None:
        """Add a rule for each, None where there was one; with `notify` hermes tells when one is complete."""
        bringing, told = is_dispatch(dids[0].name), self.section
        added: list[str] | None = self.connection.ask(
            "add_replication_rule",
            [did.wire for did in dids],
            1,
            rse,
            accept=RULE_THERE,
            lifetime=lifetime_s,
            grouping="DATASET",
            notify="Y",
            activity=told.input_activity if bringing else told.output_activity,
            account=told.account,
            meta=json.dumps({"panda": "input" if bringing else "output"}),
            asynchronous=False,
        )
        return added

    def _go_on(self, rule: Rule, lifetime_s: int | None) -> None:
        options: dict[str, Any] = {}
        if rule["expires_at"] is not None:
            options["lifetime"] = lifetime_s
        if rule["state"] in _STUCK:
            options["boost_rule"] = True  # try again now; by itself Rucio does so every two hours
        if rule["state"] == "SUSPENDED":
            options["state"] = "STUCK"
        if options:
            self._update(rule, options)

    def _update(self, rule: Rule, options: dict[str, Any]) -> None:
        self.connection.ask("update_replication_rule", rule["id"], options, accept=RULE_GONE)

    def of(self, did: Did, rse: str | None = None) -> list[Rule]:
        """Give the account's rules about a dataset, at one RSE or all; none for an unknown dataset."""
        found = self.connection.ask("list_did_rules", did.scope, did.name, accept=NOT_THERE) or []
        return [r for r in found if r["account"] == self.section.account and rse in (None, r["rse_expression"])]

    def end(self, did: Did, rse: str | None = None) -> None:
        """End rules at once: to delete one would let it go on for an hour."""
        for rule in self.of(did, rse):
            self._update(rule, {"lifetime": _NOW})

    def hold(self, dids: Sequence[Did], rse: str) -> None:
        """Keep copies of files where they are, by rules of their own."""
        for part in in_parts(dids, AT_ONCE):
            if self._add(part, rse, None) is None:  # one had a rule, and none has got one
                for did in part:
                    self._add([did], rse, None)

    def progress(self, did: Did, rse: str) -> Progress:
        """Tell how far a dataset is at an RSE: by the files that are there, since a rule says OK too early."""
        known = self.connection.ask("get_did", did.scope, did.name, dynamic_depth="FILE", accept=NOT_THERE)
        total = int((known or {}).get("length") or 0)
        current = [rule for rule in self.of(did, rse) if not is_over(rule)] if known else []
        return progress_of(current[0], total) if current else Progress(ProgressState.GONE, 0, total)


def is_over(rule: Rule) -> bool:
    """Say whether a rule has come to its end, and only waits to be cleaned away."""
    end: datetime | None = rule["expires_at"]
    return end is not None and end.replace(tzinfo=UTC) <= datetime.now(UTC)


def progress_of(rule: Rule, total: int) -> Progress:
    """Translate the state of a rule over a dataset of `total` files."""
    there, error = min(int(rule["locks_ok_cnt"]), total), str(rule.get("error") or "")[:_SAID]
    if rule["state"] in _STUCK or rule["locks_stuck_cnt"]:
        return Progress(ProgressState.STUCK, there, total, error or "Rucio gives no reason")
    if rule["state"] == "OK" and there == total:
        return Progress(ProgressState.OK, there, total)
    return Progress(ProgressState.REPLICATING, there, total, error)
