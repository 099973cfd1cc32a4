"""Whole trees of a sandbox's files: as tar archives both ways, moved, searched; directories made, modes changed.

All of it is done by the guest's own programs. What they say is bounded and never trusted.
"""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pandastack.cluster import EngineClient
from pandastack.cluster.exec_records import STDERR, STDOUT, ExecResult, Output, Record
from pandastack.errors import BadRequestError, ConflictError, GuestError, NotFoundError, ServerError, StorageFullError
from pandastack.services.files.files import checked_path
from pandastack.services.files.tar_filter import TarFilter
from pandastack.services.sandboxes.sandboxes import Sandboxes
from pandastack.services.settings import Settings

_MOST_SAID = 16 * 1024  # bytes of a program's complaints
_HELD_BACK = 256 * 1024  # bytes of an archive
_LINE = 1000  # characters of a line that is found
_EXISTS = 17
_ELSEWHERE = 18
"""Exit code for a file that does not end where the next piece of it is to go."""
MISSING = 44
"""Exit code of our scripts for a path that does not exist."""
_ENVIRONMENT = "export LC_ALL=C; "

_MOVE = f"""test -e "$1" || test -L "$1" || exit {MISSING}
if test -z "$3"; then test -e "$2" || test -L "$2" && exit {_EXISTS}; fi
mkdir -p -- "$(dirname -- "$2")" && exec mv -fT -- "$1" "$2"
"""
_CHMOD = f"""test -e "$1" || exit {MISSING}
exec chmod $3 -- "$2" "$1"
"""
_MKDIR = 'mkdir -p -- "$1" && if test -n "$2"; then exec chmod -- "$2" "$1"; fi'
_PACK = f"""cd -- "$1" || {{ test -e "$1" && exit 20; exit {MISSING}; }}
exec tar --format=posix --numeric-owner -cf - .
"""
_APPEND = f"""if test "$3" = 0; then mkdir -p -- "$(dirname -- "$2")" && : > "$2" || exit 1; fi
test "$(stat -Lc %s -- "$2")" = "$3" || {{ rm -f -- "$1"; exit {_ELSEWHERE}; }}
cat -- "$1" >> "$2"; status=$?; rm -f -- "$1"; exit $status
"""
_UNPACK = 'mkdir -p -- "$1" && tar -C "$1" -xf "$2"; status=$?; rm -f -- "$2"; exit $status'
_FIND = f"""test -e "$1" || exit {MISSING}
exec find "$1" -mindepth 1 -name "$2" -print0
"""
_GREP = f"""test -e "$1" || exit {MISSING}
grep -rnIFZ --include="$2" -e "$3" -- "$1"; test $? -le 1
"""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """``members`` were put there, ``skipped`` left out, of an archive of ``bytes`` bytes."""

    path: str
    members: int
    skipped: int
    bytes: int


class FileOperations:
    """Operations on absolute paths of the guest; they follow symbolic links."""

    def __init__(self, sandboxes: Sandboxes, engine: EngineClient, settings: Settings) -> None:
        self._sandboxes = sandboxes
        self._engine = engine
        self._settings = settings

    async def mkdir(self, workspace: str, sandbox_id: str, path: str, mode: str | None) -> dict[str, Any]:
        """Make a directory and its parents; one that is there is fine. Returns its entry."""
        self._sandboxes.get(workspace, sandbox_id)
        arguments = (checked_path(path), checked_mode(mode) if mode else "")
        return await self._change(workspace, sandbox_id, path, _MKDIR, *arguments)

    async def chmod(self, workspace: str, sandbox_id: str, path: str, mode: str, recursive: bool) -> dict[str, Any]:
        """Change a file's mode (octal digits). Returns its entry."""
        self._sandboxes.get(workspace, sandbox_id)
        arguments = (checked_path(path), checked_mode(mode), "-R" if recursive else "")
        return await self._change(workspace, sandbox_id, path, _CHMOD, *arguments)

    async def move(self, workspace: str, sandbox_id: str, source: str, target: str, overwrite: bool) -> dict[str, Any]:
        """Give a file or directory another name, and make the parents of that. Returns the entry of ``target``.

        Raises :class:`ConflictError` when there is something and it is not to be overwritten.
        """
        self._sandboxes.get(workspace, sandbox_id)
        arguments = (checked_path(source, "from"), checked_path(target, "to"), "1" if overwrite else "")
        return await self._change(workspace, sandbox_id, target, _MOVE, *arguments)

    @asynccontextmanager
    async def pack(
        self, workspace: str, sandbox_id: str, path: str, skip_links: bool
    ) -> AsyncIterator[tuple[None, AsyncIterator[bytes]]]:
        """A directory as a tar archive that is safe to unpack. What the guest may not send ends it with an error."""
        command = _command(_PACK, checked_path(path))
        async with self._running(workspace, sandbox_id, command, path, fine=(0, 1)) as output:
            chunks = _filtered(output, TarFilter(skip_links))
            first = await _beginning(chunks)
            yield None, _chained(first, chunks)

    async def unpack(
        self, workspace: str, sandbox_id: str, path: str, skip_links: bool, content: AsyncIterator[bytes]
    ) -> Unpacked:
        """Unpack a tar archive into a directory, which is made. Nothing is unpacked of one that is refused."""
        where, one = checked_path(path), TarFilter(skip_links)
        async with self._sandboxes.use(workspace, sandbox_id) as sandbox:
            archive = _temporary()
            written = await self._engine.write_file(sandbox.id, archive, _filtered(content, one))
            await self._run(workspace, sandbox.id, _command(_UNPACK, where, archive), path)
        return Unpacked(path, one.members - one.skipped, one.skipped, int(written.get("bytes", 0)))

    async def append(
        self, workspace: str, sandbox_id: str, path: str, offset: int, content: AsyncIterator[bytes]
    ) -> dict[str, Any]:
        """Add a piece to a file of ``offset`` bytes; at 0 it begins anew. Returns ``{"path", "bytes"}`` of the piece.

        Raises :class:`ConflictError` when the file has another length: a piece is never lost nor there twice.
        """
        where = checked_path(path)
        async with self._sandboxes.use(workspace, sandbox_id) as sandbox:
            piece = _temporary()
            written = await self._engine.write_file(sandbox.id, piece, content)
            await self._run(workspace, sandbox.id, _command(_APPEND, piece, where, str(offset)), path)
        return {"path": path, "bytes": int(written.get("bytes", 0))}

    async def search(
        self, workspace: str, sandbox_id: str, path: str, name: str, text: str | None, limit: int
    ) -> dict[str, Any]:
        """Files below ``path`` whose names match the pattern ``name``, or their lines that contain ``text``.

        ``truncated`` says that there are more than ``limit``.
        """
        checked_path(path)
        script = _FIND if text is None else _GREP
        command = _command(script, path, name, *([] if text is None else [text]))
        matches: list[dict[str, Any]] = []
        async with self._running(workspace, sandbox_id, command, path) as output:
            async for match in _found(output, text is not None):
                matches.append(match)
                if len(matches) > limit:
                    break
        return {"path": path, "matches": matches[:limit], "truncated": len(matches) > limit}

    async def _change(self, workspace: str, sandbox_id: str, path: str, script: str, *arguments: str) -> dict[str, Any]:
        async with self._sandboxes.use(workspace, sandbox_id) as sandbox:
            await self._run(workspace, sandbox.id, _command(script, *arguments), arguments[0])
            return await self._engine.stat(sandbox.id, path)

    @asynccontextmanager
    async def _running(
        self, workspace: str, sandbox_id: str, command: str, path: str, fine: tuple[int, ...] = (0,)
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """What a program of the guest writes; leaving the block ends it."""
        request = {"cmd": command, "timeout_seconds": self._settings.max_tree_seconds}
        async with (
            self._sandboxes.use(workspace, sandbox_id) as sandbox,
            self._engine.exec(sandbox.id, request) as records,
        ):
            yield output_of(records, path, fine)

    async def _run(self, workspace: str, sandbox_id: str, command: str, path: str) -> None:
        async with self._running(workspace, sandbox_id, command, path) as output:
            async for _ in output:
                pass


def checked_mode(mode: str) -> str:
    """Octal digits of a mode. Raises :class:`BadRequestError`."""
    if not re.fullmatch(r"0?[0-7]{3,4}", mode):
        raise BadRequestError("mode: must be octal digits like 0644", field="mode")
    return mode


def _temporary() -> str:
    return f"/tmp/.pandastack-{secrets.token_hex(8)}"


def _command(script: str, *arguments: str) -> str:
    return f"{_ENVIRONMENT}set -- {shlex.join(arguments)}\n{script}"


async def output_of(records: AsyncIterator[Record], path: str, fine: tuple[int, ...]) -> AsyncIterator[bytes]:
    """Raises for an exit code that is not ``fine``, by what the program complained."""
    said = bytearray()
    async for record in records:
        if isinstance(record, ExecResult):
            _check(record, bytes(said), path, fine)
        elif isinstance(record, Output) and record.kind == STDOUT:
            yield record.data
        elif isinstance(record, Output) and record.kind == STDERR:
            said += record.data[: _MOST_SAID - len(said)]


def _check(result: ExecResult, said: bytes, path: str, fine: tuple[int, ...]) -> None:
    if result.timed_out:
        raise ServerError(f"{path}: it took too long and was ended")
    if result.error:
        raise ServerError(result.error)
    if result.exit_code in fine:
        return
    if result.exit_code == MISSING:
        raise NotFoundError(f"{path}: no such file or directory")
    if result.exit_code == _ELSEWHERE:
        raise ConflictError(f"{path}: it does not end there", field="offset", hint="GET …/fs/stat says how long it is")
    if result.exit_code == _EXISTS:
        raise ConflictError(
            "there is something already at the new path", field="to", hint="overwrite: true replaces it"
        )
    lines = said.decode(errors="replace").strip().splitlines() or [f"exit code {result.exit_code}"]
    message = f"{path}: {lines[-1][:300]}"
    full = any("No space left" in line for line in lines)
    raise StorageFullError(message) if full else BadRequestError(message, field="path")


async def _filtered(source: AsyncIterator[bytes], one: TarFilter) -> AsyncIterator[bytes]:
    async for chunk in source:
        if safe := one.feed(chunk):
            yield safe
    one.end()


async def _beginning(chunks: AsyncIterator[bytes]) -> bytes:
    """The first of an archive, a small one whole, so that what is wrong with it is an ordinary error."""
    beginning = b""
    async for chunk in chunks:
        beginning += chunk
        if len(beginning) >= _HELD_BACK:
            break
    return beginning


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


async def _found(source: AsyncIterator[bytes], with_lines: bool) -> AsyncIterator[dict[str, Any]]:
    """Matches of find's ``NAME NUL``, or of grep's ``NAME NUL NUMBER : LINE NEWLINE``."""
    pattern = re.compile(rb"([^\0]*)\0(\d+):([^\n]*)\n" if with_lines else rb"([^\0]*)\0()()")
    buffer = b""
    async for chunk in source:
        buffer += chunk
        end = 0
        for found in pattern.finditer(buffer):
            match: dict[str, Any] = {"path": found[1].decode(errors="replace")}
            if with_lines:
                line = found[3].decode(errors="replace")
                match |= {"line": int(found[2][:18]), "text": line[:_LINE]}
            yield match
            end = found.end()
        buffer = buffer[end:]
        if len(buffer) > 1 << 24:
            raise GuestError("the guest's search found a line without an end")
