"""Bytes between a client and the server of its database: read until the login is over, then passed on unread."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import anyio

from pandastack.gateway.client_socket import ClientGone, ClientSocket
from pandastack.gateway.postgres.login import Login
from pandastack.gateway.postgres.sessions import Session
from pandastack.gateway.stream import SleepingStream

_PIECE = 256 * 1024
_END_SECONDS = 5.0
"""How long the server may take to notice that its client left, before the connection is closed."""
_READY, _READY_BYTES = b"Z\0\0\0\5", 6
"""The end of what a server says when it has finished: ReadyForQuery, which ends with the state of the transaction."""
_UNASKED = (b"A", b"N", b"S")
"""The kinds of messages that a server sends by itself: notifications, notices and changed parameters."""
_TERMINATE = b"X\0\0\0\4"


class Watch:
    """Notes by the end of what the server sends whether it has finished. It reads no message.

    Data that happens to end like ReadyForQuery, at the end of a piece, passes for it until the next piece comes.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._tail = b""

    def feed(self, data: bytes) -> None:
        """Look at the next bytes of the server."""
        tail = data[-_READY_BYTES:]
        if len(tail) < _READY_BYTES:
            tail = (self._tail + tail)[-_READY_BYTES:]
        self._tail = tail
        if tail.startswith(_READY):
            self._session.running = False
        elif not data.startswith(_UNASKED):
            self._session.running = True


async def pass_client(
    socket: ClientSocket, stream: SleepingStream, session: Session, begun: bytes, used: Callable[[], object]
) -> None:
    """Pass the client's bytes, ``begun`` first, until it leaves; ``used`` is called for each piece.

    A client that leaves while the sandbox sleeps does not wake it.
    """
    try:
        data = begun or await socket.receive()
        while data:
            if data == _TERMINATE and not stream.tunnel.is_attached:
                return
            if session.cancelling is not None:
                await session.cancelling.wait()
            session.running = True
            used()
            await stream.send(data)
            data = await socket.receive()
    except ClientGone:
        pass
    if stream.tunnel.is_attached:
        await stream.send_eof()
        await anyio.sleep(_END_SECONDS)


async def pass_server(
    socket: ClientSocket,
    stream: SleepingStream,
    session: Session,
    login: Login,
    said: bytes,
    on_ready: Callable[[], object],
) -> None:
    """Pass the server's bytes until it has closed the connection, ``said`` first, which is what ``login`` made of
    those that have come. What a client that left does not take is dropped.

    ``on_ready`` is called once the login is over. Raises what :meth:`Login.feed` raises, and the stream's errors.
    """
    watch = Watch(session)
    with suppress(anyio.EndOfStream):
        while True:
            session.backend = login.key
            if login.ready:
                watch.feed(said)
                on_ready()
            await _send(socket, said)
            if login.ready or login.failed:
                break
            said = login.feed(await stream.receive(_PIECE))
        while not login.failed:
            data = await stream.receive(_PIECE)
            watch.feed(data)
            await _send(socket, data)


async def _send(socket: ClientSocket, data: bytes) -> None:
    with suppress(ClientGone):
        await socket.send(data)
