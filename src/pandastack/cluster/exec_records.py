"""The records that an engine sends while a command runs.

Source: the engine's exec route. A record is ``u8 kind | u32 length (little endian) | payload``; the result is the last.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pandastack.errors import ServerError

KEEP_ALIVE, STDOUT, STDERR, RESULT, AT = 0, 1, 2, 3, 4

_HEADER = struct.Struct("<BI")
_AT = struct.Struct("<BQ")
_MAX_PAYLOAD = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of what the command wrote; ``kind`` is :data:`STDOUT`, :data:`STDERR` or :data:`KEEP_ALIVE` (empty)."""

    kind: int
    data: bytes


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How the command ended. ``duration_us`` is the guest's own measure in microseconds."""

    exit_code: int
    duration_us: int
    timed_out: bool = False
    error: str | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class OutputOffset:
    """The next bytes of this output are at ``offset``: what was before it is not kept, if it did not come."""

    kind: int
    offset: int


@dataclass(frozen=True, slots=True)
class StillRunning:
    """The end of a view that did not wait for the end of its process."""


Record = Output | OutputOffset | ExecResult | StillRunning


class RecordParser:
    """Turns a stream of bytes, cut anywhere, into records."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[Record]:
        """The records that ``data`` completes. Raises :class:`ServerError` when the stream makes no sense."""
        pending = self._pending
        pending += data
        start = 0
        while len(pending) - start >= _HEADER.size:
            kind, length = _HEADER.unpack_from(pending, start)
            if kind > AT or length > _MAX_PAYLOAD:
                raise ServerError("the engine sent a malformed exec record")
            end = start + _HEADER.size + length
            if len(pending) < end:
                break
            yield _record(kind, bytes(pending[start + _HEADER.size : end]))
            start = end
        del pending[:start]


def _record(kind: int, payload: bytes) -> Record:
    if kind == AT:
        if len(payload) != _AT.size:
            raise ServerError("the engine sent a malformed offset")
        return OutputOffset(*_AT.unpack(payload))
    if kind != RESULT:
        return Output(kind, payload)
    try:
        result = json.loads(payload)
        if result == {"running": True}:
            return StillRunning()
        return ExecResult(
            exit_code=int(result.get("exit_code", -1) if "error" in result else result["exit_code"]),
            duration_us=int(result.get("duration_us") or 0),
            timed_out=bool(result.get("timed_out")),
            error=result.get("error"),
            code=result.get("code"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServerError("the engine sent a malformed exec result") from error
