"""Files inside a sandbox. Paths are absolute; a path that does not exist raises NotFoundError."""

from __future__ import annotations

import os
import posixpath
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any, Literal

from pandastack.errors import NotFoundError, TooLargeError
from pandastack.sdk._async.interfaces import AsyncSandboxHandle
from pandastack.sdk._runtime import (
    async_append,
    async_pack_tree,
    async_read_piece,
    async_unpack_tree,
    async_write_file,
    spool,
)
from pandastack.sdk._types import FileInfo, FileMatch
from pandastack.sdk.wire.call import Call, file_call, file_change, file_search, tree_call
from pandastack.sdk.wire.coding import json_object, mapped_transport_errors

if TYPE_CHECKING:
    import httpx

_PIECE = 16 * 1024 * 1024
"""Bytes of a long file sent with one request."""

MOST_OF_A_TREE = 1024 * 1024 * 1024
"""Default limit of a directory's archive in a download, in bytes."""


class AsyncSandboxFilesystem:
    """The files of one sandbox.

    Content is held in memory, except by ``upload`` and the downloads. The sandbox decides how much it sends: pass
    ``max_bytes`` when you do not trust the code in it.
    """

    def __init__(self, sandbox: AsyncSandboxHandle) -> None:
        self._sandbox = sandbox

    async def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """The content of a file, of any size without ``max_bytes``.

        Raises NotFoundError, BadRequestError for a directory, and TooLargeError for more than ``max_bytes``.
        """
        content = bytearray()
        async with aclosing(self._pieces(self._get(path), max_bytes)) as pieces:
            async for piece in pieces:
                content += piece
        return bytes(content)

    async def write(self, path: str, content: bytes | str) -> dict[str, Any]:
        """Create or replace a file, with its parent directories; text is written as UTF-8.

        Returns ``{"path", "bytes"}``. Raises TooLargeError above the server's limit (32 MiB),
        StorageFullError.
        """
        data = content.encode() if isinstance(content, str) else bytes(content)
        return json_object(await self._run(file_call("PUT", self._sandbox.id, path, content=data)))

    async def upload(self, local_path: str | os.PathLike[str], remote_path: str) -> dict[str, Any]:
        """Copy a local file of any size into the sandbox; it appears whole or not at all.

        Returns ``{"path", "bytes"}``. Raises OSError for the local side, and the errors of :meth:`write`.
        """
        piece = await async_read_piece(local_path, 0, _PIECE)
        if len(piece) < _PIECE:
            return await self.write(remote_path, piece)
        unfinished, done = f"{remote_path}.{secrets.token_hex(4)}.part", 0
        try:
            while piece:
                await self._run(file_call("PUT", self._sandbox.id, unfinished, content=piece, offset=done))
                done += len(piece)
                piece = await async_read_piece(local_path, done, _PIECE)
            await self.move(unfinished, remote_path, overwrite=True)
        except BaseException:
            await self._run(file_call("DELETE", self._sandbox.id, unfinished))
            raise
        return {"path": remote_path, "bytes": done}

    async def download(
        self, remote_path: str, local_path: str | os.PathLike[str], *, max_bytes: int | None = None
    ) -> None:
        """Copy a file out of the sandbox; the local file changes only once all of it has arrived.

        Raises OSError for the local side, and the errors of :meth:`read`.
        """
        with spool() as content:
            await self._fetch(content, self._get(remote_path), max_bytes)
            await async_write_file(local_path, content)

    async def upload_tree(
        self, local_path: str | os.PathLike[str], remote_path: str, *, links: Literal["keep", "skip", "refuse"] = "keep"
    ) -> int:
        """Copy a local directory into the sandbox and return the number of files, directories and links.

        ``links`` says what becomes of links that point outside the directory. Raises OSError for the local side,
        BadRequestError for a link that is refused.
        """
        packed = await async_pack_tree(local_path)
        call = tree_call("PUT", self._sandbox.id, remote_path, links, packed)
        answer = json_object(await self._run(call))
        return int(answer.get("members") or 0)

    async def download_tree(
        self,
        remote_path: str,
        local_path: str | os.PathLike[str],
        *,
        max_bytes: int | None = MOST_OF_A_TREE,
        links: Literal["skip", "refuse"] = "skip",
    ) -> list[str]:
        """Copy a directory out of the sandbox; owners and set-uid bits are lost.

        Links that point outside the directory, pipes and devices are left out, and their names are returned (at most
        32,768 characters of them); with ``links="refuse"`` they raise BadRequestError.

        Raises OSError for the local side, NotFoundError, BadRequestError, and TooLargeError, before anything is
        unpacked, when its archive has more than ``max_bytes`` (default 1 GiB; None: no limit).
        """
        with spool() as packed:
            await self._fetch(packed, tree_call("GET", self._sandbox.id, remote_path, links), max_bytes)
            return await async_unpack_tree(packed, local_path)

    async def mkdir(self, path: str, mode: int | None = None) -> FileInfo:
        """Create a directory and its parents; an existing one is fine."""
        return await self._change("mkdir", path=path, mode=None if mode is None else f"{mode:04o}")

    async def move(self, path: str, new_path: str, overwrite: bool = False) -> FileInfo:
        """Move a file or directory. Raises ConflictError when the target exists."""
        return await self._change("move", from_=path, to=new_path, overwrite=overwrite)

    async def chmod(self, path: str, mode: int, recursive: bool = False) -> FileInfo:
        """Change the mode of a file, or of everything below a directory: ``chmod("/x", 0o600)``."""
        return await self._change("chmod", path=path, mode=f"{mode:04o}", recursive=recursive)

    async def search(self, path: str, name: str = "*", text: str | None = None, limit: int = 1000) -> list[FileMatch]:
        """Files below ``path`` whose names match a shell pattern, or their lines that contain ``text``."""
        answer = json_object(await self._run(file_search(self._sandbox.id, path, name, text, limit)))
        return [FileMatch.from_dict(each) for each in answer.get("matches") or []]

    async def listdir(self, path: str = "/") -> list[FileInfo]:
        """The entries of a directory. Symbolic links to directories count as files."""
        answer = json_object(await self._run(file_call("GET", self._sandbox.id, path, "/dir")))
        return [FileInfo.from_dict(each, path) for each in answer.get("entries") or []]

    async def stat(self, path: str) -> FileInfo:
        """One file or directory; symbolic links are followed."""
        answer = json_object(await self._run(file_call("GET", self._sandbox.id, path, "/stat")))
        return FileInfo.from_dict({"name": posixpath.basename(path), "path": path} | answer)

    async def exists(self, path: str) -> bool:
        """Whether ``path`` exists."""
        try:
            await self.stat(path)
        except NotFoundError:
            return False
        return True

    async def walk(self, path: str = "/") -> AsyncIterator[tuple[str, list[FileInfo], list[FileInfo]]]:
        """Every directory from ``path`` down: ``(directory, directories in it, other entries in it)``."""
        waiting = [path]
        while waiting:
            here = waiting.pop()
            entries = await self.listdir(here)
            directories = [each for each in entries if each.is_dir]
            yield here, directories, [each for each in entries if not each.is_dir]
            waiting.extend(each.path for each in reversed(directories))

    async def _change(self, what: str, **body: Any) -> FileInfo:
        return FileInfo.from_dict(json_object(await self._run(file_change(self._sandbox.id, what, **body))))

    def _get(self, path: str) -> Call:
        return file_call("GET", self._sandbox.id, path)

    async def _fetch(self, into: IO[bytes], call: Call, max_bytes: int | None) -> None:
        async with aclosing(self._pieces(call, max_bytes)) as pieces:
            async for piece in pieces:
                await async_append(into, piece)

    async def _pieces(self, call: Call, max_bytes: int | None) -> AsyncGenerator[bytes, None]:
        """The content from the sandbox, as long as it is within the limit."""
        left = max_bytes
        async with aclosing(await self._run(replace(call, streamed=True))) as response:
            pieces = response.aiter_bytes()
            while True:
                with mapped_transport_errors(self._sandbox.client.api_url):
                    piece = await anext(pieces, None)
                if piece is None:
                    return
                if left is not None:
                    left -= len(piece)
                    if left < 0:
                        raise TooLargeError(
                            f"{call.params['path']}: more than {max_bytes} bytes", hint="raise max_bytes"
                        )
                yield piece

    async def _run(self, call: Call) -> httpx.Response:
        return await self._sandbox.client.transport.run(call)
