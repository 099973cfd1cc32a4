"""Data that a guest has sent on a stream and the host has not read yet."""

from __future__ import annotations

from collections import deque

from pandastack.errors import GuestError
from pandastack.guest.keys import FrameType

_TOGETHER = 64 * 1024
"""Pieces of this many bytes or more are not joined further."""
_SMALL = 4096
_PIECES_MAX = 4096
_OFFSETS_MAX = 1024


class Backlog:
    """Pieces in order, each of one kind. Memory use depends on their bytes, not on the number of frames they came in.

    Small pieces of one kind are joined as they arrive. When thousands of pieces alternate between the two outputs,
    further ones are joined with the last piece of their kind: only the order between the outputs gets coarser.
    """

    def __init__(self) -> None:
        self._pieces: deque[tuple[FrameType, bytes | bytearray]] = deque()
        self._growing: dict[FrameType, bytearray] = {}
        """The last piece of a kind, while it is queued and small pieces may be added to it."""
        self._offsets = 0

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def add(self, kind: FrameType, payload: bytes) -> None:
        """Add a frame's data. Raises GuestError when the guest sends more offsets than any agent would."""
        if kind is FrameType.AT:
            self._add_offset(payload)
        elif kind is FrameType.EOF:
            self._pieces.append((kind, payload))
        elif len(payload) >= _SMALL:
            self._growing.pop(kind, None)
            self._pieces.append((kind, payload))
        else:
            self._add_small(kind, payload)

    def _add_offset(self, payload: bytes) -> None:
        self._offsets += 1
        if self._offsets > _OFFSETS_MAX:
            raise GuestError("the guest sent offsets without end")
        self._growing.clear()  # the following data are at another offset
        self._pieces.append((FrameType.AT, payload))

    def _add_small(self, kind: FrameType, payload: bytes) -> None:
        last = self._growing.get(kind)
        is_last = last is not None and self._pieces[-1][1] is last
        if last is not None and (len(self._pieces) >= _PIECES_MAX or (is_last and len(last) < _TOGETHER)):
            last += payload
        else:
            self._growing[kind] = bytearray(payload)
            self._pieces.append((kind, self._growing[kind]))

    def take(self) -> tuple[FrameType, bytes]:
        """The oldest piece, joined with those of its kind right behind it: each piece passes all layers of the host."""
        kind, payload = self._pop()
        if kind is FrameType.AT:
            self._offsets -= 1
            return kind, payload
        if not self._pieces or self._pieces[0][0] is not kind:
            return kind, payload
        pieces, size = [payload], len(payload)
        while self._pieces and self._pieces[0][0] is kind and size < _TOGETHER:
            pieces.append(self._pop()[1])
            size += len(pieces[-1])
        return kind, b"".join(pieces)

    def _pop(self) -> tuple[FrameType, bytes]:
        kind, payload = self._pieces.popleft()
        if isinstance(payload, bytes):
            return kind, payload
        if self._growing.get(kind) is payload:
            del self._growing[kind]
        return kind, bytes(payload)

    def clear(self) -> None:
        """Drop everything."""
        self._pieces.clear()
        self._growing.clear()
        self._offsets = 0
