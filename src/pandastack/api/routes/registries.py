"""What the workspace signs in to registries of images with."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pandastack.api.models.registries import PutRegistry, Registries, Registry
from pandastack.api.models.schema import takes
from pandastack.api.requests import caller_of, json_response, plane_of, read_json

router = APIRouter(prefix="/v1/registries", tags=["registries"])


@router.get("", response_class=Response, responses={200: {"model": Registries}})
async def list_registries(request: Request) -> Response:
    """The registries that the workspace has credentials for, by name, without passwords."""
    records = await plane_of(request).registries.list(caller_of(request))
    return json_response(Registries(registries=[Registry.of(each) for each in records]))


@router.put("/{host}", response_class=Response, responses={200: {"model": Registry}}, openapi_extra=takes(PutRegistry))
async def put_registry(request: Request, host: str) -> Response:
    """Store credentials for a registry, in place of those that there were. Builds of this workspace use them."""
    body = await read_json(request, PutRegistry)
    record = await plane_of(request).registries.put(caller_of(request), host, body.username, body.password)
    return json_response(Registry.of(record))


@router.delete("/{host}", status_code=204, response_class=Response)
async def delete_registry(request: Request, host: str) -> Response:
    """Forget the credentials for a registry."""
    await plane_of(request).registries.delete(caller_of(request), host)
    return Response(status_code=204)
