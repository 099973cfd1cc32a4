"""Connections to what listens in the guest, through the real agent."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest
from anyio.abc import ByteStream, Listener

from pandastack.errors import BadRequestError, GuestError, NotFoundError
from pandastack.guest import Channel

LARGE = os.urandom(3_000_000)


@asynccontextmanager
async def serving(listener: Listener[ByteStream], handle) -> AsyncIterator[None]:
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, handle)
        yield
        group.cancel_scope.cancel()


async def echo(stream: ByteStream) -> None:
    async with stream:
        with suppress(anyio.BrokenResourceError):  # whoever is stuck leaves in the middle
            async for chunk in stream:
                await stream.send(chunk)


async def all_of(pipe) -> bytes:
    return b"".join([chunk async for chunk in pipe.received()])


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[str]:
    where = str(tmp_path / "socket")
    async with serving(await anyio.create_unix_listener(where), echo):
        yield where


@pytest.mark.parametrize("data", [b"", b"x", b"line\n" * 100, LARGE], ids=len)
async def test_bytes_go_both_ways_and_each_way_ends_by_itself(channel: Channel, path: str, data: bytes) -> None:
    async with channel.connect(path=path) as pipe, anyio.create_task_group() as group:

        async def send() -> None:
            assert await pipe.send(data)
            await pipe.end_input()

        group.start_soon(send)
        assert await all_of(pipe) == data


async def test_a_port_of_the_loopback(channel: Channel) -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with serving(listener, echo), channel.connect(port=port) as pipe:
        await pipe.send(b"hello")
        await pipe.end_input()
        assert await all_of(pipe) == b"hello"


async def test_nobody_listens(channel: Channel, tmp_path: Path) -> None:
    dead = str(tmp_path / "dead")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(dead)
    for where in ({"path": str(tmp_path / "none")}, {"path": dead}, {"port": 1}):
        async with channel.connect(**where) as pipe:
            with pytest.raises(NotFoundError, match="nothing in the guest listens"):
                await all_of(pipe)


@pytest.mark.parametrize("where", [{"path": "relative"}, {"path": "/a\0b"}, {"port": 0}, {"port": 65536}, {}])
async def test_impossible_addresses_never_reach_the_guest(channel: Channel, where: dict) -> None:
    with pytest.raises(BadRequestError):
        async with channel.connect(**where):
            pass


async def test_a_path_that_is_too_long_for_a_socket(channel: Channel) -> None:
    async with channel.connect(path="/" + "x" * 200) as pipe:
        with pytest.raises(BadRequestError):
            await all_of(pipe)


async def test_leaving_early_closes_the_connection(channel: Channel, tmp_path: Path) -> None:
    closed = anyio.Event()

    async def flood(stream: ByteStream) -> None:
        async with stream:
            try:
                while True:
                    await stream.send(b"x" * 65536)
            except anyio.BrokenResourceError:
                closed.set()

    async with serving(await anyio.create_unix_listener(tmp_path / "socket"), flood):
        async with channel.connect(path=str(tmp_path / "socket")) as pipe:
            await anext(pipe.received())
        with anyio.fail_after(10):
            await closed.wait()
        await channel.ping()


async def test_a_reader_that_is_stuck_stalls_nothing_else(channel: Channel, path: str) -> None:
    async with channel.connect(path=path) as stuck, anyio.create_task_group() as group:
        group.start_soon(stuck.send, LARGE)
        async with channel.connect(path=path) as pipe:
            await pipe.send(b"past it")
            await pipe.end_input()
            assert await all_of(pipe) == b"past it"
        group.cancel_scope.cancel()


async def test_the_other_side_closes_while_we_send(channel: Channel, tmp_path: Path) -> None:
    async def refuse(stream: ByteStream) -> None:
        await stream.aclose()

    async with (
        serving(await anyio.create_unix_listener(tmp_path / "socket"), refuse),
        channel.connect(path=str(tmp_path / "socket")) as pipe,
    ):
        with anyio.fail_after(10):
            while await pipe.send(b"x" * 100_000):
                pass
        try:
            await all_of(pipe)
        except GuestError as error:
            assert "reset" in str(error)
    await channel.ping()
