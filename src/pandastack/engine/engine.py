"""The engine of one host: what it holds while it runs, and what can be asked of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import anyio
import structlog
from anyio.abc import TaskGroup

from pandastack.disks.pool import RESERVE, Pool, open_pool
from pandastack.engine import origins
from pandastack.engine.accelerator import cpu_identity
from pandastack.engine.adoption import left_running
from pandastack.engine.diff import Diffs
from pandastack.engine.events import Events
from pandastack.engine.journal import Entry
from pandastack.engine.layout import SLOTS, Layout
from pandastack.engine.life import live_on
from pandastack.engine.lifecycle import Lifecycle
from pandastack.engine.origins import Shelf
from pandastack.engine.orphans import sweep_orphans
from pandastack.engine.ready import Ready
from pandastack.engine.sandbox import Hibernated, Order, Prepared, Sandbox
from pandastack.engine.slots import Slots
from pandastack.engine.stopwatch import Stopwatch
from pandastack.engine.sweep import sweep
from pandastack.engine.templates import Installed, Templates
from pandastack.errors import (
    BadRequestError,
    CapacityError,
    ConflictError,
    NotFoundError,
    PandastackError,
    ServerError,
    StorageFullError,
)
from pandastack.host import facts
from pandastack.host.files import remove_when_empty
from pandastack.host.identity import kill
from pandastack.host.lock import FileLock
from pandastack.host.tasks import beside, together
from pandastack.network.namespace import empty_namespace
from pandastack.vmm.plan import Accelerator
from pandastack.vmm.qemu.binary import qemu_binary, qemu_version

log = structlog.get_logger(__name__)

READY_MAXIMUM = 1024
"""More machines than this per template are a slip of the pen."""

MEMORY_RESERVE = 512 * 1024**2
"""Bytes of the host's memory that no sandbox is started into."""


MACHINE_BYTES = 32 * 1024**2
"""What a sandbox takes at its start: reserved before one is made."""


@dataclass(frozen=True)
class Settings:
    """What an operator may change about the engine: each field ``name`` is read from ``PANDASTACK_NAME``."""

    ready_machines: int = 4
    """How many machines are made ahead for each template; each takes about 20 MB. 0: every create makes its own."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Raises :class:`BadRequestError` that names the variable whose value makes no sense."""
        text = env.get("PANDASTACK_READY_MACHINES") or str(cls.ready_machines)
        if not text.isdecimal() or int(text) > READY_MAXIMUM:
            message = f"PANDASTACK_READY_MACHINES must be a whole number up to {READY_MAXIMUM}, not {text!r}"
            raise BadRequestError(message, field="PANDASTACK_READY_MACHINES")
        return cls(ready_machines=int(text))


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
        self.saved = Shelf(pool.directory / "saved")
        self.asleep = Shelf(pool.directory / "asleep")
        self.lifecycle = Lifecycle(self)
        self.diffs = Diffs(self)
        self.ready = Ready(self, lives, settings.ready_machines)
        self._lives = lives
        self._sandboxes: dict[str, Sandbox | Hibernated] = {}
        self._beginning = 0

    async def create(self, order: Order, template_name: str) -> Sandbox:
        """A new sandbox, restored from the template's snapshot. Refusals for want of room have no side effects."""
        template = self.templates.get(template_name)
        self._admit_new(order)
        order = replace(order, env={**template.template.env, **order.env})
        sandbox = await self.begin(template, order)
        self.ready.replenish(template)
        return sandbox

    async def create_from(self, order: Order, snapshot_id: str) -> Sandbox:
        """A new sandbox that goes on where another was captured. Refusals for want of room have no side effects."""
        origin = self.saved.get(snapshot_id)
        self._admit_new(order)
        return await self.begin(origin, replace(order, env={**origin.template.env, **order.env}))

    async def begin(self, origin: Installed, order: Order) -> Sandbox:
        """A machine for ``order`` that is restored from ``origin``: the way of every sandbox that begins to run.

        Raises :class:`ConflictError` before anything is done when ``origin`` does not fit this host.
        """
        sandbox = await self._restore(origin, order)
        self.keep(sandbox)
        return sandbox

    @asynccontextmanager
    async def temporary(self, *origins: Installed) -> AsyncIterator[list[Sandbox]]:
        """Machines that are only looked at: no sandbox's, so in no list, and the next engine sweeps what a killed one
        has left of them."""
        made: dict[int, Sandbox] = {}

        async def make(index: int, origin: Installed) -> None:
            made[index] = await self._restore(origin, Order(sandbox="", hostname="snapshot", still=True))

        if origins:
            self.admit(len(origins))
        try:
            await together(*(partial(make, index, origin) for index, origin in enumerate(origins)))
            yield [made[index] for index in range(len(origins))]
        finally:
            with anyio.CancelScope(shield=True):
                await together(*(sandbox.end for sandbox in made.values()))

    async def _restore(self, origin: Installed, order: Order) -> Sandbox:
        accelerator = Accelerator(origin.snapshot.manifest.accelerator)
        origin.snapshot.check(vmm=self.vmm, cpu_flags=cpu_identity(accelerator))
        clock = Stopwatch()
        self._beginning += 1
        # Shielded: a caller that leaves now must not leave a machine behind that nobody knows.
        try:
            with self.ready.claiming(), anyio.CancelScope(shield=True):
                sandbox = await self.ready.claim(origin, order)
        finally:
            self._beginning -= 1
        sandbox.phases["machine"] = clock.elapsed() - sum(sandbox.phases.values())
        return sandbox

    def keep(self, sandbox: Sandbox | Hibernated) -> None:
        """The sandbox of that id is this one from now on."""
        self._sandboxes[sandbox.id] = sandbox

    async def adopt(self, entry: Entry) -> None:
        """Take over a machine that a former engine has left running; one that does not answer is ended."""
        try:
            origin = origins.load(self.machines / entry.machine)
            start = partial(live_on, self, entry, origin)
            prepared: Prepared = await self._lives.start(start)
            sandbox = await prepared.claim(Order(entry.sandbox, entry.hostname, entry.env), origin)
            self.keep(sandbox)
            if entry.paused:
                await self.lifecycle.pause(sandbox.id)
        except PandastackError as error:
            log.warning("a machine of a former run is lost", sandbox_id=entry.sandbox, reason=str(error))
            if entry.process is not None:
                kill(entry.process)
            for each in (self.machines, self.layout.sockets):
                shutil.rmtree(each / entry.machine, ignore_errors=True)

    def find_asleep(self) -> None:
        """Know the sandboxes that are on the disk."""
        for name in self.asleep.names():
            if name in self._sandboxes:  # woken, and the engine was killed before it removed this
                self.asleep.remove(name)
            else:
                self.keep(Hibernated(origins.order_in(self.asleep.path(name)), self.asleep.get(name)))

    @property
    def accelerator(self) -> Accelerator:
        """The weakest accelerator that a template here runs with."""
        used = {Accelerator(each.snapshot.manifest.accelerator) for each in self.templates.list()}
        return Accelerator.KVM if used == {Accelerator.KVM} else Accelerator.TCG

    def _admit_new(self, order: Order) -> None:
        if order.sandbox in self._sandboxes:
            raise ConflictError(f"sandbox {order.sandbox} exists already", field="id")
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
            async with sandbox.turn:  # a wake may be under way
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
            asleep = Shelf(pool.directory / "asleep").names()
            left = left_running(pool.machines, asleep)
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
            engine.find_asleep()
            lives.start_soon(engine.ready.keep)
            for template in engine.templates.list():
                engine.ready.replenish(template)
            yield engine
