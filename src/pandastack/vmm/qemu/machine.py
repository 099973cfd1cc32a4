"""One QEMU process from start to end."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Protocol

import anyio

from pandastack.errors import ServerError
from pandastack.host.processes.adopted import adopted
from pandastack.host.processes.identity import ProcessIdentity
from pandastack.host.processes.priority import give_way, set_oom_score
from pandastack.host.processes.run import CommandError, describe_status, spawn
from pandastack.vmm.plan import MachinePlan, Sockets
from pandastack.vmm.qemu import preload
from pandastack.vmm.qemu.argv import Listeners, qemu_argv
from pandastack.vmm.qemu.control import Control, ControlError, connect
from pandastack.vmm.qemu.environment import vmm_environment

START_DEADLINE = 20.0
"""Seconds a VMM may take until it answers on its control socket."""

OOM_SCORE = 900
"""When the host runs out of memory a VMM goes before the server and nearly everything else."""

NICE = 5
"""CPU priority of a VMM below the server's: of a core that both want, the server gets three quarters."""

_LOG_TAIL = 4096


class Process(Protocol):
    """The VMM's process, whoever started it."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    def kill(self) -> None: ...

    async def wait(self) -> int | None: ...


class Machine:
    """A running VMM. Made by :func:`launch` or :func:`reattach`, whose block is its life."""

    def __init__(self, plan: MachinePlan, process: Process, control: Control, log: Path) -> None:
        self.plan = plan
        self.pid = process.pid
        self._process = process
        self._control = control
        self._log = log

    async def load(self, state: Path) -> None:
        """Give the machine a captured device state; it starts to run as soon as it has read it."""
        fd = os.open(state, os.O_RDONLY | os.O_CLOEXEC)
        try:
            await self._control.execute("getfd", {"fdname": "state"}, fds=[fd])
        finally:
            os.close(fd)
        await self._control.execute("migrate-incoming", {"uri": "fd:state"})

    async def pause(self) -> None:
        """Stop the virtual CPUs and drain the disks."""
        await self._control.execute("stop")

    async def resume(self) -> None:
        await self._control.execute("cont")

    async def save_devices(self, path: Path) -> None:
        """Write the state of the CPUs and devices, without RAM, to ``path``. The machine must be paused."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            added = await self._control.execute("add-fd", {"fdset-id": 1}, fds=[fd])
        finally:
            os.close(fd)
        # "live" leaves the disks active: the machine may go on afterwards, and they were flushed when it was paused.
        arguments = {"filename": "/dev/fdset/1", "live": True}
        await self._control.execute("xen-save-devices-state", arguments)
        await self._control.execute("remove-fd", {"fdset-id": 1, "fd": added["fd"]})

    async def wait(self) -> str:
        """Wait for the process's end and say how it ended."""
        status = await self._process.wait()
        tail = _tail(self._log)
        ended = "its process ended" if status is None else describe_status(status)
        return f"{ended}{': ' + tail if tail else ''}"


@asynccontextmanager
async def launch(binary: Path, plan: MachinePlan, log: Path) -> AsyncIterator[Machine]:
    """Start QEMU for ``plan``; leaving the block kills it and removes its sockets.

    Raises :class:`ServerError` with the last lines of ``log`` when it does not come up.
    """
    environment = vmm_environment(plan, preload.library())
    with _listen(plan.sockets) as sockets:
        listeners = Listeners(*(each.fileno() for each in sockets))
        argv = qemu_argv(binary, plan, listeners)
        with log.open("wb") as output:
            inherited = [each.fileno() for each in sockets]
            process = spawn(argv, pass_fds=inherited, log=output.fileno(), env=environment)
            async with process as running:
                # Only the child may hold them now: when it dies, whoever is connected must see it.
                for each in sockets:
                    each.close()
                async with _controlled(plan, argv, running, log) as control:
                    set_oom_score(OOM_SCORE, running.pid)
                    give_way(running.pid, NICE)  # by now it has all the threads that do not inherit it
                    yield Machine(plan, running, control, log)


@asynccontextmanager
async def reattach(identity: ProcessIdentity, plan: MachinePlan, log: Path) -> AsyncIterator[Machine]:
    """The machine of a VMM that a former run started for ``plan``; leaving the block kills it.

    Raises :class:`NotFoundError` when the process is gone, :class:`ServerError` when it does not answer.
    """
    async with adopted(identity) as process, _controlled(plan, ["adopted", plan.name], process, log) as control:
        yield Machine(plan, process, control, log)


@asynccontextmanager
async def _controlled(plan: MachinePlan, argv: list[str], process: Process, log: Path) -> AsyncIterator[Control]:
    session = connect(plan.sockets.control)
    try:
        with anyio.fail_after(START_DEADLINE):
            control = await session.__aenter__()
    except (ControlError, OSError, TimeoutError) as error:
        if process.returncode is None:
            process.kill()
        ended = await process.wait()
        status = "ended" if ended is None else describe_status(ended)
        raise CommandError(argv, f"the VMM did not start ({status})", _tail(log).encode()) from error
    try:
        yield control
    finally:
        with anyio.CancelScope(shield=True):
            await session.__aexit__(None, None, None)


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
        raise ServerError(f"cannot listen at {path}: {error}", hint=hint) from error
    path.chmod(0o600)
    each.listen(4)


def _tail(log: Path) -> str:
    try:
        data = log.read_bytes()[-_LOG_TAIL:]
    except OSError:
        return ""
    return data.decode("utf-8", "replace").strip()
