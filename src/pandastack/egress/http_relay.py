"""The client's side of an HTTP/1 connection: each of its requests is judged, not only the first."""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import anyio.lowlevel

from pandastack.egress.http_head import Body, Head, MalformedHead, parse_head
from pandastack.egress.sockets import finish, pump, receive, receive_into, send


class AnotherHost(Exception):
    """A request on this connection is for another host than the first, or cannot be judged. ``head`` may be None."""

    def __init__(self, head: Head | None, reason: str) -> None:
        super().__init__(reason)
        self.head = head


class Switch:
    """Whether the server switches protocols (101) in its answer to a request that asks for it."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._known: anyio.Event | None = None

    def expect(self) -> None:
        """The next bytes of the server are the answer."""
        self._head.clear()
        self._known = anyio.Event()

    def see(self, data: bytes | memoryview) -> None:
        """Look at bytes of the server; empty: it has ended."""
        if self._known and not self._known.is_set():
            self._head += data[: 12 - len(self._head)]
            if len(self._head) == 12 or not data:
                self._known.set()

    async def happened(self) -> bool:
        assert self._known is not None
        await self._known.wait()
        return bytes(self._head) in (b"HTTP/1.1 101", b"HTTP/1.0 101")


async def in_parallel(*works: Coroutine[Any, Any, None]) -> AnotherHost | OSError | None:
    """Do all of ``works``; the first that fails ends the others, and its error is returned."""
    failed: list[AnotherHost | OSError] = []

    async def guarded(work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (AnotherHost, OSError) as error:
            failed.append(error)
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for each in works:
            tasks.start_soon(guarded, each)
    return failed[0] if failed else None


async def pump_answers(upstream: socket.socket, client: socket.socket, switch: Switch) -> None:
    """Copy the server's bytes until it ends."""
    try:
        while data := await receive_into(upstream):
            switch.see(data)
            await send(client, data)
            await anyio.lowlevel.checkpoint()
    finally:
        switch.see(b"")
    finish(client)


async def pump_requests(
    client: socket.socket,
    upstream: socket.socket,
    begun: bytes,
    same: Callable[[Head], bool],
    switch: Switch,
    *,
    any_protocol: bool = False,
) -> None:
    """Copy requests until the client ends. Raises :class:`AnotherHost` before it passes on a request that is not the
    ``same`` connection's. After an upgrade only a WebSocket is passed on, unless ``any_protocol``."""
    data = begun
    try:
        while True:
            head = parse_head(data := data.lstrip(b"\r\n"))
            if head is None:
                if not (more := await receive(client)):
                    return finish(upstream)
                data += more
                continue
            if not same(head):
                raise AnotherHost(head, "a later request on the connection is for another host")
            if head.upgrade:
                switch.expect()
            await send(upstream, data[: head.size])
            data = await _pass_body(client, upstream, data[head.size :], Body(head.length))
            if head.upgrade and await switch.happened():
                if "websocket" not in head.upgrade and not any_protocol:
                    raise AnotherHost(None, f"protocol {head.upgrade[:40]} in place of HTTP: its names cannot be read")
                await send(upstream, data)
                return await pump(client, upstream)
    except MalformedHead as error:
        raise AnotherHost(None, f"malformed HTTP request: {error}") from error


async def _pass_body(client: socket.socket, upstream: socket.socket, data: bytes, body: Body) -> bytes:
    """The bytes after the body."""
    while True:
        view = memoryview(data)
        taken, done = body.take(view)
        if taken:
            await send(upstream, view[:taken])
        if done:
            return data[taken:]
        if not (data := await receive(client)):
            raise MalformedHead("the body is incomplete")
