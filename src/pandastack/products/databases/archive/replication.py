"""PostgreSQL's replication protocol, from the side that receives: the log as it is written, and base backups.

The server is in a guest. What it sends is limited in length, and must follow what it has sent before.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from pandastack.errors import GuestError
from pandastack.products.databases.archive.wal import position_of, text_of
from pandastack.products.databases.wire import OVER, Gone, Row, Session, SqlError, error_of, row_of

SLOT = "pandastack"
"""The slot that has the server keep what was not archived."""

_EXISTS = "42710"
_COPY_DATA, _COPY_DONE, _ERROR = b"d", b"c", b"E"
_QUIET = (b"N", b"S")


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose log it is, and how far it is written."""

    system: str
    timeline: int
    flushed: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the log at ``start``. ``end`` is how far the server had it written at ``sent``, in its microseconds;
    without ``data`` it only says that."""

    end: int
    sent: int
    start: int = 0
    data: bytes = b""


class Replication(Session):
    """A session for replication. One task may receive while another confirms."""

    async def begin(self, user: str) -> None:
        """Begin. Raises as :meth:`Session.start`."""
        await self.open({"user": user, "replication": "true", "application_name": "pandastack"})

    async def identify(self) -> Identity:
        """Whose log it is."""
        rows = await self.query("IDENTIFY_SYSTEM")
        try:
            ((system, timeline, flushed, *_),) = rows
            return Identity(str(int(system or "")), int(timeline or ""), position_of(flushed or ""))
        except ValueError as error:
            raise _malformed() from error

    async def make_slot(self, *, anew: bool) -> None:
        """Have the server keep its log from now on until it is confirmed. ``anew``: from the present on."""
        if anew:
            await self._tolerating(f"DROP_REPLICATION_SLOT {SLOT}", "42704")
        await self._tolerating(f"CREATE_REPLICATION_SLOT {SLOT} PHYSICAL RESERVE_WAL", _EXISTS)

    async def _tolerating(self, command: str, code: str) -> None:
        try:
            await self.query(command)
        except SqlError as error:
            if error.code != code:
                raise

    async def stream(self, start: int, timeline: int) -> None:
        """Begin to receive the log from ``start`` on."""
        await self.ask(f"START_REPLICATION SLOT {SLOT} PHYSICAL {text_of(start)} TIMELINE {timeline}")
        while True:
            kind, _ = await self._received()
            if kind == b"W":
                return
            if kind not in _QUIET:
                raise _malformed()

    async def receive(self) -> Piece:
        """The next piece. Raises :class:`Gone` when the server ends the log, as it does when it stops."""
        while True:
            kind, body = await self._received()
            if kind == _COPY_DONE:
                raise Gone
            if kind == _COPY_DATA:
                return _piece(body)
            if kind not in _QUIET:
                raise _malformed()

    async def confirm(self, written: int, *, ask: bool) -> None:
        """Say that everything before ``written`` is archived. ``ask``: have the server say how far it is."""
        body = b"r" + struct.pack("!QQQqB", written, written, 0, 0, ask)
        await self.send(_COPY_DATA + struct.pack("!I", len(body) + 4) + body)

    async def base_backup(self, write: Callable[[bytes], Awaitable[None]]) -> tuple[int, int, int]:
        """Have the server's files written as an archive of tar. Returns the timeline, the position from which on a
        server that begins with them needs the log, and the one that it must reach."""
        await self.ask("BASE_BACKUP (LABEL 'pandastack', CHECKPOINT 'fast', WAIT false, MANIFEST 'no')")
        start, archives = await self._first_row(), 0
        await self._first_row(some=False)  # tablespaces: a tenant can make none
        while True:
            kind, body = await self._received()
            if kind == _COPY_DATA and body[:1] == b"n":
                archives += 1
                if archives > 1:
                    raise GuestError("the database has tablespaces, which are not backed up")
            elif kind == _COPY_DATA and body[:1] == b"d":
                await write(body[1:])
            elif kind == _COPY_DONE:
                break
            elif not (kind in (b"H", b"C", *_QUIET) or (kind == _COPY_DATA and body[:1] in (b"p", b"m"))):
                raise _malformed()
        end = await self._first_row()
        if start[1] != end[1] or end[0] < start[0] or archives != 1:
            raise _malformed()
        return start[1], start[0], end[0]

    async def _first_row(self, *, some: bool = True) -> tuple[int, int]:
        """Of the next set of rows: a position and its timeline."""
        rows: list[Row] = []
        while True:
            kind, body = await self._received()
            if kind == b"D":
                rows.append(row_of(body))
            elif kind == b"C":
                break
            elif kind not in (b"T", *_QUIET) or len(rows) > 16:
                raise _malformed()
        if not some:
            return 0, 0
        try:
            ((position, timeline, *_),) = rows
            return position_of(position or ""), int(timeline or "")
        except ValueError as error:
            raise _malformed() from error

    async def _received(self) -> tuple[bytes, bytes]:
        try:
            kind, body = await self.message()
        except OVER as error:
            raise Gone from error
        if kind == _ERROR:
            raise error_of(body)
        await anyio.lowlevel.checkpoint()
        return kind, body


def _piece(body: bytes) -> Piece:
    try:
        if body[:1] == b"w":
            start, end, sent = struct.unpack_from("!QQQ", body, 1)
            data = body[25:]
            if not data or start + len(data) > end:
                raise _malformed()
            return Piece(end, sent, start, data)
        if body[:1] == b"k":
            end, sent, _ = struct.unpack("!QQB", body[1:])
            return Piece(end, sent)
    except struct.error as error:
        raise _malformed() from error
    raise _malformed()


def _malformed() -> GuestError:
    return GuestError("the database server's log is malformed")
