"""The output of a command as a stream of records: ``u8 kind | u32 length (little endian) | payload``.

Output stays bytes. Keep-alives carry nothing, and the parser drops them; the last record is the one and only end.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from pandastack.contract.codec import decode_answer, encode
from pandastack.contract.failures import Failure
from pandastack.errors import ServerError


class RecordKind(IntEnum):
    """The kind of a record. ``STDOUT`` and ``STDERR`` are also the guests' numbers for the two outputs."""

    KEEP_ALIVE = 0
    STDOUT = 1
    STDERR = 2
    RESULT = 3
    """How the command ended: :class:`ExecResult` as JSON."""
    OFFSET = 4
    """``u8 which output | u64 offset``: the offset of the next bytes in that output."""
    FAILED = 5
    """Why there is no result: :class:`Failure` as JSON."""
    STILL_RUNNING = 6
    """The end of a view that did not wait for the end of its process."""


STDOUT, STDERR = int(RecordKind.STDOUT), int(RecordKind.STDERR)

_HEADER = struct.Struct("<BI")
_OFFSET = struct.Struct("<BQ")
_LAST_KIND = max(RecordKind)
_MAX_PAYLOAD = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of the command's output; ``kind`` is :data:`STDOUT` or :data:`STDERR`."""

    kind: int
    data: bytes


@dataclass(frozen=True, slots=True)
class OutputOffset:
    """The next bytes of this output are at ``offset``; earlier bytes that did not arrive are no longer retained."""

    kind: int
    offset: int


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command ended. Times are the guest's own; ``exit_code`` is 128 + ``signal`` for a killed command."""

    exit_code: int
    timed_out: bool = False
    signal: int = 0
    duration_us: int = 0
    utime_us: int = 0
    stime_us: int = 0
    maxrss_kb: int = 0


@dataclass(frozen=True, slots=True)
class ExecFailed:
    """The command was not run, or its outcome is unknown."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class StillRunning:
    """The process was still running when the view ended."""


Ended = ExecResult | ExecFailed
"""The end of a command."""
End = Ended | StillRunning
Record = Output | OutputOffset | End


def encode_record(record: Record) -> bytes:
    """The bytes of one record."""
    match record:
        case Output(kind, data):
            return _HEADER.pack(kind, len(data)) + data
        case OutputOffset(kind, offset):
            return _framed(RecordKind.OFFSET, _OFFSET.pack(kind, offset))
        case ExecResult():
            return _framed(RecordKind.RESULT, encode(record))
        case ExecFailed(failure):
            return _framed(RecordKind.FAILED, encode(failure))
        case StillRunning():
            return _framed(RecordKind.STILL_RUNNING)


def _framed(kind: RecordKind, payload: bytes = b"") -> bytes:
    return _HEADER.pack(kind, len(payload)) + payload


KEEP_ALIVE = _framed(RecordKind.KEEP_ALIVE)


class RecordParser:
    """Turns a stream of bytes, cut anywhere, into records."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[Record]:
        """The records that ``data`` completes. Raises :class:`ServerError` for a malformed stream."""
        pending = self._pending
        pending += data
        start = 0
        while len(pending) - start >= _HEADER.size:
            kind, length = _HEADER.unpack_from(pending, start)
            if kind > _LAST_KIND or length > _MAX_PAYLOAD:
                raise ServerError("the engine sent a malformed exec record")
            end = start + _HEADER.size + length
            if len(pending) < end:
                break
            if kind != RecordKind.KEEP_ALIVE:
                yield _record(kind, bytes(pending[start + _HEADER.size : end]))
            start = end
        del pending[:start]


def _record(kind: int, payload: bytes) -> Record:
    if kind in (STDOUT, STDERR):
        return Output(kind, payload)
    if kind == RecordKind.RESULT:
        return decode_answer(ExecResult, payload)
    if kind == RecordKind.FAILED:
        return ExecFailed(decode_answer(Failure, payload))
    if kind == RecordKind.STILL_RUNNING and not payload:
        return StillRunning()
    if kind == RecordKind.OFFSET and len(payload) == _OFFSET.size and payload[0] in (STDOUT, STDERR):
        return OutputOffset(*_OFFSET.unpack(payload))
    raise ServerError("the engine sent a malformed exec record")
