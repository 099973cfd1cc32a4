"""Bytes between a channel of SSH and a stream into a sandbox, each direction with its own end."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import asyncssh
from anyio.abc import ByteStream

from pandastack.errors import PandastackError

_PIECE = 64 * 1024

Left = (OSError, asyncssh.Error, anyio.BrokenResourceError, anyio.ClosedResourceError)
"""What says that the client is gone, or its channel."""


async def relay(
    reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes], stream: ByteStream, used: Callable[[], None]
) -> None:
    """Pass bytes until both directions have ended or one has failed; ``used`` hears of each piece of the client's."""
    async with anyio.create_task_group() as tasks:

        async def inward() -> None:
            try:
                while data := await reader.read(_PIECE):
                    used()
                    await stream.send(data)
                await stream.send_eof()
            except (*Left, PandastackError):
                tasks.cancel_scope.cancel()

        tasks.start_soon(inward)
        try:
            await _outward(stream, writer)
        except (*Left, PandastackError):
            tasks.cancel_scope.cancel()
    writer.close()


async def _outward(stream: ByteStream, writer: asyncssh.SSHWriter[bytes]) -> None:
    try:
        while True:
            writer.write(await stream.receive(_PIECE))
            await writer.drain()
    except anyio.EndOfStream:
        writer.write_eof()
