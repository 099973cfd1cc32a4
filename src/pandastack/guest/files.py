"""Files in the guest. Every step has a deadline: a guest that makes no progress for that long has failed."""

from __future__ import annotations

import stat as statmode
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass

import anyio

from pandastack.errors import BadRequestError, GuestError
from pandastack.guest import frames
from pandastack.guest.connection import Connection
from pandastack.guest.keys import EntryKey, OpenKey, Operation, ResultKey
from pandastack.guest.outcome import checked, encoded
from pandastack.guest.replies import finish, next_piece, values

STEP_TIMEOUT_S = 60.0
"""Seconds without progress after which a file operation fails with GuestError."""
LIST_TIMEOUT_S = 120.0
"""Seconds that a whole list may take."""
ENTRIES_MAX = 100_000
BYTES_MAX = 64 * 1024 * 1024
"""Bounds of one list."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file as the guest sees it. ``mode`` is st_mode, ``mtime`` whole seconds, ``size`` bytes."""

    name: str
    type: str
    size: int
    mode: int
    mtime: int
    uid: int
    gid: int

    @property
    def is_dir(self) -> bool:
        """False for a symbolic link in a listing, whatever it points to."""
        return self.type == "d"

    @property
    def mode_text(self) -> str:
        """Like ``ls -l``: ``-rw-r--r--``."""
        return statmode.filemode(self.mode)


def _request(operation: Operation, path: str, *extra: tuple[OpenKey, bytes]) -> bytes:
    if not path.startswith("/"):
        raise BadRequestError("path must be absolute", field="path")
    return frames.encode_request(operation, (OpenKey.PATH, encoded(path, "path")), *extra)


async def read(
    connection: Connection, path: str, *, offset: int = 0, length: int | None = None
) -> AsyncGenerator[bytes, None]:
    """A regular file's bytes. NotFoundError or BadRequestError is raised before the first piece."""
    extra = [(OpenKey.OFFSET, frames.u64(offset))]
    if length is not None:
        extra.append((OpenKey.LENGTH, frames.u64(length)))
    with connection.open(_request(Operation.READ, path, *extra)) as stream:
        while (chunk := await next_piece(stream, STEP_TIMEOUT_S)) is not None:
            yield chunk
        checked(stream.result or {}, path)


async def write(connection: Connection, path: str, data: AsyncIterable[bytes], *, mode: int | None = None) -> int:
    """Replace a file's content, making its directories; returns the bytes written.

    The content is replaced atomically, unless the file is a mount point or has several links. Raises
    StorageFullError when the guest's disk is full.
    """
    extra = [] if mode is None else [(OpenKey.MODE, frames.u32(mode))]
    with connection.open(_request(Operation.WRITE, path, *extra)) as stream:
        try:
            async for chunk in data:
                if not await stream.send(chunk, STEP_TIMEOUT_S):
                    break
        except TimeoutError as error:
            raise GuestError(f"the guest took no input for {STEP_TIMEOUT_S:g} seconds") from error
        stream.end_input()
        return frames.integer(await finish(stream, path, STEP_TIMEOUT_S), ResultKey.BYTES)


async def stat(connection: Connection, path: str) -> FileEntry:
    """A description of ``path``. Symbolic links are followed; a dangling one is described itself."""
    with connection.open(_request(Operation.STAT, path)) as stream:
        fields = await finish(stream, path, STEP_TIMEOUT_S)
    if ResultKey.ENTRY not in fields:
        raise GuestError("the guest sent no entry")
    return _entry(fields[ResultKey.ENTRY][-1])


async def entries(connection: Connection, path: str) -> list[FileEntry]:
    """The entries of a directory, sorted by name; BadRequestError for more than 100,000 entries."""
    found: list[FileEntry] = []
    try:
        with anyio.fail_after(LIST_TIMEOUT_S), connection.open(_request(Operation.LIST, path)) as stream:
            async for some in values(stream, ResultKey.ENTRY, BYTES_MAX, STEP_TIMEOUT_S):
                found += [_listed(value) for value in some]
                if len(found) > ENTRIES_MAX:
                    raise BadRequestError(f"{path}: more than {ENTRIES_MAX} entries", field="path")
            checked(stream.result or {}, path)
    except TimeoutError as error:
        raise GuestError(f"the guest did not end its list within {LIST_TIMEOUT_S:g} seconds") from error
    return sorted(found, key=lambda entry: entry.name)


async def simple(connection: Connection, operation: Operation, path: str, timeout_s: float | None = None) -> None:
    """An operation without data: ``delete`` (a tree; missing is fine), ``mkdir`` (with parents) or ``sync``."""
    with connection.open(_request(operation, path)) as stream:
        await finish(stream, path, timeout_s)


def _listed(value: bytes) -> FileEntry:
    entry = _entry(value)
    if not entry.name or "/" in entry.name or "\0" in entry.name or entry.name in (".", ".."):
        raise GuestError("the guest listed an impossible name")
    return entry


def _entry(value: bytes) -> FileEntry:
    fields = frames.decode_fields(value)
    mtime = frames.integer(fields, EntryKey.MTIME)
    return FileEntry(
        name=frames.text(fields, EntryKey.NAME)[:1024],
        type=frames.text(fields, EntryKey.TYPE, "-")[:1],
        size=frames.integer(fields, EntryKey.SIZE),
        mode=frames.integer(fields, EntryKey.MODE) & 0xFFFFFFFF,
        mtime=mtime - (1 << 64) if mtime >> 63 else mtime,
        uid=frames.integer(fields, EntryKey.UID),
        gid=frames.integer(fields, EntryKey.GID),
    )
