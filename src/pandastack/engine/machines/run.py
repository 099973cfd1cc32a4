"""The life of one machine, from a VMM that starts to the end of the sandbox in it: one block, one task.

Every machine begins *blank*: a VMM that has the files of a template open and no guest. It can be loaded with any
capture of a sandbox of that template. A machine may be *rehearsed* ahead of need: it is loaded with the template, does
what every sandbox does first, and then its CPUs are paused. When a sandbox claims it, its CPUs are resumed, the guest
gets its identity, and only then is the sandbox handed out. :mod:`pandastack.engine.machines.warm_pool` makes machines
ahead; a claim that finds none starts a new machine, by the same path. Where the memory is lost, or may not be restored,
a machine boots from the disks instead.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import structlog
from anyio.abc import TaskStatus

from pandastack.engine import origins
from pandastack.engine.machines.allocation import MachineHost, allocate, change_limits, limits_of
from pandastack.engine.machines.cable import Cable
from pandastack.engine.machines.console import Console
from pandastack.engine.machines.journal import Entry, Journal
from pandastack.engine.machines.occupy import (
    Occupy,
    occupy_adopted,
    occupy_blank,
    occupy_booted,
    occupy_rehearsed,
    rehearse,
)
from pandastack.engine.machines.plan import booted_plan, disk_rate_of, restore_plan
from pandastack.engine.machines.sandbox import LiveMachine, Sandbox, WarmMachine
from pandastack.engine.machines.stall import relieve
from pandastack.engine.machines.state import LOSABLE, MachineState
from pandastack.engine.origins.origin import BootOrigin, Origin, Start
from pandastack.errors import BadRequestError, GuestError, PandastackError, ServerError
from pandastack.guest import Channel
from pandastack.host import files
from pandastack.host.processes.identity import identify
from pandastack.host.tasks import beside
from pandastack.vmm.driver import Machine
from pandastack.vmm.plan import MachinePlan

log = structlog.get_logger(__name__)

EXIT_DEADLINE = 0.3
"""Seconds from the end of a VMM's channel to that of its process, if the VMM is ending at all."""


async def run_machine(
    host: MachineHost, origin: Origin, *, rehearsed: bool = False, task_status: TaskStatus[WarmMachine]
) -> None:
    """The whole life of a machine: rehearsed with ``origin``, or blank for any origin that fits the same files. Reports
    a :class:`WarmMachine` as soon as it can be claimed.

    Raises only before that; afterwards errors are passed to the claim.
    """
    death = _Death()
    if rehearsed:
        await _run(host, origin, death, _start_rehearsed(host, origin, death), occupy_rehearsed, task_status)
    else:
        await _run(host, origin, death, _start_blank(host, origin, death), occupy_blank, task_status)


async def run_booted(host: MachineHost, origin: BootOrigin, *, task_status: TaskStatus[WarmMachine]) -> None:
    """The whole life of a machine that boots; otherwise as :func:`run_machine`. It can be claimed once its VMM runs."""
    death = _Death()
    await _run(host, origin, death, _start_booted(host, origin, death), occupy_booted, task_status)


async def run_adopted(host: MachineHost, entry: Entry, origin: Origin, *, task_status: TaskStatus[WarmMachine]) -> None:
    """The rest of the life of a machine that a former engine left running; otherwise as :func:`run_machine`."""
    death = _Death()
    await _run(host, origin, death, _adopt(host, entry, origin, death), occupy_adopted, task_status)


async def _run(
    host: MachineHost,
    origin: Start,
    death: _Death,
    opening: AbstractAsyncContextManager[LiveMachine],
    occupy: Occupy,
    task_status: TaskStatus[WarmMachine],
) -> None:
    warm, claimable = WarmMachine(origin), False
    sandbox: Sandbox | None = None
    try:
        async with opening as machine:
            claimable = True
            task_status.started(warm)
            claim = await warm.wait_claimed()
            if claim is None:
                return
            spec, wanted, clock = claim
            clock.lap("machine")
            if wanted.size != origin.size:
                await change_limits(host.cgroups, machine.journal.entry.machine, limits_of(wanted.size))
            lost = wanted.reason if isinstance(wanted, BootOrigin) else ""
            sandbox = Sandbox(spec, await occupy(machine, spec, wanted, clock), clock.laps, lost)
            warm.succeed(sandbox)
            await sandbox.wait_end_requested()
            machine.journal.advance(MachineState.ENDING)
        if not claimable:  # the block was ended before it began
            raise GuestError(f"the machine ended before it was ready: {death.reason}")
    except Exception as error:  # errors stop here: those of one machine must not affect another, or the server
        failure = as_ours(error, host.directory)
        if not claimable:
            raise failure from (None if failure is error else error)
        if failure.public is not None:
            log.error("machine.failed", machine=origin.name, error=str(failure))
        if isinstance(failure, BadRequestError):  # the request asks for what cannot be
            warm.fail(failure)
        death.reason = death.reason or failure.public or str(failure)
    finally:
        reason = death.reason or "the engine is stopping"
        warm.fail(GuestError(f"the machine ended before its guest was ready: {reason}"))
        if sandbox is not None:
            sandbox.failure = death.reason
            host.ended(sandbox)
            sandbox.released.set()


def as_ours(error: Exception, directory: Path) -> PandastackError:
    """The error of a machine's life as one of :mod:`pandastack.errors`. ``directory`` has the machine's files."""
    if isinstance(error, PandastackError):
        return error
    if isinstance(error, OSError):
        return files.map_error(error, directory)
    log.error("machine.crashed", exc_info=error)
    return ServerError(f"internal error: {type(error).__name__}")


@dataclass
class _Death:
    """Why a machine ended although no end was requested."""

    reason: str | None = None


@asynccontextmanager
async def _start_blank(host: MachineHost, origin: Origin, death: _Death) -> AsyncIterator[LiveMachine]:
    """A new machine that can be loaded with ``origin``, or with any origin that uses the same files."""
    async with allocate(host, limits_of(origin.size)) as allocation:
        slot = allocation.cable.slot.name
        entry = Entry(
            allocation.name, allocation.slot, origin.name, origin.key, MachineState.PLANNED, network_slot=slot
        )
        journal = Journal(allocation.directory, entry)
        own = origins.link_base(origin, allocation.directory)
        plan = restore_plan(host.layout, allocation, own.snapshot, disk_rate_of(origin.template, host.disk_rate))
        async with _launched(host, plan, own, journal, allocation.cable, death) as live:
            yield live


@asynccontextmanager
async def _start_booted(host: MachineHost, origin: BootOrigin, death: _Death) -> AsyncIterator[LiveMachine]:
    """A new machine with the disks of ``origin``, which boots from them."""
    async with allocate(host, limits_of(origin.size)) as allocation:
        slot = allocation.cable.slot.name
        entry = Entry(
            allocation.name, allocation.slot, origin.name, origin.key, MachineState.PLANNED, network_slot=slot
        )
        journal = Journal(allocation.directory, entry)
        own = await anyio.to_thread.run_sync(origins.copy_disks, origin, allocation.directory)
        plan = booted_plan(host.layout, allocation, own.snapshot, disk_rate_of(origin.template, host.disk_rate))
        async with _launched(host, plan, own, journal, allocation.cable, death) as live:
            yield live


@asynccontextmanager
async def _launched(
    host: MachineHost, plan: MachinePlan, own: Origin, journal: Journal, cable: Cable, death: _Death
) -> AsyncIterator[LiveMachine]:
    """A new VMM for ``plan``, whose files are those of ``own``."""
    async with (
        _keeping_disks(host, journal, death),
        host.driver.launch(plan, own.snapshot.directory / "vmm.log") as machine,
        _attach(host, machine, own, journal, cable, death) as live,
    ):
        journal.advance(MachineState.BLANK, process=identify(machine.pid))
        yield live


@asynccontextmanager
async def _keeping_disks(host: MachineHost, journal: Journal, death: _Death) -> AsyncIterator[None]:
    """When a sandbox's machine has ended by itself inside the block, keep its disks: its VMM is gone by then."""
    try:
        yield
    except Exception as error:
        death.reason = death.reason or as_ours(error, host.directory).message
        raise
    finally:
        entry = journal.entry
        if death.reason and entry.sandbox and entry.state in LOSABLE:
            with anyio.CancelScope(shield=True):
                await host.keep(entry, death.reason)


@asynccontextmanager
async def _start_rehearsed(host: MachineHost, origin: Origin, death: _Death) -> AsyncIterator[LiveMachine]:
    """A new machine with the guest of ``origin``, rehearsed."""
    async with _start_blank(host, origin, death) as live:
        yield await rehearse(live, origin, host.rehearsals)


@asynccontextmanager
async def _adopt(host: MachineHost, entry: Entry, origin: Origin, death: _Death) -> AsyncIterator[LiveMachine]:
    """A machine that a former engine left, with its guest running."""
    assert entry.process is not None
    async with allocate(host, limits_of(origin.size), entry) as allocation:
        plan = restore_plan(host.layout, allocation, origin.snapshot, disk_rate_of(origin.template, host.disk_rate))
        journal = Journal(allocation.directory, entry)
        async with (
            _keeping_disks(host, journal, death),
            host.driver.reattach(entry.process, plan, allocation.directory / "vmm.log") as machine,
            _attach(host, machine, origin, journal, allocation.cable, death) as live,
        ):
            await machine.resume()  # a capture, or its owner, may have paused it
            yield live


@asynccontextmanager
async def _attach(
    host: MachineHost, machine: Machine, origin: Origin, journal: Journal, cable: Cable, death: _Death
) -> AsyncIterator[LiveMachine]:
    """The machine with its channel and console. The block is cancelled when the machine ends by itself."""
    console = Console(origin.snapshot.directory / "console.log")
    sockets = machine.plan.sockets
    async with (
        _end_block_when(machine.wait, death),
        beside(partial(relieve, machine, host.directory, journal, host.stalled)),
        console.following(sockets.console),
        await anyio.connect_unix(sockets.channel) as stream,
        Channel(stream) as channel,
        _end_block_when(partial(_wait_closed, channel, machine), death),
    ):
        cable.machine = machine
        yield LiveMachine(origin, machine, channel, console, journal, cable)


async def _wait_closed(channel: Channel, machine: Machine) -> str:
    """Why the channel closed. When the VMM has ended too, its reason tells more than the channel's."""
    reason = await channel.wait_closed()
    with anyio.move_on_after(EXIT_DEADLINE):
        return await machine.wait()
    return str(reason)


@asynccontextmanager
async def _end_block_when(ending: Callable[[], Awaitable[object]], death: _Death) -> AsyncIterator[None]:
    """End the block when ``ending`` returns, and remember the reason it gives."""

    async def watch() -> None:
        death.reason = str(await ending())
        tasks.cancel_scope.cancel()

    async with beside(watch) as tasks:
        yield
