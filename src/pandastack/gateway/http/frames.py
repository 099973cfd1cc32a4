"""Tells a WebSocket's messages from its pings and pongs (RFC 6455 5.2): only messages keep a sandbox awake. Pure."""

from __future__ import annotations

_CONTROL = 0x8


class FrameWatch:
    """Follows the frames of one direction. What is no WebSocket makes it say yes for ever: it counts all bytes."""

    def __init__(self) -> None:
        self._left = 0
        """Bytes of the current frame's payload that are still to come."""
        self._is_message = False
        self._head = b""

    def feed(self, data: bytes) -> bool:
        """Whether some of ``data`` belongs to a message."""
        seen, at = False, 0
        while at < len(data):
            if self._left:
                seen |= self._is_message
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            need = _head_length(self._head)
            piece = data[at : at + need - len(self._head)]
            self._head += piece
            at += len(piece)
            if len(self._head) == _head_length(self._head):
                self._begin()
                seen |= self._is_message
        return seen

    def _begin(self) -> None:
        head, self._head = self._head, b""
        self._is_message = not (head[0] & 0x0F) & _CONTROL
        short = head[1] & 0x7F
        self._left = (
            int.from_bytes(head[2:4]) if short == 126 else int.from_bytes(head[2:10]) if short == 127 else short
        )


def _head_length(head: bytes) -> int:
    """The length of a frame's head, as far as its first bytes tell."""
    if len(head) < 2:
        return 2
    short = head[1] & 0x7F
    extended = {126: 2, 127: 8}.get(short, 0)
    return 2 + extended + (4 if head[1] & 0x80 else 0)
