"""Files in sandboxes, and the console."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from pandastack.cluster import EngineClient
from pandastack.errors import BadRequestError, ConflictError, NotFoundError
from pandastack.services.sandboxes import Sandboxes
from pandastack.services.settings import Settings
from pandastack.store.sandboxes import RUNNING

_MAX_PATH = 4096  # bytes; Linux PATH_MAX
_REPLAY = 4096  # characters of the console that a follower is shown first
_OVERLAP = 512


class Files:
    """Operations on absolute paths of the guest; they follow symbolic links."""

    def __init__(self, sandboxes: Sandboxes, engine: EngineClient) -> None:
        self._sandboxes = sandboxes
        self._engine = engine

    @asynccontextmanager
    async def read(
        self, workspace: str, sandbox_id: str, path: str, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[tuple[int | None, AsyncIterator[bytes]]]:
        """Length in bytes, if known, and content of a file, from ``offset`` and for ``length`` bytes at most."""
        async with (
            self._sandboxes.use(workspace, sandbox_id) as sandbox,
            self._engine.read_file(sandbox.id, checked_path(path), offset, length) as opened,
        ):
            yield opened

    async def write(self, workspace: str, sandbox_id: str, path: str, content: AsyncIterator[bytes]) -> dict[str, Any]:
        """Make or replace a file, and its parent directories."""
        async with self._sandboxes.use(workspace, sandbox_id) as sandbox:
            return await self._engine.write_file(sandbox.id, checked_path(path), content)

    async def delete(self, workspace: str, sandbox_id: str, path: str) -> None:
        """Delete with all that is inside; a missing path is fine."""
        async with self._sandboxes.use(workspace, sandbox_id) as sandbox:
            await self._engine.delete_file(sandbox.id, checked_path(path))

    async def directory(self, workspace: str, sandbox_id: str, path: str) -> dict[str, Any]:
        """The entries of a directory."""
        async with self._sandboxes.use(workspace, sandbox_id) as sandbox:
            return await self._engine.directory(sandbox.id, checked_path(path))

    async def stat(self, workspace: str, sandbox_id: str, path: str) -> dict[str, Any]:
        """One entry."""
        async with self._sandboxes.use(workspace, sandbox_id) as sandbox:
            return await self._engine.stat(sandbox.id, checked_path(path))


class Consoles:
    """What machines write to their consoles. A console is a terminal, whose lines end with CR and LF; shown are LF."""

    def __init__(self, sandboxes: Sandboxes, engine: EngineClient, settings: Settings) -> None:
        self._sandboxes = sandboxes
        self._engine = engine
        self._poll_seconds = settings.log_poll_seconds

    async def read(self, workspace: str, sandbox_id: str, tail: int | None) -> str:
        """The console's text, or its last ``tail`` lines."""
        async with self._sandboxes.use(workspace, sandbox_id) as sandbox:
            text = (await self._engine.console(sandbox.id)).replace("\r\n", "\n")
        if tail is None or tail <= 0:
            return text
        return "".join(text.splitlines(keepends=True)[-tail:])

    @asynccontextmanager
    async def follow(self, workspace: str, sandbox_id: str, tail: int | None) -> AsyncIterator[AsyncIterator[str]]:
        """Whole lines: first those of the last 4 KiB (or ``tail``), then new ones until the sandbox ends."""
        async with self._sandboxes.use(workspace, sandbox_id) as sandbox:
            text = await self._engine.console(sandbox.id)
            yield self._lines(workspace, sandbox.id, text, tail)

    async def _lines(self, workspace: str, sandbox_id: str, text: str, tail: int | None) -> AsyncIterator[str]:
        start = (
            text[-_REPLAY:] if tail is None else "".join(text.splitlines(keepends=True)[-tail:] if tail > 0 else text)
        )
        pending = start
        while True:
            *whole, pending = pending.split("\n")
            for line in whole:
                yield line.removesuffix("\r") + "\n"
            # The engine announces nothing here: the console is a file that the machine writes.
            await anyio.sleep(self._poll_seconds)
            try:
                if self._sandboxes.get(workspace, sandbox_id).status != RUNNING:
                    break  # following must not wake it
                async with self._sandboxes.use(workspace, sandbox_id):
                    newer = await self._engine.console(sandbox_id)
            except (NotFoundError, ConflictError):
                break
            pending += appended(text, newer)
            text = newer
        if pending:
            yield pending + "\n"


def appended(before: str, after: str) -> str:
    """What a window on the end of a growing text shows newly, when it showed ``before`` and now shows ``after``."""
    if after.startswith(before):
        return after[len(before) :]
    mark = before[-_OVERLAP:]
    found = after.rfind(mark)
    return after[found + len(mark) :] if found >= 0 else after


def checked_path(path: str, field: str = "path") -> str:
    """An absolute path of the guest. Raises :class:`BadRequestError` that names ``field``."""
    if not path.startswith("/"):
        raise BadRequestError(
            f"{field}: must be absolute, not {path[:64]!r}" if path else f"{field}: is required", field=field
        )
    if "\0" in path or len(path.encode(errors="replace")) >= _MAX_PATH:
        raise BadRequestError(f"{field}: must be shorter than 4096 bytes, without NUL characters", field=field)
    return path
