"""Whole trees of a sandbox's files: archives, names, modes, searches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Annotated

import anyio
from fastapi import APIRouter, Query, Request, Response
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from pandastack.api.buffered import buffered_response
from pandastack.api.models.files import Chmod, FileEntry, Found, Mkdir, Move, Unpacked
from pandastack.api.models.schema import takes
from pandastack.api.requests import caller_of, check_length, flag, json_response, limited, plane_of, read_json
from pandastack.api.sockets import NORMAL, receive, refuse, send_json
from pandastack.api.streams import EVENTS, EventStream, FileStream, StreamEvent
from pandastack.errors import BadRequestError, PandastackError
from pandastack.services.files.tar_filter import Outside

router = APIRouter(prefix="/v1/sandboxes/{sandbox_id}/fs", tags=["files"])

_PATH = Query("", description="An absolute path")
_LINKS_IN = Query("", description="Links that lead outside the directory: `keep` (default), `skip` or `refuse`")
_LINKS_OUT = Query("", description="Links that lead outside the directory: `skip` (default) or `refuse`")
_TAR = "application/x-tar"


@router.get(
    "/tar",
    response_class=Response,
    responses={200: {"content": {_TAR: {}}, "description": "A tar archive that is safe to unpack"}},
)
async def pack(request: Request, sandbox_id: str, path: str = _PATH, links: str = _LINKS_OUT) -> Response:
    """A directory as a tar archive. It breaks off at a member that is not safe to unpack.

    Links that lead outside, pipes and devices are left out; the comment of the last member then names them.
    """
    outside = _outside(links, Outside.SKIP, Outside.REFUSE)
    source = partial(plane_of(request).archives.pack, caller_of(request), sandbox_id, path, outside)
    return FileStream(source, media_type=_TAR)


@router.put(
    "/tar",
    response_class=Response,
    responses={200: {"model": Unpacked}},
    openapi_extra={"requestBody": {"content": {_TAR: {}}}},
)
async def unpack(request: Request, sandbox_id: str, path: str = _PATH, links: str = _LINKS_IN) -> Response:
    """Unpack a tar archive into a directory, which is created. Nothing of a refused archive is unpacked."""
    outside = _outside(links, Outside.KEEP, Outside.SKIP, Outside.REFUSE)
    plane = plane_of(request)
    limit = plane.settings.max_tar_bytes
    check_length(request, limit)
    content = limited(request, limit)
    done = await plane.archives.unpack(caller_of(request), sandbox_id, path, outside, content)
    return json_response(Unpacked.of(done))


@router.post(
    "/mkdir",
    response_class=Response,
    responses={200: {"model": FileEntry}},
    openapi_extra=takes(Mkdir),
)
async def make_directory(request: Request, sandbox_id: str) -> Response:
    """Create a directory and its parents; an existing one is fine."""
    body = await read_json(request, Mkdir)
    entry = await plane_of(request).file_operations.mkdir(caller_of(request), sandbox_id, body.path, body.mode)
    return json_response(FileEntry.model_validate(entry))


@router.post(
    "/move",
    response_class=Response,
    responses={200: {"model": FileEntry}},
    openapi_extra=takes(Move),
)
async def move(request: Request, sandbox_id: str) -> Response:
    """Move a file or directory; 409 when the target exists."""
    body = await read_json(request, Move)
    caller, overwrite = caller_of(request), bool(body.overwrite)
    entry = await plane_of(request).file_operations.move(caller, sandbox_id, body.source, body.to, overwrite)
    return json_response(FileEntry.model_validate(entry))


@router.post(
    "/chmod",
    response_class=Response,
    responses={200: {"model": FileEntry}},
    openapi_extra=takes(Chmod),
)
async def change_mode(request: Request, sandbox_id: str) -> Response:
    """Change the mode of a file, or of everything below a directory."""
    body = await read_json(request, Chmod)
    caller, recursive = caller_of(request), bool(body.recursive)
    entry = await plane_of(request).file_operations.chmod(caller, sandbox_id, body.path, body.mode, recursive)
    return json_response(FileEntry.model_validate(entry))


@router.get("/search", response_class=Response, responses={200: {"model": Found}})
async def search(
    request: Request,
    sandbox_id: str,
    path: str = _PATH,
    name: Annotated[str, Query(description="A shell pattern for file names", max_length=255)] = "*",
    text: Annotated[str | None, Query(description="Text in the lines", min_length=1, max_length=4096)] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> Response:
    """Search below a directory: for files by name, or for lines by content."""
    if "\0" in name + (text or "") or "\n" in (text or ""):
        raise BadRequestError("text: must be one line, without NUL characters", field="text")
    found = await plane_of(request).search.search(caller_of(request), sandbox_id, path, name, text, limit)
    return await buffered_response(lambda: Found.model_validate(found, from_attributes=True), found.lease)


@router.get("/watch", response_class=Response, responses={200: {"content": EVENTS}})
async def watch(request: Request, sandbox_id: str, path: str = _PATH, recursive: str = "") -> Response:
    """Watch a path: events `change`, the first of type `ready`; the stream ends when the path itself is deleted."""
    plane, caller = plane_of(request), caller_of(request)

    @asynccontextmanager
    async def source() -> AsyncIterator[AsyncIterator[StreamEvent]]:
        with plane.streams.hold(plane.sandboxes.get(caller, sandbox_id).id):
            async with plane.watches.watch(caller, sandbox_id, path, flag(recursive)) as changes:
                yield (("change", each) async for each in changes)

    return EventStream(source, plane.settings.keep_alive_seconds)


@router.websocket("/watch")
async def watch_by_socket(websocket: WebSocket, sandbox_id: str, path: str = "", recursive: str = "") -> None:
    """The same changes as text frames; the connection closes when the path itself is deleted."""
    plane, caller = plane_of(websocket), caller_of(websocket)
    try:
        async with AsyncExitStack() as stack:
            stack.enter_context(plane.streams.hold(plane.sandboxes.get(caller, sandbox_id).id))
            changes = await stack.enter_async_context(plane.watches.watch(caller, sandbox_id, path, flag(recursive)))
            await websocket.accept()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_until_gone, websocket, tasks.cancel_scope)
                async for each in changes:
                    await send_json(websocket, each)
                await websocket.close(NORMAL)
                tasks.cancel_scope.cancel()
    except* PandastackError as errors:
        await _end(websocket, next(_leaves(errors)))
    except* (WebSocketDisconnect, OSError):
        pass


async def _until_gone(websocket: WebSocket, scope: anyio.CancelScope) -> None:
    with suppress(WebSocketDisconnect):
        while True:
            await receive(websocket)
    scope.cancel()


async def _end(websocket: WebSocket, error: PandastackError) -> None:
    if websocket.application_state is WebSocketState.CONNECTING:
        await refuse(websocket, error)
        return
    with suppress(WebSocketDisconnect, OSError, RuntimeError):  # the client may have disconnected as well
        await send_json(websocket, {"error": error.message})
        await websocket.close(NORMAL)


def _leaves(group: BaseExceptionGroup[PandastackError]) -> Iterator[PandastackError]:
    for each in group.exceptions:
        yield from _leaves(each) if isinstance(each, BaseExceptionGroup) else (each,)


def _outside(links: str, *known: Outside) -> Outside:
    """What ``links`` says; by default the first of ``known``."""
    if links and links not in known:
        raise BadRequestError(f"links: must be {' or '.join(known)}", field="links")
    return Outside(links) if links else known[0]
