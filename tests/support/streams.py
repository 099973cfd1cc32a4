"""Byte streams that say what a test gives them."""

from __future__ import annotations

import anyio
from anyio.abc import ByteStream


class Scripted(ByteStream):
    """Sends pieces, then its end."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.lowlevel.checkpoint()
        if not self.pieces:
            raise anyio.EndOfStream
        return self.pieces.pop(0)

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        raise AssertionError("never called")

    async def aclose(self) -> None:
        raise AssertionError("never called")
