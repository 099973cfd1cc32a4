"""One QEMU process from start to end."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Protocol

import anyio
import structlog

from pandastack.errors import ServerError
from pandastack.host import cgroups
from pandastack.host.files import map_error
from pandastack.host.processes.adopted import adopted
from pandastack.host.processes.identity import ProcessIdentity
from pandastack.host.processes.limits import limiting_descriptors
from pandastack.host.processes.priority import give_way, set_oom_score
from pandastack.host.processes.run import CommandError, describe_status, spawn
from pandastack.vmm.plan import Disk, MachinePlan, Sockets, TapNic
from pandastack.vmm.qemu import preload
from pandastack.vmm.qemu.argv import NETDEV, UNCONNECTED, Listeners, drive_id, drive_node, overlay_node, qemu_argv
from pandastack.vmm.qemu.control import COMMAND_DEADLINE, Control, ControlError, connect
from pandastack.vmm.qemu.environment import vmm_environment
from pandastack.vmm.qemu.log import Log, following, make_pipe, reopen_pipe
from pandastack.vmm.qemu.stall import Stall

OOM_SCORE = 900
"""When the host runs out of memory, a VMM is killed before the server and nearly everything else."""

NICE = 2
"""How far a VMM's CPU priority is below the server's: of a core that both want, the server gets six tenths."""

MOST_FILES = 2048
"""How many files a VMM may have open at once; it needs some twenty."""

_LOADING, _POLL_SECONDS = "inmigrate", 0.002
"""What QEMU says of itself while it loads a guest, and how often it is asked."""

EXIT_DEADLINE = 1.0
"""Seconds from the end of a VMM's control session to that of its process, if the VMM is ending at all."""

log = structlog.get_logger(__name__)


class Process(Protocol):
    """The VMM's process, started by this server or a former one."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    def kill(self) -> None: ...

    async def wait(self) -> int | None: ...


class Machine:
    """A running VMM. Made by :func:`launch` or :func:`reattach`; it lives as long as their block."""

    def __init__(self, plan: MachinePlan, process: Process, control: Control, log: Log, stall: Stall) -> None:
        self.plan = plan
        self.pid = process.pid
        self._process = process
        self._control = control
        self._log = log
        self._stall = stall
        self._paused = False

    async def load(self, state: Path) -> None:
        """Load a captured device state; the machine runs as soon as it is loaded."""
        fd = os.open(state, os.O_RDONLY | os.O_CLOEXEC)
        try:
            await self._control.execute("getfd", {"fdname": "state"}, fds=[fd])
        finally:
            os.close(fd)
        await self._control.execute("migrate-incoming", {"uri": "fd:state"})

    async def pause(self) -> None:
        """Pause the virtual CPUs and drain the disks."""
        self._paused = True
        await self._control.execute("stop")

    async def resume(self) -> None:
        self._paused = False
        await self._control.execute("cont")

    async def wait_stalled(self) -> None:
        """Wait until the machine stalls: a write of the guest found the host's disk full, so its CPUs were paused."""
        await self._stall.wait()

    @property
    def stalled(self) -> bool:
        """Whether the machine is stalled now."""
        return self._stall.lasts

    async def retry(self) -> None:
        """Resume a stalled machine, which repeats the write; a machine that was also paused stays paused."""
        if self.stalled and not self._paused:
            await self._control.execute("cont")

    async def save_devices(self, path: Path) -> None:
        """Write the state of the CPUs and devices, without RAM, to ``path``. The machine must be paused.

        Raises :class:`StorageFullError` when the tables of an overlay cannot be written either.
        """
        await self._check_flushed()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            added = _number_in(await self._control.execute("add-fd", {"fdset-id": 1}, fds=[fd]), "fd")
        finally:
            os.close(fd)
        # "live" leaves the disks active: the machine may be resumed, and they were flushed when it was paused.
        arguments = {"filename": "/dev/fdset/1", "live": True}
        await self._control.execute("xen-save-devices-state", arguments)
        await self._control.execute("remove-fd", {"fdset-id": 1, "fd": added})

    async def _check_flushed(self) -> None:
        """A pause flushes the disks, but does not tell when that fails. Opening them anew flushes, too, and tells."""
        overlays = {
            drive_id(index): disk.path
            for index, disk in enumerate(self.plan.disks)
            if isinstance(disk, Disk) and disk.base is not None
        }
        if not overlays:
            return
        try:
            await self._control.execute("blockdev-reopen", {"options": list(map(overlay_node, overlays))})
        except ControlError as error:
            if os.strerror(errno.ENOSPC) not in str(error):
                raise
            raise map_error(OSError(errno.ENOSPC, ""), next(iter(overlays.values()))) from error

    async def resize_disk(self, name: str, size: int) -> None:
        """Tell the guest that a disk now has ``size`` bytes; a raw file has been grown, an overlay is grown here."""
        index = next(index for index, disk in enumerate(self.plan.disks) if disk.name == name)
        await self._wait_loaded()
        await self._control.execute("block_resize", {"node-name": drive_node(self.plan, index), "size": size})

    async def _wait_loaded(self) -> None:
        """QEMU answers before it has loaded a guest, and aborts when a disk is resized by then."""
        for _ in range(int(COMMAND_DEADLINE / _POLL_SECONDS)):
            if _says(await self._control.execute("query-status"), "status") != _LOADING:
                return
            await anyio.sleep(_POLL_SECONDS)
        raise ControlError(f"the VMM did not load the guest within {COMMAND_DEADLINE:g} s")

    async def set_link(self, *, up: bool) -> None:
        """Connect or disconnect the cable of the network device."""
        await self._control.execute("set_link", {"name": NETDEV, "up": up})

    async def wait(self) -> str:
        """Wait for the process's end; returns how it ended. Its last output is only for the operator."""
        status = await self._process.wait()
        how = self._control.breach or _describe(status)
        tail = self._log.tail()
        if tail and not tail.endswith(UNCONNECTED):
            log.warning("vmm.ended", machine=self.plan.name, how=how, printed=tail)
        return how


@asynccontextmanager
async def launch(binary: Path, plan: MachinePlan, log: Path) -> AsyncIterator[Machine]:
    """Start QEMU for ``plan``; leaving the block kills it and removes its sockets.

    Its output goes to the bounded file ``log``. Raises :class:`ServerError` with the last lines of it when QEMU does
    not start.
    """
    environment = vmm_environment(plan, preload.library())
    with _listen(plan.sockets) as sockets:
        listeners = [each.fileno() for each in sockets]
        argv = [*limiting_descriptors(MOST_FILES), *qemu_argv(binary, plan, Listeners(*listeners))]
        receive, send = make_pipe()
        with send:
            async with (
                following(log, receive) as printed,
                spawn(argv, pass_fds=[*listeners, *_tap_of(plan)], log=send.fileno(), env=environment) as process,
            ):
                # Only the child may hold them now: when it dies, its clients must see their connections close.
                for each in sockets:
                    each.close()
                send.close()
                await _place(process.pid, plan)
                async with _controlled(plan, argv, process, printed) as machine:
                    set_oom_score(OOM_SCORE, process.pid)
                    give_way(process.pid, NICE)  # by now it has started the threads that would not inherit it
                    yield machine


def _tap_of(plan: MachinePlan) -> Sequence[int]:
    return (plan.nic.fd,) if isinstance(plan.nic, TapNic) and plan.nic.fd is not None else ()


async def _place(pid: int, plan: MachinePlan) -> None:
    """Put the VMM into its control groups while it starts: before it takes memory that would be accounted elsewhere."""
    groups = plan.confinement.cgroups if plan.confinement else ()
    if not groups:
        return
    try:
        await anyio.to_thread.run_sync(cgroups.place, pid, groups)
    except OSError as error:
        raise ServerError(
            f"the VMM cannot be limited: {error}", hint="`pandastack doctor` says what control groups need"
        ) from error


@asynccontextmanager
async def reattach(identity: ProcessIdentity, plan: MachinePlan, log: Path) -> AsyncIterator[Machine]:
    """The machine of a VMM that a former run started for ``plan``; leaving the block kills it.

    Raises :class:`NotFoundError` when the process is gone, :class:`ServerError` when it does not answer.
    """
    async with (
        adopted(identity) as process,
        following(log, reopen_pipe(process.pid)) as printed,
        _controlled(plan, ["adopted", plan.name], process, printed) as machine,
    ):
        yield machine


@asynccontextmanager
async def _controlled(plan: MachinePlan, argv: list[str], process: Process, log: Log) -> AsyncIterator[Machine]:
    """The machine of ``process``, once it answers on its control socket."""
    started, stall = False, Stall()
    try:
        async with connect(plan.sockets.control, process.kill, stall.take) as control:
            started = True
            yield Machine(plan, process, control, log, stall)
    except (ControlError, OSError) as error:
        if started:
            raise
        reason = f"the VMM did not start ({_describe(await _end(process))})"
        raise CommandError(argv, reason, log.tail().encode()) from error


async def _end(process: Process) -> int | None:
    """The process's exit status. A process that is ending gets time to do so, any other is killed."""
    with anyio.move_on_after(EXIT_DEADLINE):
        return await process.wait()
    process.kill()
    return await process.wait()


def _number_in(answer: object, name: str) -> int:
    found = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(found, int):
        raise ControlError(f"the VMM's answer has no number {name}")
    return found


def _says(answer: object, name: str) -> object:
    return answer.get(name) if isinstance(answer, dict) else None


def _describe(status: int | None) -> str:
    return "its process ended" if status is None else describe_status(status)


@contextmanager
def _listen(sockets: Sockets) -> Iterator[list[socket.socket]]:
    """Bound, listening sockets in the order of :class:`Listeners`."""
    paths = [sockets.channel, sockets.control, sockets.console]
    opened: list[socket.socket] = []
    try:
        for path in paths:
            each = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            opened.append(each)
            _bind(each, path)
        yield opened
    finally:
        for each in opened:
            each.close()
        for path in paths:
            path.unlink(missing_ok=True)


def _bind(each: socket.socket, path: Path) -> None:
    try:
        each.bind(str(path))
    except OSError as error:
        hint = "use a data directory with a shorter path" if "too long" in str(error) else None
        raise ServerError(f"cannot listen at {path}: {error}", hint=hint, public="the VMM cannot be reached") from error
    path.chmod(0o600)
    each.listen(4)
