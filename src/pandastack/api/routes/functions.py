"""Functions of the workspace."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.datastructures import UploadFile

from pandastack.api.function_calls import METHODS, FunctionAnswer, path_after, read_request
from pandastack.api.idempotency import PARAMETER, idempotent, make_once
from pandastack.api.models.functions import (
    CallbackSecret,
    CreateFunction,
    Function,
    FunctionMetrics,
    FunctionRun,
    FunctionVersion,
    Invoke,
    RecordRun,
    Rollback,
    UpdateFunction,
)
from pandastack.api.models.schema import takes
from pandastack.api.requests import caller_of, check_length, json_response, limited, plane_of, read_json
from pandastack.errors import BadRequestError
from pandastack.products import functions as product

router = APIRouter(prefix="/v1/functions", tags=["functions"])

_FORM_OVERHEAD = 64 * 1024
_MOST_HOURS = 24 * 90
_HOURS = re.compile(r"([1-9][0-9]{0,3})h?")
_BUNDLE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["bundle"],
                    "properties": {
                        "bundle": {"type": "string", "contentMediaType": "application/gzip"},
                        "entrypoint": {"type": "string"},
                    },
                }
            },
            "application/gzip": {},
        },
    }
}


def functions_of(request: Request) -> product.Functions:
    """The functions that serve ``request``."""
    functions: product.Functions = request.app.state.functions
    return functions


def _seen(request: Request, function: product.Function) -> Function:
    settings = plane_of(request).settings
    base = settings.public_base_url.rstrip("/") or str(request.base_url).rstrip("/")
    return Function.of(function, base, settings.preview_host_suffix.partition(",")[0].strip().lower())


@router.post(
    "", response_class=Response, responses={200: {"model": Function}}, openapi_extra=takes(CreateFunction, PARAMETER)
)
@idempotent(resumable=True)
async def create_function(request: Request) -> Response:
    """Make a function, and deploy its code if there is any. When that fails, nothing is made."""
    wanted = (await read_json(request, CreateFunction)).wanted()
    functions, caller = functions_of(request), caller_of(request)

    async def find(function_id: str) -> product.Function:
        return functions.get(caller, function_id)

    async def make(function_id: str | None) -> product.Function:
        return await functions.create(caller, replace(wanted, id=function_id))

    return json_response(_seen(request, await make_once(request, find, make)))


@router.get("", response_class=Response, responses={200: {"model": list[Function]}})
async def list_functions(request: Request, name: str | None = None) -> Response:
    """The workspace's functions, newest first; with `name` only the one of that name."""
    found = functions_of(request).list(caller_of(request), name)
    return json_response([_seen(request, each) for each in found])


@router.get("/{function_id}", response_class=Response, responses={200: {"model": Function}})
async def get_function(request: Request, function_id: str) -> Response:
    """One function, without its code."""
    return json_response(_seen(request, functions_of(request).get(caller_of(request), function_id)))


@router.patch(
    "/{function_id}",
    response_class=Response,
    responses={200: {"model": Function}},
    openapi_extra=takes(UpdateFunction),
)
async def update_function(request: Request, function_id: str) -> Response:
    """Change a function. `entrypoint`, `template` and `memory_mb` hold from the next deploy on."""
    body = await read_json(request, UpdateFunction)
    return json_response(
        _seen(request, await functions_of(request).update(caller_of(request), function_id, body.model_dump()))
    )


@router.delete("/{function_id}", status_code=204, response_class=Response)
async def delete_function(request: Request, function_id: str) -> Response:
    """Delete a function with its versions and runs. Runs in progress end."""
    await functions_of(request).delete(caller_of(request), function_id)
    return Response(status_code=204)


@router.get("/{function_id}/code", response_class=Response, responses={200: {"content": {"application/gzip": {}}}})
async def get_function_code(request: Request, function_id: str) -> Response:
    """The code that serves, compressed with gzip: the source, or a tar archive if there is more than one file."""
    return Response(await functions_of(request).code(caller_of(request), function_id), media_type="application/gzip")


@router.post(
    "/{function_id}/deploy", response_class=Response, responses={200: {"model": Function}}, openapi_extra=_BUNDLE
)
async def deploy_function(request: Request, function_id: str) -> Response:
    """Deploy a bundle: a form with the file `bundle`, or the body itself. It is a tar archive or one source file,
    compressed or not. The former version serves until the new one is ready, and if it fails."""
    functions_of(request).get(caller_of(request), function_id)
    data, entrypoint = await _bundle(request)
    return json_response(
        _seen(request, await functions_of(request).deploy(caller_of(request), function_id, data, entrypoint))
    )


async def _bundle(request: Request) -> tuple[bytes, str | None]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        entrypoint = request.query_params.get("entrypoint")
        return b"".join([chunk async for chunk in limited(request, product.MOST_BUNDLE)]), entrypoint
    if not request.headers.get("content-length", "").isdecimal():
        raise BadRequestError("a form needs the header Content-Length", status_code=411)
    check_length(request, product.MOST_BUNDLE + _FORM_OVERHEAD)
    async with request.form(max_files=1, max_fields=8, max_part_size=_FORM_OVERHEAD) as form:
        bundle, named = form.get("bundle"), form.get("entrypoint")
        if not isinstance(bundle, UploadFile):
            raise BadRequestError("bundle: is required", field="bundle", hint="a file of the form")
        return await bundle.read(), str(named) if named else None


@router.get("/{function_id}/versions", response_class=Response, responses={200: {"model": list[FunctionVersion]}})
async def list_function_versions(request: Request, function_id: str) -> Response:
    """The versions that are kept, newest first."""
    found = functions_of(request).versions(caller_of(request), function_id)
    return json_response([FunctionVersion.of(each) for each in found])


@router.post(
    "/{function_id}/rollback",
    response_class=Response,
    responses={200: {"model": Function}},
    openapi_extra=takes(Rollback),
)
async def roll_back_function(request: Request, function_id: str) -> Response:
    """Have an earlier version serve."""
    body = await read_json(request, Rollback)
    found = await functions_of(request).rollback(caller_of(request), function_id, body.version)
    return json_response(_seen(request, found))


@router.post(
    "/{function_id}/invoke",
    response_class=Response,
    responses={200: {"model": FunctionRun}, 202: {"model": FunctionRun}},
    openapi_extra=takes(Invoke),
)
async def invoke_function(request: Request, function_id: str) -> Response:
    """Run the function in a machine of its own, and answer the run: also one that failed. With `"async": true` the
    answer is 202 and the run as it begins; then it may have `retries` and a `callback`. `version` or `alias` choose
    another version than the one that serves."""
    body = await read_json(request, Invoke)
    functions, caller, chosen, wanted = functions_of(request), caller_of(request), body.chosen(), body.wanted()
    if body.in_background:
        begun = await functions.start(caller, function_id, body.input, chosen, wanted)
        return json_response(FunctionRun.of(begun), 202)
    return json_response(FunctionRun.of(await functions.invoke(caller, function_id, body.input, chosen)))


@router.post(
    "/{function_id}/runs",
    response_class=Response,
    responses={200: {"model": FunctionRun}},
    openapi_extra=takes(RecordRun),
)
async def record_function_run(request: Request, function_id: str) -> Response:
    """Store the record of a run that the client made itself; without `status` run the function."""
    body = await read_json(request, RecordRun)
    functions, caller = functions_of(request), caller_of(request)
    if body.status is None:
        return json_response(FunctionRun.of(await functions.invoke(caller, function_id, body.input)))
    given = product.checked_run(body.model_dump(exclude={"input"}))
    return json_response(FunctionRun.of(await functions.add_run(caller, function_id, given)))


@router.get("/{function_id}/runs", response_class=Response, responses={200: {"model": list[FunctionRun]}})
async def list_function_runs(request: Request, function_id: str) -> Response:
    """The last 50 runs, newest first."""
    found = await functions_of(request).runs(caller_of(request), function_id)
    return json_response([FunctionRun.of(each) for each in found])


@router.get("/{function_id}/runs/{run_id}", response_class=Response, responses={200: {"model": FunctionRun}})
async def get_function_run(request: Request, function_id: str, run_id: str) -> Response:
    """One run."""
    return json_response(FunctionRun.of(await functions_of(request).run(caller_of(request), function_id, run_id)))


@router.get("/{function_id}/callback-secret", response_class=Response, responses={200: {"model": CallbackSecret}})
async def get_callback_secret(request: Request, function_id: str) -> Response:
    """What the callbacks of this function are signed with."""
    return json_response(
        CallbackSecret(secret=await functions_of(request).callback_secret(caller_of(request), function_id))
    )


@router.get("/{function_id}/metrics", response_class=Response, responses={200: {"model": FunctionMetrics}})
async def get_function_metrics(request: Request, function_id: str, period: str = "24") -> Response:
    """Numbers of the runs of the last `period` hours."""
    hours = _HOURS.fullmatch(period)
    if hours is None or int(hours[1]) > _MOST_HOURS:
        raise BadRequestError(f"period: must be from 1 to {_MOST_HOURS} hours", field="period", hint="such as 24")
    numbers = await functions_of(request).metrics(caller_of(request), function_id, int(hours[1]))
    return json_response(FunctionMetrics.of(numbers))


@router.api_route("/{function_id}/http-invoke", methods=METHODS, include_in_schema=False)
@router.api_route("/{function_id}/http-invoke/{path:path}", methods=METHODS, include_in_schema=False)
async def http_invoke_function(request: Request, function_id: str) -> Response:
    """Answer a request of HTTP by a function that is public. The path of the event is what follows `http-invoke`."""
    source = (request.scope.get("client") or ("",))[0]
    wanted = await read_request(request, path_after(request, "/http-invoke"), source)
    return FunctionAnswer(functions_of(request), function_id, wanted)
