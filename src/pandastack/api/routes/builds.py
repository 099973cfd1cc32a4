"""Template builds: start, list, follow, cancel."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from pandastack.api import errors
from pandastack.api.idempotency import PARAMETER, idempotent
from pandastack.api.models.builds import Build, NewBuild
from pandastack.api.requests import check_length, flag, json_response, limited, plane_of
from pandastack.api.streams import EVENTS, EventStream, StreamEvent
from pandastack.contract import builds as contract
from pandastack.errors import BadRequestError
from pandastack.services.templates.builds import CONTEXT_MAX, DockerfileRecipe

router = APIRouter(prefix="/v1/templates", tags=["templates"])

RECIPE_MAX = 256 * 1024 * 1024
_FORM_OVERHEAD = 8 * 1024 * 1024
_TAR = "application/x-tar"


@router.post(
    "/build",
    status_code=202,
    response_class=Response,
    responses={202: {"model": Build}},
    openapi_extra={"parameters": [PARAMETER]},
)
@idempotent(large=True)
async def start_build(
    request: Request, shipped: str | None = Query(None, description="Build this recipe, which ships with the server")
) -> Response:
    """Build a template.

    The body is a form (`name`, `dockerfile`, `cpu`, `memory_mb`, `size_mb`, `replace`; other files are the context), or
    the tar of a folder with `Dockerfile` and `template.toml` (`application/x-tar`), or nothing with `?shipped=NAME`.
    """
    builds = plane_of(request).builds
    if shipped is not None:
        return json_response(Build.of(await builds.start_shipped(shipped)), 202)
    if request.headers.get("content-type", "").partition(";")[0].strip() == _TAR:
        return json_response(Build.of(await builds.start_archive(limited(request, RECIPE_MAX))), 202)
    recipe, replace = await _read_form(request)
    build = await builds.start_dockerfile(recipe, replace=replace or flag(request.query_params.get("replace")))
    return json_response(Build.of(build), 202)


async def _read_form(request: Request) -> tuple[DockerfileRecipe, bool]:
    if "content-length" not in request.headers:
        raise BadRequestError("a form needs the header Content-Length", status_code=411)
    check_length(request, CONTEXT_MAX + _FORM_OVERHEAD)
    async with request.form(max_files=10_000, max_fields=100, max_part_size=_FORM_OVERHEAD) as form:
        for name in ("rootfs", "image_ref"):
            if name in form:
                raise BadRequestError(f"{name}: cannot be built from yet; send a dockerfile", field=name)
        texts = {name: value for name, value in form.multi_items() if isinstance(value, str) and value}
        files = {name: await value.read() for name, value in form.multi_items() if isinstance(value, UploadFile)}
    try:
        wanted = NewBuild.model_validate(texts, strict=False)
    except ValidationError as error:
        raise errors.of_validation(error) from error
    if wanted.dockerfile is None:
        raise BadRequestError("dockerfile: is required", field="dockerfile")
    recipe = DockerfileRecipe(wanted.name, wanted.dockerfile, wanted.cpu, wanted.memory_mb, wanted.size_mb, files)
    return recipe, wanted.replace


@router.get("/recipes", response_class=Response, responses={200: {"model": list[str]}})
async def list_recipes(request: Request) -> Response:
    """The recipes that ship with the server."""
    return json_response(list(await plane_of(request).builds.recipes()))


@router.get("/builds", response_class=Response, responses={200: {"model": list[Build]}})
async def list_builds(request: Request) -> Response:
    """Recent builds, newest first."""
    return json_response([Build.of(each) for each in await plane_of(request).builds.list()])


@router.get("/builds/{build_id}", response_class=Response, responses={200: {"model": Build}})
async def get_build(request: Request, build_id: str) -> Response:
    """One build."""
    return json_response(Build.of(await plane_of(request).builds.get(build_id)))


@router.post("/builds/{build_id}/cancel", status_code=202, response_class=Response, responses={202: {"model": Build}})
async def cancel_build(request: Request, build_id: str) -> Response:
    """Cancel a build. One that has ended stays as it is."""
    return json_response(Build.of(await plane_of(request).builds.cancel(build_id)), 202)


@router.get("/builds/{build_id}/logs", response_class=Response, responses={200: {"content": EVENTS}})
async def read_logs(request: Request, build_id: str, follow: str | None = None) -> Response:
    """The build's log as text: one `data` line per line; at the end `event: done`."""
    return _stream(request, build_id, flag(follow), _text)


@router.get("/builds/{build_id}/events", response_class=Response, responses={200: {"content": EVENTS}})
async def read_events(request: Request, build_id: str, follow: str | None = None) -> Response:
    """The same as JSON: `step`, `line`, `step_ended`, `dropped`, and at the end `ended` with the build."""
    return _stream(request, build_id, flag(follow), _event)


def _stream(
    request: Request, build_id: str, follow: bool, render: Callable[[contract.BuildEvent], list[StreamEvent]]
) -> Response:
    plane = plane_of(request)

    @asynccontextmanager
    async def source() -> AsyncIterator[AsyncIterator[StreamEvent]]:
        async with plane.builds.events(build_id, follow=follow) as events:
            yield _rendered(events, render)

    return EventStream(source, plane.settings.keep_alive_seconds)


async def _rendered(
    events: AsyncGenerator[contract.BuildEvent, None], render: Callable[[contract.BuildEvent], list[StreamEvent]]
) -> AsyncIterator[StreamEvent]:
    async for event in events:
        for each in render(event):
            yield each


def _event(event: contract.BuildEvent) -> list[StreamEvent]:
    data: dict[str, Any]
    match event:
        case contract.StepBegan(title):
            data = {"title": title}
        case contract.StepPrinted(text):
            data = {"text": text}
        case contract.StepEnded(title, seconds, note):
            data = {"title": title, "seconds": seconds, "note": note}
        case contract.LinesDropped(count):
            data = {"count": count}
        case contract.BuildEnded(build):
            data = Build.of(build).model_dump()
    return [(event.KIND, data)]


def _text(event: contract.BuildEvent) -> list[StreamEvent]:
    match event:
        case contract.StepBegan(title):
            return [("", f"==> {title}")]
        case contract.StepPrinted(text):
            # Indented: a client takes a line that is exactly "end" for the last one, and one in braces for JSON.
            return [("", f"    {text}")]
        case contract.StepEnded(title, seconds, note):
            return [("", f"    {title}: {seconds:.1f} s {note}".rstrip())]
        case contract.LinesDropped(count):
            return [("", f"[{count} lines are no longer retained]")]
        case contract.BuildEnded(build):
            error = [("", f"error: {line}") for line in (Build.of(build).error or "").splitlines()]
            return [*error, ("done", "end")]
