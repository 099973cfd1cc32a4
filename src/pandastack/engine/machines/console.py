"""A machine's serial console in a bounded file: a guest can print for ever, a host's disk does not grow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import anyio

from pandastack.host.bounded_file import BoundedFile
from pandastack.host.tasks import beside

KEEP_BYTES = 256 * 1024
"""How many of the last bytes are retained at least."""


class Console:
    """The last :data:`KEEP_BYTES` (at most twice as many) of what the guest printed on its console."""

    def __init__(self, path: Path) -> None:
        self._file = BoundedFile(path, KEEP_BYTES)
        self._end = len(self._file.tail())
        self._closed = False
        self._changed = anyio.Event()

    @asynccontextmanager
    async def following(self, socket: Path) -> AsyncIterator[None]:
        """Read what the VMM that listens at ``socket`` sends, while the block runs."""
        try:
            async with beside(partial(self._read, socket)):
                yield
        finally:
            self._closed = True
            self._changed.set()

    async def _read(self, socket: Path) -> None:
        # A VMM that is gone or a full host disk ends only the console: the machine need not end for that.
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            async with await anyio.connect_unix(socket) as stream:
                async for chunk in stream:
                    self._file.append(chunk)
                    self._end += len(chunk)
                    self._changed.set()
                    self._changed = anyio.Event()

    def tail(self, limit: int = KEEP_BYTES) -> bytes:
        """The last ``limit`` bytes; empty until the guest has printed something."""
        return self._file.tail(limit)

    async def pieces(self) -> AsyncIterator[bytes]:
        """First everything retained, even if empty, then what the guest prints until its machine ends.

        A slow reader costs nothing, and misses what is no longer retained.
        """
        end = self._end
        yield self.tail()
        while self._end > end or not self._closed:
            if self._end == end:
                await self._changed.wait()
                continue
            new, end = self._end - end, self._end
            yield self.tail(min(new, KEEP_BYTES))
