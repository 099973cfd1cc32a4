"""How a starting engine sweeps or adopts what a killed one left behind."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import anyio
import structlog
from anyio.abc import TaskGroup

from pandastack.disks.pool import Pool
from pandastack.engine import origins
from pandastack.engine.layout import Layout
from pandastack.engine.machines.allocation import MachineHost
from pandastack.engine.machines.journal import Entry
from pandastack.engine.machines.run import run_adopted
from pandastack.engine.machines.sandbox import Hibernated, Sandbox, WarmMachine
from pandastack.engine.machines.stopwatch import Stopwatch
from pandastack.engine.origins.captures import CaptureStore
from pandastack.engine.origins.catalog import Templates
from pandastack.engine.recovery.adoption import survivors
from pandastack.engine.recovery.lost import LostMachines
from pandastack.engine.recovery.sweep import end_machines, remove_files
from pandastack.engine.sandboxes.lifecycle import Lifecycle
from pandastack.engine.sandboxes.registry import Registry
from pandastack.engine.sandboxes.volumes import Volumes
from pandastack.engine.work import sweep_orphans
from pandastack.errors import PandastackError
from pandastack.host.processes.identity import kill
from pandastack.images.cache import Cache

log = structlog.get_logger(__name__)


async def sweep_leftovers(layout: Layout, pool: Pool, asleep: CaptureStore) -> list[Entry]:
    """End and remove what a killed engine left behind, and keep the disks of lost sandboxes. Returns the machines to
    adopt."""
    left = survivors(pool.machines, asleep.names())
    keep = {entry.machine for entry in left}
    end_machines(layout.tag, keep)
    await LostMachines(pool.machines, asleep).keep_all(left)
    remove_files((pool.machines, layout.sockets), keep)
    await _remove_old_versions(Templates(layout.templates, pool))
    await anyio.to_thread.run_sync(sweep_orphans, pool.directory, layout.cache / "work")
    await anyio.to_thread.run_sync(Cache(layout.cache).sweep)
    return left


async def _remove_old_versions(templates: Templates) -> None:
    """While no machine of this engine is being made from one."""
    removed = await anyio.to_thread.run_sync(templates.remove_unused, time.time())
    if removed:
        log.info("templates.old_versions_removed", versions=len(removed))


@dataclass(frozen=True)
class Recovery:
    """Takes over the sandboxes of a former engine. The tasks of adopted machines run in ``lives``."""

    host: MachineHost
    lives: TaskGroup
    registry: Registry
    lifecycle: Lifecycle
    asleep: CaptureStore
    volumes: Volumes

    async def recover(self, left: Sequence[Entry]) -> None:
        """Adopt the machines in ``left``, then load the hibernated sandboxes."""
        if self.host.cgroups is not None:
            await anyio.to_thread.run_sync(self.host.cgroups.sweep, {entry.machine for entry in left})
        async with anyio.create_task_group() as adoptions:
            for entry in left:
                adoptions.start_soon(self._adopt, entry)
        await self._load_hibernated()

    async def _adopt(self, entry: Entry) -> None:
        """Take over a machine, or end it if it does not answer."""
        try:
            origin = origins.load(self.host.directory / entry.machine)
            machine: WarmMachine = await self.lives.start(partial(run_adopted, self.host, entry, origin))
            sandbox = await machine.claim(entry.spec, origin, Stopwatch())
            await self._settle(sandbox)
            self.registry.register(sandbox)
            if entry.paused:
                await self.lifecycle.pause(entry.sandbox)
        except PandastackError as error:
            log.warning("machine.lost", sandbox_id=entry.sandbox, reason=str(error))
            self._end(entry)

    async def _settle(self, sandbox: Sandbox | Hibernated) -> None:
        """Finish what a killed engine began. Where the pool is full, readers see an older volume until the sandbox
        sleeps, wakes or is deleted."""
        try:
            await self.volumes.settle(sandbox.spec, sandbox.origin.snapshot)
        except PandastackError as error:
            log.error("volumes.not_settled", sandbox_id=sandbox.id, reason=str(error))

    def _end(self, entry: Entry) -> None:
        if entry.process is not None:
            kill(entry.process)
        for each in (self.host.directory, self.host.layout.sockets):
            shutil.rmtree(each / entry.machine, ignore_errors=True)

    async def _load_hibernated(self) -> None:
        for name in self.asleep.names():
            if self.registry.find(name):  # it was woken, but the engine was killed before it removed the capture
                await self.asleep.remove(name)
            else:
                found = Hibernated(origins.read_spec(self.asleep.path(name)), self.asleep.get(name))
                await self._settle(found)
                self.registry.register(found)
