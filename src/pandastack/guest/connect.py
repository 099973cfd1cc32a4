"""Connections to what listens inside the guest: a Unix socket, or a TCP port of its loopback."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pandastack.errors import BadRequestError, NotFoundError, PandastackError
from pandastack.guest import frames
from pandastack.guest.connection import Connection
from pandastack.guest.keys import OpenKey, Operation
from pandastack.guest.outcome import checked, encoded
from pandastack.guest.streams import Stream

_NOBODY = (errno.ENOENT, errno.ECONNREFUSED)


class Pipe:
    """Bytes both ways. One task may send while another receives."""

    def __init__(self, stream: Stream, subject: str) -> None:
        self._stream = stream
        self._subject = subject

    async def send(self, data: bytes) -> bool:
        """Send; waits while the other side does not read. False when it has closed the connection."""
        return await self._stream.send(data)

    async def end_input(self) -> None:
        """The other side reads the end, and may keep sending."""
        self._stream.end_input()

    async def received(self) -> AsyncIterator[bytes]:
        """What the other side sends, until it ends the connection.

        Raises :class:`NotFoundError` when nothing listens there, :class:`GuestError` when the connection broke.
        """
        while (item := await self._stream.next(None)) is not None:
            yield item[1]
        try:
            checked(self._stream.result or {}, self._subject)
        except PandastackError as error:
            if error.detail and error.detail.get("errno") in _NOBODY:
                raise NotFoundError(f"nothing in the guest listens at {self._subject}") from error
            raise


@asynccontextmanager
async def connect(connection: Connection, *, path: str | None = None, port: int | None = None) -> AsyncIterator[Pipe]:
    """A connection as a block; leaving it closes the connection."""
    if port is not None:
        if not 1 <= port <= 65535:
            raise BadRequestError(f"port: {port} is not between 1 and 65535", field="port")
        where, subject = (OpenKey.PORT, frames.u32(port)), f"port {port}"
    elif path is not None and path.startswith("/"):
        where, subject = (OpenKey.PATH, encoded(path, "path")), path
    else:
        raise BadRequestError("path must be absolute", field="path")
    with connection.open(frames.encode_request(Operation.CONNECT, where)) as stream:
        yield Pipe(stream, subject)
