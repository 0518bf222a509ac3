"""Which code does which kind of work, and which duties there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from pandaserver.background.duties import Duty
from pandaserver.background.pool import Handler
from pandaserver.dataservice import activator, adder, closer, finisher, setupper
from pandaserver.dataservice.ddm import local
from pandaserver.dataservice.service import ACTIVATE, ADD, CLOSE, DISPATCH, FINISH, SETUP, DataService
from pandaserver.jobdispatcher.watcher import Watcher
from pandaserver.model.dataset import Dataset
from pandaserver.model.states import JobState
from pandaserver.model.timeouts import Timeout
from pandaserver.taskbuffer import datasets, files
from pandaserver.taskbuffer.work import WorkItem

_AT_ONCE = 500


def handlers(service: DataService, send_callback: Callable[[str, str], None]) -> Mapping[str, Handler]:
    """Give the handler of every kind of work."""
    found = {
        SETUP: Handler(lambda w: setupper.set_up(service, w.payload["job_ids"])),
        DISPATCH: Handler(lambda w: _dispatch(service, w)),
        ACTIVATE: Handler(_on_dataset(service, activator.activate)),
        FINISH: Handler(_on_dataset(service, finisher.finish)),
        CLOSE: Handler(_on_dataset(service, closer.close)),
        ADD: Handler(
            lambda w: adder.add(service, **w.payload), lambda w, e: adder.give_up(service, error=e, **w.payload)
        ),
        local.CALLBACK: Handler(lambda w: send_callback(w.payload["dataset"], w.payload["endpoint"])),
    }
    if isinstance(service.ddm, local.LocalDDM):
        found[local.COPY] = Handler(service.ddm.copy, service.ddm.give_up)
    return found


def telling(work: Mapping[str, Handler], tell: Callable[[], None]) -> Mapping[str, Handler]:
    """Have somebody told after each piece of work, which may have activated jobs."""

    def told(handler: Handler) -> Handler:
        def run(item: WorkItem) -> None:
            handler.run(item)
            tell()

        return replace(handler, run=run)

    return {kind: told(handler) for kind, handler in work.items()}


def _dispatch(service: DataService, item: WorkItem) -> None:
    names = [(scope, lfn) for scope, lfn in item.payload["files"]]
    setupper.dispatch(service, item.payload["dataset"], item.payload["endpoint"], names)


def _on_dataset(service: DataService, act: Callable[[DataService, Dataset], None]) -> Callable[[WorkItem], None]:
    def run(item: WorkItem) -> None:
        dataset = service.buffer.read(lambda c: datasets.load(c, item.payload["dataset"]))
        if dataset is not None:
            act(service, dataset)

    return run


@dataclass(frozen=True)
class Periods:
    """How often duties are done, in seconds."""

    watch_s: float
    recheck_s: float


def roster(service: DataService, rules: tuple[Timeout, ...], periods: Periods) -> list[Duty]:
    """Give all periodic duties."""
    watcher = Watcher(service.buffer, rules, service.retry_rules)
    return [
        Duty("watch", periods.watch_s, watcher.run_once),
        Duty("recheck waiting", periods.recheck_s, lambda: recheck_waiting(service)),
    ]


def recheck_waiting(service: DataService) -> int:
    """Wake waiting jobs whose inputs have appeared without anybody telling; tell how many files did."""
    wanted = service.buffer.read(lambda c: files.missing_inputs(c, JobState.WAITING, _AT_ONCE))
    appeared = list(service.ddm.replicas(wanted)) if wanted else []
    if appeared:
        service.buffer.run(lambda c: setupper.wake(c, appeared, service.buffer.now()))
    return len(appeared)
