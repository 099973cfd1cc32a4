"""As much of PostgreSQL's protocol 3.0 as sends a query without parameters and reads its rows.

The server is in a guest: what it sends is limited in length, and checked. A driver would want a socket of the host that
leads there, and asks the catalog for types first.
"""

from __future__ import annotations

import struct

import anyio
from anyio.abc import ByteStream

from pandastack.errors import GuestError

Row = tuple[str | None, ...]

_VERSION = 196608
_MOST_MESSAGE = 256 * 1024
_MOST_ANSWER = 4 * 1024 * 1024
_SKIPPED = b"SKNTCIn"
"""Settings, the key for cancelling, notices, descriptions of rows, ends of statements."""

_OVER = (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError)


class SqlError(Exception):
    """What the server refuses: its code of five characters (SQLSTATE), and its message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Gone(Exception):
    """The server closed the connection."""


class Session:
    """A session of the superuser, whom the server trusts on its Unix socket. One query at a time."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._data = bytearray()

    async def start(self, user: str, database: str) -> None:
        """Begin. Names are looked up in the catalog only: a tenant's schemas could shadow what a query means.

        Raises :class:`SqlError`, :class:`Gone` and :class:`GuestError`.
        """
        given = {"user": user, "database": database, "application_name": "pandastack", "search_path": "pg_catalog"}
        body = b"".join(f"{name}\0{text}\0".encode() for name, text in given.items()) + b"\0"
        await self._send(struct.pack("!II", len(body) + 8, _VERSION) + body)
        await self._answer()

    async def query(self, sql: str) -> list[Row]:
        """The rows of all statements in ``sql``, in text form. The same errors."""
        body = sql.encode() + b"\0"
        await self._send(b"Q" + struct.pack("!I", len(body) + 4) + body)
        return await self._answer()

    async def _send(self, data: bytes) -> None:
        try:
            await self._stream.send(data)
        except _OVER as error:
            raise Gone from error

    async def _answer(self) -> list[Row]:
        rows: list[Row] = []
        failed: SqlError | None = None
        total = 0
        while True:
            try:
                kind, body = await self._message()
            except _OVER as error:
                raise failed or Gone from error
            total += len(body)
            if total > _MOST_ANSWER:
                raise GuestError("the database server answers too much")
            if kind == b"Z":
                break
            if kind == b"D":
                rows.append(_row(body))
            elif kind == b"E":
                failed = failed or _error(body)
            elif kind == b"R":
                if body != b"\0\0\0\0":
                    raise GuestError("the database server wants a password on its Unix socket")
            elif kind not in _SKIPPED:
                raise GuestError("the database server's answer is malformed")
        if failed is not None:
            raise failed
        return rows

    async def _message(self) -> tuple[bytes, bytes]:
        kind, length = struct.unpack("!cI", await self._exactly(5))
        if not 4 <= length <= _MOST_MESSAGE:
            raise GuestError("the database server's answer is malformed")
        return kind, await self._exactly(length - 4)

    async def _exactly(self, count: int) -> bytes:
        while len(self._data) < count:
            self._data += await self._stream.receive()
        taken = bytes(self._data[:count])
        del self._data[:count]
        return taken


def _row(body: bytes) -> Row:
    try:
        (count,) = struct.unpack_from("!H", body)
        place, values = 2, list[str | None]()
        for _ in range(count):
            (length,) = struct.unpack_from("!i", body, place)
            place += 4
            if length < 0:
                values.append(None)
                continue
            if place + length > len(body):
                raise GuestError("the database server's answer is malformed")
            values.append(body[place : place + length].decode(errors="replace"))
            place += length
    except struct.error as error:
        raise GuestError("the database server's answer is malformed") from error
    return tuple(values)


def _error(body: bytes) -> SqlError:
    fields = {each[:1]: each[1:].decode(errors="replace") for each in body.split(b"\0") if each}
    return SqlError(fields.get(b"C", "")[:5], fields.get(b"M", "")[:500])
