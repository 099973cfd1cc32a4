"""Reading an operation's answers, always within bounds: a guest may send anything for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio

from pandastack.errors import GuestError
from pandastack.guest import frames
from pandastack.guest.frames import Fields
from pandastack.guest.keys import ResultKey
from pandastack.guest.outcome import checked
from pandastack.guest.streams import Stream


async def next_piece(stream: Stream, timeout_s: float | None) -> bytes | None:
    """The next data, or None at the end; GuestError when the guest is silent for ``timeout_s`` seconds."""
    try:
        item = await stream.next(timeout_s)
    except TimeoutError as error:
        raise GuestError(f"the guest made no progress for {timeout_s:g} seconds") from error
    return None if item is None else item[1]


async def finish(stream: Stream, subject: str, timeout_s: float | None) -> Fields:
    """The outcome of an operation that sends no data; ``subject`` is what its error is about."""
    if await next_piece(stream, timeout_s) is not None:
        raise GuestError("the guest sent unrequested data")
    return checked(stream.result or {}, subject)


async def values(stream: Stream, key: ResultKey, bytes_max: int, timeout_s: float | None) -> AsyncIterator[list[bytes]]:
    """The values of a list that arrives as data, several at a time.

    GuestError when it has more than ``bytes_max`` bytes, or a piece without a value.
    """
    size = 0
    while (piece := await next_piece(stream, timeout_s)) is not None:
        size += len(piece)
        found = frames.decode_fields(piece).get(key, [])
        if not found or size > bytes_max:
            raise GuestError("the guest's list is too long or malformed")
        yield found
        await anyio.lowlevel.checkpoint()
