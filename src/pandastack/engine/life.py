"""The life of one machine, from a VMM that starts to the end of the sandbox in it: one block, one task.

Every machine begins *empty*: a VMM that has the files of a template open and no guest. It can be filled with whatever
was captured from a sandbox of that template. A machine may be *rehearsed* ahead of need: filled with the template,
made to do what every sandbox does first, and then its CPUs are stopped. When a sandbox claims it they go on, the guest
is told who it is, and only then is it handed out. What makes machines ahead is :mod:`pandastack.engine.ready`; a claim
that finds none starts a life of its own, by the same path.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import anyio
import structlog
from anyio.abc import TaskStatus

from pandastack.engine import origins
from pandastack.engine.console import Console
from pandastack.engine.journal import Entry, Journal
from pandastack.engine.layout import Layout
from pandastack.engine.plans import Berth, restore_plan
from pandastack.engine.sandbox import Claim, Held, Order, Prepared, Sandbox
from pandastack.engine.slots import Slots
from pandastack.engine.stopwatch import Stopwatch
from pandastack.engine.templates import Installed
from pandastack.errors import GuestError, PandastackError, ServerError
from pandastack.guest import Channel, Identity
from pandastack.host import files, pagemap
from pandastack.host.identity import identify
from pandastack.host.tasks import beside
from pandastack.snapshots import pages
from pandastack.vmm.qemu.machine import Machine, launch, reattach

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


async def live(
    resources: Resources, origin: Installed, *, rehearsed: bool = False, task_status: TaskStatus[Prepared]
) -> None:
    """The whole life of a machine for ``origin``, or for whatever fits it if it is not to be rehearsed. Reports a
    :class:`Prepared` as soon as it can be claimed.

    Raises only before that; afterwards whoever claims the machine is told what went wrong.
    """
    death = _Death()
    opening = _new(resources, origin, death, rehearsed=rehearsed)
    await _live(resources, origin, death, opening, task_status)


async def live_on(resources: Resources, entry: Entry, origin: Installed, *, task_status: TaskStatus[Prepared]) -> None:
    """The rest of the life of a machine that a former engine has left running, as :func:`live`."""
    death = _Death()
    await _live(resources, origin, death, _left(resources, entry, origin, death), task_status)


async def _live(
    resources: Resources,
    origin: Installed,
    death: _Death,
    opening: AbstractAsyncContextManager[Held],
    task_status: TaskStatus[Prepared],
) -> None:
    prepared = Prepared(origin)
    sandbox: Sandbox | None = None
    try:
        async with opening as held:
            prepared.offered = True
            task_status.started(prepared)
            claim = await prepared.claimed()
            if claim is None:
                return
            clock = Stopwatch()
            sandbox = Sandbox(claim.order, await _occupied(held, claim, clock), clock.laps)
            held.journal.advance("running")
            prepared.succeed(sandbox)
            await sandbox.ended()
            held.journal.advance("ending")
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
async def _new(resources: Resources, origin: Installed, death: _Death, *, rehearsed: bool) -> AsyncIterator[Held]:
    """A new machine for ``origin``: empty, or ``rehearsed``."""
    with _berth(resources) as berth:
        journal = Journal(berth.directory, Entry(berth.name, berth.slot, origin.name, origin.key, "planned"))
        own = origins.moor(origin, berth.directory)
        plan = restore_plan(resources.layout, berth, own.image, own.snapshot)
        async with (
            launch(resources.qemu, plan, berth.directory / "vmm.log") as machine,
            _attended(machine, own, journal, death) as held,
        ):
            journal.advance("prepared", process=identify(machine.pid))
            if rehearsed:
                held = await _filled(held, origin)
                await _rehearse(held)
                journal.advance("rehearsed")
            yield held


@asynccontextmanager
async def _left(resources: Resources, entry: Entry, origin: Installed, death: _Death) -> AsyncIterator[Held]:
    """A machine that a former engine has left, with its guest running."""
    assert entry.process is not None
    with _berth(resources, entry) as berth:
        plan = restore_plan(resources.layout, berth, origin.image, origin.snapshot)
        journal = Journal(berth.directory, entry)
        async with (
            reattach(entry.process, plan, berth.directory / "vmm.log") as machine,
            _attended(machine, origin, journal, death) as held,
        ):
            await machine.resume()  # a capture, or its owner, may have stopped it
            yield held


@contextmanager
def _berth(resources: Resources, entry: Entry | None = None) -> Iterator[Berth]:
    """A place for a machine; with ``entry`` the one that it has already."""
    name = entry.machine if entry else secrets.token_hex(6)
    existing = entry is not None
    with (
        resources.slots.take(entry.slot if entry else None) as slot,
        files.directory_for_now(resources.machines / name, existing=existing) as directory,
        files.directory_for_now(resources.layout.sockets / name, existing=existing) as sockets,
    ):
        yield Berth(name, slot, directory, sockets, resources.netns, resources.confinable)


@asynccontextmanager
async def _attended(machine: Machine, origin: Installed, journal: Journal, death: _Death) -> AsyncIterator[Held]:
    """The machine with its channel and console, and with watches that end the block when it ends by itself."""
    console = Console(origin.snapshot.directory / "console.log")
    sockets = machine.plan.sockets
    async with (
        _watched(machine.wait, death),
        console.following(sockets.console),
        await anyio.connect_unix(sockets.channel) as stream,
        Channel(stream) as channel,
        _watched(partial(_why_closed, channel, machine), death),
    ):
        yield Held(origin, machine, channel, console, journal)


async def _occupied(held: Held, claim: Claim, clock: Stopwatch) -> Held:
    """The machine with the guest that ``claim`` wants in it, running and aware of who it is."""
    state, order = held.journal.entry.state, claim.order
    if state in ("prepared", "rehearsed"):
        owner = {"sandbox": order.sandbox, "hostname": order.hostname, "env": order.env}
        held.journal.advance("claimed", template=claim.origin.name, snapshot=claim.origin.key, **owner)
    if state == "prepared":
        held = await _filled(held, claim.origin)
        clock.lap("fill")
    elif state == "rehearsed":
        await held.machine.resume()
        clock.lap("resume")
    # A guest whose channel was used since its restore stands at a frame border; one that was taken over may not.
    await _introduce(held, order, quiet=state == "rehearsed" or (state == "prepared" and held.quiet))
    clock.lap("identity")
    return held


async def _filled(held: Held, origin: Installed) -> Held:
    """The empty machine with the guest as ``origin`` has it. That does not know yet that it is another."""
    own = await anyio.to_thread.run_sync(_fill, held, origin)
    await held.machine.load(origin.snapshot.devices)  # it reads the guest's memory, so that comes first
    return replace(held, origin=own)


def _fill(held: Held, origin: Installed) -> Installed:
    directory = held.origin.snapshot.directory
    own = origins.fill(origin, directory)
    if origin.snapshot.pages.exists():
        pagemap.write_pages(held.machine.pid, own.snapshot.memory, pages.read(origin.snapshot.pages))
    return own


async def _introduce(held: Held, order: Order, *, quiet: bool) -> None:
    """Tell the guest who it is. ``quiet``: its end of the channel stands at a frame border."""
    await held.channel.resume(identity_of(order), quiet=quiet, timeout_s=HANDSHAKE_DEADLINE)


async def _rehearse(held: Held) -> None:
    """Let the guest take on an identity once, and stand still as for a capture; then stop its CPUs.

    Memory that is touched for the first time is mapped, and under software emulation code that runs for the first time
    is translated: that is most of what a create costs. Nothing of the rehearsal remains: the identity is given anew,
    random numbers included, when the machine is claimed. A first command is not rehearsed: it would cost every machine
    ten megabytes for as long as it waits.
    """
    await _introduce(held, Order(sandbox="", hostname="template"), quiet=held.quiet)
    await held.channel.quiesce(HANDSHAKE_DEADLINE, freeze=True)  # the identity at the claim lets its programs go on
    await held.machine.pause()


async def _why_closed(channel: Channel, machine: Machine) -> str:
    """Why the channel closed. A VMM that ends takes it along, and then says more than the channel's end."""
    reason = await channel.wait_closed()
    with anyio.move_on_after(EXIT_DEADLINE):
        return await machine.wait()
    return str(reason)


def identity_of(order: Order) -> Identity:
    """Who a guest is from now on. Name, machine-id and boot id are the sandbox's for as long as it exists, through
    every sleep; nothing else in it is ever used twice."""
    return Identity(
        hostname=order.hostname,
        machine_id=_derived("machine-id", order).hex(),
        boot_id=str(uuid.UUID(bytes=_derived("boot-id", order), version=4)),
        entropy=secrets.token_bytes(64),
        generation=secrets.randbits(63),
        env=order.env,
        still=order.still,
    )


def _derived(purpose: str, order: Order) -> bytes:
    return hashlib.sha256(f"{purpose}:{order.sandbox}".encode()).digest()[:16]


@asynccontextmanager
async def _watched(ending: Callable[[], Awaitable[object]], death: _Death) -> AsyncIterator[None]:
    """End the block when ``ending`` returns, and remember the reason it gives."""

    async def watch() -> None:
        death.reason = str(await ending())
        tasks.cancel_scope.cancel()

    async with beside(watch) as tasks:
        yield
