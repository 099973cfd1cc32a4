"""Commands in sandboxes."""

from __future__ import annotations

import codecs
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pandastack.cluster import EngineClient
from pandastack.cluster.exec_records import STDERR, STDOUT, ExecResult, Output, Record
from pandastack.errors import BadRequestError, CommandTimeoutError, ServerError
from pandastack.services.activity import Activity
from pandastack.services.sandboxes import Sandboxes
from pandastack.services.settings import Settings


@dataclass(frozen=True, slots=True)
class Command:
    """A line for the guest's shell. ``timeout_seconds`` None: no limit; ``stdin`` None: nothing, else base64."""

    cmd: str
    timeout_seconds: float | None = None
    stdin: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """``duration_us`` is the guest's own time. ``truncated`` maps a stream's name to the bytes the command really
    wrote, when they were not all kept."""

    stdout: str
    stderr: str
    exit_code: int
    duration_us: int
    truncated: dict[str, int]


class Commands:
    """Runs commands in the sandboxes of a workspace."""

    def __init__(self, sandboxes: Sandboxes, engine: EngineClient, activity: Activity, settings: Settings) -> None:
        self._sandboxes = sandboxes
        self._engine = engine
        self._activity = activity
        self._settings = settings

    def plan(self, cmd: str, timeout_seconds: float | None) -> Command:
        """Check what a caller sent; a limit of 0 is none. Raises :class:`BadRequestError`."""
        if not cmd:
            raise BadRequestError("cmd: must not be empty", field="cmd")
        if "\0" in cmd:
            raise BadRequestError("cmd: must not contain a NUL character", field="cmd")
        seconds, most = timeout_seconds or 0.0, self._settings.max_command_seconds
        if not math.isfinite(seconds) or not 0 <= seconds <= most:
            raise BadRequestError(
                f"timeout_seconds: must be between 0 and {most:.0f}",
                field="timeout_seconds",
                hint="0 means no limit",
            )
        return Command(cmd, seconds or None)

    async def run(self, workspace: str, sandbox_id: str, command: Command) -> Outcome:
        """Run to the end, even when the output is more than is kept; says so then, in the text and beside it.

        Raises :class:`CommandTimeoutError` with what was written until then in ``detail``.
        """
        kept = {STDOUT: Kept(self._settings.max_output_bytes), STDERR: Kept(self._settings.max_output_bytes)}
        result = None
        async with self.stream(workspace, sandbox_id, command) as records:
            async for record in records:
                if isinstance(record, ExecResult):
                    result = record
                elif record.kind in kept:
                    kept[record.kind].add(record.data)
        stdout, stderr = kept[STDOUT], kept[STDERR]
        if result is None:
            raise ServerError("the command's outcome is unknown")
        if failure := failure_of(result, command):
            failure.detail = {"stdout": stdout.text(), "stderr": stderr.text()}
            raise failure
        totals = {"stdout": stdout, "stderr": stderr}
        truncated = {name: stream.total for name, stream in totals.items() if stream.dropped}
        return Outcome(stdout.text(), stderr.text(), result.exit_code, result.duration_us, truncated)

    @asynccontextmanager
    async def stream(self, workspace: str, sandbox_id: str, command: Command) -> AsyncIterator[AsyncIterator[Record]]:
        """The command's records as they come. Leaving the block early kills the command."""
        async with self._sandboxes.use(workspace, sandbox_id) as sandbox:
            self._activity.ran(sandbox.id, command.cmd)
            request: dict[str, Any] = {"cmd": command.cmd}
            if command.timeout_seconds:
                request["timeout_seconds"] = command.timeout_seconds
            if command.stdin is not None:
                request["stdin"] = command.stdin
            async with self._engine.exec(sandbox.id, request) as records:
                yield records


def failure_of(result: ExecResult, command: Command) -> ServerError | None:
    """The error that a result stands for, if it does not stand for an exit code."""
    if result.timed_out:
        limit = command.timeout_seconds
        return CommandTimeoutError("command timeout" + (f" after {_seconds(limit)}" if limit else ""))
    return ServerError(result.error) if result.error else None


class Kept:
    """The first ``limit`` bytes of a stream, and how many there were."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()
        self.total = 0

    def add(self, data: bytes) -> None:
        """The stream's next piece."""
        self.total += len(data)
        self._data += data[: self._limit - len(self._data)]

    @property
    def dropped(self) -> int:
        """Bytes beyond the limit."""
        return self.total - len(self._data)

    def text(self) -> str:
        """What was kept, as UTF-8; ends with a line that says what is missing."""
        if not self.dropped:
            return self._data.decode(errors="replace")
        # The cut may go through a character: an unfinished one at the end counts as dropped.
        text = codecs.getincrementaldecoder("utf-8")(errors="replace").decode(bytes(self._data))
        return f"{text}\n[pandastack: output truncated, {self.dropped} of {self.total} bytes dropped]\n"


class OutputText:
    """Decodes a command's streams piece by piece, without cutting characters."""

    def __init__(self) -> None:
        make = codecs.getincrementaldecoder("utf-8")
        self._decoders = {STDOUT: make(errors="replace"), STDERR: make(errors="replace")}

    def feed(self, output: Output) -> str:
        """The text that this piece completes; may be empty."""
        decoder = self._decoders.get(output.kind)
        return decoder.decode(output.data) if decoder else ""

    def rest(self) -> list[tuple[int, str]]:
        """What was left unfinished at the end: pairs of stream and text."""
        tails = [(kind, decoder.decode(b"", final=True)) for kind, decoder in self._decoders.items()]
        return [(kind, text) for kind, text in tails if text]


def _seconds(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") + "s"
