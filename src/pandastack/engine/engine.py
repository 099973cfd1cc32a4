"""The engine of one host: what it holds while it runs, and what can be asked of it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
import structlog
from anyio.abc import TaskGroup

from pandastack.disks.pool import RESERVE, Pool, open_pool
from pandastack.engine import origins
from pandastack.engine.compare.diff import Diffs
from pandastack.engine.layout import SLOTS, Layout
from pandastack.engine.machines.journal import Entry
from pandastack.engine.machines.run import run_adopted
from pandastack.engine.machines.sandbox import Hibernated, Sandbox, WarmMachine
from pandastack.engine.machines.slots import Slots
from pandastack.engine.machines.stopwatch import Stopwatch
from pandastack.engine.machines.warm_pool import WarmPool
from pandastack.engine.origins.captures import CaptureStore
from pandastack.engine.origins.catalog import Templates
from pandastack.engine.origins.origin import Origin
from pandastack.engine.recovery.adoption import survivors
from pandastack.engine.recovery.sweep import sweep
from pandastack.engine.sandboxes.events import Events
from pandastack.engine.sandboxes.lifecycle import Lifecycle
from pandastack.engine.settings import Settings
from pandastack.engine.spec import SandboxSpec
from pandastack.engine.work import sweep_orphans
from pandastack.errors import (
    CapacityError,
    ConflictError,
    NotFoundError,
    PandastackError,
    ServerError,
    StorageFullError,
)
from pandastack.host import facts
from pandastack.host.files import remove_when_empty
from pandastack.host.lock import FileLock
from pandastack.host.processes.identity import kill
from pandastack.host.tasks import beside, together
from pandastack.model.accelerator import Accelerator
from pandastack.network.namespace import empty_namespace
from pandastack.snapshots.compatibility import cpu_identity
from pandastack.vmm.qemu.binary import qemu_binary, qemu_version

log = structlog.get_logger(__name__)

MEMORY_RESERVE = 512 * 1024**2
"""Bytes of the host's memory that no sandbox is started into."""


MACHINE_BYTES = 32 * 1024**2
"""What a sandbox takes at its start: reserved before one is made."""


class Engine:
    """An open engine. Made by :func:`open_engine`, whose block is its life."""

    def __init__(
        self, layout: Layout, pool: Pool, netns: Path | None, vmm: str, lives: TaskGroup, settings: Settings
    ) -> None:
        self.layout = layout
        self.pool = pool
        self.slots = Slots(SLOTS - 1)
        self.machines = pool.machines
        self.netns = netns
        self.confinable = facts.is_root()
        self.qemu = qemu_binary()
        self.vmm = vmm
        self.templates = Templates(layout.templates, pool)
        self.events = Events()
        self.saved = CaptureStore(pool.directory / "saved")
        self.asleep = CaptureStore(pool.directory / "asleep")
        self.lifecycle = Lifecycle(self)
        self.diffs = Diffs(self)
        self.warm_pool = WarmPool(self, lives, settings.ready_machines)
        self._lives = lives
        self._sandboxes: dict[str, Sandbox | Hibernated] = {}
        self._beginning = 0

    async def create(self, spec: SandboxSpec, template_name: str) -> Sandbox:
        """A new sandbox, restored from the template's snapshot. Refusals for want of room have no side effects."""
        template = self.templates.get(template_name)
        self._admit_new(spec)
        spec = replace(spec, env={**template.template.env, **spec.env})
        sandbox = await self.begin(template, spec)
        self.warm_pool.replenish(template)
        return sandbox

    async def create_from(self, spec: SandboxSpec, snapshot_id: str) -> Sandbox:
        """A new sandbox that goes on where another was captured. Refusals for want of room have no side effects."""
        origin = self.saved.get(snapshot_id)
        self._admit_new(spec)
        return await self.begin(origin, replace(spec, env={**origin.template.env, **spec.env}))

    async def begin(self, origin: Origin, spec: SandboxSpec) -> Sandbox:
        """A machine for ``spec`` that is restored from ``origin``: the way of every sandbox that begins to run.

        Raises :class:`ConflictError` before anything is done when ``origin`` does not fit this host.
        """
        sandbox = await self._restore(origin, spec)
        self.register(sandbox)
        return sandbox

    @asynccontextmanager
    async def temporary(self, *origins: Origin) -> AsyncIterator[list[Sandbox]]:
        """Machines that are only looked at: no sandbox's, so in no list, and the next engine sweeps what a killed one
        has left of them."""
        made: dict[int, Sandbox] = {}

        async def make(index: int, origin: Origin) -> None:
            made[index] = await self._restore(origin, SandboxSpec(sandbox="", hostname="snapshot", still=True))

        if origins:
            self.admit(len(origins))
        try:
            await together(*(partial(make, index, origin) for index, origin in enumerate(origins)))
            yield [made[index] for index in range(len(origins))]
        finally:
            with anyio.CancelScope(shield=True):
                await together(*(sandbox.end for sandbox in made.values()))

    async def _restore(self, origin: Origin, spec: SandboxSpec) -> Sandbox:
        accelerator = Accelerator(origin.snapshot.manifest.accelerator)
        origin.snapshot.check(vmm=self.vmm, cpu_flags=cpu_identity(accelerator))
        clock = Stopwatch()
        self._beginning += 1
        # Shielded: a caller that leaves now must not leave a machine behind that nobody knows.
        try:
            with self.warm_pool.claiming(), anyio.CancelScope(shield=True):
                sandbox = await self.warm_pool.claim(origin, spec)
        finally:
            self._beginning -= 1
        sandbox.phases["machine"] = clock.elapsed() - sum(sandbox.phases.values())
        return sandbox

    def register(self, sandbox: Sandbox | Hibernated) -> None:
        """The sandbox of that id is this one from now on."""
        self._sandboxes[sandbox.id] = sandbox

    async def adopt(self, entry: Entry) -> None:
        """Take over a machine that a former engine has left running; one that does not answer is ended."""
        try:
            origin = origins.load(self.machines / entry.machine)
            start = partial(run_adopted, self, entry, origin)
            prepared: WarmMachine = await self._lives.start(start)
            sandbox = await prepared.claim(SandboxSpec(entry.sandbox, entry.hostname, entry.env), origin)
            self.register(sandbox)
            if entry.paused:
                await self.lifecycle.pause(sandbox.id)
        except PandastackError as error:
            log.warning("a machine of a former run is lost", sandbox_id=entry.sandbox, reason=str(error))
            if entry.process is not None:
                kill(entry.process)
            for each in (self.machines, self.layout.sockets):
                shutil.rmtree(each / entry.machine, ignore_errors=True)

    def load_hibernated(self) -> None:
        """Know the sandboxes that are on the disk."""
        for name in self.asleep.names():
            if name in self._sandboxes:  # woken, and the engine was killed before it removed this
                self.asleep.remove(name)
            else:
                self.register(Hibernated(origins.read_spec(self.asleep.path(name)), self.asleep.get(name)))

    @property
    def accelerator(self) -> Accelerator:
        """The weakest accelerator that a template here runs with."""
        used = {Accelerator(each.snapshot.manifest.accelerator) for each in self.templates.list()}
        return Accelerator.KVM if used == {Accelerator.KVM} else Accelerator.TCG

    def _admit_new(self, spec: SandboxSpec) -> None:
        if spec.sandbox in self._sandboxes:
            raise ConflictError(f"sandbox {spec.sandbox} exists already", field="id")
        self.admit()

    def admit(self, count: int = 1) -> None:
        """Refuse ``count`` more machines when memory or storage would run out, those that are being made included."""
        if facts.available_memory_bytes() - (count + self._beginning) * MACHINE_BYTES < MEMORY_RESERVE:
            raise CapacityError(
                "insufficient host memory for sandbox",
                status_code=507,
                hint="delete sandboxes that are no longer needed, or add memory to the host",
            )
        if self.pool.free_bytes() < RESERVE:
            raise StorageFullError(
                "insufficient host storage for sandbox",
                hint=f"free space in the storage pool at {self.pool.directory}",
            )

    def list(self) -> list[Sandbox | Hibernated]:
        return list(self._sandboxes.values())

    def find(self, sandbox_id: str) -> Sandbox | Hibernated | None:
        return self._sandboxes.get(sandbox_id)

    def get(self, sandbox_id: str) -> Sandbox | Hibernated:
        """The sandbox; raises :class:`NotFoundError`."""
        try:
            return self._sandboxes[sandbox_id]
        except KeyError:
            raise NotFoundError(f"sandbox {sandbox_id} not found") from None

    def reach(self, sandbox_id: str) -> Sandbox:
        """The sandbox, if its guest can be talked to; raises :class:`ConflictError` when it sleeps or has failed."""
        sandbox = self.get(sandbox_id)
        if isinstance(sandbox, Hibernated):
            raise ConflictError(f"sandbox {sandbox_id} is hibernated", hint="wake it first")
        if sandbox.failure:
            raise ConflictError(f"sandbox {sandbox_id} has failed: {sandbox.failure}", hint="create a new one")
        if sandbox.paused:
            raise ConflictError(f"sandbox {sandbox_id} is paused", hint="resume it first")
        return sandbox

    async def delete(self, sandbox_id: str) -> None:
        """End the sandbox; returns when nothing of it is left."""
        sandbox = self.get(sandbox_id)
        if isinstance(sandbox, Hibernated):
            async with sandbox.lock:  # a wake may be under way
                if self.asleep.has(sandbox_id):
                    self.asleep.remove(sandbox_id)
            sandbox = self._sandboxes.get(sandbox_id, sandbox)
        if isinstance(sandbox, Sandbox):
            await sandbox.end()
        self._sandboxes.pop(sandbox_id, None)

    def ended(self, sandbox: Sandbox) -> None:
        """Called by a machine's life at its end."""
        if sandbox.failure and self._sandboxes.get(sandbox.id) is sandbox:
            payload = {"pid": sandbox.machine.pid, "reason": sandbox.failure}
            self.events.publish("vm.died", sandbox.id, payload)


@asynccontextmanager
async def open_engine(layout: Layout, settings: Settings | None = None) -> AsyncIterator[Engine]:
    """The engine of a data directory. Leaving the block ends all its machines.

    Raises :class:`ServerError` when another engine has the directory.
    """
    with FileLock(layout.engine / "engine.lock") as lock:
        if not lock.try_exclusive():
            raise ServerError(
                f"another engine already uses {layout.data}",
                hint="`pandastack down` stops it; `--data-dir` gives this one a directory of its own",
            )
        async with open_pool(layout.engine) as pool:
            asleep = CaptureStore(pool.directory / "asleep").names()
            left = survivors(pool.machines, asleep)
            sweep(layout.tag, pool.machines, layout.sockets, {entry.machine for entry in left})
            sweep_orphans(pool.directory)
            async with _running(layout, pool, settings or Settings(), left) as engine:
                yield engine


@asynccontextmanager
async def _running(layout: Layout, pool: Pool, settings: Settings, left: Sequence[Entry]) -> AsyncIterator[Engine]:
    netns, vmm = await empty_namespace(), await qemu_version()
    with remove_when_empty(layout.sockets):
        async with beside() as lives:
            engine = Engine(layout, pool, netns, vmm, lives, settings)
            async with anyio.create_task_group() as adoptions:
                for entry in left:
                    adoptions.start_soon(engine.adopt, entry)
            engine.load_hibernated()
            lives.start_soon(engine.warm_pool.refill)
            for template in engine.templates.list():
                engine.warm_pool.replenish(template)
            yield engine
