"""Runs commands in sandboxes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass, replace
from typing import Self

from pandastack.cluster import Engines
from pandastack.contract.processes import ExecSpec
from pandastack.contract.records import STDERR, STDOUT, Ended, ExecFailed, ExecResult, Output, Record
from pandastack.errors import CommandTimeoutError, PandastackError, ServerError
from pandastack.model.caller import Caller
from pandastack.services.output_budget import Lease, OutputBudget
from pandastack.services.processes.output import JsonText, OutputHead
from pandastack.services.processes.quota import StreamQuota
from pandastack.services.processes.spec import Command, planned_command
from pandastack.services.records.activity import Activity
from pandastack.services.sandboxes.sandboxes import Sandboxes
from pandastack.services.settings import Settings


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended, with its output; ``duration_us`` is measured by the guest.

    ``failure`` is set when it did not end by itself. The output counts against the budget until :meth:`close`, or the
    end of a ``with`` block.
    """

    stdout: JsonText
    stderr: JsonText
    exit_code: int
    duration_us: int
    failure: PandastackError | None
    lease: Lease

    @property
    def truncated(self) -> dict[str, int]:
        """The names of truncated streams, each with the number of bytes that the command wrote to it."""
        streams = {"stdout": self.stdout, "stderr": self.stderr}
        return {name: stream.total for name, stream in streams.items() if stream.dropped}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the output: it is no longer needed."""
        self.lease.close()


class Commands:
    """Runs commands in the sandboxes of a workspace."""

    def __init__(
        self,
        sandboxes: Sandboxes,
        engines: Engines,
        activity: Activity,
        streams: StreamQuota,
        budget: OutputBudget,
        settings: Settings,
    ) -> None:
        self._sandboxes = sandboxes
        self._budget = budget
        self._streams = streams
        self._engines = engines
        self._activity = activity
        self._settings = settings

    def plan(self, cmd: str, timeout_seconds: float | None, process_id: str | None = None) -> Command:
        """Check a caller's request. Raises :class:`BadRequestError`; see :func:`planned_command`."""
        return planned_command(cmd, timeout_seconds, process_id, self._settings)

    async def run(self, caller: Caller, sandbox_id: str, command: Command) -> Outcome:
        """Run to the end; the caller closes the outcome. Output beyond the limit or the budget is dropped; the text of
        the outcome and its ``truncated`` show that.

        Raises :class:`QuotaError`, before the command is started, when there is no room for output.
        """
        self._sandboxes.get(caller, sandbox_id)
        with ExitStack() as undo:
            lease = undo.enter_context(closing(self._budget.lease(sandbox_id)))
            heads = {kind: OutputHead(self._settings.max_output_bytes, lease) for kind in (STDOUT, STDERR)}
            end = await self._collect(caller, sandbox_id, command, heads)
            undo.pop_all()
        stdout, stderr = heads[STDOUT].finish(), heads[STDERR].finish()
        code, duration_us = (end.exit_code, end.duration_us) if isinstance(end, ExecResult) else (-1, 0)
        return Outcome(stdout, stderr, code, duration_us, failure_of(end, command), lease)

    async def _collect(
        self, caller: Caller, sandbox_id: str, command: Command, heads: Mapping[int, OutputHead]
    ) -> Ended:
        end: Ended | None = None
        async with self.stream(caller, sandbox_id, replace(command, leave=True), spool=True) as records:
            async for record in records:
                if isinstance(record, Ended):
                    end = record
                elif isinstance(record, Output):
                    heads[record.kind].add(record.data)
        if end is None:
            raise ServerError("the command's outcome is unknown")
        return end

    @asynccontextmanager
    async def stream(
        self, caller: Caller, sandbox_id: str, command: Command, *, spool: bool = False
    ) -> AsyncIterator[AsyncIterator[Record]]:
        """The command's records as they arrive. Leaving the block early kills the command, unless it has ``leave``.

        With ``spool`` the guest retains all output from the start, not only the part that no client has read.
        """
        async with self._sandboxes.use(caller, sandbox_id) as sandbox:
            self._activity.ran(sandbox.id, command.cmd)
            spec = ExecSpec(
                cmd=command.cmd,
                id=command.id,
                timeout_seconds=command.timeout_seconds,
                keep_bytes=self._settings.kept_output_bytes,
                spool=spool,
                stdin=command.stdin,
                leave=command.leave,
            )
            try:
                with self._streams.hold(sandbox.id):
                    async with self._engines.of(sandbox).exec(sandbox.id, spec) as records:
                        yield records
            finally:
                self._activity.done(sandbox.id)


def failure_of(end: Ended, command: Command) -> PandastackError | None:
    """The error for the end of a command, unless the command ended with an exit code."""
    if isinstance(end, ExecFailed):
        return end.failure.exception()
    if end.timed_out:
        limit = command.timeout_seconds
        return CommandTimeoutError("command timeout" + (f" after {_seconds(limit)}" if limit else ""))
    return None


def _seconds(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") + "s"
