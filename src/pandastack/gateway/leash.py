"""The gateway's life: as long as a server holds the other end of a connection, and a while after that broke.

A gateway that died with its server would break every stream when the server is killed and started again, though the
machines and their tunnels outlive that. So a broken leash is no reason to end, only a missing one is. One JSON line
each way: the server sends its options, the gateway answers with its ports, or that it has other options; then the
server holds the connection, or sends ``stop``.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress

import anyio
from anyio.abc import SocketListener, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from pandastack.gateway.options import Options

_LINE_BYTES = 64 * 1024


class Leash:
    """Waits for the reason to end."""

    def __init__(self, options: Options, listener: socket.socket) -> None:
        self._options = options
        self._listener = listener
        self._stopped = anyio.Event()
        self._holders = 0
        self._changed = anyio.Event()

    def stop(self) -> None:
        """End the process now."""
        self._stopped.set()
        self._notify()

    async def hold(self, ports: Mapping[str, int]) -> None:
        """Answer servers until one says ``stop``, or none held the leash for ``linger_seconds``."""
        listener = await SocketListener.from_socket(self._listener)
        answer = json.dumps({"pid": os.getpid(), "ports": dict(ports)}).encode() + b"\n"
        async with anyio.create_task_group() as tasks, listener:

            async def serve(stream: SocketStream) -> None:
                with suppress(anyio.BrokenResourceError, anyio.IncompleteRead, anyio.DelimiterNotFound, ValueError):
                    await self._serve(stream, answer)

            tasks.start_soon(listener.serve, serve)
            await self._until_over()
            tasks.cancel_scope.cancel()

    async def _until_over(self) -> None:
        while not self._stopped.is_set():
            with anyio.move_on_after(None if self._holders else self._options.linger_seconds) as scope:
                await self._changed.wait()
            if scope.cancelled_caught:
                return

    async def _serve(self, stream: SocketStream, answer: bytes) -> None:
        async with stream:
            lines = BufferedByteReceiveStream(stream)
            same = (await lines.receive_until(b"\n", _LINE_BYTES)).decode() == self._options.text()
            await stream.send(answer if same else _other())
            self._holders += same
            self._notify()
            try:
                if await lines.receive_until(b"\n", _LINE_BYTES) == b"stop":
                    self.stop()
            finally:
                self._holders -= same
                self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def _other() -> bytes:
    return json.dumps({"pid": os.getpid(), "other": True}).encode() + b"\n"
