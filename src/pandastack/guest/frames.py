"""The guest channel's bytes: frames and TLV lists, without any I/O (see docs/design/0001-guest-channel.md).

A frame is ``u32 length | u8 type | u32 stream | payload``, and from the host a byte 1 after it; a TLV list is ``u8
key | u32 length | bytes`` repeated. All integers are little endian. Everything decoded here comes from a guest and is
taken to be hostile.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pandastack.errors import GuestError
from pandastack.guest.keys import FrameType, OpenKey, Operation, ResumedKey

PAYLOAD_MAX = 65536
"""Largest payload of a frame, in bytes."""
WINDOW = 256 * 1024
"""Bytes that either side may send on a stream before it receives credit."""
NONCE_SIZE = 16
RESULT_MAX = 4096
"""Largest RESULT that a host accepts, in bytes."""
ZERO_RUN = PAYLOAD_MAX + 64
"""Zero bytes that complete any truncated frame, which the guest then drops, and begin at least one empty PAD."""
FIELDS_MAX = 4096

HEADER_SIZE = 9
FRAME_WHOLE = 1
"""The byte after each frame for a guest."""
_HEADER = struct.Struct("<IBI")
_ITEM = struct.Struct("<BI")

Fields = dict[int, list[bytes]]
"""A decoded TLV list: the values of each key, in order."""


FROM_GUEST = frozenset(
    (
        *(FrameType.HELLO, FrameType.RESUMED, FrameType.QUIET, FrameType.PONG),
        *(FrameType.DATA, FrameType.DATA_ERR, FrameType.EOF, FrameType.CREDIT),
        *(FrameType.RESULT, FrameType.AT, FrameType.OPENED),
    )
)


class Frame(NamedTuple):
    """One received frame."""

    type: FrameType
    stream: int
    payload: bytes


def encode(kind: FrameType, stream: int = 0, payload: bytes = b"") -> bytes:
    """One frame of a guest as bytes."""
    if len(payload) > PAYLOAD_MAX:
        raise ValueError(f"a payload of {len(payload)} bytes does not fit into a frame")
    return _HEADER.pack(len(payload), kind, stream) + payload


def encode_to_guest(kind: FrameType, stream: int = 0, payload: bytes = b"") -> bytes:
    """One frame for the guest. Its last byte tells it from one that was cut, and completed by zeros."""
    return encode(kind, stream, payload) + bytes([FRAME_WHOLE])


def encode_fields(items: Iterable[tuple[int, bytes]]) -> bytes:
    """A TLV list. Keys are never 0."""
    return b"".join(_ITEM.pack(key, len(value)) + value for key, value in items)


def encode_request(operation: Operation, *items: tuple[OpenKey, bytes]) -> bytes:
    """The payload of an OPEN."""
    return encode_fields([(OpenKey.OP, operation.encode()), *items])


def decode_fields(payload: bytes) -> Fields:
    """The inverse of :func:`encode_fields`; raises :class:`GuestError` for anything malformed."""
    fields: Fields = {}
    at = 0
    for _ in range(FIELDS_MAX):
        if at == len(payload):
            return fields
        if at + _ITEM.size > len(payload):
            break
        key, length = _ITEM.unpack_from(payload, at)
        at += _ITEM.size
        if key == 0 or length > len(payload) - at:
            break
        fields.setdefault(key, []).append(payload[at : at + length])
        at += length
    raise GuestError("the guest sent a malformed list")


def u32(value: int) -> bytes:
    """``value`` as 4 bytes."""
    return value.to_bytes(4, "little")


def u64(value: int) -> bytes:
    """``value`` as 8 bytes."""
    return value.to_bytes(8, "little")


def integer(fields: Fields, key: int, default: int = 0) -> int:
    """The last value of ``key`` as an unsigned integer of at most 8 bytes."""
    value = fields.get(key, [u64(default)])[-1]
    if len(value) > 8:
        raise GuestError("the guest sent a number that is too long")
    return int.from_bytes(value, "little")


def text(fields: Fields, key: int, default: str = "") -> str:
    """The last value of ``key`` as text for people, with invalid UTF-8 replaced."""
    return fields[key][-1].decode("utf-8", "replace") if key in fields else default


class Decoder:
    """Turns received bytes into frames, however they were split; holds at most one incomplete frame.

    After :meth:`resync` everything is dropped up to the RESUMED with the nonce: a restored machine may still send the
    rest of a frame that it began before its capture.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._needle: bytes | None = None

    def resync(self, nonce: bytes) -> None:
        """Expect the answer to the RESUME with this nonce before anything else."""
        head = _HEADER.pack(0, FrameType.RESUMED, 0)[4:]
        self._needle = head + _ITEM.pack(ResumedKey.NONCE, NONCE_SIZE) + nonce

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that ``data`` completes. Raises :class:`GuestError` for a malformed frame."""
        self._buffer += data
        while self._needle is None or self._find():
            frame = self._take()
            if frame is None:
                return
            yield frame

    def _find(self) -> bool:
        assert self._needle is not None
        at = self._buffer.find(self._needle)
        if at >= 4:
            del self._buffer[: at - 4]
            self._needle = None
            return True
        keep = len(self._needle) + 3
        if len(self._buffer) > keep:
            del self._buffer[:-keep]
        return False

    def _take(self) -> Frame | None:
        buffer = self._buffer
        if len(buffer) < _HEADER.size:
            return None
        length, kind, stream = _HEADER.unpack_from(buffer)
        if length > PAYLOAD_MAX or kind not in FROM_GUEST:
            raise GuestError("malformed frame from the guest")
        end = _HEADER.size + length
        if len(buffer) < end:
            return None
        payload = bytes(memoryview(buffer)[_HEADER.size : end])
        del buffer[:end]
        return Frame(FrameType(kind), stream, payload)
