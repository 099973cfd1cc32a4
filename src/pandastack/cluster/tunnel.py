"""The control plane's end of a connection in a guest (docs/design/0024-tunnels.md)."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, NoReturn

import anyio
from anyio.abc import ByteStream

from pandastack.cluster.sockets import Socket, SocketClosed
from pandastack.contract.codec import decode_answer, encode
from pandastack.contract.tunnels import (
    WINDOW,
    Accepted,
    Close,
    Closed,
    Consumed,
    Ended,
    FromControlPlane,
    FromEngine,
    Opened,
    Received,
)
from pandastack.errors import PandastackError, ServerError, UnavailableError

_CHUNK = 64 * 1024
_RECEIVED_BATCH = 64 * 1024
_CLOSE_SECONDS = 5.0
_LINGER_SECONDS = 30.0
"""How long a program may take to read what was sent before both ways ended."""


class Tunnel(ByteStream):
    """Bytes in both directions, each with its own end. One task may send while another receives.

    A tunnel with an ``id`` outlives its attachment: when that breaks, :meth:`wait_detached` returns, and senders and
    receivers wait for another attachment, or for :meth:`fail`, which rules it out. No byte is lost or duplicated.
    Without an id, senders and receivers raise :class:`UnavailableError`.
    """

    def __init__(self, id: str | None = None) -> None:
        self.id = id
        self.sent = 0
        """Bytes that :meth:`send` has accepted, including the end."""
        self.received = 0
        """Bytes that :meth:`receive` has returned, including the end."""
        self.over = False
        """Whether the guest has reported how the connection ended, or it was closed."""
        self._consumed = self._acknowledged = 0
        self._kept: deque[bytes] = deque()
        """Bytes sent but not known to be consumed, for the next attachment."""
        self._pending: deque[bytes] = deque()
        self._ended = self._guest_ended = self._end_taken = False
        self._socket: Socket | None = None
        self._error: PandastackError | None = None
        self._reading = self._cramped = False
        self._changed: anyio.Event | None = None
        """What tasks wait for, if any do."""

    @property
    def is_attached(self) -> bool:
        """Whether bytes pass now."""
        return self._socket is not None

    @property
    def unconsumed(self) -> int:
        """How much of what was sent the program in the guest is not known to have read, its end included."""
        return self.sent - self._consumed

    @property
    def is_quiet(self) -> bool:
        """Whether it is attached, and the program has sent nothing that was not received, nor its end."""
        return self._socket is not None and not (self.over or self._pending or self._guest_ended)

    def detach(self) -> int:
        """Before another attachment: drop bytes not received yet, because they will be sent again from here."""
        self.leave()
        self._pending.clear()
        self._guest_ended = self._end_taken
        self._acknowledged = self.received
        return self.received

    @asynccontextmanager
    async def attached(self, socket: Socket) -> AsyncIterator[None]:
        """Attach the tunnel to this WebSocket. Leaving the block closes the connection, if it is still attached.

        After both ways have ended it first lets the program read to the end: see :meth:`linger`.
        """
        try:
            await self._begin(socket)
        except SocketClosed as error:
            raise UnavailableError("the engine aborted the connection") from error
        try:
            yield
            if self._socket is socket:
                await self.linger()
        finally:
            if self._socket is socket:
                if not self.over:
                    await _close(socket)
                    self.over = True
                self.leave()

    async def _begin(self, socket: Socket) -> None:
        opened = decode_answer(FromEngine, await socket.receive())
        if not isinstance(opened, Opened):
            raise ServerError("the engine's answer is malformed: unexpected at the beginning of a tunnel")
        self._forget(opened.consumed)
        passed, told = 0, False
        while passed < len(self._kept) or (self._owes_end() and not told):  # more may be sent meanwhile
            if passed < len(self._kept):
                await socket.send(self._kept[passed])
                passed += 1
            else:
                told = True
                await socket.send(_text(Ended()))
        self._socket = socket
        self._notify()

    def _owes_end(self) -> bool:
        return self._ended and self._consumed < self.sent

    def _forget(self, consumed: int) -> None:
        """Note that the guest's program has everything up to this offset."""
        if not self._consumed <= consumed <= self.sent:
            raise ServerError("the engine's answer is malformed: consumed what was not sent")
        surplus = consumed - self._consumed
        while self._kept and surplus:
            piece = self._kept.popleft()
            if len(piece) > surplus:
                self._kept.appendleft(piece[surplus:])
            surplus -= min(surplus, len(piece))
        self._consumed = consumed

    async def send(self, item: bytes) -> None:
        """Send; waits while the program in the guest does not read."""
        view = memoryview(item)
        while view:
            self._check()
            room = WINDOW - (self.sent - self._consumed)
            if room <= 0:
                self._cramped = True
                await self._advance()
                continue
            self._cramped = False
            piece = bytes(view[: min(_CHUNK, room)])
            view = view[len(piece) :]
            self.sent += len(piece)
            if self.id is not None:
                self._kept.append(piece)
            await self._pass(piece)

    async def send_eof(self) -> None:
        """Send the end: the program reads it, and may keep sending."""
        self._check()
        if not self._ended:
            self._ended = True
            self.sent += 1
            await self._pass(_text(Ended()))

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Bytes from the program; raises ``EndOfStream`` after its end, :class:`GuestError` for a broken connection."""
        while not self._pending:
            if self._guest_ended:
                await self._take_end()
            elif not await self._acknowledge(1):  # otherwise something may have arrived meanwhile
                await self._advance()
        data = self._pending.popleft()
        if len(data) > max_bytes:
            self._pending.appendleft(data[max_bytes:])
            data = data[:max_bytes]
        self.received += len(data)
        await self._acknowledge(_RECEIVED_BATCH)
        return data

    async def _take_end(self) -> NoReturn:
        if not self._end_taken:
            self._end_taken = True
            self.received += 1
        await self._acknowledge(1)
        raise anyio.EndOfStream

    async def wait_closed(self) -> None:
        """Wait until the guest reports how the connection ended, after both ends were sent; raises its failure."""
        while not self.over:
            await self._advance()
        if self._error is not None:
            raise self._error

    async def linger(self) -> None:
        """Once both ways have ended, wait until the program has read everything, while it is attached and for a time.

        Closing the connection before would cut off what is still on its way.
        """
        if self._ended and self._end_taken:
            with anyio.move_on_after(_LINGER_SECONDS):
                await self.wait_detached()

    async def wait_detached(self) -> None:
        """Wait until the attachment breaks, or the connection is over."""
        while self._socket is not None and not self.over:
            await self._advance()

    def leave(self) -> None:
        """Detach, without closing a connection that has an id."""
        self._socket = None
        self._notify()

    def fail(self, error: PandastackError) -> None:
        """Rule out another attachment: the methods raise ``error``."""
        self.over, self._error = True, self._error or error
        self._notify()

    async def aclose(self) -> None:
        """Close the connection, at once."""
        socket, self._socket = self._socket, None
        if not self.over:
            self.over = True
            if socket is not None:
                await _close(socket)
        self._notify()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """None."""
        return {}

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self.over:
            raise anyio.ClosedResourceError

    async def _acknowledge(self, least: int) -> bool:
        """Acknowledge received bytes if there are at least ``least`` new ones. Returns whether it did."""
        if self.received - self._acknowledged < least or self.over:
            return False
        self._acknowledged = self.received
        await self._pass(_text(Received(self.received)))
        return True

    async def _pass(self, message: bytes | str) -> None:
        """Send a message now; if this attachment cannot take it, the next one begins with it."""
        socket = self._socket
        if socket is None:
            return
        try:
            await socket.send(message)
        except SocketClosed as error:
            if self._socket is socket:
                self._lose(error)

    async def _advance(self) -> None:
        """Receive a message that a task may wait for, or wait until another task has or something else has changed."""
        self._check()
        if self._reading or self._socket is None:
            if self._changed is None:
                self._changed = anyio.Event()
            await self._changed.wait()
            return
        self._reading, socket = True, self._socket
        try:
            routine = True
            while routine:
                message = await socket.receive()
                routine = self._socket is socket and self._take(message)
        except SocketClosed as error:
            if self._socket is socket:
                self._lose(error)
        finally:
            self._reading = False
            self._notify()

    def _take(self, message: bytes | str) -> bool:
        """Take note of it. Returns whether no task waits for the like: one that there is room, while there is some."""
        if isinstance(message, bytes):
            self._pending.append(message)
            return False
        match decode_answer(FromEngine, message):
            case Consumed(offset):
                self._forget(offset)
                return not self._cramped
            case Ended():
                self._guest_ended = True
            case Closed(failure):
                self.over = True
                self._error = failure.exception() if failure else None
            case _:
                raise ServerError("the engine's answer is malformed: unexpected in a tunnel")
        return False

    def _lose(self, cause: SocketClosed) -> None:
        """Note that the attachment broke."""
        self._socket = None
        if self.id is None:
            self.over, self._error = True, UnavailableError("the engine aborted the connection")
            self._error.__cause__ = cause
        self._notify()

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None


@asynccontextmanager
async def listening(socket: Socket) -> AsyncIterator[AsyncIterator[Tunnel]]:
    """The connections announced on a listening WebSocket; leaving the block ends the listening."""
    try:
        if not isinstance(await _hear(socket), Opened):
            raise ServerError("the engine's answer is malformed: unexpected before it listens")
        yield _accepted(socket)
    finally:
        await _close(socket)


async def _accepted(socket: Socket) -> AsyncIterator[Tunnel]:
    while True:
        match await _hear(socket):
            case Accepted(id):
                yield Tunnel(id)
            case Closed(failure):
                raise failure.exception() if failure else UnavailableError("the engine listens no longer")
            case _:
                raise ServerError("the engine's answer is malformed: unexpected while listening")


async def _hear(socket: Socket) -> object:
    try:
        return decode_answer(FromEngine, await socket.receive())
    except SocketClosed as error:
        raise UnavailableError("the engine aborted the connection") from error


async def _close(socket: Socket) -> None:
    """Ask for the end, and wait briefly for it."""
    with anyio.move_on_after(_CLOSE_SECONDS, shield=True), suppress(SocketClosed):
        await socket.send(_text(Close()))
        while True:
            await socket.receive()


def _text(message: FromControlPlane) -> str:
    return encode(message).decode()
