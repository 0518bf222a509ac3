"""Calls about the grid itself: is the server alive, counts, datasets, and what the DDM tells."""

from __future__ import annotations

from typing import Any

from pandaserver.errors import BadInput
from pandaserver.externalinterface import ddm_events, ddm_messages, information, shares
from pandaserver.externalinterface.retry_rules import rule_data
from pandaserver.web import values
from pandaserver.web.calls import Call, Caller, Param
from pandaserver.web.identity import compact_name
from pandaserver.web.roles import DDM, READ


def is_alive(caller: Caller) -> str:
    """Say that the server works, its database included."""
    information.grid(caller.rooms.buffer)
    return "alive=yes"


def get_attributes(caller: Caller) -> dict[str, Any]:
    """Tell a caller what the server sees of them."""
    who = caller.identity
    seen = {} if who is None else {
        "dn": who.dn,
        "name": compact_name(who.dn),
        "limited": who.limited,
        "proxyDepth": who.depth,
        "notAfter": who.not_after,
        "fqans": list(who.fqans),
    }  # fmt: skip
    environment = {f"GRST_CRED_AUTH_TOKEN_{n}": f"VOMS {f}" for n, f in enumerate(who.fqans if who else ())}
    return {"identity": seen, "parameters": {}, "environment": environment}


def get_timeouts(caller: Caller) -> list[dict[str, Any]]:
    """Tell how long a job may stay in each state, and what happens then."""
    return [
        {
            "state": rule.state.value,
            "subject": rule.subject,
            "after_s": rule.after_s,
            "action": rule.action.value,
            "family": rule.family.value,
            "code": int(rule.code),
            "heartbeat": rule.heartbeat,
        }
        for rule in caller.rooms.timeouts
    ]


def get_retry_rules(caller: Caller) -> list[dict[str, Any]]:
    """Tell by which rules failed attempts are followed by others, in the order in which they are asked."""
    return [rule_data(rule) for rule in caller.rooms.data.retry_rules]


def stats_by_site(caller: Caller) -> dict[str, dict[str, int]]:
    """Count jobs by queue and state."""
    return information.counts(caller.rooms.buffer)


def list_shares(caller: Caller, queue: str) -> list[dict[str, Any]]:
    """Tell which part of a queue each share shall have, and has."""
    return shares.parts(caller.rooms.buffer, caller.rooms.shares, queue)


def list_files(caller: Caller, dataset: str) -> list[dict[str, Any]]:
    """List the files of a dataset."""
    return information.dataset_files(caller.rooms.data, dataset)


def get_dataset(caller: Caller, dataset: str) -> dict[str, Any]:
    """Describe a dataset."""
    return information.dataset_facts(caller.rooms.buffer, dataset)


def dataset_completed(caller: Caller, dataset: str, site: str) -> str:
    """Hear from the DDM that a dataset has arrived."""
    if not dataset:
        raise BadInput("dataset is missing: what has arrived?", field="dataset")
    ddm_events.dataset_completed(caller.rooms.buffer, dataset, site)
    return "True"


def ddm_messages_posted(caller: Caller, messages: list[Any]) -> str:
    """Hear messages of Rucio's hermes, as it posts them; a repeated one does no harm, others than arrivals nothing."""
    ddm_messages.take_messages(caller.rooms.data, messages)
    return "True"


_DATASET = Param("dataset", values.text)
_QUEUE = Param("queue", values.text, also=("siteName",))

GRID_CALLS = (
    Call("system/is_alive", "isAlive", READ, is_alive),
    Call("system/get_attributes", "getAttr", READ, get_attributes),
    Call("system/get_timeouts", "getTimeouts", READ, get_timeouts),
    Call("system/get_retry_rules", "getRetryRules", READ, get_retry_rules),
    Call("statistics/job_stats_by_site", "getJobStatisticsPerSite", READ, stats_by_site),
    Call("share/list", "getShares", READ, list_shares, (_QUEUE,)),
    Call("data/list_files", "queryFilesInDataset", READ, list_files, (_DATASET,)),
    Call("data/get_dataset", "queryDataset", READ, get_dataset, (_DATASET,)),
    Call(
        "data/dataset_completed",
        "datasetCompleted",
        DDM,
        dataset_completed,
        (Param("dataset", values.text, also=("vuid",)), Param("site", values.text, required=False, default="")),
        writes=True,
    ),
    Call(
        "data/ddm_messages",
        "ddmMessages",
        DDM,
        ddm_messages_posted,
        (Param("messages", values.objects, required=False, default=()),),
        writes=True,
        hermes=True,
    ),
)
