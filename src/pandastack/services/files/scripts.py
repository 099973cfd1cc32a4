"""Runs small shell scripts in the guest that work on its files.

The scripts use the guest's own programs, whose output is bounded and never trusted.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pandastack.cluster import Engines
from pandastack.contract.processes import ExecSpec
from pandastack.contract.records import STDOUT, ExecFailed, ExecResult, Output, Record
from pandastack.errors import BadRequestError, ConflictError, NotFoundError, ServerError, StorageFullError
from pandastack.model.caller import Caller
from pandastack.services.sandboxes.sandboxes import Sandboxes
from pandastack.services.settings import Settings

EXISTS = 17
"""Exit code of our scripts when a path that should be free exists."""
ELSEWHERE = 18
"""Exit code of our scripts when a file does not end where its next piece is to be added."""
MISSING = 44
"""Exit code of our scripts for a path that does not exist."""

_MOST_COMPLAINTS = 16 * 1024  # bytes of a program's stderr
_ENVIRONMENT = "export LC_ALL=C; "


class Scripts:
    """Runs scripts in the sandboxes of a workspace, each with a deadline."""

    def __init__(self, sandboxes: Sandboxes, engines: Engines, settings: Settings) -> None:
        self._sandboxes = sandboxes
        self._engines = engines
        self._settings = settings

    @asynccontextmanager
    async def output(
        self, caller: Caller, sandbox_id: str, command: str, path: str, fine: tuple[int, ...] = (0,)
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Yield the output of a command; leaving the block ends the command.

        Errors name ``path``; they are those of :func:`output_of`.
        """
        spec = ExecSpec(cmd=command, timeout_seconds=self._settings.max_tree_seconds)
        async with (
            self._sandboxes.use(caller, sandbox_id) as sandbox,
            self._engines.of(sandbox).exec(sandbox.id, spec) as records,
        ):
            yield output_of(records, path, fine)

    async def run(self, caller: Caller, sandbox_id: str, command: str, path: str) -> None:
        """Run the command to its end and ignore its output."""
        async with self.output(caller, sandbox_id, command, path) as output:
            async for _ in output:
                pass


def plan_command(script: str, *arguments: str) -> str:
    """A command line that runs ``script`` with ``arguments`` as ``$1``, ``$2``, …"""
    return f"{_ENVIRONMENT}set -- {shlex.join(arguments)}\n{script}"


def temporary_path() -> str:
    """A path in the guest that nothing else uses."""
    return f"/tmp/.pandastack-{secrets.token_hex(8)}"


async def output_of(records: AsyncIterator[Record], path: str, fine: tuple[int, ...]) -> AsyncIterator[bytes]:
    """The standard output of a script. Raises for an exit code not in ``fine``, with the last line of stderr."""
    complaints = bytearray()
    async for record in records:
        if isinstance(record, ExecFailed):
            raise ServerError(record.failure.error)
        if isinstance(record, ExecResult):
            _check(record, bytes(complaints), path, fine)
        elif isinstance(record, Output) and record.kind == STDOUT:
            yield record.data
        elif isinstance(record, Output):
            complaints += record.data[: _MOST_COMPLAINTS - len(complaints)]


def _check(result: ExecResult, complaints: bytes, path: str, fine: tuple[int, ...]) -> None:
    if result.timed_out:
        raise ServerError(f"{path}: it took too long and was killed")
    if result.exit_code in fine:
        return
    if result.exit_code == MISSING:
        raise NotFoundError(f"{path}: no such file or directory")
    if result.exit_code == ELSEWHERE:
        raise ConflictError(f"{path}: the file has another length", field="offset", hint="GET …/fs/stat tells its size")
    if result.exit_code == EXISTS:
        raise ConflictError("something exists at the new path", field="to", hint="overwrite: true replaces it")
    lines = complaints.decode(errors="replace").strip().splitlines() or [f"exit code {result.exit_code}"]
    message = f"{path}: {lines[-1][:300]}"
    full = any("No space left" in line for line in lines)
    raise StorageFullError(message) if full else BadRequestError(message, field="path")
