"""The door for clients of PostgreSQL: one TCP port for all databases (docs/design/0054-postgres-gateway.md)."""

from __future__ import annotations

import socket as sockets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import structlog

from pandastack.errors import PandastackError
from pandastack.gateway.certificates import Certificates
from pandastack.gateway.client_socket import ClientGone, ClientSocket
from pandastack.gateway.control import Control
from pandastack.gateway.listeners import Listeners
from pandastack.gateway.opening import Count, accept_each
from pandastack.gateway.options import Options
from pandastack.gateway.postgres.greeting import PROTOCOL, Greeted, encrypted, greeted, refuse_plain
from pandastack.gateway.postgres.messages import (
    Cancel,
    Malformed,
    Refusal,
    error,
)
from pandastack.gateway.postgres.service import Service
from pandastack.gateway.postgres.sessions import Sessions
from pandastack.gateway.reach import Reach

STARTUP_SECONDS = 15.0
"""How long a client may take until it has said which database it wants."""
_ANNOUNCE_SECONDS = 10.0
"""A server that was started again has forgotten where the door is."""
_KEEPALIVE_SECONDS, _KEEPALIVES = 60, 3
"""A client that does not answer as often is gone."""

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_postgres_doors(
    options: Options, listeners: Listeners, secret: bytes | None, reach: Reach, control: Control
) -> AsyncIterator[None]:
    """Answer clients of PostgreSQL at the listeners for them, if there are any, inside the block.

    ``secret`` is the installation's: see :class:`~pandastack.gateway.postgres.decoy.Decoy`.
    """
    if secret is None:
        yield
        return
    sessions = Sessions(reach)
    door = _Door(options, secret, sessions, reach, control)
    count = Count(options.max_connections)
    async with anyio.create_task_group() as tasks:
        for listener in listeners.postgres:
            tasks.start_soon(accept_each, listener, count, tasks, door.connection)
        tasks.start_soon(sessions.report_use)
        tasks.start_soon(_announce, control, listeners.ports()["postgres"])
        yield
        tasks.cancel_scope.cancel()


async def _announce(control: Control, port: int) -> None:
    while True:
        pause = _ANNOUNCE_SECONDS
        try:
            # A request over a Unix socket that is cancelled when its answer comes would be an error of anyio's.
            with anyio.CancelScope(shield=True):
                await control.announce_databases(port)
        except PandastackError:
            pause = 1.0
        await anyio.sleep(pause)


class _Door:
    def __init__(self, options: Options, secret: bytes, sessions: Sessions, reach: Reach, control: Control) -> None:
        suffixes = [suffix.partition(":")[0] for suffix in options.suffixes]
        self._certificates = Certificates(options, control, PROTOCOL)
        self._sessions = sessions
        self._service = Service(suffixes, secret, sessions, reach, control)

    async def connection(self, client: sockets.socket) -> None:
        """Serve one connection to its end. Its trouble is not another's."""
        socket: ClientSocket | None = None
        try:
            _set_options(client)
            wish: Cancel | Greeted | None = None
            with anyio.move_on_after(STARTUP_SECONDS), suppress(ClientGone, Malformed, OSError):
                found = await self._encrypted(client)
                if isinstance(found, tuple):
                    socket = found[0]
                    wish = await self._greeted(*found)
                else:
                    wish = found
            if isinstance(wish, Cancel):
                await self._sessions.cancel(wish)
            elif wish is not None:
                await self._service.serve(wish)
        except Exception as error:
            log.error("postgres.connection_failed", exc_info=error)
        finally:
            client.close() if socket is None else socket.close()

    async def _encrypted(self, client: sockets.socket) -> tuple[ClientSocket, str | None] | Cancel | None:
        """The connection inside TLS, or a cancel; None: the client was told why it is refused."""
        try:
            return await encrypted(client, self._certificates)
        except Refusal as refusal:
            await refuse_plain(client, refusal)
            return None

    async def _greeted(self, socket: ClientSocket, server_name: str | None) -> Greeted | Cancel | None:
        """What the client wants; None: it was told why it is refused."""
        try:
            return await greeted(socket, server_name)
        except Refusal as refusal:
            await socket.send(error(refusal))
            return None


def _set_options(client: sockets.socket) -> None:
    """Small messages go out at once, and clients are noticed that are gone without a word."""
    client.setblocking(False)
    for level, name, value in (
        (sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1),
        (sockets.SOL_SOCKET, sockets.SO_KEEPALIVE, 1),
        (sockets.IPPROTO_TCP, sockets.TCP_KEEPIDLE, _KEEPALIVE_SECONDS),
        (sockets.IPPROTO_TCP, sockets.TCP_KEEPINTVL, _KEEPALIVE_SECONDS),
        (sockets.IPPROTO_TCP, sockets.TCP_KEEPCNT, _KEEPALIVES),
    ):
        client.setsockopt(level, name, value)
