"""The life of one machine, from a VMM that starts to the end of the sandbox in it: one block, one task.

Every machine begins *empty*: a VMM that has the files of a template open and no guest. It can be filled with whatever
was captured from a sandbox of that template. A machine may be *rehearsed* ahead of need: filled with the template,
made to do what every sandbox does first, and then its CPUs are stopped. When a sandbox claims it they go on, the guest
is told who it is, and only then is it handed out. :mod:`pandastack.engine.machines.warm_pool` makes machines ahead; a
claim that finds none starts a new machine, by the same path.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import anyio
import structlog
from anyio.abc import TaskStatus

from pandastack.engine import origins
from pandastack.engine.layout import Layout
from pandastack.engine.machines.allocation import allocate
from pandastack.engine.machines.console import Console
from pandastack.engine.machines.journal import Entry, Journal
from pandastack.engine.machines.plan import restore_plan
from pandastack.engine.machines.sandbox import Claim, LiveMachine, Sandbox, WarmMachine
from pandastack.engine.machines.slots import Slots
from pandastack.engine.machines.state import MachineState
from pandastack.engine.machines.stopwatch import Stopwatch
from pandastack.engine.origins.origin import Origin
from pandastack.engine.spec import SandboxSpec
from pandastack.errors import GuestError, PandastackError, ServerError
from pandastack.guest import Channel, Identity
from pandastack.host import files, pagemap
from pandastack.host.processes.identity import identify
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


async def run_machine(
    resources: Resources, origin: Origin, *, rehearsed: bool = False, task_status: TaskStatus[WarmMachine]
) -> None:
    """The whole life of a machine for ``origin``, or for whatever fits it if it is not to be rehearsed. Reports a
    :class:`WarmMachine` as soon as it can be claimed.

    Raises only before that; afterwards whoever claims the machine is told what went wrong.
    """
    death = _Death()
    opening = _new(resources, origin, death, rehearsed=rehearsed)
    await _run(resources, origin, death, opening, task_status)


async def run_adopted(
    resources: Resources, entry: Entry, origin: Origin, *, task_status: TaskStatus[WarmMachine]
) -> None:
    """The rest of the life of a machine that a former engine has left running, as :func:`run_machine`."""
    death = _Death()
    await _run(resources, origin, death, _left(resources, entry, origin, death), task_status)


async def _run(
    resources: Resources,
    origin: Origin,
    death: _Death,
    opening: AbstractAsyncContextManager[LiveMachine],
    task_status: TaskStatus[WarmMachine],
) -> None:
    prepared = WarmMachine(origin)
    sandbox: Sandbox | None = None
    try:
        async with opening as held:
            prepared.offered = True
            task_status.started(prepared)
            claim = await prepared.claimed()
            if claim is None:
                return
            clock = Stopwatch()
            sandbox = Sandbox(claim.spec, await _occupied(held, claim, clock), clock.laps)
            if held.journal.entry.state is not MachineState.RUNNING:  # an adopted one is already
                held.journal.advance(MachineState.RUNNING)
            prepared.succeed(sandbox)
            await sandbox.ended()
            held.journal.advance(MachineState.ENDING)
        if not prepared.offered:  # a watch has ended the block
            raise GuestError(f"the machine ended before it was ready: {death.reason}")
    except Exception as error:  # faults end here: one machine's never becomes another's, or the server's
        failure = as_ours(error, resources.machines)
        if not prepared.offered:
            raise failure from (None if failure is error else error)
        death.reason = death.reason or str(failure)
    finally:
        prepared.fail(
            GuestError(f"the machine ended before its guest was ready: {death.reason or 'the engine is stopping'}")
        )
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
async def _new(resources: Resources, origin: Origin, death: _Death, *, rehearsed: bool) -> AsyncIterator[LiveMachine]:
    """A new machine for ``origin``: empty, or ``rehearsed``."""
    with allocate(resources) as allocation:
        journal = Journal(
            allocation.directory, Entry(allocation.name, allocation.slot, origin.name, origin.key, MachineState.PLANNED)
        )
        own = origins.link_base(origin, allocation.directory)
        plan = restore_plan(resources.layout, allocation, own.image, own.snapshot)
        async with (
            launch(resources.qemu, plan, allocation.directory / "vmm.log") as machine,
            _attended(machine, own, journal, death) as held,
        ):
            journal.advance(MachineState.BLANK, process=identify(machine.pid))
            if rehearsed:
                held = await _filled(held, origin)
                await _rehearse(held)
                journal.advance(MachineState.REHEARSED)
            yield held


@asynccontextmanager
async def _left(resources: Resources, entry: Entry, origin: Origin, death: _Death) -> AsyncIterator[LiveMachine]:
    """A machine that a former engine has left, with its guest running."""
    assert entry.process is not None
    with allocate(resources, entry) as allocation:
        plan = restore_plan(resources.layout, allocation, origin.image, origin.snapshot)
        journal = Journal(allocation.directory, entry)
        async with (
            reattach(entry.process, plan, allocation.directory / "vmm.log") as machine,
            _attended(machine, origin, journal, death) as held,
        ):
            await machine.resume()  # a capture, or its owner, may have stopped it
            yield held


@asynccontextmanager
async def _attended(machine: Machine, origin: Origin, journal: Journal, death: _Death) -> AsyncIterator[LiveMachine]:
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
        yield LiveMachine(origin, machine, channel, console, journal)


async def _occupied(held: LiveMachine, claim: Claim, clock: Stopwatch) -> LiveMachine:
    """The machine with the guest that ``claim`` wants in it, running and aware of who it is."""
    state, spec = held.journal.entry.state, claim.spec
    if state in (MachineState.BLANK, MachineState.REHEARSED):
        owner = {"sandbox": spec.sandbox, "hostname": spec.hostname, "env": spec.env}
        held.journal.advance(MachineState.CLAIMED, template=claim.origin.name, snapshot=claim.origin.key, **owner)
    if state is MachineState.BLANK:
        held = await _filled(held, claim.origin)
        clock.lap("fill")
    elif state is MachineState.REHEARSED:
        await held.machine.resume()
        clock.lap("resume")
    # A guest whose channel was used since its restore stands at a frame border; one that was taken over may not.
    await _introduce(held, spec, quiet=state is MachineState.REHEARSED or (state is MachineState.BLANK and held.quiet))
    clock.lap("identity")
    return held


async def _filled(held: LiveMachine, origin: Origin) -> LiveMachine:
    """The empty machine with the guest as ``origin`` has it. That does not know yet that it is another."""
    own = await anyio.to_thread.run_sync(_fill, held, origin)
    await held.machine.load(origin.snapshot.devices)  # it reads the guest's memory, so that comes first
    return replace(held, origin=own)


def _fill(held: LiveMachine, origin: Origin) -> Origin:
    directory = held.origin.snapshot.directory
    own = origins.copy_state(origin, directory)
    if origin.snapshot.pages.exists():
        pagemap.write_pages(held.machine.pid, own.snapshot.memory, pages.read(origin.snapshot.pages))
    return own


async def _introduce(held: LiveMachine, spec: SandboxSpec, *, quiet: bool) -> None:
    """Tell the guest who it is. ``quiet``: its end of the channel stands at a frame border."""
    await held.channel.resume(identity_of(spec), quiet=quiet, timeout_s=HANDSHAKE_DEADLINE)


async def _rehearse(held: LiveMachine) -> None:
    """Let the guest take on an identity once, and stand still as for a capture; then stop its CPUs.

    Memory that is touched for the first time is mapped, and under software emulation code that runs for the first time
    is translated: that is most of what a create costs. Nothing of the rehearsal remains: the identity is given anew,
    random numbers included, when the machine is claimed. A first command is not rehearsed: it would cost every machine
    ten megabytes for as long as it waits.
    """
    await _introduce(held, SandboxSpec(sandbox="", hostname="template"), quiet=held.quiet)
    await held.channel.quiesce(HANDSHAKE_DEADLINE, freeze=True)  # the identity at the claim lets its programs go on
    await held.machine.pause()


async def _why_closed(channel: Channel, machine: Machine) -> str:
    """Why the channel closed. A VMM that ends takes it along, and then says more than the channel's end."""
    reason = await channel.wait_closed()
    with anyio.move_on_after(EXIT_DEADLINE):
        return await machine.wait()
    return str(reason)


def identity_of(spec: SandboxSpec) -> Identity:
    """Who a guest is from now on. Name, machine-id and boot id are the sandbox's for as long as it exists, through
    every sleep; nothing else in it is ever used twice."""
    return Identity(
        hostname=spec.hostname,
        machine_id=_derived("machine-id", spec).hex(),
        boot_id=str(uuid.UUID(bytes=_derived("boot-id", spec), version=4)),
        entropy=secrets.token_bytes(64),
        generation=secrets.randbits(63),
        env=spec.env,
        still=spec.still,
    )


def _derived(purpose: str, spec: SandboxSpec) -> bytes:
    return hashlib.sha256(f"{purpose}:{spec.sandbox}".encode()).digest()[:16]


@asynccontextmanager
async def _watched(ending: Callable[[], Awaitable[object]], death: _Death) -> AsyncIterator[None]:
    """End the block when ``ending`` returns, and remember the reason it gives."""

    async def watch() -> None:
        death.reason = str(await ending())
        tasks.cancel_scope.cancel()

    async with beside(watch) as tasks:
        yield
