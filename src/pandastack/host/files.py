"""Files on the host: atomic writes, clones that share their blocks, copies that keep holes."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import stat
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import anyio

from pandastack.errors import ServerError, StorageFullError

FICLONE = 0x40049409
"""linux/fs.h: share all blocks of one file with another on the same file system."""

_FSGETXATTR, _FSSETXATTR, _COWEXTSIZE = 0x801C581F, 0x401C5820, 0x10000
_FSXATTR = struct.Struct("=5L8x")
"""linux/fs.h: struct fsxattr; its last number hints how much space a copy on write reserves."""

_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_LIBC = ctypes.CDLL(None, use_errno=True)

_COPY_CHUNK = 16 * 1024 * 1024


def write_atomically(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write ``data`` to ``path`` so that a reader, or a crash, sees the old file or the whole new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        temporary.rename(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise map_error(error, path) from error


@asynccontextmanager
async def directory_for_now(path: Path, *, existing: bool = False) -> AsyncIterator[Path]:
    """A new directory that only its owner can enter, removed with the block; with ``existing`` it may exist already."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=existing)
    except OSError as error:
        raise map_error(error, path) from error
    try:
        yield path
    finally:
        await remove_tree(path)


async def remove_tree(path: Path) -> None:
    """Remove a directory and its contents, off the event loop. A cancelled caller waits for it all the same."""
    with anyio.CancelScope(shield=True):
        await anyio.to_thread.run_sync(partial(shutil.rmtree, path, ignore_errors=True))


def own_directory(path: Path, *, links: bool = False, hint: str | None = None) -> None:
    """Make ``path`` a directory that only this user can enter, or check that it is one.

    Raises :class:`ServerError`, with ``hint``, when other users may have put something there: when it belongs to
    another user, when others may write to it, or when it is a symbolic link and ``links`` does not allow that.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat() if links else path.lstat()
        reason = _not_ours(found)
        if reason is None:
            path.chmod(0o700)
    except OSError as error:
        raise map_error(error, path) from error
    if reason is not None:
        raise ServerError(f"{path} {reason}", hint=hint)


def _not_ours(found: os.stat_result) -> str | None:
    if not stat.S_ISDIR(found.st_mode):
        return "is not a directory"
    if found.st_uid != os.geteuid():
        return f"belongs to user {found.st_uid}, not to {os.geteuid()}"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be written to by other users"
    return None


def make_durable(directory: Path, contents: bool = True) -> None:
    """Sync the names in ``directory``, and the ``contents`` of its files, so that they survive a power cut."""
    for path in (*(directory.iterdir() if contents else ()), directory):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise map_error(error, path) from error


def can_clone(directory: Path) -> bool:
    """Whether files in ``directory`` can share blocks (reflink), determined by trying."""
    source, target = directory / ".reflink-source", directory / ".reflink-target"
    try:
        source.write_bytes(b"\0" * 4096)
        return _share(source, target)
    finally:
        source.unlink(missing_ok=True)
        target.unlink(missing_ok=True)


def clone(source: Path, target: Path) -> bool:
    """Make ``target`` a copy of ``source``; True when the blocks are shared (O(1)), False when they were copied.

    A copy keeps the holes. On failure nothing is left behind.
    """
    try:
        if _share(source, target):
            return True
        _copy_sparse(source, target)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise map_error(error, target) from error
    return False


def write_sparingly(path: Path) -> None:
    """Reserve no more space than is written when shared blocks of the file are overwritten, if the file system can.

    Otherwise XFS reserves 128 KiB around each write and releases it minutes later: for scattered pages, many times the
    data.
    """
    with path.open("rb") as file, suppress(OSError):
        attributes = bytearray(_FSXATTR.size)
        fcntl.ioctl(file.fileno(), _FSGETXATTR, attributes)
        flags, extent, count, project, _ = _FSXATTR.unpack(attributes)
        block = os.fstatvfs(file.fileno()).f_bsize
        fcntl.ioctl(file.fileno(), _FSSETXATTR, _FSXATTR.pack(flags | _COWEXTSIZE, extent, count, project, block))


def _share(source: Path, target: Path) -> bool:
    with source.open("rb") as src, target.open("wb") as dst:
        try:
            fcntl.ioctl(dst.fileno(), FICLONE, src.fileno())
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS):
                return False
            raise
    return True


def _copy_sparse(source: Path, target: Path) -> None:
    with source.open("rb") as src, target.open("wb") as dst:
        size = os.fstat(src.fileno()).st_size
        os.ftruncate(dst.fileno(), size)
        for start, end in data_ranges(src.fileno(), size):
            copy_bytes(src.fileno(), start, dst.fileno(), start, end - start)


def copy_bytes(source: int, place: int, target: int, start: int, length: int) -> None:
    """Copy ``length`` bytes of the open file ``source`` from ``place`` on to ``start`` of the open file ``target``."""
    os.lseek(target, start, os.SEEK_SET)
    while length:
        copied = os.sendfile(target, source, place, min(length, _COPY_CHUNK))
        if copied == 0:
            raise OSError(errno.EIO, "the source shrank while it was copied")
        place, length = place + copied, length - copied


def make_sparse(path: Path, size: int) -> None:
    """Make a file of ``size`` zero bytes that takes no space."""
    try:
        with path.open("wb") as file:
            file.truncate(size)
    except OSError as error:
        raise map_error(error, path) from error


def punch_hole(fd: int, start: int, length: int) -> None:
    """Make bytes of an open file zero and give back their space. Raises ``OSError``."""
    if _LIBC.fallocate64(fd, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_int64(start), ctypes.c_int64(length)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def data_ranges(fd: int, size: int) -> list[tuple[int, int]]:
    """The byte ranges of an open file that are not holes."""
    ranges: list[tuple[int, int]] = []
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            raise
        position = os.lseek(fd, start, os.SEEK_HOLE)
        ranges.append((start, position))
    return ranges


def allocated_bytes(path: Path) -> int:
    """The bytes that a file occupies on disk (shared blocks count for each file that shares them)."""
    return path.stat().st_blocks * 512


def map_error(error: OSError, path: Path) -> ServerError:
    """An operating system error on one of our own files, as an error of :mod:`pandastack.errors`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFullError(
            f"insufficient host storage: no space left for {path.name}",
            hint=f"free space on the file system of {path.parent} or delete unused sandboxes and snapshots",
            public="insufficient host storage: delete unused sandboxes and snapshots",
        )
    return ServerError(f"{path}: {error.strerror or error}", public="a file of the host cannot be used")
