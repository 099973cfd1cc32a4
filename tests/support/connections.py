"""Programs that listen and connect on this host, as others do inside guests."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from anyio.abc import ByteStream, Listener, SocketAttribute

Handle = Callable[[ByteStream], Awaitable[None]]


@asynccontextmanager
async def serving(listener: Listener[Any], handle: Handle) -> AsyncIterator[None]:
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, handle)
        yield
        group.cancel_scope.cancel()


async def echo(stream: ByteStream) -> None:
    async with stream:
        with suppress(anyio.BrokenResourceError):  # a peer that is reset
            async for chunk in stream:
                await stream.send(chunk)


async def all_of(stream: ByteStream) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def exactly(stream: ByteStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await stream.receive(size - len(data))
    return data


@asynccontextmanager
async def on_a_port(host: str, handle: Handle) -> AsyncIterator[int]:
    listener = await anyio.create_tcp_listener(local_host=host)
    port: int = listener.listeners[0].extra(SocketAttribute.local_port)
    async with serving(listener, handle):
        yield port


class Connections:
    """Something in the guest that hands its connections to the test."""

    def __init__(self) -> None:
        self._made: deque[ByteStream] = deque()
        self._changed = anyio.Event()

    async def handle(self, stream: ByteStream) -> None:
        async with stream:
            self._made.append(stream)
            self._changed.set()
            await anyio.sleep_forever()

    async def next(self) -> ByteStream:
        with anyio.fail_after(10):
            while not self._made:
                self._changed = anyio.Event()
                await self._changed.wait()
        return self._made.popleft()
