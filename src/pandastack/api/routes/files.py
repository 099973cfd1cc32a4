"""Files of a sandbox."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from pandastack.api import ranges
from pandastack.api.models.files import Directory, FileEntry, Written
from pandastack.api.requests import caller_of, check_length, json_response, limited, plane_of
from pandastack.api.streams import FileStream

router = APIRouter(prefix="/v1/sandboxes/{sandbox_id}/fs", tags=["files"])

_RANGES = {"accept-ranges": "bytes"}
_PATH = Query("", description="An absolute path")


@router.get(
    "",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {}}, "description": "The file's bytes"},
        206: {"content": {"application/octet-stream": {}}, "description": "The range that `Range` asked for"},
    },
)
async def read_file(request: Request, sandbox_id: str, path: str = _PATH) -> Response:
    """The bytes of a file, or one range of them."""
    files, caller = plane_of(request).files, caller_of(request)
    part = None
    if asked := request.headers.get("range"):
        entry = await files.stat(caller, sandbox_id, path)
        part = None if entry.is_dir else ranges.span(asked, entry.size)
    if part is None:
        return FileStream(lambda: files.read(caller, sandbox_id, path), headers=_RANGES)
    headers = {**_RANGES, "content-range": part.content_range, "content-length": str(part.length)}
    source = partial(files.read, caller, sandbox_id, path, part.offset, part.length)
    return FileStream(source, 206, headers)


@router.put(
    "",
    response_class=Response,
    responses={200: {"model": Written}},
    openapi_extra={"requestBody": {"content": {"application/octet-stream": {}}}},
)
async def write_file(
    request: Request,
    sandbox_id: str,
    path: str = _PATH,
    offset: Annotated[int | None, Query(ge=0, description="Append to a file of this length; 0: a new file")] = None,
) -> Response:
    """Create or replace a file with the body, and create its parent directories; with `offset`, piece by piece."""
    plane, caller = plane_of(request), caller_of(request)
    limit = plane.settings.max_file_bytes
    check_length(request, limit)
    content = limited(request, limit)
    if offset is None:
        written = await plane.files.write(caller, sandbox_id, path, content)
    else:
        written = await plane.file_operations.append(caller, sandbox_id, path, offset, content)
    return json_response(Written.model_validate(written))


@router.delete("", status_code=204, response_class=Response)
async def delete_file(request: Request, sandbox_id: str, path: str = _PATH) -> Response:
    """Delete a file, or a directory with everything in it; a missing path is fine."""
    await plane_of(request).files.delete(caller_of(request), sandbox_id, path)
    return Response(status_code=204)


@router.get("/dir", response_class=Response, responses={200: {"model": Directory}})
async def list_directory(request: Request, sandbox_id: str, path: str = "/") -> Response:
    """The entries of a directory."""
    found = await plane_of(request).files.directory(caller_of(request), sandbox_id, path)
    return json_response(Directory.model_validate(found))


@router.get("/stat", response_class=Response, responses={200: {"model": FileEntry}})
async def stat_file(request: Request, sandbox_id: str, path: str = _PATH) -> Response:
    """The entry of one path."""
    entry = await plane_of(request).files.stat(caller_of(request), sandbox_id, path)
    return json_response(FileEntry.model_validate(entry))
