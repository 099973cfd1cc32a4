"""The doors for HTTP: one TCP port that answers HTTP and TLS, and two Unix sockets: the control plane's own door, and
the door inward, for requests that sandboxes make."""

from __future__ import annotations

import asyncio
import os
import socket as sockets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

import anyio
import structlog
from anyio.abc import TaskGroup

from pandastack.egress.client_hello import MalformedHello, parse_client_hello
from pandastack.gateway.certificates import Certificates
from pandastack.gateway.control import Control
from pandastack.gateway.http.exchange import Exchange
from pandastack.gateway.http.grants import peer_uid, read_grant
from pandastack.gateway.http.routing import Place, Routes
from pandastack.gateway.http.socket import ClientSocket
from pandastack.gateway.http.upstream import Upstreams, open_upstreams
from pandastack.gateway.listeners import Listeners
from pandastack.gateway.options import Options
from pandastack.gateway.reach import Reach
from pandastack.model.forwarded import parse_networks

_FIRST_BYTE_SECONDS = 30.0
_HANDSHAKE_SECONDS = 10.0
_TLS = 0x16
"""The first byte of a TLS handshake (RFC 8446 5.1); no HTTP request begins with it."""
_HELLO_BYTES = 16 * 1024
"""How far a client's first message is looked for the server's name."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.25
_PAUSE_SECONDS = 0.1

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_http_doors(
    options: Options, listeners: Listeners, reach: Reach, control: Control
) -> AsyncIterator[None]:
    """Serve HTTP inside the block."""
    trusted = parse_networks(",".join(options.trusted_proxies))
    place = Place(options.suffixes, trusted=trusted, own_port=listeners.ports().get("http"))
    async with open_upstreams(reach) as upstreams, anyio.create_task_group() as tasks:
        doors = _Doors(options, Routes(control), upstreams, reach, tasks, Certificates(options, control))
        count = _Count(options.max_connections)
        tasks.start_soon(doors.serve, listeners.inner, replace(place, inner=True), doors.opened_inner, count)
        for listener in listeners.inward:
            # A count of its own: sandboxes cannot close the doors of people.
            own = _Count(max(1, options.max_connections // 4))
            tasks.start_soon(doors.serve, listener, Place(()), doors.opened_inward, own)
        for listener in listeners.http:
            tasks.start_soon(doors.serve, listener, place, doors.opened_outer, count)
        yield
        tasks.cancel_scope.cancel()


_Accepted = tuple[ClientSocket, Place]
_Opened = Callable[[sockets.socket, Place], Awaitable[_Accepted | None]]


@dataclass
class _Count:
    """Connections of one door, or of several together."""

    most: int
    now: int = 0


class _Doors:
    def __init__(
        self,
        options: Options,
        routes: Routes,
        upstreams: Upstreams,
        reach: Reach,
        tasks: TaskGroup,
        certificates: Certificates,
    ) -> None:
        self._inward_users = {os.geteuid(), options.inward_uid}
        self._certificates = certificates
        self._routes = routes
        self._upstreams = upstreams
        self._reach = reach
        self._tasks = tasks

    async def serve(self, listener: sockets.socket, place: Place, opened: _Opened, count: _Count) -> None:
        """Accept connections until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(listener)
            except OSError as error:  # no descriptor is free: some may be in a moment
                log.warning("gateway.accept_failed", cause=repr(error))
                await anyio.sleep(_PAUSE_SECONDS)
                continue
            if count.now >= count.most:
                client.close()
                continue
            count.now += 1
            self._tasks.start_soon(self._connection, client, place, opened, count)

    async def _connection(self, client: sockets.socket, place: Place, opened: _Opened, count: _Count) -> None:
        found = None
        try:
            client.setblocking(False)
            if (found := await opened(client, place)) is not None:
                await Exchange(*found, self._routes, self._upstreams, self._reach).run()
        except BaseException as error:
            if found is not None:
                found[0].abort()
            else:
                client.close()
            if not isinstance(error, Exception):  # the door is closed
                raise
            log.error("gateway.connection_failed", exc_info=error)  # one client's trouble is not another's
        finally:
            count.now -= 1

    async def opened_inner(self, client: sockets.socket, place: Place) -> _Accepted | None:
        """The control plane's connection."""
        return await _connected(client, ClientSocket(tls=False), place)

    async def opened_inward(self, client: sockets.socket, place: Place) -> _Accepted | None:
        """A sandbox's connection, with what the egress process says about it; None when another user connected."""
        told = None
        with suppress(OSError):
            told = await read_grant(client) if peer_uid(client) in self._inward_users else None
        if told is None:
            client.close()
            return None
        grant, begun = told
        return await _connected(client, ClientSocket(tls=False, begun=begun), replace(place, grant=grant))

    async def opened_outer(self, client: sockets.socket, place: Place) -> _Accepted | None:
        """The connection, decrypted if its first byte says TLS; None when nothing usable came."""
        client.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        first = b""
        with anyio.move_on_after(_FIRST_BYTE_SECONDS), suppress(OSError):
            first = await _peek(client)
        if not first:
            client.close()
            return None
        if first[0] != _TLS:
            return await _connected(client, ClientSocket(tls=False), place)
        if (context := await self._context(client)) is None:
            client.close()
            return None
        return await _connected(client, ClientSocket(tls=True), replace(place, scheme="https"), context)

    async def _context(self, client: sockets.socket) -> ssl.SSLContext | None:
        """What the client is shown; None when there is no certificate for it."""
        name = await _server_name(client) if self._certificates.wants_name else None
        try:
            return await self._certificates.context(name)
        except OSError as error:
            log.warning("gateway.no_certificate", cause=str(error))
            return None


async def _connected(
    client: sockets.socket, socket: ClientSocket, place: Place, context: ssl.SSLContext | None = None
) -> _Accepted | None:
    """``socket``, which has the connection now; None when the client left, or wanted another kind of TLS."""
    try:
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: socket,
            client,
            ssl=context,
            ssl_handshake_timeout=None if context is None else _HANDSHAKE_SECONDS,
        )
    except OSError:
        client.close()
        return None
    return socket, place


async def _peek(client: sockets.socket, size: int = 1) -> bytes:
    """The first bytes, which stay in the socket; empty when the client left."""
    await anyio.wait_readable(client)
    try:
        return client.recv(size, sockets.MSG_PEEK)
    except BlockingIOError:
        return b""


async def _server_name(client: sockets.socket) -> str | None:
    """The name that the client asks for, if it says one soon: its first message may come in several pieces."""
    pause, seen = _FIRST_PAUSE, 0
    with anyio.move_on_after(_HANDSHAKE_SECONDS), suppress(OSError, MalformedHello):
        while seen < _HELLO_BYTES and (data := await _peek(client, _HELLO_BYTES)):
            if len(data) > seen and (hello := parse_client_hello(data)) is not None:
                return hello.name
            seen = len(data)
            await anyio.sleep(pause)  # a socket with bytes is always readable
            pause = min(pause * 2, _LONGEST_PAUSE)
    return None
