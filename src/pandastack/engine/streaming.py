"""Responses written by a coroutine inside a block of its own, so that its lifetimes end when the client goes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pandastack.host.tasks import beside

Write = Callable[[bytes], Awaitable[None]]


class WrittenResponse(Response):
    """Calls ``body`` with a function that sends bytes.

    The status line goes out with the first bytes, so an error raised before that is an ordinary error response; one
    raised after it breaks the connection, never ends it cleanly.
    """

    def __init__(self, body: Callable[[Write], Awaitable[None]], media_type: str) -> None:
        super().__init__(media_type=media_type)
        del self.headers["content-length"]
        self._write_body = body
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def write(chunk: bytes) -> None:
            if not self._started:
                self._started = True
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

        async def leave_with_the_client() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            tasks.cancel_scope.cancel()

        finished = False
        async with beside(leave_with_the_client) as tasks:
            await self._write_body(write)
            await write(b"")
            finished = True
        if finished:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
