"""Files in sandboxes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pandastack.cluster import Engines
from pandastack.contract.files import Directory, FileEntry, Written
from pandastack.errors import BadRequestError
from pandastack.model.caller import Caller
from pandastack.services.sandboxes.sandboxes import Sandboxes

MAX_PATH = 4096  # bytes; Linux PATH_MAX


class Files:
    """Operations on absolute paths of the guest; they follow symbolic links."""

    def __init__(self, sandboxes: Sandboxes, engines: Engines) -> None:
        self._sandboxes = sandboxes
        self._engines = engines

    @asynccontextmanager
    async def read(
        self, caller: Caller, sandbox_id: str, path: str, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[tuple[int | None, AsyncIterator[bytes]]]:
        """The length in bytes, if known, and the content of a file: at most ``length`` bytes from ``offset`` on."""
        async with (
            self._sandboxes.use(caller, sandbox_id) as sandbox,
            self._engines.of(sandbox).read_file(sandbox.id, checked_path(path), offset, length) as opened,
        ):
            yield opened

    async def write(self, caller: Caller, sandbox_id: str, path: str, content: AsyncIterator[bytes]) -> Written:
        """Create or replace a file, and create its parent directories."""
        async with self._sandboxes.use(caller, sandbox_id) as sandbox:
            return await self._engines.of(sandbox).write_file(sandbox.id, checked_path(path), content)

    async def delete(self, caller: Caller, sandbox_id: str, path: str) -> None:
        """Delete a path with everything below it; a missing path is fine."""
        async with self._sandboxes.use(caller, sandbox_id) as sandbox:
            await self._engines.of(sandbox).delete_file(sandbox.id, checked_path(path))

    async def directory(self, caller: Caller, sandbox_id: str, path: str) -> Directory:
        """The entries of a directory."""
        async with self._sandboxes.use(caller, sandbox_id) as sandbox:
            return await self._engines.of(sandbox).directory(sandbox.id, checked_path(path))

    async def stat(self, caller: Caller, sandbox_id: str, path: str) -> FileEntry:
        """The entry of one path."""
        async with self._sandboxes.use(caller, sandbox_id) as sandbox:
            return await self._engines.of(sandbox).stat(sandbox.id, checked_path(path))


def checked_path(path: str, field: str = "path") -> str:
    """An absolute path of the guest. Raises a :class:`BadRequestError` that names ``field``."""
    if not path.startswith("/"):
        raise BadRequestError(
            f"{field}: must be absolute, not {path[:64]!r}" if path else f"{field}: is required", field=field
        )
    if "\0" in path or len(path.encode(errors="replace")) >= MAX_PATH:
        raise BadRequestError(f"{field}: must be shorter than 4096 bytes, without NUL characters", field=field)
    return path
