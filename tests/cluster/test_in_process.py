"""The transport: streaming both ways, backpressure, cancellation, broken peers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import httpx
import pytest

from pandastack.cluster import StreamingASGITransport
from pandastack.cluster.in_process_socket import Message

pytestmark = pytest.mark.anyio

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}


def piece(data: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=StreamingASGITransport(app), base_url="http://test")


async def test_a_chunk_arrives_before_the_next_one_exists() -> None:
    asked = anyio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        await send(piece(b"first"))
        await asked.wait()
        await send(piece(b"second", more=False))

    async with client(app) as http, http.stream("GET", "/") as response:
        chunks = response.aiter_raw()
        assert await anext(chunks) == b"first"
        asked.set()
        assert [chunk async for chunk in chunks] == [b"second"]


async def test_status_and_headers_arrive_before_any_body() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({**START, "status": 207, "headers": [(b"x-some", b"thing")]})
        await anyio.sleep_forever()

    with anyio.fail_after(30):
        async with client(app) as http, http.stream("GET", "/") as response:
            assert response.status_code == 207
            assert response.headers["x-some"] == "thing"


async def test_the_application_waits_for_a_slow_reader() -> None:
    sent: list[int] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        for number in range(100):
            await send(piece(b"x"))
            sent.append(number)
        await send(piece(b"", more=False))

    async with client(app) as http, http.stream("GET", "/") as response:
        await anyio.wait_all_tasks_blocked()
        assert len(sent) <= 2
        assert len(await response.aread()) == 100


async def test_the_caller_waits_for_a_slow_application() -> None:
    produced: list[int] = []
    go_on = anyio.Event()

    async def body() -> AsyncIterator[bytes]:
        for number in range(100):
            produced.append(number)
            yield b"x"

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await go_on.wait()
        total = 1
        while (message := await receive())["more_body"]:
            total += len(message["body"])
        await send(START)
        await send(piece(str(total).encode(), more=False))

    async with client(app) as http, anyio.create_task_group() as tasks:

        async def put() -> None:
            assert (await http.put("/", content=body())).text == "100"

        tasks.start_soon(put)
        await anyio.wait_all_tasks_blocked()
        assert len(produced) == 1
        go_on.set()


async def test_closing_the_response_tells_the_application() -> None:
    seen: list[str] = []
    ended = anyio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(START)
        await send(piece(b"x"))
        seen.append((await receive())["type"])
        ended.set()

    async with client(app) as http:
        async with http.stream("GET", "/") as response:
            assert await anext(response.aiter_raw()) == b"x"
        with anyio.fail_after(30):
            await ended.wait()
    assert seen == ["http.disconnect"]


async def test_an_application_that_ignores_the_disconnect_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pandastack.cluster.in_process.GRACE_SECONDS", 0.01)
    cancelled = anyio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        try:
            await send(START)
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    async with client(app) as http:
        async with http.stream("GET", "/"):
            pass
        with anyio.fail_after(30):
            await cancelled.wait()


async def test_sending_to_a_closed_response_fails_like_a_broken_pipe() -> None:
    failures: list[BaseException] = []
    ended = anyio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        try:
            for _ in range(10):
                await send(piece(b"x"))
        except OSError as error:
            failures.append(error)
        ended.set()

    async with client(app) as http:
        async with http.stream("GET", "/"):
            pass
        with anyio.fail_after(30):
            await ended.wait()
    assert len(failures) == 1


async def test_a_cancelled_request_ends_its_application() -> None:
    started, ended = anyio.Event(), anyio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        started.set()
        assert (await receive())["type"] == "http.disconnect"
        ended.set()

    async with client(app) as http:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(http.get, "/")
            await started.wait()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(30):
            await ended.wait()


async def test_leaving_the_client_ends_all_applications() -> None:
    started, ended = anyio.Event(), anyio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        started.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    async def get(http: httpx.AsyncClient) -> None:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get("/")

    async with anyio.create_task_group() as tasks:
        async with client(app) as http:
            tasks.start_soon(get, http)
            await started.wait()
        assert ended.is_set()


async def test_an_error_in_the_callers_body_comes_back_to_the_caller() -> None:
    seen: list[str] = []
    ended = anyio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        raise KeyError("mine")

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        seen.extend([(await receive())["type"], (await receive())["type"]])
        ended.set()

    async with client(app) as http:
        with pytest.raises(KeyError, match="mine"):
            await http.put("/", content=body())
        with anyio.fail_after(30):
            await ended.wait()
    assert seen == ["http.request", "http.disconnect"]


async def test_an_application_that_fails_before_its_response_is_a_500() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        raise KeyError("secret")

    async with client(app) as http:
        response = await http.get("/")
        assert (response.status_code, response.content) == (500, b"")
        assert (await http.get("/")).status_code == 500, "one failure must not end the transport"


async def test_an_application_that_breaks_off_is_an_error_not_an_end() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        await send(piece(b"half"))
        raise KeyError

    async with client(app) as http:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get("/")


async def test_the_scope_says_what_was_asked() -> None:
    scopes: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await send(START)
        await send(piece(b"", more=False))

    async with client(app) as http:
        await http.get("/a%20b/%C3%A4", params={"path": "/x y"}, headers={"X-Some": "Thing"})
    assert scopes[0]["path"] == "/a b/ä"
    assert scopes[0]["raw_path"] == b"/a%20b/%C3%A4"
    assert scopes[0]["query_string"] in (b"path=/x+y", b"path=%2Fx+y", b"path=%2Fx%20y", b"path=/x%20y")
    assert (b"x-some", b"Thing") in scopes[0]["headers"]


async def test_outside_its_block_the_transport_refuses() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        raise AssertionError

    with pytest.raises(httpx.ConnectError):
        await StreamingASGITransport(app).handle_async_request(httpx.Request("GET", "http://test/"))
