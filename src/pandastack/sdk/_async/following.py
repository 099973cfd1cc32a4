"""Following a build: the events that the server has sent, and those to come."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from pandastack.errors import ConnectionError
from pandastack.sdk._async.interfaces import AsyncConnection
from pandastack.sdk._sse import Event, EventDecoder
from pandastack.sdk.wire.call import STREAM_SILENCE_SECONDS, Call
from pandastack.sdk.wire.coding import mapped_transport_errors


async def async_follow_build(
    client: AsyncConnection, path: str, *, follow: bool, last: str = "ended", what: str = "build"
) -> AsyncGenerator[Event, None]:
    """The events at ``path`` so far; with ``follow``, until the one named ``last``.

    Raises ConnectionError when the server ends them before.
    """
    params = {"follow": "1"} if follow else {}
    call = Call("GET", path, params=params, streamed=True, silence=STREAM_SILENCE_SECONDS)
    async with aclosing(await client.transport.run(call)) as response:
        decoder, pieces = EventDecoder(), response.aiter_bytes()
        while True:
            with mapped_transport_errors(client.api_url):
                piece = await anext(pieces, None)
            if piece is None:
                if follow:
                    raise ConnectionError(f"the server ended the {what}'s events before the {what} had ended")
                return
            for event in decoder.feed(piece):
                yield event
                if event.name == last:
                    return
