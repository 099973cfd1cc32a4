"""The bytes of a tunnel to the guest agent's service ``session``: one command or login shell with all its streams.

Frames of ``u8 kind | u32 length (little endian) | payload``, as in ``guest-agent/src/services/session.h``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from pandastack.contract.processes import TerminalSize
from pandastack.errors import BadRequestError, ServerError

FRAME_MAX = 64 * 1024
"""The most bytes in a frame's payload."""
INPUT_MAX = 32 * 1024
"""The most bytes of input in a frame, so that what follows does not wait for long."""

_HEADER = struct.Struct("<BI")


class SessionFrame(IntEnum):
    """The kinds of frames. START comes first, EXIT and FAILED come last."""

    START = 1
    INPUT = 2
    INPUT_END = 3
    SIGNAL = 4
    RESIZE = 5
    OUTPUT = 16
    ERROR = 17
    EXIT = 18
    FAILED = 19


class _StartKey(IntEnum):
    """Those of the channel's OPEN."""

    CMD = 4
    ENV = 7
    ROWS = 34
    COLS = 35


@dataclass(frozen=True, slots=True)
class SessionOutput:
    """Bytes that the command wrote."""

    data: bytes
    error: bool = False


@dataclass(frozen=True, slots=True)
class SessionExit:
    """How the command ended; with ``signal`` 0 by itself."""

    code: int
    signal: int


@dataclass(frozen=True, slots=True)
class SessionFailed:
    """Why nothing was run."""

    reason: str


FromSession = SessionOutput | SessionExit | SessionFailed


def start_frame(cmd: str | None, env: Mapping[str, str], terminal: TerminalSize | None) -> bytes:
    """The first frame: the command (None: the user's login shell), its environment, and the size of its terminal.

    Raises :class:`BadRequestError` when command and environment are longer than a frame, or have a NUL in them.
    """
    items = [] if cmd is None else [(_StartKey.CMD, _text(cmd))]
    items += [(_StartKey.ENV, _text(f"{name}={value}")) for name, value in env.items()]
    if terminal is not None:
        items += [(_StartKey.ROWS, _u16(terminal.rows)), (_StartKey.COLS, _u16(terminal.columns))]
    payload = b"".join(_HEADER.pack(key, len(value)) + value for key, value in items)
    if len(payload) > FRAME_MAX:
        raise BadRequestError(f"command and environment: must be at most {FRAME_MAX} bytes, not {len(payload)}")
    return _frame(SessionFrame.START, payload)


def input_frames(data: bytes) -> Iterator[bytes]:
    """Frames of standard input."""
    for at in range(0, len(data), INPUT_MAX):
        yield _frame(SessionFrame.INPUT, data[at : at + INPUT_MAX])


def input_end_frame() -> bytes:
    """The end of standard input."""
    return _frame(SessionFrame.INPUT_END)


def signal_frame(number: int) -> bytes:
    """A signal (1 to 64) to the process group in the terminal's foreground, or to the command's own."""
    return _frame(SessionFrame.SIGNAL, bytes([number]))


def resize_frame(terminal: TerminalSize) -> bytes:
    """Another size of the terminal."""
    return _frame(SessionFrame.RESIZE, _u16(terminal.rows) + _u16(terminal.columns))


class SessionParser:
    """Turns the guest's bytes, cut anywhere, into what they say."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[FromSession]:
        """What ``data`` completes. Raises :class:`ServerError` for malformed bytes."""
        pending = self._pending
        pending += data
        start = 0
        while len(pending) - start >= _HEADER.size:
            kind, length = _HEADER.unpack_from(pending, start)
            if length > FRAME_MAX:
                raise ServerError("malformed frame of a session from guest")
            end = start + _HEADER.size + length
            if len(pending) < end:
                break
            yield _parsed(kind, bytes(pending[start + _HEADER.size : end]))
            start = end
        del pending[:start]


def _parsed(kind: int, payload: bytes) -> FromSession:
    if kind in (SessionFrame.OUTPUT, SessionFrame.ERROR):
        return SessionOutput(payload, kind == SessionFrame.ERROR)
    if kind == SessionFrame.EXIT and len(payload) == 2:
        return SessionExit(payload[0], payload[1])
    if kind == SessionFrame.FAILED:
        return SessionFailed(payload[:300].decode(errors="replace"))
    raise ServerError("malformed frame of a session from guest")


def _frame(kind: SessionFrame, payload: bytes = b"") -> bytes:
    return _HEADER.pack(kind, len(payload)) + payload


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    if b"\0" in data:
        raise BadRequestError("command and environment: must not contain a NUL byte")
    return data


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "little")
