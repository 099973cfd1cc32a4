"""Streaming responses.

Both kinds open their source inside the response, so that one block owns it: errors while opening still become normal
error responses, and the block ends when the client disconnects.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import anyio
import structlog
from anyio.abc import TaskGroup
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pandastack.api.models.errors import Error
from pandastack.errors import PandastackError, ServerError

StreamEvent = tuple[str, Mapping[str, Any] | str]
"""A name, and a JSON object or a line of text. Without a name it is a ``message``."""

EVENTS: dict[str, Any] = {"text/event-stream": {}}
"""The content of a stream of server-sent events, for the documentation."""

_PING = b": ping\n\n"

log = structlog.get_logger(__name__)


class EventStream(Response):
    """Server-sent events: name and JSON object. A failure after the start becomes a last event named ``error``.

    JSON is ASCII, because clients cut lines at every Unicode line separator. When nothing has been sent for
    ``keep_alive_seconds`` a comment goes out.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        source: Callable[[], AbstractAsyncContextManager[AsyncIterator[StreamEvent]]],
        keep_alive_seconds: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no", **(headers or {})})
        del self.headers["content-length"]
        self._source = source
        self._keep_alive_seconds = keep_alive_seconds
        self._turn = anyio.Lock()
        self._sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await while_connected(receive, partial(self._serve, send))

    async def _serve(self, send: Send) -> None:
        async with self._source() as events:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await self._write(send, b": open\n\n")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep_alive, send)
                await self._forward(events, send)
                tasks.cancel_scope.cancel()
            # Not before the keep-alives have ended: nothing may follow the last message.
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _forward(self, events: AsyncIterator[StreamEvent], send: Send) -> None:
        try:
            async for name, data in events:
                await self._write(send, _frame(name, data))
        except PandastackError as error:
            await self._write(send, _frame("error", Error.of(error).model_dump()))
        except Exception as error:
            log.error("event_stream.failed", exc_info=error)
            await self._write(send, _frame("error", Error.of(ServerError("internal server error")).model_dump()))

    async def _keep_alive(self, send: Send) -> None:
        while True:
            await anyio.sleep_until(self._sent_at + self._keep_alive_seconds)
            if anyio.current_time() >= self._sent_at + self._keep_alive_seconds:
                await self._write(send, _PING)

    async def _write(self, send: Send, data: bytes) -> None:
        async with self._turn:
            await send({"type": "http.response.body", "body": data, "more_body": True})
            self._sent_at = anyio.current_time()


class ByteStream(Response):
    """A stream of bytes: ``source`` yields the headers, known once it is open, and the content."""

    media_type = "application/octet-stream"

    def __init__(
        self,
        source: Callable[[], AbstractAsyncContextManager[tuple[Mapping[str, str], AsyncIterator[bytes]]]],
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
    ) -> None:
        super().__init__(status_code=status_code, headers=headers, media_type=media_type)
        if "content-length" not in (headers or {}):
            del self.headers["content-length"]
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await while_connected(receive, partial(self._serve, send))

    async def _serve(self, send: Send) -> None:
        async with self._source() as (headers, chunks):
            self.headers.update(headers)
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class FileStream(ByteStream):
    """The bytes of a file: ``source`` yields its length, if known, and its content."""

    def __init__(
        self,
        source: Callable[[], AbstractAsyncContextManager[tuple[int | None, AsyncIterator[bytes]]]],
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
    ) -> None:
        @asynccontextmanager
        async def with_length() -> AsyncIterator[tuple[Mapping[str, str], AsyncIterator[bytes]]]:
            async with source() as (length, chunks):
                yield {} if length is None else {"content-length": str(length)}, chunks

        super().__init__(with_length, status_code, headers, media_type)


async def while_connected(receive: Receive, work: Callable[[], Awaitable[None]]) -> None:
    """Do ``work`` until it is done or the client disconnects, even while the source is still opening."""
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_cancel_on_disconnect, receive, tasks)
        try:
            await work()
        except Exception as error:  # raised as it is, not inside an exception group
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _cancel_on_disconnect(receive: Receive, tasks: TaskGroup) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    tasks.cancel_scope.cancel()


def _frame(name: str, data: Mapping[str, Any] | str) -> bytes:
    event = f"event: {name}\n" if name else ""
    # A line end within the text would end the field, and the rest could become a field of its own.
    text = " ".join(data.splitlines()) if isinstance(data, str) else json.dumps(data, ensure_ascii=True)
    return f"{event}data: {text}\n\n".encode()
