"""As much of PostgreSQL's protocol 3.0 as sends a query without parameters and reads its rows.

The server is in a guest: what it sends is limited in length, and checked. A driver would want a socket of the host that
leads there, and asks the catalog for types first.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import anyio
from anyio.abc import ByteStream

from pandastack.errors import GuestError

Row = tuple[str | None, ...]

_VERSION = 196608
_MOST_MESSAGE = 256 * 1024
_MOST_ANSWER = 4 * 1024 * 1024
_SKIPPED = b"SKNTCIn"
"""Settings, the key for cancelling, notices, descriptions of rows, ends of statements."""

OVER = (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError)
"""What a stream raises that is at its end."""


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
        """Begin. Names are looked up in the catalog only: a tenant's schemas could shadow what a query means. It may
        write also while the disk is so full that others may not.

        Raises :class:`SqlError`, :class:`Gone` and :class:`GuestError`.
        """
        given = {"user": user, "database": database, "application_name": "pandastack", "search_path": "pg_catalog"}
        given["default_transaction_read_only"] = "off"
        await self.open(given)

    async def open(self, given: Mapping[str, str]) -> None:
        """Begin with these settings. The same errors."""
        body = b"".join(f"{name}\0{text}\0".encode() for name, text in given.items()) + b"\0"
        await self.send(struct.pack("!II", len(body) + 8, _VERSION) + body)
        await self._answer()

    async def query(self, sql: str) -> list[Row]:
        """The rows of all statements in ``sql``, in text form. The same errors."""
        await self.ask(sql)
        return await self._answer()

    async def ask(self, sql: str) -> None:
        """Send a query; the caller reads its answer."""
        body = sql.encode() + b"\0"
        await self.send(b"Q" + struct.pack("!I", len(body) + 4) + body)

    async def send(self, data: bytes) -> None:
        """Send a message. Raises :class:`Gone`."""
        try:
            await self._stream.send(data)
        except OVER as error:
            raise Gone from error

    async def _answer(self) -> list[Row]:
        rows: list[Row] = []
        failed: SqlError | None = None
        total = 0
        while True:
            try:
                kind, body = await self.message()
            except OVER as error:
                raise failed or Gone from error
            total += len(body)
            if total > _MOST_ANSWER:
                raise GuestError("the database server answers too much")
            if kind == b"Z":
                break
            if kind == b"D":
                rows.append(row_of(body))
            elif kind == b"E":
                failed = failed or error_of(body)
            elif kind == b"R":
                if body != b"\0\0\0\0":
                    raise GuestError("the database server wants a password on its Unix socket")
            elif kind not in _SKIPPED:
                raise GuestError("the database server's answer is malformed")
        if failed is not None:
            raise failed
        return rows

    async def message(self) -> tuple[bytes, bytes]:
        """The next message: its kind and its body."""
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


def row_of(body: bytes) -> Row:
    """The values of a row. Raises :class:`GuestError`."""
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


def error_of(body: bytes) -> SqlError:
    """What the server refuses."""
    fields = {each[:1]: each[1:].decode(errors="replace") for each in body.split(b"\0") if each}
    return SqlError(fields.get(b"C", "")[:5], fields.get(b"M", "")[:500])
