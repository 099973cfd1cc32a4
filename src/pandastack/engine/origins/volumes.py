"""The files of volumes: one for each, by id, which is the disk of the machine that writes to the volume, too.

The host makes the file system in a new one, and never reads what a guest has written to it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from pandastack.errors import ConflictError, NotFoundError
from pandastack.host import files
from pandastack.host.processes.run import run
from pandastack.images.baked_volumes import LEAST_MB as LEAST_MB

MIB = 1024 * 1024

_UNFINISHED = ".new-"
_SUFFIX = ".img"
_GROWS_TO = 1024**4
_BLOCK = 4096
_LARGE, _JOURNAL_MB = 2 * 1024**3, 64
"""The journal of a large volume. By default it would take up to 1 GiB of the host's storage in time."""

_FORMAT_SECONDS = 120.0


class VolumeStore:
    """Volumes under ids. Each appears and disappears as a whole, and survives a power cut."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(exist_ok=True)
        for left in directory.glob(f"{_UNFINISHED}*"):  # left by a former run; only one engine uses a directory
            left.unlink()
        self._sizes = {volume: self.path(volume).stat().st_size for volume in self.ids()}
        """For sums: the files have the truth."""

    def path(self, volume: str) -> Path:
        """Where its file is, if there is such a volume."""
        return self._directory / f"{volume}{_SUFFIX}"

    def ids(self) -> list[str]:
        names = (each.name for each in self._directory.iterdir())
        return sorted(name.removesuffix(_SUFFIX) for name in names if not name.startswith("."))

    def has(self, volume: str) -> bool:
        return self.path(volume).exists()

    def size(self, volume: str) -> int:
        """Its size in bytes. Raises :class:`NotFoundError`."""
        try:
            return self.path(volume).stat().st_size
        except FileNotFoundError as error:
            raise not_found(volume) from error

    def total_mb(self) -> int:
        """The MiB that all volumes may grow to take."""
        return sum(self._sizes.values()) // MIB

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[Path]:
        """A path for a file that exists only inside the block."""
        path = self._directory / f"{_UNFINISHED}{secrets.token_hex(6)}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    @asynccontextmanager
    async def adding(self, volume: str) -> AsyncIterator[Path]:
        """A path for the file of a new volume, which appears when the block ends without an error.

        Raises :class:`ConflictError` when there is such a volume by then.
        """
        async with self.scratch() as path:
            yield path
            await anyio.to_thread.run_sync(self._appear, path, volume, os.link)

    async def settle(self, volume: str, disk: Path) -> None:
        """Make the file ``disk`` that of the volume, in the place of the present one. It keeps its own name."""
        async with self.scratch() as path:
            await anyio.to_thread.run_sync(self._settle, volume, disk, path)

    def _settle(self, volume: str, disk: Path, path: Path) -> None:
        try:
            if self.has(volume) and disk.samefile(self.path(volume)):
                return
            os.link(disk, path)
        except OSError as error:
            raise files.map_error(error, path) from error
        self._appear(path, volume)

    def _appear(self, path: Path, volume: str, name: Callable[[Path, Path], object] = os.replace) -> None:
        try:
            _sync(path)
            name(path, self.path(volume))
            self._sizes[volume] = self.size(volume)
            _sync(self._directory)
        except FileExistsError as error:
            raise ConflictError(f"volume {volume} exists already", field="volume") from error
        except OSError as error:
            raise files.map_error(error, path) from error

    def grow(self, volume: str, size: int) -> None:
        """Give it ``size`` bytes; the new ones are zero and take no space. Raises :class:`NotFoundError`."""
        if size > self.size(volume):
            resize(self.path(volume), size)
            self._sizes[volume] = size

    def remove(self, volume: str) -> None:
        """Raises :class:`NotFoundError`."""
        try:
            self.path(volume).unlink()
        except FileNotFoundError as error:
            raise not_found(volume) from error
        self._sizes.pop(volume, None)


def resize(path: Path, size: int) -> None:
    """Give a file ``size`` bytes."""
    try:
        os.truncate(path, size)
        _sync(path)
    except OSError as error:
        raise files.map_error(error, path) from error


def not_found(volume: str, field: str = "id") -> NotFoundError:
    return NotFoundError(f"volume {volume} not found", field=field)


def format_arguments(path: Path, size: int) -> tuple[str, ...]:
    """The argv that makes the file system of a new volume of ``size`` bytes in the file ``path``, which has that size.

    It has a journal: a volume outlives machines and hosts that stop in the middle of their work. What would be zeroed
    stays a hole of the file.
    """
    features = "has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize,resize_inode"
    grows = (f"resize={_GROWS_TO // _BLOCK - 1}",) if size < _GROWS_TO else ()
    return (
        *("env", "MKE2FS_CONFIG=/dev/null", "mke2fs", "-q", "-F", "-b", str(_BLOCK), "-I", "256", "-i", "16384"),
        *("-m", "0", "-O", f"none,{features},dir_index,ext_attr,filetype,large_file,sparse_super"),
        *("-E", ",".join(("lazy_itable_init=1", "lazy_journal_init=1", "root_owner=0:0", *grows))),
        *(("-J", f"size={_JOURNAL_MB}") if size > _LARGE else ()),
        str(path),
    )


async def format_new(path: Path, size: int) -> None:
    """Make the file ``path`` with an empty file system of ``size`` bytes."""
    files.make_sparse(path, size)
    await run(format_arguments(path, size), timeout=_FORMAT_SECONDS)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
