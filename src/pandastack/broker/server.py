"""The broker: holds the secrets of slots in its memory, and relays the connections that are handed over to it."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress

import anyio
import h11
import structlog
from anyio.abc import ByteStream, SocketStream, UNIXSocketStream

from pandastack.broker import messages
from pandastack.broker.authority import Authority
from pandastack.broker.bindings import Binding, Use, normal_host
from pandastack.broker.messages import Handover
from pandastack.broker.pace import Pace
from pandastack.broker.peer import GONE, Peer
from pandastack.broker.relay import HostUnreachable, Relay
from pandastack.broker.streams import Begun, accept_tls, close, open_tls
from pandastack.broker.swap import Swapper

MOST_CONNECTIONS = 256
"""Connections of one slot at once."""

MOST_IN_ALL = 4096
"""Connections of all slots at once."""

_HANDOVER_SECONDS = 5.0
_CREDENTIALS = struct.Struct("=iII")

log = structlog.get_logger(__name__)

Send = Callable[[bytes], Awaitable[None]]


class Broker:
    """The state of the process. ``callers``: the users who may hand connections over."""

    def __init__(self, authority: Authority, hosts: ssl.SSLContext, callers: frozenset[int], send: Send) -> None:
        self._authority = authority
        self._hosts = hosts
        self._callers = callers
        self._send = send
        self._bindings: dict[str, tuple[Binding, ...]] = {}
        self._open: dict[str, set[anyio.CancelScope]] = {}
        self._pace = Pace()

    def bind(self, slot: str, bindings: tuple[Binding, ...]) -> None:
        """Give a slot its secrets, in the place of those it had. Connections that are open keep theirs no longer: they
        end."""
        self._bindings[slot] = bindings
        self._cut(slot)

    def unbind(self, slot: str) -> None:
        """Forget the secrets of a slot, and end its connections."""
        self._bindings.pop(slot, None)
        self._cut(slot)
        self._pace.forget(slot)

    def _cut(self, slot: str) -> None:
        for scope in self._open.pop(slot, set()):
            scope.cancel()

    async def take(self, connection: UNIXSocketStream) -> None:
        """Take one connection over and relay it. It ends with the Unix connection that handed it over, and that one
        with it."""
        fds: list[int] = []
        try:
            async with connection:
                with anyio.fail_after(_HANDOVER_SECONDS):
                    wanted, begun = await self._received(connection, fds)
                    reason = self._objection(wanted)
                    await connection.send(messages.refusal(reason) if reason else messages.ACCEPTED)
                if not reason:
                    taken, fds = fds, []
                    await self._relay_while(connection, wanted, begun, *taken)
        except (*GONE, TimeoutError, ValueError):
            pass
        except Exception as error:  # one connection must not end the others; its text might have a value in it
            log.error("broker.connection_failed", kind=type(error).__name__)
        finally:
            for fd in fds:
                os.close(fd)

    async def _relay_while(
        self, connection: UNIXSocketStream, wanted: Handover, begun: bytes, client_fd: int, host_fd: int
    ) -> None:
        async def watch() -> None:
            with suppress(*GONE):
                while await connection.receive():
                    pass
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            await self._relay(wanted, begun, client_fd, host_fd)
            tasks.cancel_scope.cancel()

    async def _received(self, connection: UNIXSocketStream, fds: list[int]) -> tuple[Handover, bytes]:
        raw = connection.extra_attributes[anyio.abc.SocketAttribute.raw_socket]()
        peer = raw.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        if _CREDENTIALS.unpack(peer)[1] not in self._callers:
            raise ValueError("handed over by another user")
        data, wanted = b"", None
        while wanted is None or len(data) < wanted.begun:
            piece, received = await connection.receive_fds(messages.HANDOVER_LIMIT, 2)
            fds += received
            data += piece
            if not piece or len(data) > 2 * messages.HANDOVER_LIMIT:
                raise ValueError("malformed handover")
            if wanted is None and b"\n" in data:
                head, _, data = data.partition(b"\n")
                wanted = messages.decode_handover(head)
        if len(fds) != 2 or len(data) > wanted.begun:
            raise ValueError("malformed handover")
        return wanted, data

    def _objection(self, wanted: Handover) -> str:
        """Why a connection is not taken; empty when it is."""
        if wanted.slot not in self._bindings:
            return "the secrets of this sandbox are not here"
        if len(self._open.get(wanted.slot, ())) >= MOST_CONNECTIONS:
            return f"the sandbox has {MOST_CONNECTIONS} connections to hosts with secrets already"
        if sum(map(len, self._open.values())) >= MOST_IN_ALL:
            return "too many connections to hosts with secrets"
        return ""

    async def _relay(self, wanted: Handover, begun: bytes, client_fd: int, host_fd: int) -> None:
        with anyio.CancelScope() as scope:
            self._open.setdefault(wanted.slot, set()).add(scope)
            try:
                async with AsyncExitStack() as streams:
                    host = await _stream(host_fd, streams)
                    client = await _stream(client_fd, streams)
                    await self._converse(wanted, Begun(begun, client), host)
            except (*GONE, TimeoutError):
                pass  # a side is gone, or does not understand the other: both are closed
            finally:
                if scope in (scopes := self._open.get(wanted.slot, set())):
                    scopes.remove(scope)

    async def _converse(self, wanted: Handover, client: ByteStream, host: ByteStream) -> None:
        name = normal_host(wanted.host)
        swapper = Swapper(self._bindings.get(wanted.slot, ()), name, plain=not wanted.tls)
        if wanted.tls:
            client = await accept_tls(client, self._authority.context(name))

        async def opened() -> ByteStream:
            return await self._verified(host, name) if wanted.tls else host

        async def report(secret: str, method: str, path: str, refused: str) -> None:
            use = Use(time.time(), wanted.slot, wanted.sandbox, secret, name, method, path, refused)
            await self._pace.wait(wanted.slot)
            await self._send(messages.encode_use(use))

        await Relay(Peer(client, h11.SERVER), opened, name, swapper, report).run()
        with suppress(*GONE, TimeoutError), anyio.move_on_after(1):
            await client.send_eof() if not wanted.tls else await client.aclose()

    async def _verified(self, host: ByteStream, name: str) -> ByteStream:
        try:
            return await open_tls(host, name, self._hosts)
        except ssl.SSLError as error:
            raise HostUnreachable(f"the certificate of {name} is not accepted: {error.reason or error}") from error
        except (*GONE, TimeoutError) as error:
            raise HostUnreachable(f"{name} does not answer TLS") from error


async def _stream(fd: int, streams: AsyncExitStack) -> ByteStream:
    stream = await SocketStream.from_socket(socket.socket(fileno=fd))
    streams.push_async_callback(close, stream)
    return stream
