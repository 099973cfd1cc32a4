"""A server as programs in guests are: it tells what it was asked, echoes, streams, and answers early."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import h11
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


@dataclass
class Native:
    """``ticks``: sends one server-sent event each time it is set. ``begun``: some of a body has come to ``/size``, or
    ``/events`` has begun to answer. ``left``: that answer has ended. ``may_answer``: ``/slow`` waits for it."""

    port: int = 0
    connections: int = 0
    ticks: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def show(self, request: Request) -> Response:
        """What was asked: method, target, headers."""
        target = request.scope["raw_path"].decode() + (f"?{request.url.query}" if request.url.query else "")
        headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers.raw]
        return JSONResponse({"method": request.method, "target": target, "headers": headers})

    async def size(self, request: Request) -> Response:
        total = 0
        async for chunk in request.stream():
            total += len(chunk)
            self.begun.set()
        return JSONResponse({"bytes": total})

    async def early(self, _request: Request) -> Response:
        return Response("too large", 413)

    async def large(self, request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            for _ in range(int(request.query_params["pieces"])):
                yield b"x" * 65536

        return StreamingResponse(body())

    async def events(self, _request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            try:
                self.begun.set()
                for number in range(100):
                    yield f"data: {number}\n\n".encode()
                    await self.ticks.wait()
                    self.ticks.clear()
            finally:
                self.left.set()

        return StreamingResponse(body(), media_type="text/event-stream")

    async def cookies(self, _request: Request) -> Response:
        response = Response("", 302)
        response.headers.append("set-cookie", "a=1; Domain=localhost; Path=/")
        response.headers.append("set-cookie", "b=2; HttpOnly")
        response.headers["location"] = f"http://localhost:{self.port}/next?x=1"
        response.headers["service-worker-allowed"] = "/"
        return response

    async def slow(self, _request: Request) -> Response:
        await self.may_answer.wait()
        return Response("done")

    async def echo(self, websocket: WebSocket) -> None:
        offered = websocket.scope["subprotocols"]
        await websocket.accept(offered[0] if offered else None)
        self.connections += 1
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except WebSocketDisconnect:
            pass


@asynccontextmanager
async def native_server() -> AsyncIterator[Native]:
    """A :class:`Native` that answers at its ``port``."""
    native = Native()
    names = ("size", "early", "large", "events", "cookies", "slow")
    every = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]
    routes = [Route(f"/{name}", getattr(native, name), methods=every) for name in names]
    app = Starlette(
        routes=[*routes, WebSocketRoute("/ws", native.echo), Route("/{p:path}", native.show, methods=every)]
    )
    config = uvicorn.Config(
        app, port=0, log_level="error", lifespan="off", ws_ping_interval=None, timeout_graceful_shutdown=0
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server._serve)
        while not server.started:  # noqa: ASYNC110
            await anyio.sleep(0.01)
        native.port = server.servers[0].sockets[0].getsockname()[1]
        yield native
        await server.shutdown()  # its loop would look only every 0.1 s whether it is to end
        tasks.cancel_scope.cancel()


async def exchange(port: int, data: bytes, **connection: Any) -> tuple[int, dict[str, str], bytes]:
    """Send raw bytes to a door and read one answer: status, headers, body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **connection)
    writer.write(data)
    http, body = h11.Connection(h11.CLIENT), b""
    http.send(h11.Request(method="HEAD" if data.startswith(b"HEAD") else "GET", target="/", headers=[("host", "x")]))
    http.send(h11.EndOfMessage())
    response: h11.Response | None = None
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            break
    writer.close()
    assert response is not None
    return response.status_code, {n.decode(): v.decode() for n, v in response.headers}, body


def shown(body: bytes) -> tuple[str, dict[str, str]]:
    """The target and the headers that the native server saw."""
    seen = json.loads(body)
    return seen["target"], dict(seen["headers"])
