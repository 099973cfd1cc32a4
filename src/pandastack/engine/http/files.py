"""Files of a guest over the engine's HTTP interface."""

from __future__ import annotations

import posixpath

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pandastack.contract.files import Directory, FileEntry, Written
from pandastack.engine.http.messages import answer, large_answer
from pandastack.engine.http.streaming import Write, WrittenResponse
from pandastack.engine.machines.sandbox import Sandbox
from pandastack.errors import BadRequestError
from pandastack.guest import FileEntry as GuestEntry


def file_routes(prefix: str) -> list[Route]:
    """The routes for files below a sandbox's own."""
    return [
        Route(f"{prefix}/files", read, methods=["GET"]),
        Route(f"{prefix}/files", write, methods=["PUT"]),
        Route(f"{prefix}/files", delete, methods=["DELETE"]),
        Route(f"{prefix}/directory", list_directory),
        Route(f"{prefix}/stat", stat),
    ]


def _sandbox(request: Request) -> Sandbox:
    sandbox: Sandbox = request.app.state.engine.registry.reach(request.path_params["id"])
    return sandbox


def _path(request: Request) -> str:
    path = request.query_params.get("path", "")
    if not path.startswith("/") or "\0" in path:
        raise BadRequestError(f"path must be absolute, not {path!r}", field="path")
    return path


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name, "")
    if not text:
        return None
    if not text.isdecimal() or int(text) >= 1 << 63:
        raise BadRequestError(f"{name} must be a whole number, not {text[:32]!r}", field=name)
    return int(text)


def file_entry(entry: GuestEntry, path: str) -> FileEntry:
    """The guest's description of ``path``."""
    return FileEntry(
        name=posixpath.basename(path) or "/",
        path=path,
        is_dir=entry.is_dir,
        size=entry.size,
        mode=entry.mode_text,
        mtime=entry.mtime,
    )


async def read(request: Request) -> Response:
    sandbox, path = _sandbox(request), _path(request)
    offset, length = _number(request, "offset") or 0, _number(request, "length")

    async def body(write_chunk: Write) -> None:
        async for chunk in sandbox.channel.read_file(path, offset=offset, length=length):
            await write_chunk(chunk)

    return WrittenResponse(body, "application/octet-stream")


async def write(request: Request) -> Response:
    path = _path(request)
    written = await _sandbox(request).channel.write_file(path, request.stream())
    return answer(Written(path, written))


async def delete(request: Request) -> Response:
    await _sandbox(request).channel.delete(_path(request))
    return Response(status_code=204)


async def list_directory(request: Request) -> Response:
    path = _path(request)
    entries = await _sandbox(request).channel.list(path)
    return await large_answer(
        lambda: Directory(path, tuple(file_entry(each, posixpath.join(path, each.name)) for each in entries))
    )


async def stat(request: Request) -> Response:
    path = posixpath.normpath(_path(request))
    return answer(file_entry(await _sandbox(request).channel.stat(path), path))
