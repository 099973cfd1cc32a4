"""Bytes both ways between a client and a sandbox, each direction with its own end."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from anyio.abc import ByteStream

from pandastack.gateway.client_socket import ClientGone, ClientSocket
from pandastack.gateway.http.frames import FrameWatch

_PIECE = 256 * 1024


async def pass_bytes(
    socket: ClientSocket,
    stream: ByteStream,
    first: tuple[bytes, bytes],
    used: Callable[[], object],
    *,
    is_websocket: bool,
) -> None:
    """Pass bytes until both ends were passed. ``first`` are bytes that were read already: the client's, the guest's.

    ``used`` is called for the client's bytes, with a WebSocket only for those of messages: a browser's pongs do not
    keep a sandbox awake. Raises the stream's errors, and ``ClientGone``.
    """
    watch = FrameWatch() if is_websocket else None

    async def inwards() -> None:
        data = first[0] or await socket.receive()
        while data:
            if watch is None or watch.feed(data):
                used()
            await stream.send(data)
            data = await socket.receive()
        if is_websocket or socket.tls:  # it has no half-closed state
            raise ClientGone
        await stream.send_eof()

    async def outwards() -> None:
        if first[1]:
            await socket.send(first[1])
        try:
            while True:
                await socket.send(await stream.receive(_PIECE))
        except anyio.EndOfStream:
            socket.send_end()

    failures: list[Exception] = []

    async def guarded(work: Callable[[], object]) -> None:
        try:
            await work()  # type: ignore[misc]
        except Exception as error:
            failures.append(error)
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(guarded, inwards)
        tasks.start_soon(guarded, outwards)
    if failures:
        raise failures[0]
