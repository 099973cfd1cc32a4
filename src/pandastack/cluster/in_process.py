"""HTTP to an ASGI application in the same process, with streaming both ways.

``httpx.ASGITransport`` collects the whole response before it returns; a command that runs for an hour needs its output
as it arrives. Here the application runs in a task of its own, and bodies pass through with backpressure: the
application is at most one chunk ahead of its caller. Closing a response early sends the application
``http.disconnect``, makes its sends fail, and cancels it if it has not ended a moment later, as a broken connection
would.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

import anyio
import httpx
import structlog
from anyio.abc import TaskGroup

from pandastack.cluster.in_process_socket import GRACE_SECONDS, ASGIApp, Message, open_socket
from pandastack.cluster.sockets import Socket

log = structlog.get_logger(__name__)


class StreamingASGITransport(httpx.AsyncBaseTransport):
    """A transport for ``httpx.AsyncClient`` that calls ``app``. It works only inside its ``async with`` block.

    The block owns the tasks of all requests: leaving it cancels them and waits for their end.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        tasks, self._tasks = self._tasks, None
        if tasks is not None:
            tasks.cancel_scope.cancel()
            await tasks.__aexit__(kind, error, traceback)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Run the application on ``request`` and return once it has sent status and headers."""
        if self._tasks is None:
            raise httpx.ConnectError("the application is not running", request=request)
        exchange = _Exchange(request)
        self._tasks.start_soon(exchange.run, self._app)
        try:
            await exchange.started.wait()
            status, headers = exchange.head()
        except BaseException:
            exchange.abandon()
            raise
        return httpx.Response(status, headers=headers, stream=_ResponseStream(exchange))

    @asynccontextmanager
    async def dial(self, target: str, headers: Mapping[str, str]) -> AsyncIterator[Socket]:
        """A WebSocket to the application: a :class:`~pandastack.cluster.sockets.Dialer`."""
        if self._tasks is None:
            raise OSError("the application is not running")
        async with open_socket(self._tasks, self._app, target, headers) as socket:
            yield socket


class _Exchange:
    """One request and its response, between the caller's task and the application's."""

    def __init__(self, request: httpx.Request) -> None:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        self._request = request
        self._body = aiter(request.stream)
        self._body_ended = False
        self._gone = anyio.Event()
        self._scope = anyio.CancelScope()
        self._head: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._complete = False
        self._request_error: Exception | None = None
        self._send_chunk, self._chunks = anyio.create_memory_object_stream[bytes](1)
        self.started = anyio.Event()

    async def run(self, app: ASGIApp) -> None:
        """The application's task. It catches every exception of the application."""
        try:
            with self._scope:
                await app(_scope(self._request), self._receive, self._send)
        except Exception as error:
            if not self._gone.is_set():
                log.error("in_process.failed", path=self._request.url.path, exc_info=error)
                self._fail_with_500()
        finally:
            self._send_chunk.close()
            self.started.set()

    def head(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """The response with status and headers, once ``started``."""
        if self._request_error is not None:
            raise self._request_error
        if self._head is None:
            raise httpx.RemoteProtocolError("the application sent no response", request=self._request)
        return self._head

    async def body(self) -> AsyncIterator[bytes]:
        """The response's chunks; raises if the application ends before the last one."""
        async for chunk in self._chunks:
            yield chunk
        if self._request_error is not None:
            raise self._request_error
        if not self._complete:
            raise httpx.RemoteProtocolError("the application aborted its response", request=self._request)

    def abandon(self) -> None:
        """Close the response: the caller wants no more of it."""
        self._gone.set()
        self._chunks.close()
        if not self._complete:
            self._scope.deadline = anyio.current_time() + GRACE_SECONDS

    async def _receive(self) -> Message:
        if self._body_ended:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        if isinstance(self._request.stream, httpx.ByteStream):  # the body is complete: one message
            self._body_ended = True
            return {"type": "http.request", "body": b"".join(self._request.stream), "more_body": False}
        try:
            chunk = await anext(self._body)
        except StopAsyncIteration:
            self._body_ended = True
            return {"type": "http.request", "body": b"", "more_body": False}
        except Exception as error:  # the caller's own body failed: it gets its error back, the app a broken line
            self._body_ended = True
            self._request_error = error
            self.started.set()
            self._gone.set()
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk, "more_body": True}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._head = message["status"], list(message.get("headers", ()))
            self.started.set()
        elif message["type"] == "http.response.body":
            self._complete = not message.get("more_body", False)
            if chunk := message.get("body", b""):
                await self._pass_on(bytes(chunk))
            if self._complete:
                self._send_chunk.close()

    async def _pass_on(self, chunk: bytes) -> None:
        try:
            await self._send_chunk.send(chunk)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise OSError("the caller closed the response") from error

    def _fail_with_500(self) -> None:
        if self._head is None:
            self._head = 500, [(b"content-length", b"0")]
            self._complete = True


class _ResponseStream(httpx.AsyncByteStream):
    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._exchange.body()

    async def aclose(self) -> None:
        self._exchange.abandon()


def _scope(request: httpx.Request) -> dict[str, Any]:
    target, _, query = request.url.raw_path.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.url.scheme,
        "path": unquote(target.decode("ascii")),
        "raw_path": target,
        "query_string": query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": None,
        "server": (request.url.host, request.url.port),
    }
