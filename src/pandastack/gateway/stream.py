"""A client's stream into a sandbox: it sleeps and wakes with it, and nobody at its ends notices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import anyio
from anyio.abc import ByteStream

from pandastack.cluster.tunnel import Tunnel


class SleepingStream(ByteStream):
    """A tunnel with an id, kept attached by :class:`~pandastack.gateway.reach.Reach`.

    While the sandbox sleeps, what the client sends waits in the tunnel's window and wakes it; receiving just waits.
    The methods raise the error of a connection that broke, and :class:`NotFoundError` when the guest has it no longer,
    as after a rewind.
    """

    def __init__(self, tunnel: Tunnel) -> None:
        self.tunnel = tunnel
        self._wanted = anyio.Event()

    async def send(self, item: bytes) -> None:
        """Send; waits while the program in the guest does not read."""
        if not self.tunnel.is_attached:
            self._wanted.set()
        await self.tunnel.send(item)

    async def send_eof(self) -> None:
        """Send the end: the program reads it, and may keep sending."""
        if not self.tunnel.is_attached:
            self._wanted.set()
        await self.tunnel.send_eof()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Bytes from the program; raises ``EndOfStream`` after its end."""
        return await self.tunnel.receive(max_bytes)

    async def aclose(self) -> None:
        """Does nothing: the block that opened the stream closes it."""

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """None."""
        return {}

    async def wait_wanted(self, awake: anyio.Event) -> None:
        """Wait until the client sends something, or for ``awake``."""
        self._wanted = anyio.Event()
        async with anyio.create_task_group() as tasks:

            async def first(event: anyio.Event) -> None:
                await event.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(first, self._wanted)
            tasks.start_soon(first, awake)
