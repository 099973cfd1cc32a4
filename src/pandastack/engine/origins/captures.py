"""Directories that hold origins under ids: snapshots, checkpoints and hibernated sandboxes."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import AsyncIterator
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

    @asynccontextmanager
    async def adding(self, name: str) -> AsyncIterator[Path]:
        """A directory to fill. It becomes the origin when the block ends without an error, else it is removed.

        The origin survives a power cut: it may be all that is left of a sandbox.
        """
        async with files.directory_for_now(self._directory / f"{_UNFINISHED}{name}") as work:
            yield work
            await anyio.to_thread.run_sync(files.make_durable, work)
            work.rename(self.path(name))
            try:
                await anyio.to_thread.run_sync(files.make_durable, self._directory, False)
            except BaseException:
                await self.remove(name)
                raise

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[Path]:
        """A directory for an origin that exists only inside the block."""
        async with files.directory_for_now(self._directory / f"{_UNFINISHED}{secrets.token_hex(6)}") as directory:
            yield directory

    async def remove(self, name: str) -> None:
        """Raises :class:`NotFoundError`."""
        dying = self._directory / f"{_UNFINISHED}dying-{name}"
        try:
            self.path(name).rename(dying)
        except FileNotFoundError as error:
            raise NotFoundError(f"snapshot not found: {name}", field="snapshot") from error
        await files.remove_tree(dying)
