"""Streams that sleep: a sandbox is hibernated below open connections, and nobody at their ends notices."""

from __future__ import annotations

import asyncio
import json

import anyio
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from pandastack.errors import AsleepError, RateLimitError
from pandastack.gateway.http.tokens import HEADER
from tests.gateway.native import Native, exchange
from tests.gateway.world import SANDBOX, TOKEN, Report, World

pytestmark = pytest.mark.anyio


def dial(world: World, native: Native) -> connect:
    return connect(f"ws://{world.host(native.port)}/ws", host="127.0.0.1", port=world.port, ping_interval=None)


async def get(world: World, port: int, headers: str = "") -> tuple[int, dict[str, str], bytes]:
    return await exchange(world.port, f"GET / HTTP/1.1\r\nHost: {world.host(port)}\r\n{headers}\r\n".encode())


def parked(report: Report) -> bool:
    """Whether a stream is known to wait for the sandbox."""
    return report.asked == (SANDBOX,)


async def said(socket: ClientConnection, text: str) -> None:
    await socket.send(text)
    assert await socket.recv() == text


async def test_a_websocket_wakes_its_sandbox_and_loses_nothing(world: World, native: Native) -> None:
    async with dial(world, native) as socket:
        await said(socket, "before")
        for round in range(3):
            world.hibernate()
            await world.reported(parked, times=2)
            assert world.wakes == round  # it alone wakes nobody
            for number in range(50):
                await socket.send(f"{round}.{number}")
            for number in range(50):
                assert await socket.recv() == f"{round}.{number}"
            assert world.wakes == round + 1
    assert native.connections == 1


async def test_events_go_on_when_something_else_wakes_the_sandbox(world: World, native: Native) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(f"GET /events HTTP/1.1\r\nHost: {world.host(native.port)}\r\n\r\n".encode())
    await reader.readuntil(b"data: 0")
    world.hibernate()
    native.ticks.set()  # said while nobody is attached
    await world.reported(parked)
    world.asleep.clear()
    assert await reader.readuntil(b"data: 1\n\n")
    writer.close()
    assert world.wakes == 0


async def test_a_hundred_requests_wake_a_sandbox_once(world: World, native: Native) -> None:
    world.hibernate()
    world.may_wake.clear()
    statuses = []

    async def one() -> None:
        statuses.append((await get(world, native.port))[0])

    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(one)
        await world.until_denied(100)
        world.may_wake.set()  # before most of them have heard that it sleeps
    assert statuses == [200] * 100
    assert world.wakes == 1


async def test_a_person_sees_a_page_meanwhile_a_program_waits(world: World, native: Native) -> None:
    world.hibernate()
    world.may_wake.clear()
    status, headers, body = await get(world, native.port, "Accept: text/html\r\nSec-Fetch-Mode: navigate\r\n")
    assert (status, headers["retry-after"]) == (503, "1")
    assert b"waking up" in body and SANDBOX.encode() in body
    statuses = []

    async def program() -> None:
        statuses.append((await get(world, native.port))[0])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(program)
        await world.until_denied(2)
        world.may_wake.set()
    assert statuses == [200]
    assert world.wakes == 1


async def test_a_rewind_resets_streams(world: World, native: Native) -> None:
    async with dial(world, native) as socket:
        await said(socket, "before")
        world.rewind()
        with pytest.raises(ConnectionClosed):
            await socket.recv()


async def test_what_has_ended_with_the_memory_of_a_sandbox_does_not_wait_for_a_wake(
    world: World, native: Native
) -> None:
    async with dial(world, native) as socket:
        await said(socket, "before")
        world.lose_memory(ending=2)
        with pytest.raises(ConnectionClosed):
            await socket.recv()
    assert world.wakes == 0


async def test_a_client_that_left_meanwhile_is_gone_after_the_wake(world: World, native: Native) -> None:
    async with dial(world, native) as socket:
        await said(socket, "before")
        world.hibernate()
        await world.reported(parked)
        socket.transport.abort()
        await world.reported(lambda report: parked(report) and not report.connected)
    (connection,) = world.connections.values()
    assert not connection.writer.is_closing()
    world.asleep.clear()
    while not connection.writer.is_closing():  # noqa: ASYNC110
        await anyio.sleep(0.05)


async def test_an_answer_that_is_owed_counts_as_use(world: World, native: Native) -> None:
    async def ask() -> None:
        request = f"GET /slow HTTP/1.1\r\nHost: {world.host(native.port)}\r\n\r\n"
        assert (await exchange(world.port, request.encode()))[0] == 200

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await world.reported(lambda report: report.used == (SANDBOX,), times=3)
        native.may_answer.set()


NAVIGATION = "Accept: text/html\r\nSec-Fetch-Mode: navigate\r\n"
WITH_TOKEN = f"{HEADER.decode()}: {TOKEN}\r\n"


async def test_who_does_not_wake_a_sandbox_is_told_that_it_sleeps(world: World, native: Native) -> None:
    world.wake_refusals["visitor"] = AsleepError("the sandbox sleeps", hint="a token wakes it")
    world.hibernate()
    status, headers, body = await get(world, native.port, NAVIGATION)
    assert (status, headers["retry-after"]) == (503, "60")
    assert b"<h1>The sandbox sleeps</h1>" in body and b"a token wakes it" in body
    status, headers, body = await get(world, native.port)
    assert (status, headers["retry-after"], json.loads(body)["code"]) == (503, "60", "asleep")
    assert (await get(world, native.port, WITH_TOKEN))[0] == 200  # at once: its refusal is not the visitor's
    assert world.wakes == 1
    world.hibernate()  # nor may a visitor use the bearer's connection to wake it
    assert (await get(world, native.port))[0] == 503
    assert world.wakes == 1


async def test_too_many_wakes(world: World, native: Native) -> None:
    world.wake_refusals["visitor"] = RateLimitError("woken too often", retry_after=42)
    world.hibernate()
    status, headers, body = await get(world, native.port, NAVIGATION)
    assert (status, headers["retry-after"]) == (429, "42") and b"Too many wakes" in body
    assert (await get(world, native.port, WITH_TOKEN))[0] == 200


async def test_a_stream_whose_bytes_wake_nobody_waits_for_another_wake(world: World, native: Native) -> None:
    async with dial(world, native) as socket:
        await said(socket, "before")
        world.wake_refusals["visitor"] = AsleepError("the sandbox sleeps")
        world.hibernate()
        await socket.send("later")
        while not world.wakers:  # noqa: ASYNC110
            await anyio.sleep(0.01)
        assert (await get(world, native.port, WITH_TOKEN))[0] == 200
        assert await socket.recv() == "later"
    assert (world.wakers.count("visitor"), world.wakes) == (1, 1)
