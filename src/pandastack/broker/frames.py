"""Looks into what a WebSocket client sends (RFC 6455, section 5.2). Pure."""

from __future__ import annotations

from pandastack.broker.mask import Scanner
from pandastack.model.secrets import PLACEHOLDER, PLACEHOLDER_LENGTH

_TWO_BYTES, _EIGHT_BYTES = 126, 127
_CONTROL = 8


class ClientFrames:
    """The frames of a client. Their payload is masked with a key of each frame, so it is unmasked to be looked into."""

    def __init__(self) -> None:
        self._data = Scanner(PLACEHOLDER, PLACEHOLDER_LENGTH)
        self._control = Scanner(PLACEHOLDER, PLACEHOLDER_LENGTH)
        self._head = b""
        self._left = 0
        self._key = b""
        self._place = 0
        self._scanner = self._data

    def feed(self, data: bytes) -> bytes | None:
        """More of the stream: the first placeholder that it completes. Raises ``ValueError`` for a bad frame."""
        while data:
            if self._left:
                piece, data = data[: self._left], data[self._left :]
                if found := self._payload(piece):
                    return found
                continue
            self._head += data[:1]
            data = data[1:]
            self._begin()
        return None

    def _begin(self) -> None:
        """Read the head of a frame once it is whole."""
        head = self._head
        if len(head) < 2:
            return
        if not head[1] & 0x80:
            raise ValueError("a frame of a client is not masked")
        size = head[1] & 0x7F
        extra = {_TWO_BYTES: 2, _EIGHT_BYTES: 8}.get(size, 0)
        if len(head) < 6 + extra:
            return
        self._left = int.from_bytes(head[2 : 2 + extra], "big") if extra else size
        self._key, self._place, self._head = head[2 + extra : 6 + extra], 0, b""
        self._scanner = self._control if head[0] & _CONTROL else self._data

    def _payload(self, piece: bytes) -> bytes | None:
        turn = self._place % 4
        key = (self._key[turn:] + self._key[:turn]) * (len(piece) // 4 + 1)
        plain = int.from_bytes(piece, "big") ^ int.from_bytes(key[: len(piece)], "big")
        self._left -= len(piece)
        self._place += len(piece)
        return self._scanner.feed(plain.to_bytes(len(piece), "big"))
