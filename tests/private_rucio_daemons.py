"""The daemons of a private Rucio, all in one process: it does what it is told, line by line, and says how it went.

It runs in Rucio's own virtual environment, below a RUCIO_HOME of its own. On stdin it reads one JSON object a line,
`{"do": NAME, ...}`; to each it answers with one line on what was stdout when it began.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
import uuid
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import rucio.core.transfer as transfers
from rucio.core.rse import list_rses
from rucio.db.sqla.constants import RequestState
from rucio.transfertool.transfertool import TransferStatusReport, Transfertool, TransferToolBuilder

BLOCK = 1 << 20
# What a reset leaves: the installation itself, as opposed to what was done with it.
KEPT = {
    "accounts", "account_attr_map", "account_limits", "account_map", "alembic_version", "configs", "distances",
    "identities", "rse_attr_map", "rse_limits", "rse_protocols", "rse_settings", "rses", "scopes", "tokens",
    "vos", "account_usage", "rse_usage",
}  # fmt: skip


def copy_verified(source: Path, target: Path, adler32: str) -> None:
    """Copy a file in one pass; what does not have the checksum does not arrive."""
    part, value = target.with_name(f".{target.name}.part"), 1
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as reader, part.open("wb") as writer:
        while block := reader.read(BLOCK):
            writer.write(block)
            value = zlib.adler32(block, value)
    if adler32 and f"{value:08x}" != adler32:
        part.unlink()
        raise OSError(f"checksum of {source.name} is {value:08x}, not {adler32}")
    part.replace(target)


def path_of(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


OUTCOMES: dict[str, dict[str, tuple[object, str]]] = {}  # hand-over -> request -> how it ended
LOST = (RequestState.LOST, "nobody knows of it")


class Outcome(TransferStatusReport):
    """How a request ended, as Rucio's poller writes it down."""

    supported_db_fields = ("state", "external_id", "err_msg")

    def __init__(self, request_id: str, external_id: str, outcome: tuple[object, str]) -> None:
        super().__init__(request_id)
        self.external_id, (self.state, self.err_msg) = external_id, outcome

    def initialize(self, session, logger=None):
        """Nothing more is to be found out."""

    def get_monitor_msg_fields(self, session, logger=None):
        return {"reason": self.err_msg}


class CopyingTool(Transfertool):
    """A transfer tool that copies files at once, when a transfer is handed to it."""

    external_name = "copying"
    required_rse_attrs = ()
    supported_schemes = frozenset({"file"})

    @classmethod
    def submission_builder_for_path(cls, transfer_path, logger=None):
        return transfer_path, TransferToolBuilder(cls, external_host="here")

    def group_into_submit_jobs(self, transfer_paths):
        return [{"transfers": [hop for path in transfer_paths for hop in path], "job_params": {}}]

    def submit(self, transfers, job_params, timeout=None):
        handed_over = uuid.uuid4().hex
        OUTCOMES[handed_over] = {transfer.rws.request_id: self.copy(transfer) for transfer in transfers}
        return handed_over

    def copy(self, transfer):
        failures = []
        for source in transfer.sources:
            try:
                origin = path_of(transfer.source_url(source))
                copy_verified(origin, path_of(transfer.dest_url), transfer.rws.adler32)
            except OSError as error:
                failures.append(f"{source.rse.name}: {error}")
            else:
                return RequestState.DONE, ""
        return RequestState.FAILED, "; ".join(failures)[:250]

    def bulk_query(self, requests_by_eid, timeout=None):
        return {
            eid: {request: Outcome(request, eid, OUTCOMES.get(eid, {}).get(request, LOST)) for request in requests}
            for eid, requests in requests_by_eid.items()
        }

    def cancel(self, transfer_ids, timeout=None):
        return True

    def update_priority(self, transfer_id, priority, timeout=None):
        return True


transfers.TRANSFERTOOL_CLASSES_BY_NAME["copying"] = CopyingTool  # before the conveyors are imported


def hurry(module):
    """Let a daemon's module begin its round at once; for one process there is nobody to share the work with."""
    original = module.run_daemon

    def at_once(*args, **told):
        return original(*args, **(told | {"partition_wait_time": 0}))

    module.run_daemon = at_once
    return module


class Daemons:
    """All daemons that tests need, imported once; each method is a command."""

    def __init__(self) -> None:
        judges = {name: f"rucio.daemons.judge.{name}" for name in ("injector", "evaluator", "repairer", "cleaner")}
        others = {name: f"rucio.daemons.{name}.{name}" for name in ("undertaker", "reaper", "hermes")}
        conveyors = {name: f"rucio.daemons.conveyor.{name}" for name in ("submitter", "poller", "finisher")}
        modules = {name: importlib.import_module(path) for name, path in (judges | others | conveyors).items()}
        m = {name: module if name in conveyors else hurry(module) for name, module in modules.items()}
        copying = {"once": True, "partition_wait_time": 0}
        self._rounds = {
            "cleaner": lambda: m["cleaner"].rule_cleaner(once=True),
            "injector": lambda: m["injector"].rule_injector(once=True),
            "evaluator": lambda: m["evaluator"].re_evaluator(did_limit=100, once=True),
            "repairer": lambda: m["repairer"].rule_repairer(once=True),
            "submitter": lambda: m["submitter"].submitter(bulk=1000, transfertools=["copying"], **copying),
            "poller": lambda: m["poller"].poller(older_than=0, transfertool="copying", **copying),
            "finisher": lambda: m["finisher"].finisher(**copying),
            "undertaker": lambda: m["undertaker"].undertaker(once=True),
            "reaper": lambda: self._reap(m["reaper"]),
            "hermes": lambda: m["hermes"].hermes(once=True),
        }

    def _reap(self, module) -> None:
        rses = [rse["rse"] for rse in list_rses()]
        module.reaper(rses=rses, include_rses="", exclude_rses="", once=True, delay_seconds=0)

    def round(self, names: list[str]) -> None:
        """Let daemons of these names do one round each, in this order."""
        for name in names:
            self._rounds[name]()

    def reset(self) -> None:
        """Forget all data: what was registered, wanted, moved and said."""
        session = importlib.import_module("rucio.db.sqla.session")
        tables = importlib.import_module("rucio.db.sqla.models").BASE.metadata.sorted_tables
        with session.get_engine().begin() as connection:
            connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
            for table in reversed(tables):
                if table.name not in KEPT:
                    connection.execute(table.delete())

    def wait(self, hours: float) -> None:
        """Let time have passed for what is stuck, which Rucio tries again every two hours on the first day."""
        session = importlib.import_module("rucio.db.sqla.session")
        models = importlib.import_module("rucio.db.sqla.models")
        before = datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=hours)
        with session.get_engine().begin() as connection:
            for table in (models.ReplicaLock.__table__, models.ReplicationRule.__table__):
                connection.execute(table.update().values(updated_at=before))

    def post_to(self, url: str, username: str = "", password: str = "") -> None:
        """Have hermes post its messages there."""
        config = importlib.import_module("rucio.common.config").get_config()
        told = {"elastic_endpoint": url, "elastic_username": username, "elastic_password": password}
        for key, value in told.items():
            config.set("hermes", key, value) if value else config.remove_option("hermes", key)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # whatever is printed goes where the log goes
    daemons = Daemons()
    answers.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        told = json.loads(line)
        try:
            getattr(daemons, told.pop("do"))(**told)
            answer = {"error": ""}
        except Exception:  # noqa: BLE001 - whoever told hears it
            answer = {"error": traceback.format_exc()[-2000:]}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
