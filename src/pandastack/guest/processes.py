"""Processes that a guest has records of: starting them, viewing them, writing to them (docs/design/0012)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from pandastack.contract.processes import Extent, ProcessRecord, Retention
from pandastack.contract.records import STDERR, STDOUT, ExecResult
from pandastack.errors import BadRequestError, GuestError
from pandastack.guest import frames
from pandastack.guest.connection import Connection
from pandastack.guest.exec import (
    DEADLINE_GRACE_S,
    ExecRequest,
    exec_result,
    open_command,
)
from pandastack.guest.frames import encode_request
from pandastack.guest.keys import FrameType, OpenFlag, OpenKey, Operation, RecordFlag, RecordKey, ResultKey, Signal
from pandastack.guest.outcome import checked, encoded
from pandastack.guest.replies import finish, values
from pandastack.guest.streams import Stream

STEP_TIMEOUT_S = 30.0
"""Seconds that the guest may take for an answer that does not depend on a process."""
RECORDS_MAX = 1024
RECORDS_BYTES_MAX = 4 * 1024 * 1024
_RETENTION = (ResultKey.MAX_RECORDS, ResultKey.MAX_BYTES, ResultKey.MAX_AGE_S, ResultKey.FORGOTTEN)


class Piece(NamedTuple):
    """Output: ``kind`` is 1 or 2, ``offset`` that of its first byte. After an empty piece, the next begins there."""

    kind: int
    offset: int
    data: bytes


class View:
    """A view of a process's output from some offsets on."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._at = {STDOUT: 0, STDERR: 0}
        self.result: ExecResult | None = None
        """How the process ended; None after a view that did not follow, or while the process runs."""

    async def output(self) -> AsyncIterator[Piece]:
        """The output. Bytes that the guest no longer has are skipped, as the offsets show."""
        while True:
            item = await self._stream.next(None)
            if item is None:
                fields = checked(self._stream.result or {}, "process")
                self.result = exec_result(fields) if ResultKey.EXIT_CODE in fields else None
                return
            yield self._piece(*item)

    def _piece(self, kind: FrameType, payload: bytes) -> Piece:
        if kind is FrameType.AT:
            if len(payload) != 9 or payload[0] not in (STDOUT, STDERR):
                raise GuestError("the guest sent a malformed offset")
            self._at[payload[0]] = int.from_bytes(payload[1:], "little")
            return Piece(payload[0], self._at[payload[0]], b"")
        which = STDERR if kind is FrameType.DATA_ERR else STDOUT
        offset = self._at[which]
        self._at[which] = offset + len(payload)
        return Piece(which, offset, payload)


async def start(connection: Connection, request: ExecRequest) -> ProcessRecord:
    """Start a process without a view; ConflictError when its id is taken."""
    with open_command(connection, request, Operation.START) as (stream, script):
        if script:
            await stream.send(script, DEADLINE_GRACE_S)
        fields = await finish(stream, "command", STEP_TIMEOUT_S)
    if ResultKey.RECORD not in fields:
        raise GuestError("the guest sent no process record")
    return _record(fields[ResultKey.RECORD][-1])


async def records(connection: Connection, process: str | None = None) -> tuple[list[ProcessRecord], Retention]:
    """All processes with an id, or the one with this id or pid; NotFoundError when there is none."""
    found: list[ProcessRecord] = []
    items = [] if process is None else [(OpenKey.ID, encoded(process, "process"))]
    with connection.open(encode_request(Operation.PROCESSES, *items)) as stream:
        async for some in values(stream, ResultKey.RECORD, RECORDS_BYTES_MAX, STEP_TIMEOUT_S):
            found += [_record(value) for value in some]
            if len(found) > RECORDS_MAX:
                raise GuestError("the guest's list of processes is too long")
        fields = checked(stream.result or {}, f"process {process}")
    kept = Retention(*(frames.integer(fields, key) for key in _RETENTION))
    return sorted(found, key=lambda each: each.started_at), kept


@asynccontextmanager
async def attach(
    connection: Connection, process: str, *, stdout: int | None, stderr: int | None, follow: bool
) -> AsyncIterator[View]:
    """View a process from these offsets on (None: skip that output): with ``follow`` to its end, else what is there.

    Leaving the block does not affect the process.
    """
    flags = OpenFlag.FOLLOW * follow | OpenFlag.STDOUT * (stdout is not None) | OpenFlag.STDERR * (stderr is not None)
    items = [(OpenKey.ID, encoded(process, "process")), (OpenKey.FLAGS, frames.u32(flags))]
    items += [(OpenKey.OFFSET, frames.u64(stdout or 0)), (OpenKey.ERR_OFFSET, frames.u64(stderr or 0))]
    with connection.open(encode_request(Operation.ATTACH, *items)) as stream:
        try:
            yield View(stream)
        finally:
            stream.abandon(Signal.LEAVE)


async def send_input(connection: Connection, process: str, data: AsyncIterable[bytes], *, close: bool = False) -> int:
    """Write to a process's standard input, and close it with ``close``; returns how many bytes it accepted.

    Waits while its pipe is full. ConflictError when no process can read it any more.
    """
    with connection.open(_input(process, close)) as stream:
        async for chunk in data:
            if not await stream.send(chunk):
                break
        stream.end_input()
        return frames.integer(await finish(stream, f"process {process}", None), ResultKey.BYTES)


async def resize(connection: Connection, process: str, rows: int, columns: int) -> None:
    """Resize a process's terminal."""
    if not (0 < rows < 1 << 16 and 0 < columns < 1 << 16):
        raise BadRequestError("a terminal has 1 to 65535 rows and columns", field="rows")
    with connection.open(_input(process, close=False)) as stream:
        stream.resize(rows, columns)
        stream.end_input()
        await finish(stream, f"process {process}", STEP_TIMEOUT_S)


async def signal(connection: Connection, process: str, number: int) -> None:
    """Send a signal (1 to 64) to a process's group; ConflictError when it has ended."""
    if not 1 <= number <= 64:
        raise BadRequestError(f"signal: {number} is not between 1 and 64", field="signal")
    items = [(OpenKey.ID, encoded(process, "process")), (OpenKey.SIGNAL, frames.u32(number))]
    with connection.open(encode_request(Operation.SIGNAL, *items)) as stream:
        await finish(stream, f"process {process}", STEP_TIMEOUT_S)


def _input(process: str, close: bool) -> bytes:
    return encode_request(
        Operation.INPUT, (OpenKey.ID, encoded(process, "process")), (OpenKey.FLAGS, frames.u32(OpenFlag.CLOSE * close))
    )


def _checked_id(text: str) -> str:
    """A checked process id: it becomes part of URLs and headers."""
    if not re.fullmatch("[0-9a-z-]{1,36}", text):
        raise GuestError("the guest sent an impossible process id")
    return text


def _record(value: bytes) -> ProcessRecord:
    fields = frames.decode_fields(value)

    def number(key: RecordKey) -> int:
        return frames.integer(fields, key)

    flags, milliseconds = number(RecordKey.FLAGS), number(RecordKey.TIMEOUT_MS)
    return ProcessRecord(
        id=_checked_id(frames.text(fields, RecordKey.ID)),
        pid=number(RecordKey.PID),
        cmd=frames.text(fields, RecordKey.CMD)[:4096],
        user=frames.text(fields, RecordKey.USER)[:64],
        started_at=number(RecordKey.STARTED_NS) / 1e9,
        running=bool(flags & RecordFlag.RUNNING),
        exit_code=number(RecordKey.EXIT_CODE) if RecordKey.EXIT_CODE in fields else None,
        signal=number(RecordKey.SIGNAL),
        timed_out=bool(flags & RecordFlag.TIMED_OUT),
        cancelled=bool(flags & RecordFlag.CANCELLED),
        pty=bool(flags & RecordFlag.PTY),
        background=bool(flags & RecordFlag.BACKGROUND),
        stdin_open=bool(flags & RecordFlag.INPUT),
        inherited=bool(flags & RecordFlag.INHERITED),
        cmd_cut=bool(flags & RecordFlag.CMD_CUT),
        timeout_s=milliseconds / 1000 if milliseconds else None,
        duration_us=number(RecordKey.DURATION_US),
        utime_us=number(RecordKey.UTIME_US),
        stime_us=number(RecordKey.STIME_US),
        maxrss_kb=number(RecordKey.MAXRSS_KB),
        read_blocks=number(RecordKey.READ_BLOCKS),
        written_blocks=number(RecordKey.WRITTEN_BLOCKS),
        stdout=Extent(number(RecordKey.OUT_BASE), number(RecordKey.OUT_END)),
        stderr=Extent(number(RecordKey.ERR_BASE), number(RecordKey.ERR_END)),
        rows=number(RecordKey.ROWS),
        columns=number(RecordKey.COLS),
    )
