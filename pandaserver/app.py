"""The one place where the parts of the server are put together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from flask import Flask

from pandaserver import config as configuration
from pandaserver.background.duties import Duty, DutyRoster
from pandaserver.background.moving import moving_duties
from pandaserver.background.notifying import notification
from pandaserver.background.pool import Handler, WorkPool
from pandaserver.background.priorities import priority_duties
from pandaserver.background.queues import queue_duties
from pandaserver.background.ticker import Ticker
from pandaserver.background.tidying import tidying_duties
from pandaserver.background.wiring import Periods, handlers, roster, telling
from pandaserver.brokerage.choice import choose_all
from pandaserver.brokerage.rules import broker_rules
from pandaserver.config import Config
from pandaserver.dataservice.ddm.callback import CallbackSender
from pandaserver.dataservice.ddm.local import LocalDDM
from pandaserver.dataservice.ddm.protocol import DDM
from pandaserver.dataservice.ddm.rucio_factory import make_rucio
from pandaserver.dataservice.ddm.storage import Credentials, Stores
from pandaserver.dataservice.service import DataService
from pandaserver.errors import ConfigError
from pandaserver.externalinterface.retry_rules import load_retry_rules
from pandaserver.externalinterface.sites import SitesError, load_topology
from pandaserver.externalinterface.sites_file import LOOK_S, SitesFile
from pandaserver.jobdispatcher.dispatcher import Dispatcher
from pandaserver.jobdispatcher.parking import ParkingLot
from pandaserver.jobdispatcher.policy import DispatchPolicy
from pandaserver.model.grid import Topology
from pandaserver.model.retry import RetryRule
from pandaserver.model.share import Shares, read_shares
from pandaserver.model.timeouts import Timeout, with_overrides
from pandaserver.taskbuffer import lanes, migrate
from pandaserver.taskbuffer.archiving import ArchivePolicy, Archiver
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.clock import Clock, utc_now
from pandaserver.taskbuffer.database import Database
from pandaserver.userinterface.sandbox import SandboxStore
from pandaserver.userinterface.vault import Vault, read_keys
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


def read_installation(path: Path, *, strict: bool = True) -> Installation:
    """Read the configuration and what belongs to it; raise ConfigError when anything of it is wrong.

    Args:
        strict: else a wrong sites file is left to `create_app`, which goes on with the grid in the database.
    """
    config = configuration.load(path)
    grid, timeouts = _grid(config, strict=strict), with_overrides(config.timeouts, f"{path} [timeouts]")
    shares, issuers = read_shares(config.shares, f"{path} [shares]"), read_issuers(config.identity.issuers)
    known = None if grid is None or config.grid.cric else grid.queues  # others are in the database only
    rules = load_retry_rules(config.retry, known)
    return Installation(config, grid or Topology(queues={}, endpoints={}), timeouts, rules, shares, issuers)


def _grid(config: Config, *, strict: bool) -> Topology | None:
    try:
        return load_topology(config.grid.sites)
    except SitesError:
        if strict:
            raise
        return None


@dataclass(frozen=True)
class PandaServer:
    """A server, ready: the WSGI application and its background threads."""

    installation: Installation
    application: Flask
    rooms: Rooms
    pool: WorkPool
    duties: DutyRoster
    sites: SitesFile
    sites_ticker: Ticker

    def start(self) -> None:
        """Start the background threads; call it after any fork."""
        self.rooms.parking.start()
        self.start_work()

    def start_work(self) -> None:
        """Start those threads only that do the work of all servers."""
        self.sites_ticker.start()
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
        self.sites_ticker.stop()


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
    needed = () if config.grid.cric else {queue for rule in installation.retry_rules for queue in rule.queues}
    sites = SitesFile(buffer, config.grid.sites, needed=needed)
    sites.begin()
    data = DataService(
        buffer,
        _ddm(config, buffer),
        choose_all,
        installation.retry_rules,
        broker_rules=broker_rules(config.brokerage),
    )
    config.cache.directory.mkdir(parents=True, exist_ok=True)
    parking = _parking(config, buffer)
    rooms = Rooms(
        config=config,
        buffer=buffer,
        dispatcher=Dispatcher(
            buffer,
            DispatchPolicy(config.dispatch.lease_s, config.dispatch.sent_lease_s, data.ddm.stages_outputs),
            installation.shares,
        ),
        data=data,
        sandbox=SandboxStore(buffer, config.cache.directory, config.cache.max_upload_mb * 1024 * 1024),
        vault=Vault(buffer, read_keys(config.secrets.key_file)),
        parking=parking,
        timeouts=installation.timeouts,
        shares=installation.shares,
    )
    mail_work, mail_duties = notification(buffer, config)
    callers = make_callers(config, installation.issuers)
    work = {**telling(handlers(data, callback or _callback(config)), parking.look_soon), **mail_work}
    return PandaServer(
        installation=installation,
        application=make_application(rooms, callers),
        rooms=rooms,
        pool=_pool(config, buffer, work),
        duties=DutyRoster(buffer, [*_duties(installation, data), *mail_duties]),
        sites=sites,
        sites_ticker=Ticker("sites file", LOOK_S, sites.look),
    )


def _pool(config: Config, buffer: TaskBuffer, work: Mapping[str, Handler]) -> WorkPool:
    told = config.background
    return WorkPool(buffer, work, threads=told.threads, lease_s=told.lease_s, give_up_after_s=told.give_up_after_s)


def _duties(installation: Installation, data: DataService) -> list[Duty]:
    config, buffer = installation.config, data.buffer
    told, ddm = config.background, config.ddm
    periods = Periods(told.watch_period_s, told.recheck_period_s, ddm.dispatch_kept_s, ddm.poll_period_s)
    return [
        *roster(data, installation.timeouts, periods),
        *priority_duties(buffer, config.priority),
        *moving_duties(data, config.brokerage),
        *tidying_duties(buffer),
        *queue_duties(buffer, config),
        _archiving(config, buffer),
    ]


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


def _ddm(config: Config, buffer: TaskBuffer) -> DDM:
    stores = Stores(_credentials(config))
    if config.ddm.backend == "rucio":
        return make_rucio(config, buffer, stores)
    if config.ddm.backend != "local":
        raise ConfigError("[ddm] backend: say local or rucio", field="backend", value=config.ddm.backend)
    return LocalDDM(buffer, stores, give_up_after_s=config.background.give_up_after_s)


def _credentials(config: Config) -> Credentials:
    """Say what storage endpoints are shown."""
    told, server = config.ddm, config.server
    ca_dir = told.storage_ca_dir or server.ca_dir
    if told.storage_cert is not None:
        return Credentials(told.storage_cert, told.storage_key, ca_dir)
    return Credentials(told.callback_cert or server.host_cert, told.callback_key or server.host_key, ca_dir)


def _callback(config: Config) -> CallbackSender:
    return CallbackSender(
        url=f"{config.server.public_url}/server/panda/datasetCompleted",
        certificate=config.ddm.callback_cert or config.server.host_cert,
        key=config.ddm.callback_key or config.server.host_key,
        ca_dir=config.server.ca_dir,
    )
