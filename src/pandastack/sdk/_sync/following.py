# Generated from ../_async/following.py by scripts/generate_sync.py: change that file, not this one.
"""Following a build: the events that the server has sent, and those to come."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

from pandastack.errors import ConnectionError
from pandastack.sdk._sse import Event, EventDecoder
from pandastack.sdk._sync.interfaces import Connection
from pandastack.sdk.wire.call import STREAM_SILENCE_SECONDS, Call
from pandastack.sdk.wire.coding import mapped_transport_errors


def follow_build(
    client: Connection, path: str, *, follow: bool, last: str = "ended", what: str = "build"
) -> Generator[Event, None]:
    """The events at ``path`` so far; with ``follow``, until the one named ``last``.

    Raises ConnectionError when the server ends them before.
    """
    params = {"follow": "1"} if follow else {}
    call = Call("GET", path, params=params, streamed=True, silence=STREAM_SILENCE_SECONDS)
    with closing(client.transport.run(call)) as response:
        decoder, pieces = EventDecoder(), response.iter_bytes()
        while True:
            with mapped_transport_errors(client.api_url):
                piece = next(pieces, None)
            if piece is None:
                if follow:
                    raise ConnectionError(f"the server ended the {what}'s events before the {what} had ended")
                return
            for event in decoder.feed(piece):
                yield event
                if event.name == last:
                    return
