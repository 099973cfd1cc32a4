"""Operations on a sandbox's files: create directories, move files, change modes, append pieces."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from pandastack.cluster import Engines
from pandastack.contract.files import FileEntry, Written
from pandastack.errors import BadRequestError
from pandastack.model.caller import Caller
from pandastack.services.files.files import checked_path
from pandastack.services.files.scripts import ELSEWHERE, EXISTS, MISSING, Scripts, plan_command, temporary_path
from pandastack.services.sandboxes.sandboxes import Sandboxes

_MOVE = f"""test -e "$1" || test -L "$1" || exit {MISSING}
if test -z "$3"; then test -e "$2" || test -L "$2" && exit {EXISTS}; fi
mkdir -p -- "$(dirname -- "$2")" && exec mv -fT -- "$1" "$2"
"""
_CHMOD = f"""test -e "$1" || exit {MISSING}
exec chmod $3 -- "$2" "$1"
"""
_MKDIR = 'mkdir -p -- "$1" && if test -n "$2"; then exec chmod -- "$2" "$1"; fi'
_APPEND = f"""if test "$3" = 0; then mkdir -p -- "$(dirname -- "$2")" && : > "$2" || exit 1; fi
test "$(stat -Lc %s -- "$2")" = "$3" || {{ rm -f -- "$1"; exit {ELSEWHERE}; }}
cat -- "$1" >> "$2"; status=$?; rm -f -- "$1"; exit $status
"""


class FileOperations:
    """Operations on absolute paths of the guest; they follow symbolic links."""

    def __init__(self, sandboxes: Sandboxes, engines: Engines, scripts: Scripts) -> None:
        self._sandboxes = sandboxes
        self._engines = engines
        self._scripts = scripts

    async def mkdir(self, caller: Caller, sandbox_id: str, path: str, mode: str | None) -> FileEntry:
        """Create a directory and its parents; an existing one is fine. Returns its entry."""
        self._sandboxes.get(caller, sandbox_id)
        arguments = (checked_path(path), checked_mode(mode) if mode else "")
        return await self._change(caller, sandbox_id, path, _MKDIR, *arguments)

    async def chmod(self, caller: Caller, sandbox_id: str, path: str, mode: str, recursive: bool) -> FileEntry:
        """Change a file's mode (octal digits). Returns its entry."""
        self._sandboxes.get(caller, sandbox_id)
        arguments = (checked_path(path), checked_mode(mode), "-R" if recursive else "")
        return await self._change(caller, sandbox_id, path, _CHMOD, *arguments)

    async def move(self, caller: Caller, sandbox_id: str, source: str, target: str, overwrite: bool) -> FileEntry:
        """Move a file or directory, and create the new parents. Returns the entry of ``target``.

        Raises :class:`ConflictError` when ``target`` exists and ``overwrite`` is false.
        """
        self._sandboxes.get(caller, sandbox_id)
        arguments = (checked_path(source, "from"), checked_path(target, "to"), "1" if overwrite else "")
        return await self._change(caller, sandbox_id, target, _MOVE, *arguments)

    async def append(
        self, caller: Caller, sandbox_id: str, path: str, offset: int, content: AsyncIterator[bytes]
    ) -> Written:
        """Append a piece to a file of ``offset`` bytes; 0 starts a new file. Returns the piece's path and bytes.

        Raises :class:`ConflictError` when the file has another length, so no piece is lost or added twice.
        """
        where = checked_path(path)
        async with self._sandboxes.use(caller, sandbox_id) as sandbox:
            piece = temporary_path()
            written = await self._engines.of(sandbox).write_file(sandbox.id, piece, content)
            command = plan_command(_APPEND, piece, where, str(offset))
            await self._scripts.run(caller, sandbox.id, command, path)
        return Written(path, written.bytes)

    async def _change(self, caller: Caller, sandbox_id: str, path: str, script: str, *arguments: str) -> FileEntry:
        async with self._sandboxes.use(caller, sandbox_id) as sandbox:
            await self._scripts.run(caller, sandbox.id, plan_command(script, *arguments), arguments[0])
            return await self._engines.of(sandbox).stat(sandbox.id, path)


def checked_mode(mode: str) -> str:
    """Octal digits of a mode. Raises :class:`BadRequestError`."""
    if not re.fullmatch(r"0?[0-7]{3,4}", mode):
        raise BadRequestError("mode: must be octal digits like 0644", field="mode")
    return mode
