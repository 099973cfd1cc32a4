"""A machine's serial console, kept in a bounded file: a guest can print for ever, a host's disk does not grow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import anyio

from pandastack.host.bounded_file import BoundedFile
from pandastack.host.tasks import beside

KEEP_BYTES = 256 * 1024
"""What is kept at least, from the end."""


class Console:
    """The last :data:`KEEP_BYTES` (at most twice as many) of what the guest printed on its console."""

    def __init__(self, path: Path) -> None:
        self._file = BoundedFile(path, KEEP_BYTES)

    @asynccontextmanager
    async def following(self, socket: Path) -> AsyncIterator[None]:
        """Read what the VMM that listens at ``socket`` sends, while the block runs."""
        async with beside(partial(self._follow, socket)):
            yield

    async def _follow(self, socket: Path) -> None:
        # A VMM that is gone or a host disk that is full ends the console only: it is not worth a machine.
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            async with await anyio.connect_unix(socket) as stream:
                async for chunk in stream:
                    self._file.append(chunk)

    def tail(self, limit: int = KEEP_BYTES) -> bytes:
        """The last ``limit`` bytes; empty before the guest printed anything."""
        return self._file.tail(limit)
