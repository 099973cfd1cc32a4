"""The life of one machine, from an empty VMM to the end of the sandbox in it: one block, owned by one task.

A machine is *prepared* without a guest: its disk is cloned, its VMM runs and waits. Later it is *claimed* by a sandbox:
the snapshot's device state is loaded, the guest is told who it is, and only then is it handed out. What prepares
machines ahead of need is :mod:`pandastack.engine.ready`; a create that finds none starts a life of its own, by the same
path.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import anyio
from anyio.abc import TaskStatus

from pandastack.engine.console import Console
from pandastack.engine.journal import Entry, Journal
from pandastack.engine.layout import Layout
from pandastack.engine.plans import Berth, restore_plan
from pandastack.engine.sandbox import Order, Prepared, Sandbox
from pandastack.engine.slots import Slots
from pandastack.engine.stopwatch import Stopwatch
from pandastack.engine.templates import Installed
from pandastack.errors import GuestError, PandastackError
from pandastack.guest import Channel, Identity
from pandastack.host import files
from pandastack.host.identity import identify
from pandastack.host.tasks import beside
from pandastack.vmm.qemu.machine import Machine, launch

HANDSHAKE_DEADLINE = 20.0
"""Seconds a restored guest may take to say that it knows who it is."""

EXIT_DEADLINE = 0.3
"""Seconds from the end of a VMM's channel to that of its process, if the VMM is ending at all."""


class Resources(Protocol):
    """What a machine has of its engine."""

    layout: Layout
    slots: Slots
    machines: Path
    netns: Path | None
    confinable: bool
    qemu: Path

    def ended(self, sandbox: Sandbox) -> None:
        """Called when nothing is left of a sandbox's machine."""


async def live(resources: Resources, template: Installed, *, task_status: TaskStatus[Prepared]) -> None:
    """One machine's whole life. Reports a :class:`Prepared` as soon as its VMM waits for a guest.

    Raises only before that; afterwards whoever claims the machine is told what went wrong.
    """
    prepared, death = Prepared(template), _Death()
    sandbox: Sandbox | None = None
    try:
        async with _prepare(resources, template, death) as (machine, console, journal):
            prepared.offered = True
            task_status.started(prepared)
            order = await prepared.ordered()
            if order is None:
                return
            journal.advance("claimed", sandbox=order.sandbox)
            clock = Stopwatch()
            async with _awake(machine, template, order, death, clock) as channel:
                sandbox = Sandbox(order, template, machine, channel, console)
                sandbox.phases = clock.laps
                journal.advance("running")
                prepared.succeed(sandbox)
                await sandbox.ended()
                journal.advance("ending")
    except PandastackError as error:
        if not prepared.offered:
            raise
        death.reason = death.reason or str(error)
    finally:
        prepared.fail(GuestError(f"the machine ended before its guest was ready: {death.reason or 'engine stops'}"))
        if sandbox is not None:
            sandbox.failure = death.reason
            resources.ended(sandbox)
            sandbox.gone.set()


@dataclass
class _Death:
    """Why a machine ended although nobody asked."""

    reason: str | None = None


@asynccontextmanager
async def _prepare(
    resources: Resources, template: Installed, death: _Death
) -> AsyncIterator[tuple[Machine, Console, Journal]]:
    """A VMM with everything but a guest."""
    with _berth(resources) as berth:
        entry = Entry(berth.name, berth.slot, template.name, template.key, "planned")
        journal = Journal(berth.directory, entry)
        files.clone(template.snapshot.disk, berth.directory / "disk.img")
        plan = restore_plan(resources.layout, berth, template.image, template.snapshot)
        console = Console(berth.directory / "console.log")
        async with launch(resources.qemu, plan, berth.directory / "vmm.log") as machine:
            journal.advance("prepared", process=identify(machine.pid))
            async with _watched(machine.wait, death), console.following(plan.sockets.console):
                yield machine, console, journal


@contextmanager
def _berth(resources: Resources) -> Iterator[Berth]:
    name = secrets.token_hex(6)
    with (
        resources.slots.take() as slot,
        files.directory_for_now(resources.machines / name) as directory,
        files.directory_for_now(resources.layout.sockets / name) as sockets,
    ):
        yield Berth(name, slot, directory, sockets, resources.netns, resources.confinable)


@asynccontextmanager
async def _awake(
    machine: Machine, template: Installed, order: Order, death: _Death, clock: Stopwatch
) -> AsyncIterator[Channel]:
    """The guest, restored and told who it is."""
    async with await anyio.connect_unix(machine.plan.sockets.channel) as stream, Channel(stream) as channel:
        await machine.load(template.snapshot.devices)
        clock.lap("load")
        await channel.resume(identity_of(order), quiet=template.snapshot.manifest.quiet, timeout_s=HANDSHAKE_DEADLINE)
        clock.lap("handshake")
        async with _watched(partial(_why_closed, channel, machine), death):
            yield channel


async def _why_closed(channel: Channel, machine: Machine) -> str:
    """Why the channel closed. A VMM that ends takes it along, and then says more than the channel's end."""
    reason = await channel.wait_closed()
    with anyio.move_on_after(EXIT_DEADLINE):
        return await machine.wait()
    return str(reason)


def identity_of(order: Order) -> Identity:
    """Who a guest is from now on: nothing in it is ever used twice."""
    return Identity(
        hostname=order.hostname,
        machine_id=secrets.token_hex(16),
        entropy=secrets.token_bytes(64),
        generation=secrets.randbits(63),
        env=order.env,
    )


@asynccontextmanager
async def _watched(ending: Callable[[], Awaitable[object]], death: _Death) -> AsyncIterator[None]:
    """End the block when ``ending`` returns, and remember the reason it gives."""

    async def watch() -> None:
        death.reason = str(await ending())
        tasks.cancel_scope.cancel()

    async with beside(watch) as tasks:
        yield
