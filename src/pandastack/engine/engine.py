"""The engine of one host: its parts, put together. Nothing is decided here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial

from anyio.abc import TaskGroup

from pandastack.disks.pool import Pool, open_pool
from pandastack.engine.build.builds import Builds
from pandastack.engine.build.install import shipped_recipes
from pandastack.engine.build.rebake import Rebakes
from pandastack.engine.build.resources import MachineResources
from pandastack.engine.build.shares import Shares
from pandastack.engine.compare.diff import Diffs
from pandastack.engine.driver import open_driver
from pandastack.engine.layout import MACHINES, Layout, open_runtime_directory
from pandastack.engine.machines.allocation import MachineHost
from pandastack.engine.machines.demand import Budget
from pandastack.engine.machines.host_network import HostNetwork, open_host_network
from pandastack.engine.machines.probe import probe, require
from pandastack.engine.machines.rehearsal import Rehearsals
from pandastack.engine.machines.restore import Restorer
from pandastack.engine.machines.sandbox import Sandbox
from pandastack.engine.machines.slots import Slots
from pandastack.engine.machines.users import own_users
from pandastack.engine.machines.warm_pool import WarmPool
from pandastack.engine.origins.captures import CaptureStore
from pandastack.engine.origins.catalog import Templates
from pandastack.engine.origins.volumes import VolumeStore
from pandastack.engine.recovery.lost import LostMachines
from pandastack.engine.recovery.start import Recovery, sweep_leftovers
from pandastack.engine.recovery.sweep import sweep_runtime_directory
from pandastack.engine.sandboxes.admission import Admission
from pandastack.engine.sandboxes.brokerage import Brokerage
from pandastack.engine.sandboxes.copies import Copies
from pandastack.engine.sandboxes.egress_log import EgressLog
from pandastack.engine.sandboxes.events import Events
from pandastack.engine.sandboxes.lifecycle import Lifecycle
from pandastack.engine.sandboxes.network import Networks
from pandastack.engine.sandboxes.registry import Registry
from pandastack.engine.sandboxes.rewind import Rewinder
from pandastack.engine.sandboxes.sandboxes import Sandboxes
from pandastack.engine.sandboxes.volumes import Volumes
from pandastack.engine.settings import Settings
from pandastack.errors import ServerError
from pandastack.host import facts
from pandastack.host.cgroups import Groups, open_groups
from pandastack.host.leases import shared_directory
from pandastack.host.lock import FileLock
from pandastack.host.tasks import beside
from pandastack.model.confinement import Measure
from pandastack.vmm.driver import Driver
from pandastack.vmm.plan import DiskRate


@dataclass(frozen=True)
class Engine:
    """An open engine. Made by :func:`open_engine`; it lives as long as that block."""

    layout: Layout
    """With the range of host users that this engine has."""
    driver: Driver
    network: HostNetwork
    confinement: frozenset[Measure]
    """The measures that confine machines here, apart from their accelerator."""
    pool: Pool
    templates: Templates
    saved: CaptureStore
    """Snapshots and checkpoints."""
    asleep: CaptureStore
    """Hibernated sandboxes."""
    events: Events
    registry: Registry
    brokerage: Brokerage
    admission: Admission
    restorer: Restorer
    warm_pool: WarmPool
    rehearsals: Rehearsals
    sandboxes: Sandboxes
    lifecycle: Lifecycle
    copies: Copies
    rewinder: Rewinder
    diffs: Diffs
    recovery: Recovery
    builds: Builds
    rebakes: Rebakes
    networks: Networks
    volumes: Volumes
    egress_log: EgressLog


@asynccontextmanager
async def open_engine(layout: Layout, settings: Settings | None = None) -> AsyncIterator[Engine]:
    """The engine of a data directory. Leaving the block ends all its machines.

    Raises :class:`ServerError` when another engine has the directory.
    """
    open_runtime_directory()
    sweep_runtime_directory()
    with _alone_in(layout), own_users(layout) as layout:
        async with open_pool(layout.engine) as pool:
            asleep = CaptureStore(pool.directory / "asleep")
            left = await sweep_leftovers(layout, pool, asleep)
            settings, keep = settings or Settings(), [each.network_slot for each in left if each.network_slot]
            with shared_directory(layout.sockets), _machine_groups(layout) as cgroups:
                async with open_host_network(layout, settings, keep) as network, beside() as lives:
                    engine = await _compose(layout, pool, asleep, lives, cgroups, network, settings)
                    await engine.recovery.recover(left)
                    engine.brokerage.sweep({each.id for each in engine.registry.list()})
                    everybodys = [each for each in engine.templates.list() if not each.template.owner]
                    engine.warm_pool.start(everybodys, engine.admission.has_room)
                    lives.start_soon(engine.rebakes.run)
                    try:
                        yield engine
                    finally:
                        await engine.volumes.flush_all()


@contextmanager
def _alone_in(layout: Layout) -> Iterator[None]:
    with FileLock(layout.engine / "engine.lock") as lock:
        if not lock.try_exclusive():
            raise ServerError(
                f"another engine already uses {layout.data}",
                hint="`pandastack down` stops it; `--data-dir` gives this one a directory of its own",
            )
        yield


@contextmanager
def _machine_groups(layout: Layout) -> Iterator[Groups | None]:
    groups = open_groups(layout.cgroup) if facts.is_root() else None
    try:
        yield groups
    finally:
        if groups is not None:
            groups.close()


async def _compose(
    layout: Layout,
    pool: Pool,
    asleep: CaptureStore,
    lives: TaskGroup,
    cgroups: Groups | None,
    network: HostNetwork,
    settings: Settings,
) -> Engine:
    driver, events, egress_log = await open_driver(), Events(), EgressLog()
    templates, saved = Templates(layout.templates, pool), CaptureStore(pool.directory / "saved")
    registry = Registry(events, asleep)
    host = _machine_host(layout, pool, asleep, registry, driver, cgroups, network, settings)
    confinement = await probe(host)
    require(settings.require, confinement, templates.list())
    warm_pool = WarmPool(host, lives, settings.ready_machines, _waiting_budget(settings))
    restorer = Restorer(driver, warm_pool, templates, settings.require)
    disks = VolumeStore(pool.directory / "volumes")
    admission = Admission(registry, warm_pool, pool, disks, settings)
    volumes = Volumes(disks, registry, admission)
    network.decided = egress_log.add
    brokerage = _brokerage(layout, network, registry, events)
    networks = Networks(registry, asleep, egress_log, has_slots=network.plug is not None, hosts_of=brokerage.hosts_of)
    builds = _builds(host, pool, lives, admission, settings)
    rebakes = Rebakes(builds, templates, pool, driver, enabled=settings.rebake)
    sandboxes = Sandboxes(
        registry, admission, restorer, warm_pool, templates, saved, networks, volumes, rebakes.explain
    )
    lifecycle = Lifecycle(registry, sandboxes, asleep, networks, volumes)
    return Engine(
        layout=layout,
        driver=driver,
        network=network,
        confinement=confinement,
        pool=pool,
        templates=templates,
        saved=saved,
        asleep=asleep,
        events=events,
        registry=registry,
        brokerage=brokerage,
        admission=admission,
        restorer=restorer,
        warm_pool=warm_pool,
        rehearsals=host.rehearsals,
        sandboxes=sandboxes,
        lifecycle=lifecycle,
        copies=Copies(registry, admission, sandboxes, saved),
        rewinder=Rewinder(registry, admission, sandboxes, saved, asleep, networks, volumes),
        diffs=Diffs(registry, admission, restorer, templates, saved),
        recovery=Recovery(host, lives, registry, lifecycle, asleep, volumes),
        builds=builds,
        rebakes=rebakes,
        networks=networks,
        volumes=volumes,
        egress_log=egress_log,
    )


def _waiting_budget(settings: Settings) -> Budget:
    """What machines that wait for snapshots may take; nothing where no machine is made ahead."""
    return Budget(settings.waiting_machines if settings.ready_machines else 0, settings.waiting_memory_mb)


def _machine_host(
    layout: Layout,
    pool: Pool,
    asleep: CaptureStore,
    registry: Registry,
    driver: Driver,
    cgroups: Groups | None,
    network: HostNetwork,
    settings: Settings,
) -> MachineHost:
    return MachineHost(
        layout=layout,
        directory=pool.machines,
        slots=Slots(MACHINES),
        network=network,
        cgroups=cgroups,
        confinable=facts.is_root(),
        driver=driver,
        rehearsals=Rehearsals(),
        disk_rate=DiskRate(settings.disk_mb_per_second * 1024 * 1024, settings.disk_operations_per_second),
        keep=LostMachines(pool.machines, asleep).keep,
        ended=registry.machine_ended,
        stalled=registry.machine_stalled,
    )


def _builds(host: MachineHost, pool: Pool, lives: TaskGroup, admission: Admission, settings: Settings) -> Builds:
    """The builds of templates, whose machines share the host with those of sandboxes."""
    return Builds(
        host.layout,
        pool,
        shipped_recipes(),
        lives,
        host.network,
        shares=Shares(settings.max_templates, settings.max_template_builds),
        most=settings.builds,
        resources=MachineResources(host.cgroups, admission.reserved, partial(_user, host.layout, host.slots)),
    )


@contextmanager
def _user(layout: Layout, slots: Slots) -> Iterator[int]:
    """A host user that no other machine has."""
    with slots.take() as slot:
        yield layout.uid(slot)


def _brokerage(layout: Layout, network: HostNetwork, registry: Registry, events: Events) -> Brokerage:
    """What is kept of secrets, plugged into the network."""
    brokerage = Brokerage(layout.engine / "secrets", network.broker, registry, events, _intercept)
    network.used = brokerage.used
    if network.plug is not None:
        network.plug.secrets = brokerage
    return brokerage


async def _intercept(sandbox: Sandbox, hosts: Sequence[str]) -> None:
    """Have the connections of a running sandbox to ``hosts`` go to the broker."""
    await sandbox.cable.change(sandbox.cable.policy, hosts)
