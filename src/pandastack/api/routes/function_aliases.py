"""Aliases of functions' versions."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pandastack.api.models.functions import FunctionAlias, PutAlias
from pandastack.api.models.schema import takes
from pandastack.api.requests import caller_of, json_response, read_json
from pandastack.api.routes.functions import functions_of

router = APIRouter(prefix="/v1/functions/{function_id}/aliases", tags=["functions"])


@router.get("", response_class=Response, responses={200: {"model": list[FunctionAlias]}})
async def list_function_aliases(request: Request, function_id: str) -> Response:
    """A function's aliases, by name."""
    found = functions_of(request).aliases.list(caller_of(request), function_id)
    return json_response([FunctionAlias.of(each) for each in found])


@router.get("/{name}", response_class=Response, responses={200: {"model": FunctionAlias}})
async def get_function_alias(request: Request, function_id: str, name: str) -> Response:
    """One alias."""
    return json_response(FunctionAlias.of(functions_of(request).aliases.get(caller_of(request), function_id, name)))


@router.put(
    "/{name}", response_class=Response, responses={200: {"model": FunctionAlias}}, openapi_extra=takes(PutAlias)
)
async def put_function_alias(request: Request, function_id: str, name: str) -> Response:
    """Have an alias name a version. The version is kept as long as it does."""
    body = await read_json(request, PutAlias)
    made = await functions_of(request).aliases.put(caller_of(request), function_id, name, body.version)
    return json_response(FunctionAlias.of(made))


@router.delete("/{name}", status_code=204, response_class=Response)
async def delete_function_alias(request: Request, function_id: str, name: str) -> Response:
    """Delete an alias. Its version stays until a deploy makes room."""
    await functions_of(request).aliases.delete(caller_of(request), function_id, name)
    return Response(status_code=204)
