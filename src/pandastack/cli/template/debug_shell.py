"""A shell in the build machine where an instruction has just failed, on this terminal."""

from __future__ import annotations

import os
import sys
from functools import partial

import anyio

from pandastack.cli.output import note
from pandastack.cli.sandbox.shell import raw_mode
from pandastack.engine.build.machine import BuildMachine
from pandastack.errors import BadRequestError
from pandastack.guest import Process
from pandastack.host.tasks import beside
from pandastack.images.actions import RunAction

_CHUNK = 16 * 1024


def check_terminal() -> None:
    """Raises :class:`BadRequestError` when standard input is not a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise BadRequestError("--debug-shell needs a terminal", field="debug-shell")


async def debug_shell(machine: BuildMachine, action: RunAction) -> None:
    """Let the user look around until the shell ends; the build fails afterwards as it would have without it."""
    note(f"line {action.line} failed; this shell has its environment and directory. `exit` ends the build.")
    size = os.get_terminal_size(sys.stdin.fileno())
    with raw_mode(sys.stdin.fileno()):
        async with machine.shell(action, size.lines, size.columns) as process, beside(partial(_type, process)):
            async for _, chunk in process.output():
                await anyio.to_thread.run_sync(_show, chunk)


async def _type(process: Process) -> None:
    fd = sys.stdin.fileno()
    while True:
        await anyio.wait_readable(fd)
        data = os.read(fd, _CHUNK)
        if not data:
            return
        await process.send_stdin(data)


def _show(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.flush()
