"""The engine of one host: its parts, put together. Nothing is decided here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from anyio.abc import TaskGroup

from pandastack.disks.pool import Pool, open_pool
from pandastack.engine.build.builds import Builds
from pandastack.engine.build.install import shipped_recipes
from pandastack.engine.compare.diff import Diffs
from pandastack.engine.driver import open_driver
from pandastack.engine.layout import SLOTS, Layout, open_runtime_directory
from pandastack.engine.machines.allocation import MachineHost
from pandastack.engine.machines.probe import probe, require
from pandastack.engine.machines.rehearsal import Rehearsals
from pandastack.engine.machines.restore import Restorer
from pandastack.engine.machines.slots import Slots
from pandastack.engine.machines.users import own_users
from pandastack.engine.machines.warm_pool import WarmPool
from pandastack.engine.origins.captures import CaptureStore
from pandastack.engine.origins.catalog import Templates
from pandastack.engine.recovery.start import Recovery, sweep_leftovers
from pandastack.engine.recovery.sweep import sweep_runtime_directory
from pandastack.engine.sandboxes.admission import Admission
from pandastack.engine.sandboxes.copies import Copies
from pandastack.engine.sandboxes.events import Events
from pandastack.engine.sandboxes.lifecycle import Lifecycle
from pandastack.engine.sandboxes.registry import Registry
from pandastack.engine.sandboxes.rewind import Rewinder
from pandastack.engine.sandboxes.sandboxes import Sandboxes
from pandastack.engine.settings import Settings
from pandastack.errors import ServerError
from pandastack.host import facts
from pandastack.host.cgroups import Groups, open_groups
from pandastack.host.leases import shared_directory
from pandastack.host.lock import FileLock
from pandastack.host.tasks import beside
from pandastack.model.confinement import Measure
from pandastack.network.namespace import empty_namespace
from pandastack.network.slot import NoNetwork
from pandastack.vmm.driver import Driver


@dataclass(frozen=True)
class Engine:
    """An open engine. Made by :func:`open_engine`; it lives as long as that block."""

    driver: Driver
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
            left = sweep_leftovers(layout, pool, asleep)
            with shared_directory(layout.sockets), _machine_groups(layout) as cgroups:
                async with beside() as lives:
                    engine = await _compose(layout, pool, asleep, lives, cgroups, settings or Settings())
                    await engine.recovery.recover(left)
                    engine.warm_pool.start(engine.templates.list(), engine.admission.has_room)
                    yield engine


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
    settings: Settings,
) -> Engine:
    driver = await open_driver()
    templates, saved = Templates(layout.templates, pool), CaptureStore(pool.directory / "saved")
    events = Events()
    registry = Registry(events)
    host = MachineHost(
        layout=layout,
        directory=pool.machines,
        slots=Slots(SLOTS - 1),
        network=NoNetwork(await empty_namespace()),
        cgroups=cgroups,
        confinable=facts.is_root(),
        driver=driver,
        rehearsals=Rehearsals(),
        ended=registry.machine_ended,
        stalled=registry.machine_stalled,
    )
    confinement = await probe(host)
    require(settings.require, confinement, templates.list())
    warm_pool = WarmPool(host, lives, settings.ready_machines)
    restorer = Restorer(driver, warm_pool, settings.require)
    admission = Admission(registry, warm_pool, pool, settings)
    sandboxes = Sandboxes(registry, admission, restorer, warm_pool, templates, saved, asleep)
    lifecycle = Lifecycle(registry, sandboxes, asleep)
    return Engine(
        driver=driver,
        confinement=confinement,
        pool=pool,
        templates=templates,
        saved=saved,
        asleep=asleep,
        events=events,
        registry=registry,
        admission=admission,
        restorer=restorer,
        warm_pool=warm_pool,
        rehearsals=host.rehearsals,
        sandboxes=sandboxes,
        lifecycle=lifecycle,
        copies=Copies(registry, admission, sandboxes, saved),
        rewinder=Rewinder(registry, admission, sandboxes, saved, asleep),
        diffs=Diffs(registry, admission, restorer, templates, saved),
        recovery=Recovery(host, lives, registry, lifecycle, asleep),
        builds=Builds(layout, pool, shipped_recipes(), lives),
    )
