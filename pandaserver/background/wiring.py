"""Which code does which kind of work, and which duties there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from pandaserver.background.duties import Duty
from pandaserver.background.pace import Measure
from pandaserver.background.pool import Bunch, Handler, one_by_one
from pandaserver.dataservice import activator, adder, closer, dispatching, finisher, setupper, staging
from pandaserver.dataservice.ddm.lanes import CALLBACK, COPY, LINK
from pandaserver.dataservice.ddm.local import LocalDDM
from pandaserver.dataservice.ddm.polling import Poller
from pandaserver.dataservice.ddm.removing import DELETE
from pandaserver.dataservice.service import (
    ACTIVATE,
    ADD,
    CLOSE,
    DISPATCH,
    FINISH,
    RELEASE,
    SETUP,
    SWEEP,
    DataService,
)
from pandaserver.jobdispatcher.watcher import Watcher
from pandaserver.model.states import JobState
from pandaserver.model.timeouts import Timeout
from pandaserver.taskbuffer import datasets, files
from pandaserver.taskbuffer.work import WorkItem

_AT_ONCE = 500
_FORGET_S = 600.0


# Nobody waits for datasets to be closed; users and pilots wait for the rest.
_SETUP, _ADD = Measure(at_once=50, pause_s=0.1), Measure(at_once=200, pause_s=0.5)
_FINISH, _CLOSE = Measure(at_once=50, pause_s=0.25), Measure(at_once=200, pause_s=1.0)
_SWEEP = Measure(at_once=100, pause_s=1.0)
_COPY = Measure(at_once=20)


def handlers(service: DataService, send_callback: Callable[[str, str], None]) -> Mapping[str, Handler]:
    """Give the handler of every kind of work."""
    found = {
        SETUP: Handler(
            lambda bunch: setupper.set_up(service, _job_ids(bunch)),
            lambda w, e: setupper.give_up(service, w.payload["job_ids"], e),
            _SETUP,
        ),
        DISPATCH: Handler(
            one_by_one(lambda w: _dispatch(service, w)),
            lambda w, e: dispatching.give_up(service, w.payload["dataset"], e),
        ),
        RELEASE: Handler(lambda bunch: dispatching.release(service, _datasets(bunch)), _leave, _CLOSE),
        ACTIVATE: Handler(one_by_one(lambda w: _activate(service, w))),
        FINISH: Handler(
            lambda bunch: finisher.finish(service, _datasets(bunch)),
            lambda w, e: finisher.give_up(service, w.payload["dataset"], e),
            _FINISH,
        ),
        CLOSE: Handler(lambda bunch: closer.close(service, _datasets(bunch)), measure=_CLOSE),
        ADD: Handler(
            lambda bunch: adder.add(service, [(w.payload["job_id"], w.payload["attempt"]) for w in bunch]),
            lambda w, e: adder.give_up(service, error=e, **w.payload),
            _ADD,
        ),
        SWEEP: Handler(lambda bunch: staging.sweep(service, bunch), _leave, _SWEEP),
        CALLBACK: Handler(one_by_one(lambda w: send_callback(w.payload["dataset"], w.payload["endpoint"]))),
    }
    if isinstance(service.ddm, LocalDDM):
        found[COPY] = Handler(service.ddm.carrier.plan, measure=_COPY)
        found[LINK] = Handler(one_by_one(service.ddm.carrier.run))
        found[DELETE] = Handler(one_by_one(service.ddm.remover.run))
    return found


def _leave(item: WorkItem, error: str) -> None:
    """Do without: it was for tidiness only, and the pool has logged it."""


def telling(work: Mapping[str, Handler], tell: Callable[[], None]) -> Mapping[str, Handler]:
    """Have somebody told after each bunch of work, which may have activated jobs."""

    def told(handler: Handler) -> Handler:
        def run(bunch: Bunch) -> None:
            handler.run(bunch)
            tell()

        return replace(handler, run=run)

    return {kind: told(handler) for kind, handler in work.items()}


def _job_ids(bunch: Bunch) -> list[int]:
    return [job_id for item in bunch for job_id in item.payload["job_ids"]]


def _datasets(bunch: Bunch) -> set[str]:
    return {item.payload["dataset"] for item in bunch}


def _dispatch(service: DataService, item: WorkItem) -> None:
    names = [(scope, lfn) for scope, lfn in item.payload["files"]]
    dispatching.dispatch(service, item.payload["dataset"], item.payload["endpoint"], names)


def _activate(service: DataService, item: WorkItem) -> None:
    dataset = service.buffer.read(lambda c: datasets.load(c, item.payload["dataset"]))
    if dataset is not None:
        activator.activate(service, dataset)


@dataclass(frozen=True)
class Periods:
    """How often duties are done, in seconds."""

    watch_s: float
    recheck_s: float
    dispatch_kept_s: float = 259200.0  # until datasets that no job needs any more are deleted
    poll_s: float = 45.0


def roster(service: DataService, rules: tuple[Timeout, ...], periods: Periods) -> list[Duty]:
    """Give all periodic duties."""
    watcher = Watcher(service.buffer, rules, service.retry_rules)
    return [
        Duty("watch", periods.watch_s, watcher.run_once),
        Duty("recheck waiting", periods.recheck_s, lambda: recheck_waiting(service)),
        Duty("poll transfers", periods.poll_s, Poller(service).run_once),
        Duty("forget dispatch datasets", _FORGET_S, lambda: dispatching.forget(service, periods.dispatch_kept_s)),
    ]


def recheck_waiting(service: DataService) -> int:
    """Wake waiting jobs whose inputs have appeared without anybody telling; tell how many files did."""
    wanted = service.buffer.read(lambda c: files.missing_inputs(c, JobState.WAITING, _AT_ONCE))
    appeared = list(service.ddm.replicas(wanted)) if wanted else []
    if appeared:
        service.buffer.run(lambda c: setupper.wake(c, appeared, service.buffer.now()))
    return len(appeared)
