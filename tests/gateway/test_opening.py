"""How a door takes connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import anyio
import pytest

from pandastack.gateway.opening import Count, accept_each

pytestmark = pytest.mark.anyio


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


async def ignore(client: socket.socket) -> None:
    client.close()


async def test_a_connection_that_comes_while_a_door_closes_is_the_next_ones(listener: socket.socket) -> None:
    """It is neither lost nor an error, at whatever moment it comes."""
    errors = list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    for pause in (0.0, 0.0005, 0.001):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(accept_each, listener, Count(10), tasks, ignore))
            await anyio.sleep(0.01)
            with socket.create_connection(listener.getsockname()):
                await anyio.sleep(pause)
                tasks.cancel_scope.cancel()
        await anyio.sleep(0.01)
    assert errors == []


async def test_connections_beyond_the_limit_are_closed(listener: socket.socket) -> None:
    taken = list[socket.socket]()

    async def take(client: socket.socket) -> None:
        taken.append(client)
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(accept_each, listener, Count(1), tasks, take))
        first = await anyio.connect_tcp(*listener.getsockname())
        async with first, await anyio.connect_tcp(*listener.getsockname()) as second:
            with anyio.fail_after(20), pytest.raises(anyio.EndOfStream):
                await second.receive()
        assert len(taken) == 1 and not taken[0].getblocking()
        tasks.cancel_scope.cancel()
    taken[0].close()
