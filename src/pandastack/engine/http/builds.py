"""Template builds over the engine's HTTP interface. Only these routes need the application's ``state.builds``."""

from __future__ import annotations

from tempfile import SpooledTemporaryFile
from typing import IO

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pandastack.contract import codec
from pandastack.contract.builds import OPTIONS_MAX, BuildOptions
from pandastack.contract.fields import Uuid
from pandastack.engine.build.builds import Builds
from pandastack.engine.build.context_archive import ARCHIVE_MAX
from pandastack.engine.http.messages import answer
from pandastack.engine.http.streaming import KeepAlive, Write, WrittenResponse
from pandastack.errors import BadRequestError, TooLargeError

_IN_MEMORY = 1024 * 1024
KEEP_ALIVE_SECONDS = 15.0


def build_routes() -> list[Route]:
    """The routes of builds: start (``POST`` with a line of options and the recipe's tar, or with ``?shipped=NAME`` and
    the line alone), get, follow, cancel."""
    return [
        Route("/recipes", list_recipes, methods=["GET"]),
        Route("/builds", list_builds, methods=["GET"]),
        Route("/builds/{id}", start_build, methods=["POST"]),
        Route("/builds/{id}", get_build, methods=["GET"]),
        Route("/builds/{id}", cancel_build, methods=["DELETE"]),
        Route("/builds/{id}/events", read_events, methods=["GET"]),
    ]


def _target(request: Request) -> tuple[Builds, str]:
    builds: Builds = request.app.state.builds
    return builds, codec.check_request(Uuid, request.path_params["id"], "id")


async def list_recipes(request: Request) -> Response:
    builds: Builds = request.app.state.builds
    return answer(builds.recipes())


async def list_builds(request: Request) -> Response:
    builds: Builds = request.app.state.builds
    return answer(tuple(builds.list()))


async def start_build(request: Request) -> Response:
    builds, build_id = _target(request)
    shipped = request.query_params.get("shipped")
    with SpooledTemporaryFile(_IN_MEMORY) as archive:
        options = await _receive(request, archive)
        if shipped is not None:
            return answer(await builds.start_shipped(build_id, shipped, options), 202)
        return answer(await builds.start(build_id, archive, options), 202)


async def _receive(request: Request, archive: IO[bytes]) -> BuildOptions:
    """The options in the first line of the body; the rest goes to ``archive``. Options never touch the disk."""
    line, options, size = bytearray(), None, 0
    async for chunk in request.stream():
        if options is None:
            before, newline, chunk = chunk.partition(b"\n")
            line += before
            if len(line) > OPTIONS_MAX:
                raise TooLargeError(f"options: larger than {OPTIONS_MAX >> 20} MiB", field="options")
            if not newline:
                continue
            options = codec.decode_request(BuildOptions, bytes(line))
        size += len(chunk)
        if size > ARCHIVE_MAX:
            raise TooLargeError(f"recipe: the archive is larger than {ARCHIVE_MAX >> 20} MiB", field="recipe")
        archive.write(chunk)
    archive.seek(0)
    if options is None:
        raise BadRequestError("options: the body begins with a line of them", field="options")
    return options


async def get_build(request: Request) -> Response:
    builds, build_id = _target(request)
    return answer(builds.get(build_id))


async def cancel_build(request: Request) -> Response:
    builds, build_id = _target(request)
    return answer(builds.cancel(build_id), 202)


async def read_events(request: Request) -> Response:
    """The build's events, one a line with empty lines as keep-alive; with ``?follow=1`` until the build ends."""
    builds, build_id = _target(request)
    events = builds.read(build_id, follow=request.query_params.get("follow") == "1")

    async def body(write: Write) -> None:
        await write(b"")
        async for event in events:
            await write(codec.encode(event) + b"\n")

    return WrittenResponse(body, "application/x-ndjson", KeepAlive(b"\n", KEEP_ALIVE_SECONDS))
