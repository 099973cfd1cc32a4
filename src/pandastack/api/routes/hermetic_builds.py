"""Hermetic builds: start, follow, fetch what they made. Builds of templates are in ``builds.py``."""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.datastructures import UploadFile

from pandastack.api import errors
from pandastack.api.idempotency import PARAMETER, idempotent
from pandastack.api.models.hermetic_builds import HermeticBuild, HermeticBuilds, NewHermeticBuild, Provenance
from pandastack.api.requests import caller_of, check_length, flag, json_response, plane_of
from pandastack.api.streams import EVENTS, EventStream, FileStream, StreamEvent
from pandastack.errors import BadRequestError
from pandastack.model.caller import Caller
from pandastack.products import builds as product

router = APIRouter(prefix="/v1/builds", tags=["builds"])

_SPEC_MAX = 256 * 1024
_PIECE = 1 << 20
_TAR = "application/x-tar"
_FORM: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["build", "source"],
                "properties": {
                    "build": {"type": "string", "contentMediaType": "application/json"},
                    "lock": {"type": "string", "contentMediaType": "text/plain"},
                    "source": {"type": "string", "contentMediaType": _TAR},
                },
            }
        }
    },
}


def builds_of(request: Request) -> product.HermeticBuilds:
    """The builds that serve ``request``."""
    builds: product.HermeticBuilds = request.app.state.hermetic_builds
    return builds


@router.post(
    "",
    status_code=202,
    response_class=Response,
    responses={202: {"model": HermeticBuild}},
    openapi_extra={"parameters": [PARAMETER], "requestBody": _FORM},
)
@idempotent(large=True)
async def start_hermetic_build(request: Request) -> Response:
    """Build in a machine of its own, without a network.

    The body is a form: the field `build` has the request as JSON, the file `source` a tar archive of the input. With
    the field `lock`, the text of a lock, the build may have what that names.
    """
    if "content-length" not in request.headers:
        raise BadRequestError("a form needs the header Content-Length", status_code=411)
    check_length(request, product.MOST_SOURCE_BYTES + product.MOST_LOCK_BYTES + 2 * _SPEC_MAX)
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        hint = "a form with the field `build` (JSON) and the file `source` (tar)"
        raise BadRequestError("the body must be multipart/form-data", hint=hint)
    builds, caller = builds_of(request), caller_of(request)
    builds.check_room(caller)
    async with request.form(max_files=1, max_fields=2, max_part_size=product.MOST_LOCK_BYTES) as form:
        wanted, source, lock = form.get("build"), form.get("source"), form.get("lock")
        if isinstance(lock, UploadFile):
            raise BadRequestError("lock: must be a field with text", field="lock")
        if not isinstance(wanted, str) or len(wanted) > _SPEC_MAX:
            raise BadRequestError("build: is required", field="build", hint='such as {"command": "make"}')
        if not isinstance(source, UploadFile):
            raise BadRequestError("source: is required", field="source", hint="a tar archive")
        spec = _planned(wanted, locked=lock is not None)
        record = await builds.start(caller, spec, _pieces(source), lock)
    return json_response(HermeticBuild.of(record), 202)


def _planned(text: str, *, locked: bool) -> product.BuildSpec:
    try:
        wanted = NewHermeticBuild.model_validate_json(text)
    except ValidationError as error:
        raise errors.of_validation(error) from error
    values = wanted.model_dump()
    fetch = product.Fetch(values.pop("record"), locked, values.pop("refetch"))
    return product.planned_build(**values, fetch=fetch)


async def _pieces(file: UploadFile) -> AsyncIterator[bytes]:
    while piece := await file.read(_PIECE):
        yield piece


@router.get("", response_class=Response, responses={200: {"model": HermeticBuilds}})
async def list_hermetic_builds(request: Request) -> Response:
    """The workspace's builds that are kept, newest first."""
    found = builds_of(request).list(caller_of(request))
    return json_response(HermeticBuilds(builds=[HermeticBuild.of(each) for each in found]))


@router.get("/{build_id}", response_class=Response, responses={200: {"model": HermeticBuild}})
async def get_hermetic_build(request: Request, build_id: str) -> Response:
    """One build."""
    return json_response(HermeticBuild.of(builds_of(request).get(caller_of(request), build_id)))


@router.delete("/{build_id}", status_code=204, response_class=Response)
async def delete_hermetic_build(request: Request, build_id: str) -> Response:
    """Delete a build with its log and artifacts; one that runs is cancelled first."""
    await builds_of(request).delete(caller_of(request), build_id)
    return Response(status_code=204)


@router.get("/{build_id}/logs", response_class=Response, responses={200: {"content": EVENTS}})
async def read_hermetic_build_log(request: Request, build_id: str, follow: str | None = None) -> Response:
    """What the build printed: events `output` with `text`; after the end of the build `ended` with the build."""
    builds, caller = builds_of(request), caller_of(request)

    @asynccontextmanager
    async def source() -> AsyncIterator[AsyncIterator[StreamEvent]]:
        async with builds.output(caller, build_id, follow=flag(follow)) as output:
            yield _events(builds, caller, build_id, output)

    return EventStream(source, plane_of(request).settings.keep_alive_seconds)


async def _events(
    builds: product.HermeticBuilds, caller: Caller, build_id: str, output: AsyncIterator[bytes]
) -> AsyncIterator[StreamEvent]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    async for piece in output:
        if text := decoder.decode(piece):
            yield "output", {"text": text}
    if text := decoder.decode(b"", final=True):
        yield "output", {"text": text}
    record = builds.get(caller, build_id)  # one that was deleted meanwhile is a last event `error`
    if record.status is not product.BuildStatus.RUNNING:
        yield "ended", HermeticBuild.of(record).model_dump()


@router.get("/{build_id}/artifacts", response_class=Response, responses={200: {"content": {_TAR: {}}}})
async def read_artifacts(request: Request, build_id: str, second: str | None = None) -> Response:
    """The artifacts as a tar archive in normal form; with `second=1` those of the second build, if it made others."""
    path = builds_of(request).archive(caller_of(request), build_id, second=flag(second))

    @asynccontextmanager
    async def source() -> AsyncIterator[tuple[int | None, AsyncIterator[bytes]]]:
        async with await anyio.open_file(path, "rb") as file:

            async def pieces() -> AsyncIterator[bytes]:
                while piece := await file.read(_PIECE):
                    yield piece

            yield path.stat().st_size, pieces()

    return FileStream(source, media_type=_TAR)


@router.get("/{build_id}/report", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def read_report(request: Request, build_id: str) -> Response:
    """What diffoscope says of the two builds of a verified one that differs, if `explain` has asked it."""
    text = await anyio.to_thread.run_sync(builds_of(request).report, caller_of(request), build_id)
    return Response(text, media_type="text/plain")


@router.get("/{build_id}/lock", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def read_lock(request: Request, build_id: str) -> Response:
    """The lock that the build has recorded, or was held to."""
    text = await anyio.to_thread.run_sync(builds_of(request).lock, caller_of(request), build_id)
    return Response(text, media_type="text/plain")


@router.get("/{build_id}/provenance", response_class=Response, responses={200: {"model": Provenance}})
async def read_provenance(request: Request, build_id: str) -> Response:
    """Where the artifacts come from: an in-toto Statement v1 with SLSA provenance v1."""
    statement = builds_of(request).provenance(caller_of(request), build_id)
    return Response(to_json(statement), media_type="application/json")
