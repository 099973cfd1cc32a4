"""Connections to what listens inside the guest, and from there to the host (docs/design/0024-tunnels.md)."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import ByteStream

from pandastack.errors import BadRequestError, GuestError, NotFoundError, PandastackError
from pandastack.guest import frames
from pandastack.guest.connection import Connection
from pandastack.guest.frames import Fields
from pandastack.guest.keys import FrameType, OpenedKey, OpenKey, Operation, ResultKey, Signal
from pandastack.guest.outcome import checked, encoded
from pandastack.guest.replies import values
from pandastack.guest.streams import Stream

OPEN_TIMEOUT_S = 30.0
"""Seconds that the guest may take to make a connection, which stays inside the guest."""
_NOBODY = (errno.ENOENT, errno.ECONNREFUSED)
_IDS_MAX = 1 << 62


class Tunnel(ByteStream):
    """One connection in the guest: bytes in both directions, each with an end of its own.

    One task may send while another receives. Offsets count bytes from the connection's first, and an end as one more.
    The guest sends up to a window beyond what was acknowledged, and retains that for a later attachment: either
    :meth:`receive` acknowledges what it returns at once, or its caller does.
    """

    def __init__(self, stream: Stream, subject: str, id: str | None, received: int = 0, *, acknowledge: bool) -> None:
        self.id = id
        self.received = received
        """Offset of the next byte from the guest."""
        self._stream = stream
        self._subject = subject
        self._acknowledges = acknowledge
        self._acknowledged = received
        self._consumed = 0
        self._rest = b""
        self._ended = False

    async def wait_opened(self) -> None:
        """Wait until the connection is established; raises the error that prevented it."""
        self._consumed = frames.integer(await _opened(self._stream, self._subject), OpenedKey.CONSUMED)

    @property
    def consumed(self) -> int:
        """Offset up to which the guest's program has read what was sent: sending resumes here after an attachment."""
        return self._consumed + self._stream.acknowledged

    async def wait_consumed(self, beyond: int) -> int:
        """:attr:`consumed`, once it is more than ``beyond`` or the connection ended."""
        return self._consumed + await self._stream.wait_acknowledged(beyond - self._consumed)

    @property
    def over(self) -> bool:
        """Whether the guest has reported how the connection ended."""
        return self._stream.result is not None

    async def send(self, item: bytes) -> None:
        """Send; waits while the program in the guest does not read."""
        if not await self._stream.send(item):
            self._check()
            raise anyio.BrokenResourceError

    async def send_eof(self) -> None:
        """Half-close: the program reads the end, and may keep sending."""
        if not await self._stream.send_end():
            self._check()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """The program's data; raises ``EndOfStream`` after its end.

        Raises :class:`GuestError` when the connection or the channel broke.
        """
        if not self._rest and not self._ended:
            await self._take()
        if not self._rest:
            raise anyio.EndOfStream
        data, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        self.received += len(data)
        if self._acknowledges:
            self.acknowledge(self.received)
        return data

    async def _take(self) -> None:
        item = await self._stream.take(None)
        if item is not None and item[0] is FrameType.DATA:
            self._rest = item[1]
            return
        self._ended = True
        if item is None:
            self._check()
        elif item[0] is not FrameType.EOF:
            raise GuestError("the guest sent something other than the data of a connection")
        else:
            self.received += 1
            if self._acknowledges:
                self.acknowledge(self.received, at_once=True)

    def acknowledge(self, offset: int, *, at_once: bool = False) -> None:
        """Let the guest drop its copy of the bytes before ``offset``, which is at most :attr:`received`."""
        if not self._acknowledged <= offset <= self.received:
            raise BadRequestError(f"received: {offset} was not sent, or acknowledged before", field="received")
        self._stream.acknowledge(offset - self._acknowledged, at_once=at_once or self._ended)
        self._acknowledged = offset

    async def wait_closed(self) -> None:
        """Wait until both directions have ended and are acknowledged; raises the error that broke the connection."""
        while (item := await self._stream.take(None)) is not None:
            if item[1]:
                raise GuestError("the guest sent data after their end")
        self._check()

    def leave(self) -> None:
        """Detach: a connection with an id stays open for a while, so that it can be reattached to."""
        self._stream.abandon(Signal.CANCEL if self.id is None else Signal.LEAVE)  # agents of version 1 ignore a LEAVE

    def close(self) -> None:
        """Close the connection, at once."""
        self._stream.abandon()

    async def aclose(self) -> None:
        """The same."""
        self.close()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """None."""
        return {}

    def _check(self) -> None:
        _check(self._stream, self._subject)


class Listener:
    """Connections that programs in the guest make to the host, as ids of tunnels to attach to."""

    def __init__(self, stream: Stream, subject: str) -> None:
        self._stream = stream
        self._subject = subject

    async def accepted(self) -> AsyncIterator[str]:
        """The ids of connections as they arrive; after a reattachment, those not yet attached to come again."""
        async for some in values(self._stream, ResultKey.TUNNEL, _IDS_MAX, None):
            for value in some:
                yield value.decode("ascii", "replace")[:36]
        _check(self._stream, self._subject)

    @property
    def over(self) -> bool:
        """Whether the guest has stopped listening."""
        return self._stream.result is not None

    def close(self) -> None:
        """Stop listening."""
        self._stream.abandon()

    def leave(self) -> None:
        """Detach: the guest keeps its programs' connections waiting for a while, until a reattachment."""
        self._stream.abandon(Signal.LEAVE)


@asynccontextmanager
async def connect(
    connection: Connection,
    *,
    path: str | None = None,
    port: int | None = None,
    service: str | None = None,
    user: str | None = None,
    id: str | None = None,
    acknowledge: bool = True,
) -> AsyncIterator[Tunnel]:
    """A connection to a Unix socket or a TCP port of the loopback, as a block; leaving it closes the connection.

    ``service`` is a program of the agent's own, started for this connection as ``user`` (None: root).

    With an ``id`` (lower-case letters, digits and dashes, at most 36) it can be detached and reattached to. Without
    ``acknowledge`` the caller acknowledges. Raises :class:`NotFoundError` when nothing listens there, and
    :class:`ConflictError` when the id is taken.
    """
    where, subject = _address(path, port) if service is None else _service(service)
    named = [] if id is None else [(OpenKey.ID, encoded(id, "id"))]
    named += [] if user is None else [(OpenKey.USER, encoded(user, "user"))]
    with connection.open(frames.encode_request(Operation.TUNNEL, where, *named), duplex=True) as stream:
        tunnel = Tunnel(stream, subject, id, acknowledge=acknowledge)
        await tunnel.wait_opened()
        yield tunnel


@asynccontextmanager
async def attach(connection: Connection, id: str, received: int, *, acknowledge: bool = True) -> AsyncIterator[Tunnel]:
    """The connection with this id, from offset ``received`` on of what the guest sent; see :attr:`Tunnel.consumed`.

    A stream that was attached before ends. Raises :class:`NotFoundError` when the connection does not exist (any more),
    and :class:`ConflictError` when the guest no longer has the bytes from that offset on, or never sent as many.
    """
    items = [(OpenKey.ID, encoded(id, "id")), (OpenKey.RECEIVED, frames.u64(received))]
    with connection.open(frames.encode_request(Operation.TUNNEL, *items), duplex=True) as stream:
        tunnel = Tunnel(stream, f"tunnel {id}", id, received, acknowledge=acknowledge)
        await tunnel.wait_opened()
        yield tunnel


@asynccontextmanager
async def listen(
    connection: Connection,
    *,
    path: str | None = None,
    port: int | None = None,
    mode: int | None = None,
    id: str | None = None,
) -> AsyncIterator[Listener]:
    """Listen in the guest, at a TCP port of its loopback or a Unix socket with ``mode`` (0666 unless given).

    Leaving the block stops listening. With an ``id`` it can be detached from; listening with the same id and address
    reattaches.
    Raises :class:`ConflictError` when the address is taken.
    """
    where, subject = _address(path, port)
    items = [where]
    items += [] if id is None else [(OpenKey.ID, encoded(id, "id"))]
    items += [] if mode is None else [(OpenKey.MODE, frames.u32(mode))]
    with connection.open(frames.encode_request(Operation.LISTEN, *items), duplex=True) as stream:
        await _opened(stream, subject)
        yield Listener(stream, subject)


async def _opened(stream: Stream, subject: str) -> Fields:
    """The guest's answer when it begins; raises the error that prevented it."""
    try:
        opened = await stream.wait_opened(OPEN_TIMEOUT_S)
    except TimeoutError as error:
        raise GuestError(f"{subject}: the guest did not open it within {OPEN_TIMEOUT_S:g} seconds") from error
    if opened is None:
        _check(stream, subject)
        raise GuestError(f"{subject}: the guest ended it before it began")
    return opened


def _check(stream: Stream, subject: str) -> None:
    """Raise the error that the stream ended with, if it did."""
    try:
        checked(stream.result or {}, subject)
    except PandastackError as error:
        number = error.detail.get("errno") if error.detail else None
        if number in _NOBODY:
            raise NotFoundError(f"nothing in the guest listens at {subject}") from error
        if number == errno.ESRCH:
            raise NotFoundError(f"{subject} is not open (any more)") from error
        raise


def _service(name: str) -> tuple[tuple[OpenKey, bytes], str]:
    return (OpenKey.ARGV, encoded(name, "service")), f"service {name}"


def _address(path: str | None, port: int | None) -> tuple[tuple[OpenKey, bytes], str]:
    if port is not None:
        if not 1 <= port <= 65535:
            raise BadRequestError(f"port: {port} is not between 1 and 65535", field="port")
        return (OpenKey.PORT, frames.u32(port)), f"port {port}"
    if path is None or not path.startswith("/"):
        raise BadRequestError("path must be absolute", field="path")
    return (OpenKey.PATH, encoded(path, "path")), path
