"""Frames: what the process of a function sends, an answer or the pieces that come before it."""

from __future__ import annotations

import struct

from anyio.abc import ByteStream
from pydantic_core import from_json

from pandastack.errors import GuestError
from pandastack.products.functions.lambda_url import Malformed, head_of
from pandastack.products.functions.streams import Stream

_BODY, _HEAD = 0, 1
"""How frames of an answer in pieces begin; the last one, which says how the call ended, begins as JSON."""
_MOST_FRAME = 256 * 1024
"""The longest frame with a piece or a head."""


class Frames:
    """What the process sends: each frame has its length before it."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._data = bytearray()

    async def next(self, most: int) -> bytes:
        """The next frame. Raises :class:`GuestError` for one that is over ``most`` bytes."""
        await self._fill(4)
        (length,) = struct.unpack_from("!I", self._data)
        if not 0 < length <= most:
            raise GuestError("the function's process answers too much, or nothing")
        await self._fill(5)
        if self._data[4] in (_BODY, _HEAD) and length > _MOST_FRAME:
            raise GuestError("the function's process sends a piece that is too long")
        await self._fill(4 + length)
        frame = bytes(memoryview(self._data)[4 : 4 + length])
        del self._data[: 4 + length]
        return frame

    async def _fill(self, count: int) -> None:
        while len(self._data) < count:
            self._data += await self._stream.receive()


async def passed_on(frames: Frames, stream: Stream, most: int) -> bytes:
    """Pass a head and pieces on, and return what comes after them."""
    is_begun = False
    while (frame := await frames.next(most))[0] in (_BODY, _HEAD):
        if is_begun is (frame[0] == _HEAD):
            raise GuestError("the function's process sends pieces out of order")
        if is_begun:
            if len(frame) > 1:
                await stream.put(frame[1:])
            continue
        try:
            await stream.put(head_of(from_json(frame[1:])))
        except (Malformed, ValueError, TypeError) as error:
            raise GuestError(f"the answer is malformed: {error}") from error
        is_begun = True
    return frame
