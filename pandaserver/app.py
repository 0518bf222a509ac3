"""The one place where the parts of the server are put together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from flask import Flask

from pandaserver import config as configuration
from pandaserver.background.duties import Duty, DutyRoster
from pandaserver.background.pool import WorkPool
from pandaserver.background.priorities import priority_duties
from pandaserver.background.tidying import tidying_duties
from pandaserver.background.wiring import Periods, handlers, roster, telling
from pandaserver.brokerage.choice import choose
from pandaserver.config import Config
from pandaserver.dataservice.ddm.callback import CallbackSender
from pandaserver.dataservice.ddm.local import LocalDDM
from pandaserver.dataservice.service import DataService
from pandaserver.errors import ConfigError
from pandaserver.externalinterface.retry_rules import load_retry_rules
from pandaserver.externalinterface.sites import load_topology
from pandaserver.jobdispatcher.dispatcher import Dispatcher
from pandaserver.jobdispatcher.parking import ParkingLot
from pandaserver.jobdispatcher.policy import DispatchPolicy
from pandaserver.model.grid import Topology
from pandaserver.model.retry import RetryRule
from pandaserver.model.share import Shares, read_shares
from pandaserver.model.timeouts import Timeout, with_overrides
from pandaserver.taskbuffer import lanes, migrate, topology
from pandaserver.taskbuffer.archiving import ArchivePolicy, Archiver
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.clock import Clock, utc_now
from pandaserver.taskbuffer.database import Database
from pandaserver.userinterface.sandbox import SandboxStore
from pandaserver.web.application import make_application
from pandaserver.web.callers import make_callers
from pandaserver.web.calls import Rooms
from pandaserver.web.issuers import Issuer, read_issuers

log = logging.getLogger(__name__)

Callback = Callable[[str, str], None]  # dataset, endpoint


@dataclass(frozen=True)
class Installation:
    """All that an installation says: the configuration, and what is read from the files and names in it."""

    config: Config
    topology: Topology
    timeouts: tuple[Timeout, ...]
    retry_rules: tuple[RetryRule, ...]
    shares: Shares
    issuers: tuple[Issuer, ...] = ()


def read_installation(path: Path) -> Installation:
    """Read the configuration and what belongs to it; raise ConfigError when anything of it is wrong."""
    config = configuration.load(path)
    grid, timeouts = load_topology(config.grid.sites), with_overrides(config.timeouts, f"{path} [timeouts]")
    shares, issuers = read_shares(config.shares, f"{path} [shares]"), read_issuers(config.identity.issuers)
    return Installation(config, grid, timeouts, load_retry_rules(config.retry, grid.queues), shares, issuers)


@dataclass(frozen=True)
class PandaServer:
    """A server, ready: the WSGI application and its background threads."""

    installation: Installation
    application: Flask
    rooms: Rooms
    pool: WorkPool
    duties: DutyRoster

    def start(self) -> None:
        """Start the background threads; call it after any fork."""
        self.rooms.parking.start()
        self.pool.start()
        self.duties.start()

    def send_waiting_away(self) -> None:
        """Answer the requests that wait for a job: this process is about to end."""
        self.rooms.parking.stop()

    def stop(self) -> None:
        """Stop taking work; what is committed will be done by another process or the next one."""
        self.send_waiting_away()
        self.pool.stop()
        self.duties.stop()


def create_app(installation: Installation, clock: Clock = utc_now, *, callback: Callback | None = None) -> PandaServer:
    """Put a server together.

    Args:
        callback: tells the server that a dataset has arrived; over HTTPS where not given.

    Raises:
        ConfigError: the database has an old schema, or the configuration names what is not there.
    """
    config = installation.config
    database = Database(config.database.write, config.database.read or None)
    migrate.check_current(database)
    buffer = TaskBuffer(database, clock)
    buffer.run(lambda c: topology.save(c, installation.topology))
    data = DataService(buffer, _ddm(config, buffer), choose, installation.retry_rules)
    config.cache.directory.mkdir(parents=True, exist_ok=True)
    parking = _parking(config, buffer)
    rooms = Rooms(
        config=config,
        buffer=buffer,
        dispatcher=Dispatcher(
            buffer, DispatchPolicy(config.dispatch.lease_s, config.dispatch.sent_lease_s), installation.shares
        ),
        data=data,
        sandbox=SandboxStore(buffer, config.cache.directory, config.cache.max_upload_mb * 1024 * 1024),
        parking=parking,
        timeouts=installation.timeouts,
        shares=installation.shares,
    )
    callers = make_callers(config, installation.issuers)
    pool = WorkPool(
        buffer,
        telling(handlers(data, callback or _callback(config)), parking.look_soon),
        threads=config.background.threads,
        lease_s=config.background.lease_s,
        give_up_after_s=config.background.give_up_after_s,
    )
    periods = Periods(config.background.watch_period_s, config.background.recheck_period_s)
    return PandaServer(
        installation=installation,
        application=make_application(rooms, callers),
        rooms=rooms,
        pool=pool,
        duties=DutyRoster(
            buffer,
            [
                *roster(data, installation.timeouts, periods),
                *priority_duties(buffer, config.priority),
                *tidying_duties(buffer),
                _archiving(config, buffer),
            ],
        ),
    )


def _archiving(config: Config, buffer: TaskBuffer) -> Duty:
    told = config.archive
    policy = ArchivePolicy(told.after_s, told.batch, told.keep_months)
    return Duty("archive", told.period_s, Archiver(buffer, policy).run_once)


def _parking(config: Config, buffer: TaskBuffer) -> ParkingLot:
    return ParkingLot(_QueueSigns(buffer), config.dispatch.parked_max or config.server.threads // 2)


@dataclass(frozen=True)
class _QueueSigns:
    """What those who wait see of queues."""

    buffer: TaskBuffer

    def activations(self, queues: Collection[str]) -> Mapping[str, int]:
        return self.buffer.read(lambda c: lanes.news(c, queues))

    def with_jobs(self, queues: Collection[str]) -> Collection[str]:
        return self.buffer.read(lambda c: lanes.with_jobs(c, queues))


def _ddm(config: Config, buffer: TaskBuffer) -> LocalDDM:
    if config.ddm.backend != "local":
        raise ConfigError("[ddm] backend: only local is there", field="backend", value=config.ddm.backend)
    return LocalDDM(buffer)


def _callback(config: Config) -> CallbackSender:
    return CallbackSender(
        url=f"{config.server.public_url}/server/panda/datasetCompleted",
        certificate=config.ddm.callback_cert or config.server.host_cert,
        key=config.ddm.callback_key or config.server.host_key,
        ca_dir=config.server.ca_dir,
    )
