"""A machine's serial console, kept in a bounded file: a guest can print for ever, a host's disk does not grow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import anyio
from anyio.abc import UNIXSocketStream

from pandastack.host.tasks import beside

KEEP_BYTES = 256 * 1024
"""What is kept at least, from the end."""


class Console:
    """The last :data:`KEEP_BYTES` (at most twice as many) of what the guest printed on its console."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @asynccontextmanager
    async def following(self, socket: Path) -> AsyncIterator[None]:
        """Read what the VMM that listens at ``socket`` sends, while the block runs."""
        async with beside(partial(self._follow, socket)):
            yield

    async def _follow(self, socket: Path) -> None:
        # A VMM that is gone or a host disk that is full ends the console only: it is not worth a machine.
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            async with await anyio.connect_unix(socket) as stream:
                await self._keep(stream)

    async def _keep(self, stream: UNIXSocketStream) -> None:
        # Appending: a machine may have printed under a former run of the server.
        with self._path.open("ab", buffering=0) as file:
            size = file.tell()
            async for chunk in stream:
                file.write(chunk)
                size += len(chunk)
                if size > 2 * KEEP_BYTES:
                    size = self._shorten()

    def _shorten(self) -> int:
        kept = self.tail()
        with self._path.open("r+b", buffering=0) as file:
            file.write(kept)
            file.truncate()
        return len(kept)

    def tail(self, limit: int = KEEP_BYTES) -> bytes:
        """The last ``limit`` bytes; empty before the guest printed anything."""
        try:
            return self._path.read_bytes()[-limit:]
        except FileNotFoundError:
            return b""
