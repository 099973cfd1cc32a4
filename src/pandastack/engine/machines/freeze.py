"""Stopping a guest and letting it run again: programs are frozen and thawed, CPUs are paused and resumed."""

from __future__ import annotations

from contextlib import suppress

from pandastack.engine.machines.sandbox import Sandbox
from pandastack.engine.machines.state import MachineState
from pandastack.errors import GuestError, PandastackError

FREEZE_DEADLINE = 1.0
"""Seconds a guest gets to freeze its programs. If it does not answer, its CPUs are paused anyway."""


async def freeze_and_pause(sandbox: Sandbox) -> None:
    """Freeze the programs, then pause the CPUs: in a copy made now, no program may run before it has a new identity."""
    try:
        await sandbox.channel.quiesce(FREEZE_DEADLINE, freeze=True)
    except GuestError:
        sandbox.channel.check()
    try:
        await sandbox.machine.pause()
    except BaseException:
        sandbox.channel.thaw()
        raise


async def resume_and_thaw(sandbox: Sandbox) -> None:
    """The reverse of :func:`freeze_and_pause`."""
    await sandbox.cable.reconnect()
    await sandbox.machine.resume()
    sandbox.channel.thaw()


async def return_to_running(sandbox: Sandbox) -> None:
    """Undo the freeze after a failed operation: the machine runs, or stays paused by its owner, as before."""
    if not sandbox.paused:
        await resume_and_thaw(sandbox)
    with suppress(PandastackError):  # a full disk: the entry already on it means the same to the next engine
        sandbox.journal.advance(MachineState.RUNNING)
