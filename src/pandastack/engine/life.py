"""The life of one machine, from a VMM that loads a snapshot to the end of the sandbox in it: one block, one task.

A machine may be made *ahead* of need: it is restored, rehearses what every sandbox does first, and then its CPUs are
stopped. When a sandbox claims it they go on, the guest is told who it is, and only then is it handed out. What makes
machines ahead is :mod:`pandastack.engine.ready`; a create that finds none starts a life of its own, by the same path.
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
import structlog
from anyio.abc import TaskStatus

from pandastack.engine.console import Console
from pandastack.engine.journal import Entry, Journal
from pandastack.engine.layout import Layout
from pandastack.engine.plans import Berth, restore_plan
from pandastack.engine.sandbox import Order, Prepared, Sandbox
from pandastack.engine.slots import Slots
from pandastack.engine.stopwatch import Stopwatch
from pandastack.engine.templates import Installed
from pandastack.errors import GuestError, PandastackError, ServerError
from pandastack.guest import Channel, Identity
from pandastack.host import files
from pandastack.host.identity import identify
from pandastack.host.tasks import beside
from pandastack.vmm.qemu.machine import Machine, launch

log = structlog.get_logger(__name__)

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


async def live(resources: Resources, template: Installed, ahead: bool, *, task_status: TaskStatus[Prepared]) -> None:
    """One machine's whole life. Reports a :class:`Prepared` as soon as it can be claimed.

    Raises only before that; afterwards whoever claims the machine is told what went wrong.
    """
    prepared, death = Prepared(template), _Death()
    sandbox: Sandbox | None = None
    try:
        async with (
            _machine(resources, template, death) as (machine, console, journal),
            _restored(machine, template, death) as channel,
        ):
            if ahead:
                await _rehearse(machine, channel, template)
            prepared.offered = True
            task_status.started(prepared)
            order = await prepared.ordered()
            if order is None:
                return
            clock = Stopwatch()
            journal.advance("claimed", sandbox=order.sandbox)
            if ahead:
                await machine.resume()
                clock.lap("resume")
            await _introduce(channel, order, template, quiet=ahead)
            clock.lap("identity")
            sandbox = Sandbox(order, template, machine, channel, console, clock.laps)
            journal.advance("running")
            prepared.succeed(sandbox)
            await sandbox.ended()
            journal.advance("ending")
        if not prepared.offered:  # a watch has ended the block
            raise GuestError(f"the machine ended before it was ready: {death.reason}")
    except Exception as error:  # faults end here: one machine's never becomes another's, or the server's
        failure = as_ours(error, resources.machines)
        if not prepared.offered:
            raise failure from (None if failure is error else error)
        death.reason = death.reason or str(failure)
    finally:
        prepared.fail(GuestError(f"the machine ended before its guest was ready: {death.reason or 'engine stops'}"))
        if sandbox is not None:
            sandbox.failure = death.reason
            resources.ended(sandbox)
            sandbox.gone.set()


def as_ours(error: Exception, directory: Path) -> PandastackError:
    """What went wrong in a life, in the words of this package. ``directory`` is where the machine's files are."""
    if isinstance(error, PandastackError):
        return error
    if isinstance(error, OSError):
        return files.map_error(error, directory)
    log.error("a machine's life failed", exc_info=error)
    return ServerError(f"internal error: {type(error).__name__}")


@dataclass
class _Death:
    """Why a machine ended although nobody asked."""

    reason: str | None = None


@asynccontextmanager
async def _machine(
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
async def _restored(machine: Machine, template: Installed, death: _Death) -> AsyncIterator[Channel]:
    """The guest as the snapshot has it, and the channel to it. It does not know yet that it is another."""
    async with await anyio.connect_unix(machine.plan.sockets.channel) as stream, Channel(stream) as channel:
        await machine.load(template.snapshot.devices)
        async with _watched(partial(_why_closed, channel, machine), death):
            yield channel


async def _introduce(channel: Channel, order: Order, template: Installed, *, quiet: bool) -> None:
    """Tell the guest who it is. ``quiet``: the channel was used since the restore, so it stands at a frame border."""
    quiet = quiet or template.snapshot.manifest.quiet
    await channel.resume(identity_of(order), quiet=quiet, timeout_s=HANDSHAKE_DEADLINE)


async def _rehearse(machine: Machine, channel: Channel, template: Installed) -> None:
    """Let the guest take on an identity once, then stop its CPUs.

    Memory that is touched for the first time is mapped, and under software emulation code that runs for the first time
    is translated: that is most of what a create costs. Nothing of the rehearsal remains: the identity is given anew,
    random numbers included, when the machine is claimed. A first command is not rehearsed: it would cost every machine
    ten megabytes for as long as it waits.
    """
    await _introduce(channel, Order(sandbox="", hostname="template"), template, quiet=False)
    await machine.pause()


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
