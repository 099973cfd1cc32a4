"""Commands in sandboxes."""

from __future__ import annotations

import codecs
import math
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from pandastack.cluster import EngineClient
from pandastack.cluster.exec_records import STDERR, STDOUT, ExecResult, Output, Record
from pandastack.errors import (
    BadRequestError,
    CommandTimeoutError,
    PandastackError,
    QuotaError,
    ServerError,
    from_body,
)
from pandastack.services.records.activity import Activity
from pandastack.services.sandboxes.sandboxes import Sandboxes
from pandastack.services.settings import Settings


@dataclass(frozen=True, slots=True)
class Command:
    """A line for the guest's shell. ``timeout_seconds`` None: no limit; ``stdin`` None: nothing, else base64."""

    cmd: str
    timeout_seconds: float | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    """Names the record that the guest keeps of it."""
    leave: bool = False
    """Whether it goes on when nobody waits for it any more."""
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

    def __init__(
        self, sandboxes: Sandboxes, engine: EngineClient, activity: Activity, streams: Streams, settings: Settings
    ) -> None:
        self._sandboxes = sandboxes
        self._streams = streams
        self._engine = engine
        self._activity = activity
        self._settings = settings

    def plan(self, cmd: str, timeout_seconds: float | None, process_id: str | None = None) -> Command:
        """Check what a caller sent; a limit of 0 is none. Raises :class:`BadRequestError`.

        ``process_id`` is the caller's choice of an id, so that it knows it even if it never gets an answer.
        """
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
        command = Command(cmd, seconds or None)
        return command if process_id is None else replace(command, id=checked_id(process_id))

    async def run(self, workspace: str, sandbox_id: str, command: Command) -> Outcome:
        """Run to the end, even when the output is more than is kept; says so then, in the text and beside it.

        Raises :class:`CommandTimeoutError` with what was written until then in ``detail``.
        """
        kept = {STDOUT: Kept(self._settings.max_output_bytes), STDERR: Kept(self._settings.max_output_bytes)}
        result = None
        async with self.stream(workspace, sandbox_id, replace(command, leave=True), spool=True) as records:
            async for record in records:
                if isinstance(record, ExecResult):
                    result = record
                elif isinstance(record, Output) and record.kind in kept:
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
    async def stream(
        self, workspace: str, sandbox_id: str, command: Command, *, spool: bool = False
    ) -> AsyncIterator[AsyncIterator[Record]]:
        """The command's records as they come. Leaving the block early kills the command, unless it says otherwise.

        With ``spool`` the guest keeps all of its output as it goes, and not only from when nobody takes it.
        """
        async with self._sandboxes.use(workspace, sandbox_id) as sandbox:
            self._activity.ran(sandbox.id, command.cmd)
            request: dict[str, Any] = {
                "cmd": command.cmd,
                "id": command.id,
                "keep_bytes": self._settings.kept_output_bytes,
                "spool": spool,
                "leave": command.leave,
            }
            if command.timeout_seconds:
                request["timeout_seconds"] = command.timeout_seconds
            if command.stdin is not None:
                request["stdin"] = command.stdin
            try:
                with self._streams.one(sandbox.id):
                    async with self._engine.exec(sandbox.id, request) as records:
                        yield records
            finally:
                self._activity.done(sandbox.id)


def checked_id(text: str) -> str:
    """A UUID in its canonical form; raises :class:`BadRequestError`."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise BadRequestError(f"id: must be a UUID, not {text[:64]!r}", field="id") from None


class Streams:
    """Counts what is open on each sandbox, so that nobody takes all that the guest has."""

    def __init__(self, settings: Settings) -> None:
        self._most = settings.max_streams
        self._open: dict[str, int] = {}

    @contextmanager
    def one(self, sandbox_id: str) -> Iterator[None]:
        """One more while the block runs; raises :class:`QuotaError`."""
        count = self._open.get(sandbox_id, 0)
        if count >= self._most:
            raise QuotaError(
                f"sandbox {sandbox_id} already has {count} commands and views open",
                hint="end some, or ask the operator to raise PANDASTACK_MAX_STREAMS",
            )
        self._open[sandbox_id] = count + 1
        try:
            yield
        finally:
            self._open[sandbox_id] -= 1
            if not self._open[sandbox_id]:
                del self._open[sandbox_id]


def failure_of(result: ExecResult, command: Command) -> PandastackError | None:
    """The error that a result stands for, if it does not stand for an exit code."""
    if result.timed_out:
        limit = command.timeout_seconds
        return CommandTimeoutError("command timeout" + (f" after {_seconds(limit)}" if limit else ""))
    return from_body(0, {"error": result.error, "code": result.code}) if result.error else None


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

    def unfinished(self, kind: int) -> int:
        """Bytes of a character that is still to be completed."""
        return len(self._decoders[kind].getstate()[0])

    def skip(self, kind: int) -> str:
        """Bytes are missing now: what was unfinished stays so."""
        text = self._decoders[kind].decode(b"", final=True)
        self._decoders[kind].reset()
        return text

    def rest(self) -> list[tuple[int, str]]:
        """What was left unfinished at the end: pairs of stream and text."""
        tails = [(kind, decoder.decode(b"", final=True)) for kind, decoder in self._decoders.items()]
        return [(kind, text) for kind, text in tails if text]


def _seconds(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") + "s"
