"""The doors for HTTP: one TCP port that answers HTTP and TLS, and two Unix sockets: the control plane's own door, and
the door inward, for requests that sandboxes make."""

from __future__ import annotations

import os
import socket as sockets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import anyio
import structlog
from anyio.abc import TaskGroup

from pandastack.gateway.certificates import Certificates
from pandastack.gateway.client_socket import ClientSocket
from pandastack.gateway.control import Control
from pandastack.gateway.http.exchange import Exchange
from pandastack.gateway.http.grants import peer_uid, read_grant
from pandastack.gateway.http.routing import Place, Routes
from pandastack.gateway.http.upstream import Upstreams, open_upstreams
from pandastack.gateway.listeners import Listeners
from pandastack.gateway.opening import TLS, Count, accept_each, connected, peek, peek_hello
from pandastack.gateway.options import Options
from pandastack.gateway.reach import Reach
from pandastack.model.forwarded import parse_networks

_FIRST_BYTE_SECONDS = 30.0

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_http_doors(
    options: Options, listeners: Listeners, reach: Reach, control: Control
) -> AsyncIterator[None]:
    """Serve HTTP inside the block."""
    trusted = parse_networks(",".join(options.trusted_proxies))
    place = Place(options.suffixes, trusted=trusted, own_port=listeners.ports().get("http"))
    async with open_upstreams(reach, control) as upstreams, anyio.create_task_group() as tasks:
        doors = _Doors(options, Routes(control), upstreams, reach, tasks, Certificates(options, control))
        count = Count(options.max_connections)
        tasks.start_soon(doors.serve, listeners.inner, replace(place, inner=True), doors.opened_inner, count)
        for listener in listeners.inward:
            # A count of its own: sandboxes cannot close the doors of people.
            own = Count(max(1, options.max_connections // 4))
            tasks.start_soon(doors.serve, listener, Place(()), doors.opened_inward, own)
        for listener in listeners.http:
            tasks.start_soon(doors.serve, listener, place, doors.opened_outer, count)
        yield
        tasks.cancel_scope.cancel()


_Accepted = tuple[ClientSocket, Place]
_Opened = Callable[[sockets.socket, Place], Awaitable[_Accepted | None]]


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

    async def serve(self, listener: sockets.socket, place: Place, opened: _Opened, count: Count) -> None:
        """Accept connections until cancelled."""
        await accept_each(listener, count, self._tasks, lambda client: self._connection(client, place, opened))

    async def _connection(self, client: sockets.socket, place: Place, opened: _Opened) -> None:
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
            first = await peek(client)
        if not first:
            client.close()
            return None
        if first[0] != TLS:  # no HTTP request begins with it
            return await _connected(client, ClientSocket(tls=False), place)
        if (context := await self._context(client)) is None:
            client.close()
            return None
        return await _connected(client, ClientSocket(tls=True), replace(place, scheme="https"), context)

    async def _context(self, client: sockets.socket) -> ssl.SSLContext | None:
        """What the client is shown; None when there is no certificate for it."""
        hello = await peek_hello(client) if self._certificates.wants_name else None
        try:
            return await self._certificates.context(hello.name if hello else None)
        except OSError as error:
            log.warning("gateway.no_certificate", cause=str(error))
            return None


async def _connected(
    client: sockets.socket, socket: ClientSocket, place: Place, context: ssl.SSLContext | None = None
) -> _Accepted | None:
    """``socket``, which has the connection now; None when the client left, or wanted another kind of TLS."""
    return (socket, place) if await connected(client, socket, context) else None
