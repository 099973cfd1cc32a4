"""What a peer may send and hold before it has a token: the real protocol over real sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import pytest
import uvicorn
from anyio.abc import SocketStream
from starlette.types import Receive, Scope, Send

from pandastack.api import connections
from pandastack.api.connections import BoundedProtocol, most_connections

pytestmark = pytest.mark.anyio

Serve = Callable[..., AbstractAsyncContextManager[Callable[[], Any]]]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers at once, without reading the body, as a refusal for want of a token does."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def serve() -> Serve:
    @asynccontextmanager
    async def serve(most: int = 100) -> AsyncIterator[Callable[[], Any]]:
        class Protocol(BoundedProtocol):
            most_connections = most

        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(application, http=Protocol, lifespan="off", log_config=None, timeout_keep_alive=75)
        server = uvicorn.Server(config)
        server.capture_signals = lambda: _nothing()  # type: ignore[assignment, return-value]

        def connect() -> Any:
            return anyio.connect_tcp("127.0.0.1", listener.getsockname()[1])

        with listener:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server.serve, [listener])
                yield connect
                server.should_exit = True

    return serve


class _nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


async def ok(stream: SocketStream) -> bool:
    """Whether the next answer on a connection that is kept is the application's."""
    data = b""
    with anyio.fail_after(20):
        while not data.endswith(b"\r\n\r\nok"):
            data += await stream.receive()
    return data.startswith(b"HTTP/1.1 200")


async def answer(stream: SocketStream) -> tuple[int, dict[str, Any] | bytes]:
    """Status and body of an answer after which the connection closes."""
    data = b""
    with anyio.fail_after(20):
        try:
            while True:
                data += await stream.receive()
        except anyio.EndOfStream:
            pass
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body) if b"application/json" in head else body


def head(*lines: str, size: int = 0) -> bytes:
    text = "\r\n".join(["GET / HTTP/1.1", "host: x", *lines])
    return text.encode() + (b"\r\nx-much: " + b"x" * size if size else b"")


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(head(size=65 * 1024), id="a header without an end"),
        pytest.param(head(size=65 * 1024) + b"\r\n\r\n", id="one large header"),
        pytest.param(b"GET /" + b"x" * 65 * 1024, id="a path without an end"),
        pytest.param(b"GET /" + b"x" * 65 * 1024 + b" HTTP/1.1\r\n\r\n", id="a long path"),
        pytest.param(head(*[f"x-{n}: 1" for n in range(101)]) + b"\r\n\r\n", id="many headers"),
        pytest.param(
            head("upgrade: websocket", "connection: upgrade", size=65 * 1024) + b"\r\n\r\n", id="a large upgrade"
        ),
    ],
)
async def test_a_large_head_is_refused(serve: Serve, sent: bytes) -> None:
    async with serve() as connect, await connect() as stream:
        for start in range(0, len(sent), 8 * 1024):
            await stream.send(sent[start : start + 8 * 1024])
        status, body = await answer(stream)
        assert status == 431
        assert isinstance(body, dict) and "over the limit" in body["error"]


async def test_a_head_at_the_limit_is_served(serve: Serve) -> None:
    async with serve() as connect:
        for request in (head(size=63 * 1024), head(*[f"x-{n}: 1" for n in range(98)])):
            async with await connect() as stream:
                await stream.send(request + b"\r\nconnection: close\r\n\r\n")
                assert await answer(stream) == (200, b"ok")


async def test_requests_one_after_another_do_not_add_up(serve: Serve) -> None:
    async with serve() as connect, await connect() as stream:
        for _ in range(5):
            await stream.send(head(size=40 * 1024) + b"\r\n\r\n")
            assert await ok(stream)
        bodies = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 300000\r\n\r\n" + b"x" * 300_000
        await stream.send(bodies)
        assert await ok(stream)
        await stream.send(head("connection: close") + b"\r\n\r\n")
        assert (await answer(stream))[0] == 200


@pytest.mark.parametrize("sent", [b"G", head(), b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n"])
async def test_half_a_head_is_ended(serve: Serve, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
    async with serve() as connect, await connect() as stream:
        await stream.send(sent)
        status, body = await answer(stream)
        assert status == 408 and isinstance(body, dict) and body["code"] == "bad_request"


async def test_a_connection_that_says_nothing_is_ended(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
    async with serve() as connect, await connect() as stream:
        with anyio.fail_after(20), pytest.raises(anyio.EndOfStream):
            await stream.receive()


async def test_a_body_that_does_not_end_after_the_answer_is_ended(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody reads it: the request was refused for want of a token."""
    async with serve() as connect, await connect() as stream:
        await stream.send(head() + b"\r\n\r\n")
        assert await ok(stream)
        monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)  # the next head comes in one piece
        await stream.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n")
        assert await ok(stream)
        with anyio.fail_after(20), pytest.raises((anyio.BrokenResourceError, anyio.ClosedResourceError)):
            while True:
                await stream.send(b"x")
                await anyio.sleep(0.01)


async def test_an_idle_connection_between_requests_is_kept(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve() as connect, await connect() as stream:
        for _ in range(3):
            await stream.send(head() + b"\r\n\r\n")
            assert await ok(stream)
            monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)  # the next heads come in one piece
            await anyio.sleep(0.2)  # longer than a head may take


async def test_one_connection_too_many_is_told_so(serve: Serve) -> None:
    upgrade = head("upgrade: websocket", "connection: upgrade", "sec-websocket-version: 13", "sec-websocket-key: eA==")
    async with serve(2) as connect, await connect() as one, await connect() as two:
        for stream in (one, two):
            await stream.send(head() + b"\r\n\r\n")
            assert await ok(stream)
        for request in (head(), upgrade):
            async with await connect() as third:
                await third.send(request + b"\r\n\r\n")
                status, body = await answer(third)
                assert status == 503 and isinstance(body, dict) and body["code"] == "no_capacity"
        await one.aclose()
        async with await connect() as third:
            await third.send(head("connection: close") + b"\r\n\r\n")
            assert await answer(third) == (200, b"ok")


async def test_what_is_not_http_is_refused_as_all_else(serve: Serve) -> None:
    async with serve() as connect, await connect() as stream:
        await stream.send(b"\x16\x03\x01\x02\x00")
        status, body = await answer(stream)
        assert status == 400 and isinstance(body, dict) and body["code"] == "bad_request"


@pytest.mark.parametrize(
    ("wanted", "descriptors", "most"), [(4096, 1 << 20, 4096), (4096, 1024, 384), (10, 1024, 10), (4096, 64, 1)]
)
def test_descriptors_are_left_for_the_engine(wanted: int, descriptors: int, most: int) -> None:
    assert most_connections(wanted, descriptors) == most
