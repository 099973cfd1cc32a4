"""Commands in sandboxes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from pandastack.cluster import EngineClient
from pandastack.contract.processes import ExecSpec
from pandastack.contract.records import STDERR, STDOUT, Ended, ExecFailed, ExecResult, Output, Record
from pandastack.errors import CommandTimeoutError, PandastackError, ServerError
from pandastack.services.processes.output import OutputHead
from pandastack.services.processes.quota import StreamQuota
from pandastack.services.processes.spec import Command, planned_command
from pandastack.services.records.activity import Activity
from pandastack.services.sandboxes.sandboxes import Sandboxes
from pandastack.services.settings import Settings


@dataclass(frozen=True, slots=True)
class Outcome:
    """``duration_us`` is measured by the guest. ``truncated`` maps the name of each stream that was cut to the number
    of bytes that the command wrote to it."""

    stdout: str
    stderr: str
    exit_code: int
    duration_us: int
    truncated: dict[str, int]


class Commands:
    """Runs commands in the sandboxes of a workspace."""

    def __init__(
        self, sandboxes: Sandboxes, engine: EngineClient, activity: Activity, streams: StreamQuota, settings: Settings
    ) -> None:
        self._sandboxes = sandboxes
        self._streams = streams
        self._engine = engine
        self._activity = activity
        self._settings = settings

    def plan(self, cmd: str, timeout_seconds: float | None, process_id: str | None = None) -> Command:
        """Check what a caller sent. Raises :class:`BadRequestError`; see :func:`planned_command`."""
        return planned_command(cmd, timeout_seconds, process_id, self._settings)

    async def run(self, workspace: str, sandbox_id: str, command: Command) -> Outcome:
        """Run to the end. Output beyond the limit is dropped; the outcome says so in its text and in ``truncated``.

        Raises :class:`CommandTimeoutError` with the output until then in ``detail``.
        """
        heads = {kind: OutputHead(self._settings.max_output_bytes) for kind in (STDOUT, STDERR)}
        end: Ended | None = None
        async with self.stream(workspace, sandbox_id, replace(command, leave=True), spool=True) as records:
            async for record in records:
                if isinstance(record, Ended):
                    end = record
                elif isinstance(record, Output):
                    heads[record.kind].add(record.data)
        stdout, stderr = heads[STDOUT], heads[STDERR]
        if end is None:
            raise ServerError("the command's outcome is unknown")
        if failure := failure_of(end, command):
            failure.detail = {"stdout": stdout.text(), "stderr": stderr.text()}
            raise failure
        assert isinstance(end, ExecResult)  # or it were a failure
        totals = {"stdout": stdout, "stderr": stderr}
        truncated = {name: stream.total for name, stream in totals.items() if stream.dropped}
        return Outcome(stdout.text(), stderr.text(), end.exit_code, end.duration_us, truncated)

    @asynccontextmanager
    async def stream(
        self, workspace: str, sandbox_id: str, command: Command, *, spool: bool = False
    ) -> AsyncIterator[AsyncIterator[Record]]:
        """The command's records as they come. Leaving the block early kills the command, unless it says otherwise.

        With ``spool`` the guest retains the output from the start, and not only what no client has taken.
        """
        async with self._sandboxes.use(workspace, sandbox_id) as sandbox:
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
                    async with self._engine.exec(sandbox.id, spec) as records:
                        yield records
            finally:
                self._activity.done(sandbox.id)


def failure_of(end: Ended, command: Command) -> PandastackError | None:
    """The error that an end stands for, if it does not stand for an exit code."""
    if isinstance(end, ExecFailed):
        return end.failure.exception()
    if end.timed_out:
        limit = command.timeout_seconds
        return CommandTimeoutError("command timeout" + (f" after {_seconds(limit)}" if limit else ""))
    return None


def _seconds(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") + "s"
