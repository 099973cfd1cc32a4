"""Volumes of the workspace."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter, Request, Response

from pandastack.api.idempotency import PARAMETER, idempotent, make_once
from pandastack.api.models.schema import takes
from pandastack.api.models.volumes import CreateVolume, GrowVolume, Volume
from pandastack.api.requests import caller_of, json_response, plane_of, read_json
from pandastack.services.volumes.volumes import Volume as VolumeSeen

router = APIRouter(prefix="/v1/volumes", tags=["volumes"])


@router.post(
    "",
    status_code=201,
    response_class=Response,
    responses={201: {"model": Volume}},
    openapi_extra=takes(CreateVolume, PARAMETER),
)
@idempotent(resumable=True)
async def create_volume(request: Request) -> Response:
    """Make a volume: empty, or a clone of another one or of what a sandbox has mounted."""
    wanted = (await read_json(request, CreateVolume)).wanted()
    plane, caller = plane_of(request), caller_of(request)

    async def find(volume_id: str) -> VolumeSeen:
        return await plane.volumes.by_id(caller, volume_id)

    async def make(volume_id: str | None) -> VolumeSeen:
        return await plane.volumes.create(caller, replace(wanted, id=volume_id))

    return json_response(Volume.of(await make_once(request, find, make)), 201)


@router.get("", response_class=Response, responses={200: {"model": list[Volume]}})
async def list_volumes(request: Request) -> Response:
    """The workspace's volumes, by name."""
    found = await plane_of(request).volumes.list(caller_of(request))
    return json_response([Volume.of(each) for each in found])


@router.get("/{name}", response_class=Response, responses={200: {"model": Volume}})
async def get_volume(request: Request, name: str) -> Response:
    """One volume."""
    return json_response(Volume.of(await plane_of(request).volumes.get(caller_of(request), name)))


@router.post(
    "/{name}/grow", response_class=Response, responses={200: {"model": Volume}}, openapi_extra=takes(GrowVolume)
)
async def grow_volume(request: Request, name: str) -> Response:
    """Make a volume larger, while a sandbox writes to it, too. Doing it twice does nothing more."""
    body = await read_json(request, GrowVolume)
    return json_response(Volume.of(await plane_of(request).volumes.grow(caller_of(request), name, body.size_mb)))


@router.delete("/{name}", status_code=204, response_class=Response)
async def delete_volume(request: Request, name: str) -> Response:
    """Delete a volume that no sandbox has."""
    await plane_of(request).volumes.delete(caller_of(request), name)
    return Response(status_code=204)
