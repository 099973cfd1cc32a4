"""One end of an HTTP connection: a stream of bytes, and what has been understood of it."""

from __future__ import annotations

import anyio
import h11
from anyio.abc import ByteStream

RECEIVE = 64 * 1024
HEAD_LIMIT = 64 * 1024

GONE = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


class Peer:
    """Reads and writes the events of h11 on a stream. A far end that is gone reads as the end of the stream."""

    def __init__(self, stream: ByteStream, role: type[h11.CLIENT] | type[h11.SERVER]) -> None:
        self.stream = stream
        self.http = h11.Connection(role, max_incomplete_event_size=HEAD_LIMIT)

    async def event(self) -> object:
        """The next event. Raises ``h11.RemoteProtocolError``."""
        while (event := self.http.next_event()) is h11.NEED_DATA:
            try:
                data = await self.stream.receive(RECEIVE)
            except GONE:
                data = b""
            self.http.receive_data(data)
        return event

    async def send(self, event: h11.Event) -> None:
        """Send an event. Raises an error of anyio when the far end is gone."""
        if data := self.http.send(event):
            await self.stream.send(data)

    @property
    def between_requests(self) -> bool:
        """Whether one request has ended, and another may follow on this connection."""
        return self.http.our_state is h11.DONE and self.http.their_state is h11.DONE
