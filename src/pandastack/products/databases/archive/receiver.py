"""Receives the log of a database that runs, as a standby would: what is durable here is confirmed to the server."""

from __future__ import annotations

import anyio

from pandastack.errors import GuestError, UnavailableError
from pandastack.products.databases.archive.archive import Archive, Connect, Health
from pandastack.products.databases.archive.replication import SLOT, Piece, Replication
from pandastack.products.databases.archive.segments import Segments
from pandastack.products.databases.archive.wal import seconds_of
from pandastack.products.databases.wire import Session, SqlError

_GATHER_SECONDS = 0.2
"""What arrives in that time is made durable at once."""
_ASK_SECONDS = 3.0
"""How often a server that writes nothing is asked how far it is."""
_SILENCE_SECONDS = 60.0
_MOST_WAITING = 8 * 1024 * 1024
_MOST_LOG = 16 * 1024**3
"""Without a base backup in between: then another epoch begins. What a guest can make us keep is limited."""
_LOST = ("58P01", "55000", "42704")
"""SQLSTATE: the server no longer has that part of its log, or the slot."""

_FREE = f"SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = '{SLOT}' AND active"


class Receiver:
    """One connection after another for one archive."""

    def __init__(self, archive: Archive, connect: Connect) -> None:
        self._archive = archive
        self._connect = connect
        self._anew = False
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._expected = 0
        self._known = Piece(0, 0)
        self._said: Piece | None = None
        self._arrived = self._taken = anyio.Event()

    async def run(self) -> None:
        """Receive until the connection breaks. Raises :class:`SqlError`, :class:`Gone` and errors of ours."""
        try:
            await self._free_slot()
            async with self._connect() as stream:
                await self._receive(Replication(stream))
        except SqlError as error:
            self._anew = self._anew or error.code in _LOST
            raise

    async def _receive(self, session: Replication) -> None:
        await session.begin(self._archive.user)
        identity = await session.identify()
        segments, begins = await self._archive.go_on(identity, anew=self._anew)
        self._anew = False
        await session.make_slot(anew=begins)
        await session.stream(segments.position, identity.timeline)
        self._pieces, self._waiting, self._expected = [], 0, segments.position
        self._known, self._said = Piece(0, 0), None
        self._archive.health, self._archive.error = Health.ARCHIVING, None
        try:
            await self._both(session, segments)
        finally:
            segments.close()

    async def _both(self, session: Replication, segments: Segments) -> None:
        failed: Exception | None = None
        async with anyio.create_task_group() as tasks:

            async def read() -> None:
                nonlocal failed
                try:
                    await self._read(session)
                except Exception as error:
                    failed = error
                    tasks.cancel_scope.cancel()

            tasks.start_soon(read)
            try:
                await self._write(session, segments)
            except Exception as error:
                failed = failed or error
                tasks.cancel_scope.cancel()
        if failed is not None:
            raise failed

    async def _free_slot(self) -> None:
        """End the server's end of a former connection, which it may not know to be gone."""
        async with self._connect() as stream:
            session = Session(stream)
            await session.start(self._archive.user, "postgres")
            await session.query(_FREE)

    async def _read(self, session: Replication) -> None:
        while True:
            try:
                with anyio.fail_after(_SILENCE_SECONDS):
                    piece = await session.receive()
            except TimeoutError as error:
                raise UnavailableError("the database server does not answer") from error
            if piece.data:
                if piece.start != self._expected:
                    raise GuestError("the database server's log has a gap")
                self._expected += len(piece.data)
                self._pieces.append(piece.data)
                self._waiting += len(piece.data)
                self._arrived.set()
            self._note(piece)
            while self._waiting > _MOST_WAITING:
                self._taken = anyio.Event()
                await self._taken.wait()

    def _note(self, piece: Piece) -> None:
        """Note up to where, and when, the server had nothing more to send.

        A piece of the log says that itself. What only says how far the server is may leave out what it could not send
        yet: that is certain once it says the same again, with nothing in between.
        """
        if piece.data:
            self._known, self._said = piece, None
        elif self._said is not None and self._said.end == piece.end == self._expected:
            self._known, self._said = self._said, piece
        else:
            self._said = piece

    async def _write(self, session: Replication, segments: Segments) -> None:
        while True:
            await session.confirm(segments.position, ask=True)
            self._arrived = anyio.Event()
            if not self._pieces:
                with anyio.move_on_after(_ASK_SECONDS):
                    await self._arrived.wait()
            await anyio.sleep(_GATHER_SECONDS)
            pieces, self._pieces = self._pieces, []
            known = self._known
            if pieces:
                await anyio.to_thread.run_sync(segments.write, pieces)
                self._waiting -= sum(map(len, pieces))
                self._taken.set()
            caught_up = segments.position >= known.end and known.sent
            self._archive.advance(segments.position, seconds_of(known.sent) if caught_up else None)
            await self._archive.collect(segments)
            await self._archive.share(segments)
            if segments.position - self._archive.epochs[-1].backed_up > _MOST_LOG:
                self._anew = True
                raise UnavailableError("the database writes faster than it is backed up")
