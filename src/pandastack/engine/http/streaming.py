"""Responses written by a coroutine in a block of its own: what it holds is released when the client disconnects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pandastack.host.tasks import beside

Write = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True)
class KeepAlive:
    """A keep-alive: bytes without meaning, sent every ``seconds`` so that clients do not take silence for a failure."""

    data: bytes
    seconds: float


class WrittenResponse(Response):
    """Calls ``body`` with a function that sends bytes.

    The status line goes out with the first bytes, even if they are none, so an error raised before that is an ordinary
    error response; one raised after it breaks the connection, never ends it cleanly.
    """

    def __init__(
        self, body: Callable[[Write], Awaitable[None]], media_type: str, keep_alive: KeepAlive | None = None
    ) -> None:
        super().__init__(media_type=media_type)
        del self.headers["content-length"]
        self._write_body = body
        self._keep_alive = keep_alive
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def write(chunk: bytes) -> None:
            if not self._started:
                self._started = True
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

        async def leave_with_the_client() -> None:
            await self._attend(receive, write)
            tasks.cancel_scope.cancel()

        finished = False
        async with beside(leave_with_the_client) as tasks:
            await self._write_body(write)
            if not self._started:
                await write(b"")
            finished = True
        if finished:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _attend(self, receive: Receive, write: Write) -> None:
        """Wait until the client disconnects, and send it keep-alives meanwhile."""
        silence = self._keep_alive.seconds if self._keep_alive else None
        while True:
            with anyio.move_on_after(silence):
                while (await receive())["type"] != "http.disconnect":
                    pass
                return
            if self._keep_alive and self._started:
                await write(self._keep_alive.data)
