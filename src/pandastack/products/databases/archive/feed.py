"""Restores a database into a new machine: gives a program in the guest the backup, and the log as it asks for it."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import anyio
import structlog
from anyio.abc import ByteStream
from anyio.streams.buffered import BufferedByteReceiveStream

from pandastack.errors import GuestError, PandastackError
from pandastack.model.caller import Caller
from pandastack.products.databases.archive.archive import Archive
from pandastack.products.databases.archive.plan import Base, Epoch
from pandastack.products.databases.archive.wal import is_segment
from pandastack.services.sandboxes.interior import Interior, NothingListens

_PROGRAM = "python3 -SE /usr/lib/pandastack/postgres/restore.py"
_SOCKET = "/run/postgresql/.restore"
_SECONDS = 24 * 3600.0
_LONGEST_LINE = 600
_PAUSE = 0.05
_OVER = (anyio.EndOfStream, anyio.IncompleteRead, anyio.ClosedResourceError, anyio.BrokenResourceError)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """What is restored: a base and the log of its epoch, up to a time in epoch seconds (None: all of it)."""

    archive: Archive
    epoch: Epoch
    base: Base
    until: float | None


async def restore(interior: Interior, caller: Caller, sandbox_id: str, source: Source, memory_mb: int) -> None:
    """Put what ``source`` has in the place of a machine's empty database.

    Raises :class:`GuestError` and :class:`ServerError`.
    """
    time = "" if source.until is None else f" '{datetime.fromtimestamp(source.until, UTC):%Y-%m-%d %H:%M:%S.%f}+00'"
    failures: list[Exception] = []
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            try:
                await interior.output(caller, sandbox_id, f"{_PROGRAM} {memory_mb}{time}", _SECONDS)
            except PandastackError as error:
                failures.append(error)
            tasks.cancel_scope.cancel()  # it has ended, whatever it was still told

        tasks.start_soon(run)
        try:
            async with _connected(interior, caller, sandbox_id) as stream:
                await _feed(stream, source)
        except Exception as error:
            failures.insert(0, error)
            tasks.cancel_scope.cancel()
    if failures:
        raise failures[0]


@asynccontextmanager
async def _connected(interior: Interior, caller: Caller, sandbox_id: str) -> AsyncIterator[ByteStream]:
    """A connection to the program, once it listens."""
    async with AsyncExitStack() as stack:
        while True:
            try:
                stream = await stack.enter_async_context(interior.connect(caller, sandbox_id, _SOCKET))
                break
            except NothingListens:
                await anyio.sleep(_PAUSE)
        yield stream


async def _feed(stream: ByteStream, source: Source) -> None:
    try:
        async for piece in source.archive.base_pieces(source.epoch, source.base):
            await stream.send(struct.pack("!I", len(piece)) + piece)
        await stream.send(struct.pack("!I", 0))
        lines = BufferedByteReceiveStream(stream)
        while True:
            line = (await lines.receive_until(b"\n", _LONGEST_LINE)).decode(errors="replace")
            if line == ".":
                return
            if line.startswith("!"):
                log.warning("database.restore_refused", archive=source.archive.id, cause=line[1:])
                raise GuestError("the backup cannot be restored", detail={"cause": line[1:]})
            if not is_segment(line):
                raise GuestError("the restoring program in the guest asks for nonsense")
            found = await source.archive.segment(source.epoch, line)
            await stream.send(struct.pack("!i", -1) if found is None else struct.pack("!i", len(found)) + found)
    except (*_OVER, anyio.DelimiterNotFound) as error:
        raise GuestError("the restoring program in the guest has ended") from error
