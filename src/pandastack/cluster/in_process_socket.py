"""WebSockets to an ASGI application in the same process: messages are handed over, nothing is framed or copied."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

import anyio
import structlog
from anyio.abc import TaskGroup

from pandastack.cluster.sockets import Refused, Socket, SocketClosed

Message = MutableMapping[str, Any]
ASGIApp = Callable[[Any, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

GRACE_SECONDS = 1.0
"""How long an application may keep running after its caller disconnected, before it is cancelled."""

_AHEAD = 4
"""How many messages either side may send before the other receives them."""

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_socket(tasks: TaskGroup, app: ASGIApp, target: str, headers: Mapping[str, str]) -> AsyncIterator[Socket]:
    """A WebSocket to ``app``, which runs in ``tasks``. Raises :class:`Refused` when it does not accept."""
    socket = _InProcessSocket()
    tasks.start_soon(socket.run, app, _scope(target, headers))
    try:
        await socket.wait_answered()
        yield socket
    finally:
        socket.abandon()


class _InProcessSocket:
    """Both ends: the methods for the caller, and the callables for the application."""

    def __init__(self) -> None:
        self.headers: Mapping[str, str] = {}
        self._to_app, self._from_caller = anyio.create_memory_object_stream[bytes | str](_AHEAD)
        self._to_caller, self._from_app = anyio.create_memory_object_stream[bytes | str](_AHEAD)
        self._answered = anyio.Event()
        self._connected = False
        self._accepted = False
        self._status = 403
        self._body = bytearray()
        self._scope = anyio.CancelScope()

    async def run(self, app: ASGIApp, scope: Mapping[str, Any]) -> None:
        """The application's task. It catches every exception of the application."""
        try:
            with self._scope:
                await app(scope, self._receive, self._send)
        except Exception as error:
            if self._to_caller.statistics().open_receive_streams:
                self._status = 500
                log.error("in_process.failed", path=scope["path"], exc_info=error)
        finally:
            self._to_caller.close()
            self._from_caller.close()
            self._answered.set()

    async def wait_answered(self) -> None:
        """Wait until the application accepts; raises :class:`Refused`."""
        await self._answered.wait()
        if not self._accepted:
            raise Refused(self._status, self.headers, bytes(self._body))

    def abandon(self) -> None:
        """The caller disconnects."""
        self._to_app.close()
        self._from_app.close()
        self._scope.deadline = anyio.current_time() + GRACE_SECONDS

    async def send(self, message: bytes | str) -> None:
        try:
            await self._to_app.send(message)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise SocketClosed("the application closed the WebSocket") from error

    async def receive(self) -> bytes | str:
        try:
            return await self._from_app.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError) as error:
            raise SocketClosed("the application closed the WebSocket") from error

    async def _receive(self) -> Message:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        try:
            message = await self._from_caller.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            return {"type": "websocket.disconnect", "code": 1006}
        kind = "text" if isinstance(message, str) else "bytes"
        return {"type": "websocket.receive", kind: message}

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "websocket.accept":
                self.headers = _texts(message)
                self._accepted = True
                self._answered.set()
            case "websocket.send":
                await self._hand_over(message)
            case "websocket.http.response.start":
                self._status, self.headers = message["status"], _texts(message)
            case "websocket.http.response.body":
                self._body += message.get("body", b"")
            case "websocket.close":
                self._to_caller.close()

    async def _hand_over(self, message: Message) -> None:
        data = message.get("bytes")
        try:
            await self._to_caller.send(message["text"] if data is None else bytes(data))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise OSError("the caller disconnected") from error


def _texts(message: Message) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in message.get("headers", ())}


def _scope(target: str, headers: Mapping[str, str]) -> dict[str, Any]:
    path, _, query = target.partition("?")
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": unquote(path),
        "raw_path": path.encode("ascii"),
        "query_string": query.encode("ascii"),
        "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
        "client": None,
        "server": ("engine", None),
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
    }
