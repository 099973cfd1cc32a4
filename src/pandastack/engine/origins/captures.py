"""Directories that hold origins under ids: snapshots, checkpoints and hibernated sandboxes."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from pandastack.engine.origins.origin import Origin, load
from pandastack.errors import NotFoundError
from pandastack.host import files

_UNFINISHED = ".new-"


class CaptureStore:
    """Origins under ids. Each appears and disappears as a whole."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(exist_ok=True)
        for left in directory.glob(f"{_UNFINISHED}*"):  # left by a former run; only one engine uses a directory
            shutil.rmtree(left, ignore_errors=True)

    def path(self, name: str) -> Path:
        return self._directory / name

    def names(self) -> list[str]:
        return sorted(each.name for each in self._directory.iterdir() if not each.name.startswith("."))

    def has(self, name: str) -> bool:
        return self.path(name).exists()

    def get(self, name: str) -> Origin:
        """Raises :class:`NotFoundError`."""
        return load(self.path(name))

    async def keep(self, name: str, fill: Callable[[Path], None], *, replace: bool) -> None:
        """Store what ``fill`` puts into a directory, in a thread. An origin under this name stays, unless this shall
        ``replace`` it.

        Nothing waits for the disk: the files are those of a machine, only with further names.
        """
        async with files.directory_for_now(self._directory / f"{_UNFINISHED}{name}-{secrets.token_hex(6)}") as work:
            await anyio.to_thread.run_sync(fill, work)
            if replace or not self.has(name):
                await self._appear(work, name)

    @asynccontextmanager
    async def adding(self, name: str) -> AsyncIterator[Path]:
        """A directory to fill. It becomes the origin when the block ends without an error, else it is removed.

        The origin survives a power cut: it may be all that is left of a sandbox.
        """
        async with files.directory_for_now(self._directory / f"{_UNFINISHED}{name}") as work:
            yield work
            await anyio.to_thread.run_sync(files.make_durable, work)
            await self._appear(work, name)
            try:
                await anyio.to_thread.run_sync(files.make_durable, self._directory, False)
            except BaseException:
                await self.remove(name)
                raise

    async def _appear(self, work: Path, name: str) -> None:
        """Rename ``work``, in the place of what is there: disks of a machine that was lost during its capture, or the
        capture that it was woken from."""
        former = self._set_aside(name) if self.has(name) else None
        work.rename(self.path(name))
        if former is not None:
            await files.remove_tree(former)

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[Path]:
        """A directory for an origin that exists only inside the block."""
        async with files.directory_for_now(self._directory / f"{_UNFINISHED}{secrets.token_hex(6)}") as directory:
            yield directory

    async def remove_stored(self, name: str, origin: Origin) -> None:
        """Remove ``origin`` if it is still what is stored under ``name``."""
        if self.has(name) and self.get(name).snapshot.manifest == origin.snapshot.manifest:
            await self.remove(name)

    async def remove(self, name: str) -> None:
        """Raises :class:`NotFoundError`."""
        await files.remove_tree(self._set_aside(name))

    def _set_aside(self, name: str) -> Path:
        dying = self._directory / f"{_UNFINISHED}dying-{name}-{secrets.token_hex(6)}"
        try:
            self.path(name).rename(dying)
        except FileNotFoundError as error:
            raise NotFoundError(f"snapshot not found: {name}", field="snapshot") from error
        return dying
