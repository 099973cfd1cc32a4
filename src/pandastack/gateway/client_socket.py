"""A client's connection: bytes with backpressure both ways, and the moment when the client is gone."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

_HIGH = 128 * 1024
"""How many bytes may wait to be received before the client is not read any more."""


class ClientGone(Exception):
    """The client closed its connection, or it broke."""


class ClientSocket(asyncio.Protocol):
    """One connection, plain or TLS. One task may receive while another sends."""

    def __init__(self, *, tls: bool, begun: bytes = b"") -> None:
        """``begun``: bytes of the client that were read before."""
        self.tls = tls
        self.peer = ""
        self.on_gone: Callable[[], object] | None = None
        """Called once the client has sent its end, or the connection broke."""
        self._transport: asyncio.Transport | None = None
        self._chunks = deque([begun] if begun else [])
        self._waiting = len(begun)
        self._reading_paused = False
        self._ended = self._lost = False
        self._arrival: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._writing_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods only
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]) if isinstance(peer, tuple) else ""

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._waiting += len(data)
        if self._waiting > _HIGH and not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()
        _notify(self._arrival)

    def eof_received(self) -> bool:
        self._end()
        return not self.tls  # a plain connection may still be written to

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._end()
        _notify(self._room)

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        _notify(self._room)

    def _end(self) -> None:
        self._ended = True
        _notify(self._arrival)
        if self.on_gone is not None:
            self.on_gone()

    @property
    def gone(self) -> bool:
        """Whether the client has sent its end, or the connection broke."""
        return self._ended

    async def receive(self) -> bytes:
        """The next bytes, empty at the end; raises :class:`ClientGone` when the connection broke."""
        while not self._chunks:
            if self._lost:
                raise ClientGone
            if self._ended:
                return b""
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival
        data = self._chunks.popleft()
        self._waiting -= len(data)
        if self._reading_paused and self._waiting <= _HIGH // 2 and self._transport is not None and not self._lost:
            self._reading_paused = False
            self._transport.resume_reading()
        return data

    async def send(self, data: bytes) -> None:
        """Send; waits while the client does not read. Raises :class:`ClientGone`."""
        if self._lost or self._transport is None or self._transport.is_closing():
            raise ClientGone
        self._transport.write(data)
        while self._writing_paused:
            if self._lost:
                raise ClientGone
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def send_end(self) -> None:
        """Send the end; with TLS this closes the connection."""
        if self._transport is None or self._lost or self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def close(self) -> None:
        """Close once everything was sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once: the client sees that something is missing."""
        if self._transport is not None:
            self._transport.abort()


def _notify(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
