"""Template builds: start, list, follow, cancel."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile

from pandastack.api import errors
from pandastack.api.idempotency import PARAMETER, idempotent
from pandastack.api.models.builds import Build, BuildFields, NewBuild, Target
from pandastack.api.requests import caller_of, check_length, flag, json_response, limited, plane_of
from pandastack.api.streams import EVENTS, EventStream, StreamEvent
from pandastack.contract import builds as contract
from pandastack.contract.builds import BuildOptions
from pandastack.errors import BadRequestError
from pandastack.model.image_reference import parse_reference
from pandastack.services.templates.builds import CONTEXT_MAX, DockerfileRecipe
from pandastack.services.templates.given import GivenSecret, values_of

router = APIRouter(prefix="/v1/templates", tags=["templates"])

RECIPE_MAX = 256 * 1024 * 1024
_FORM_OVERHEAD = 8 * 1024 * 1024
_TAR = "application/x-tar"
_RECIPE = "recipe"
_PIECE = 1 << 20


@router.post(
    "/build",
    status_code=202,
    response_class=Response,
    responses={202: {"model": Build}},
    openapi_extra={"parameters": [PARAMETER]},
)
@idempotent(large=True)
async def start_build(
    request: Request,
    shipped: str | None = Query(None, description="Build this recipe, which ships with the server"),
    target: Annotated[Target, Query(description="The stage that becomes the template, by name or index")] = "",
    no_cache: Annotated[bool, Query(description="Carry the instructions out whatever is cached")] = False,
) -> Response:
    """Build a template.

    The body is a form (`name`, `dockerfile` or `image_ref`, `cpu`, `memory_mb`, `size_mb`, `target`, `no_cache`,
    `build_args`, `secrets`, `replace`; other files are the context), or a form whose file `recipe` is the tar of a
    folder with `Dockerfile` and `template.toml` (with `target`, `no_cache`, `build_args`, `secrets`), or that tar alone
    (`application/x-tar`), or nothing with `?shipped=NAME`.
    """
    caller, builds = caller_of(request), plane_of(request).builds
    credentials = await plane_of(request).registries.credentials(caller.workspace)
    options = BuildOptions(target, no_cache, credentials=credentials)
    if shipped is not None:
        return json_response(Build.of(await builds.start_shipped(caller, shipped, options)), 202)
    if request.headers.get("content-type", "").partition(";")[0].strip() == _TAR:
        return json_response(Build.of(await builds.start_archive(caller, limited(request, RECIPE_MAX), options)), 202)
    if "content-length" not in request.headers:
        raise BadRequestError("a form needs the header Content-Length", status_code=411)
    check_length(request, RECIPE_MAX + _FORM_OVERHEAD)
    async with request.form(max_files=10_000, max_fields=100, max_part_size=_FORM_OVERHEAD) as form:
        archive = form.get(_RECIPE)
        if "dockerfile" not in form and "image_ref" not in form and isinstance(archive, UploadFile):
            options = await _options(request, _validated(BuildFields, _texts(form)), options)
            return json_response(Build.of(await builds.start_archive(caller, _pieces(archive), options)), 202)
        check_length(request, CONTEXT_MAX + _FORM_OVERHEAD)
        wanted, recipe = await _read_form(form)
    replaces = wanted.replace or flag(request.query_params.get("replace"))
    options = replace(await _options(request, wanted, options), replace=replaces)
    return json_response(Build.of(await builds.start_dockerfile(caller, recipe, options)), 202)


async def _options(request: Request, given: BuildFields, query: BuildOptions) -> BuildOptions:
    """The options of a form, and those of its query where the form has none."""
    secrets = {name: GivenSecret(each.value, each.base64, each.secret) for name, each in given.secrets.items()}
    stored = partial(plane_of(request).secrets.for_build, caller_of(request))
    return replace(
        query,
        target=given.target or query.target,
        no_cache=given.no_cache or query.no_cache,
        arguments=given.build_args,
        secrets=await values_of(secrets, stored),
    )


async def _read_form(form: FormData) -> tuple[NewBuild, DockerfileRecipe]:
    if "rootfs" in form:
        hint = "send a dockerfile, or the image_ref of an image in a registry"
        raise BadRequestError("rootfs: cannot be built from", field="rootfs", hint=hint)
    files = {name: await value.read() for name, value in form.multi_items() if isinstance(value, UploadFile)}
    wanted = _validated(NewBuild, _texts(form))
    dockerfile = _source(wanted, files)
    return wanted, DockerfileRecipe(wanted.name, dockerfile, wanted.cpu, wanted.memory_mb, wanted.size_mb, files)


def _source(wanted: NewBuild, files: Mapping[str, bytes]) -> str:
    """The Dockerfile of the form, or one that is the image of a registry and nothing else."""
    if wanted.image_ref is None:
        if wanted.dockerfile is None:
            raise BadRequestError("dockerfile: is required, or image_ref", field="dockerfile")
        return wanted.dockerfile
    if wanted.dockerfile is not None or files or wanted.target:
        hint = "a dockerfile can begin with FROM and the image"
        raise BadRequestError("image_ref: stands alone, without a dockerfile and files", field="image_ref", hint=hint)
    return f"FROM {parse_reference(wanted.image_ref).exact}\n"


def _texts(form: FormData) -> dict[str, str]:
    return {name: value for name, value in form.multi_items() if isinstance(value, str) and value}


Fields = TypeVar("Fields", bound=BuildFields)


def _validated(kind: type[Fields], texts: dict[str, str]) -> Fields:
    try:
        return kind.model_validate(texts, strict=False)
    except ValidationError as error:
        raise errors.of_validation(error) from error


async def _pieces(file: UploadFile) -> AsyncIterator[bytes]:
    while piece := await file.read(_PIECE):
        yield piece


@router.get("/recipes", response_class=Response, responses={200: {"model": list[str]}})
async def list_recipes(request: Request) -> Response:
    """The recipes that ship with the server."""
    return json_response(list(await plane_of(request).builds.recipes()))


@router.get("/builds", response_class=Response, responses={200: {"model": list[Build]}})
async def list_builds(request: Request) -> Response:
    """Recent builds of the workspace, newest first."""
    return json_response([Build.of(each) for each in await plane_of(request).builds.list(caller_of(request))])


@router.get("/builds/{build_id}", response_class=Response, responses={200: {"model": Build}})
async def get_build(request: Request, build_id: str) -> Response:
    """One build."""
    return json_response(Build.of(await plane_of(request).builds.get(caller_of(request), build_id)))


@router.post("/builds/{build_id}/cancel", status_code=202, response_class=Response, responses={202: {"model": Build}})
async def cancel_build(request: Request, build_id: str) -> Response:
    """Cancel a build. One that has ended stays as it is."""
    return json_response(Build.of(await plane_of(request).builds.cancel(caller_of(request), build_id)), 202)


@router.get("/builds/{build_id}/logs", response_class=Response, responses={200: {"content": EVENTS}})
async def read_logs(request: Request, build_id: str, follow: str | None = None) -> Response:
    """The build's log as text: one `data` line per line; at the end `event: done`."""
    return _stream(request, build_id, flag(follow), _text)


@router.get("/builds/{build_id}/events", response_class=Response, responses={200: {"content": EVENTS}})
async def read_events(request: Request, build_id: str, follow: str | None = None) -> Response:
    """The same as JSON: `step`, `line`, `progress`, `step_ended`, `dropped`, and at the end `ended` with the build."""
    return _stream(request, build_id, flag(follow), _event)


def _stream(
    request: Request, build_id: str, follow: bool, render: Callable[[contract.BuildEvent], list[StreamEvent]]
) -> Response:
    plane, caller = plane_of(request), caller_of(request)

    @asynccontextmanager
    async def source() -> AsyncIterator[AsyncIterator[StreamEvent]]:
        async with plane.builds.events(caller, build_id, follow=follow) as events:
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
        case contract.StepAdvanced(done, total):
            data = {"done": done, "total": total}
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
        case contract.StepAdvanced():
            return []
        case contract.StepEnded(title, seconds, note):
            return [("", f"    {title}: {seconds:.1f} s {note}".rstrip())]
        case contract.LinesDropped(count):
            return [("", f"[{count} lines are no longer retained]")]
        case contract.BuildEnded(build):
            error = [("", f"error: {line}") for line in (Build.of(build).error or "").splitlines()]
            return [*error, ("done", "end")]
