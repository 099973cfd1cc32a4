"""Running a command in the guest."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from pandastack.contract.records import STDERR, STDOUT, ExecResult
from pandastack.errors import BadRequestError, GuestError
from pandastack.guest import frames
from pandastack.guest.connection import Connection
from pandastack.guest.frames import Fields
from pandastack.guest.identity import environment
from pandastack.guest.keys import FrameType, OpenFlag, OpenKey, Operation, ResultKey, Signal
from pandastack.guest.outcome import checked, encoded
from pandastack.guest.streams import Stream

DEADLINE_GRACE_S = 5.0
"""Seconds that the guest gets beyond a command's timeout before the host itself ends the command."""
_SCRIPT_FROM = 32 * 1024
_TIMEOUT_MAX_MS = 10**12


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """``cmd`` is run by ``/bin/sh -c``; ``argv`` as it is. ``cwd`` defaults to the user's home, ``user`` to root.

    Without ``stdin`` the command reads from /dev/null. ``timeout_s`` (seconds) ends the whole session.

    With an ``id`` (lower-case letters, digits and dashes, at most 36) the guest retains a record and the output: the
    last ``keep_bytes`` of each stream, from the first byte on with ``spool``, else from the end of its first view on.
    ``terminal`` (rows and columns) gives it a terminal instead of pipes.
    """

    cmd: str | None = None
    argv: Sequence[str] = ()
    timeout_s: float | None = None
    cwd: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    stdin: bool = False
    id: str | None = None
    keep_bytes: int = 0
    spool: bool = False
    background: bool = False
    terminal: tuple[int, int] | None = None


class Process:
    """A running command. Once its output has been read to the end, ``result`` says how it ended."""

    def __init__(self, stream: Stream, timeout_s: float | None) -> None:
        self._stream = stream
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._result: ExecResult | None = None

    @property
    def result(self) -> ExecResult:
        """How the command ended. Raises GuestError until the output has been read to its end."""
        if self._result is None:
            raise GuestError("the command has not ended yet")
        return self._result

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Pieces of output as they come: 1 with stdout's bytes, 2 with stderr's; sets ``result`` at the end.

        A piece stays in the guest until the ones before it were read, so a slow reader slows the command down.
        Raises the error that kept the command from starting: BadRequestError, NotFoundError, GuestError.
        """
        while self._result is None:
            try:
                item = await self._stream.next(self._patience())
            except TimeoutError:
                self._stream.abandon()
                self._result = ExecResult(exit_code=137, timed_out=True, signal=9)
                return
            if item is None:
                self._result = exec_result(checked(self._stream.result or {}, "command"))
                return
            if item[0] is FrameType.AT:
                raise GuestError("the guest skipped output that was requested")
            yield (STDERR if item[0] is FrameType.DATA_ERR else STDOUT), item[1]

    async def wait(self) -> ExecResult:
        """Drop the rest of the output and wait for the end."""
        async for _ in self.output():
            pass
        return self.result

    async def send_stdin(self, data: bytes) -> None:
        """Write to the command's standard input; waits while its pipe and the window are full."""
        await self._stream.send(data)

    async def close_stdin(self) -> None:
        """Close the command's standard input."""
        self._stream.end_input()

    async def signal(self, number: int) -> None:
        """Send a signal (1 to 64) to the command's process group."""
        if not 1 <= number <= 64:
            raise BadRequestError(f"signal: {number} is not between 1 and 64", field="signal")
        self._stream.signal(number)

    def leave(self) -> None:
        """Detach from a command with an id: it keeps running, and its output is retained."""
        self._stream.abandon(Signal.LEAVE)

    def _patience(self) -> float | None:
        """Seconds to wait for the guest, which is not late while a slow reader still has output to read."""
        if self._deadline is None:
            return None
        return max(self._deadline - time.monotonic(), 0.0) + DEADLINE_GRACE_S


@asynccontextmanager
async def execute(
    connection: Connection, request: ExecRequest, operation: Operation = Operation.EXEC
) -> AsyncIterator[Process]:
    """The command as a block; leaving it before the command ended kills the command's process group."""
    with open_command(connection, request, operation) as (stream, script):
        process = Process(stream, request.timeout_s)
        if script:
            await stream.send(script, DEADLINE_GRACE_S)
        yield process


@contextmanager
def open_command(connection: Connection, request: ExecRequest, operation: Operation) -> Iterator[tuple[Stream, bytes]]:
    """The stream of a command that is being started, and the rest of the request, still to be sent."""
    if request.cmd is None and not request.argv:
        raise BadRequestError("no command", field="cmd")
    script = encoded(request.cmd or "", "cmd")
    by_data = len(script) > _SCRIPT_FROM
    with connection.open(_open(operation, request, script, by_data)) as stream:
        yield stream, script if by_data else b""


def _open(operation: Operation, request: ExecRequest, script: bytes, by_data: bool) -> bytes:
    items: list[tuple[OpenKey, bytes]] = []
    if by_data:
        items.append((OpenKey.SCRIPT_BYTES, frames.u32(len(script))))
    elif request.cmd is not None:
        items.append((OpenKey.CMD, script))
    items += [(OpenKey.ARGV, encoded(argument, "argv")) for argument in request.argv]
    if request.cwd is not None:
        items.append((OpenKey.CWD, encoded(request.cwd, "cwd")))
    items += [(OpenKey.ENV, item) for item in environment(request.env)]
    if request.user is not None:
        items.append((OpenKey.USER, encoded(request.user, "user")))
    if request.timeout_s is not None:
        milliseconds = min(max(int(request.timeout_s * 1000), 1), _TIMEOUT_MAX_MS)
        items.append((OpenKey.TIMEOUT_MS, frames.u64(milliseconds)))
    if request.stdin:
        items.append((OpenKey.STDIN, b""))
    if request.id is not None:
        flags = OpenFlag.BACKGROUND * request.background | OpenFlag.SPOOL * request.spool
        items.append((OpenKey.ID, encoded(request.id, "id")))
        items.append((OpenKey.FLAGS, frames.u32(flags)))
        items.append((OpenKey.KEEP, frames.u64(request.keep_bytes)))
    if request.terminal is not None:
        rows, columns = request.terminal
        items += [(OpenKey.ROWS, frames.u32(rows)), (OpenKey.COLS, frames.u32(columns))]
    return frames.encode_request(operation, *items)


def exec_result(fields: Fields) -> ExecResult:
    """How a command ended, from its RESULT."""
    return ExecResult(
        exit_code=frames.integer(fields, ResultKey.EXIT_CODE),
        timed_out=ResultKey.TIMED_OUT in fields,
        signal=frames.integer(fields, ResultKey.SIGNAL),
        duration_us=frames.integer(fields, ResultKey.DURATION_US),
        utime_us=frames.integer(fields, ResultKey.UTIME_US),
        stime_us=frames.integer(fields, ResultKey.STIME_US),
        maxrss_kb=frames.integer(fields, ResultKey.MAXRSS_KB),
    )
