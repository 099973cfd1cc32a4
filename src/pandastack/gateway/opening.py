"""How a door takes a connection: within its limit, its first bytes looked at without consuming them, then TLS."""

from __future__ import annotations

import asyncio
import socket as sockets
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import anyio
import structlog
from anyio.abc import TaskGroup

from pandastack.egress.client_hello import ClientHello, MalformedHello, parse_client_hello
from pandastack.gateway.client_socket import ClientSocket

TLS = 0x16
"""The first byte of a TLS handshake (RFC 8446 5.1)."""
HANDSHAKE_SECONDS = 10.0
_HELLO_BYTES = 16 * 1024
"""How far a client's first message is looked at."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.25
_PAUSE_SECONDS = 0.1

log = structlog.get_logger(__name__)


@dataclass
class Count:
    """Connections of one door, or of several together."""

    most: int
    now: int = 0


async def accept_each(
    listener: sockets.socket, count: Count, tasks: TaskGroup, work: Callable[[sockets.socket], Awaitable[None]]
) -> None:
    """Accept connections until cancelled, and close those beyond the limit. ``work`` takes each, in a task."""

    async def counted(client: sockets.socket) -> None:
        try:
            await work(client)
        finally:
            count.now -= 1

    while True:
        try:
            # asyncio's own sock_accept loses the connection that arrives while it is cancelled, and fails then.
            await anyio.wait_readable(listener)
            client, _ = listener.accept()
            client.setblocking(False)
        except BlockingIOError:  # the client has left already
            continue
        except OSError as error:  # no descriptor is free: some may be in a moment
            log.warning("gateway.accept_failed", cause=repr(error))
            await anyio.sleep(_PAUSE_SECONDS)
            continue
        if count.now >= count.most:
            client.close()
            continue
        count.now += 1
        tasks.start_soon(counted, client)


async def connected(client: sockets.socket, socket: ClientSocket, context: ssl.SSLContext | None = None) -> bool:
    """Give the connection to ``socket``. False when the client left, or wanted another kind of TLS."""
    try:
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: socket,
            client,
            ssl=context,
            ssl_handshake_timeout=None if context is None else HANDSHAKE_SECONDS,
        )
    except OSError:
        client.close()
        return False
    return True


async def peek(client: sockets.socket, size: int = 1) -> bytes:
    """The first bytes, which stay in the socket; empty when the client left."""
    await anyio.wait_readable(client)
    try:
        return client.recv(size, sockets.MSG_PEEK)
    except BlockingIOError:
        return b""


async def peek_hello(client: sockets.socket) -> ClientHello | None:
    """The client's first message of TLS, which stays in the socket, if it comes soon: it may come in several pieces."""
    pause, seen = _FIRST_PAUSE, 0
    with anyio.move_on_after(HANDSHAKE_SECONDS), suppress(OSError, MalformedHello):
        while seen < _HELLO_BYTES and (data := await peek(client, _HELLO_BYTES)):
            if len(data) > seen and (hello := parse_client_hello(data)) is not None:
                return hello
            seen = len(data)
            await anyio.sleep(pause)  # a socket with bytes is always readable
            pause = min(pause * 2, _LONGEST_PAUSE)
    return None
