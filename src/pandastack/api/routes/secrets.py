"""Secrets of the workspace."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pandastack.api.models.schema import takes
from pandastack.api.models.secrets import ChangeSecret, CreateSecret, KeyRotated, Secret, Secrets
from pandastack.api.requests import caller_of, json_response, plane_of, read_json

router = APIRouter(prefix="/v1/secrets", tags=["secrets"])


@router.get("", response_class=Response, responses={200: {"model": Secrets}})
async def list_secrets(request: Request) -> Response:
    """The workspace's secrets, by name, without their values."""
    records = await plane_of(request).secrets.list(caller_of(request))
    return json_response(Secrets(secrets=[Secret.of(record) for record in records]))


@router.post(
    "",
    status_code=201,
    response_class=Response,
    responses={201: {"model": Secret}},
    openapi_extra=takes(CreateSecret),
)
async def create_secret(request: Request) -> Response:
    """Store a secret. A name that exists is refused, so that no idempotency key is needed, and no hash of it stored."""
    wanted = (await read_json(request, CreateSecret)).wanted()
    return json_response(Secret.of(await plane_of(request).secrets.create(caller_of(request), wanted)), 201)


@router.post("/rotate-key", response_class=Response, responses={200: {"model": KeyRotated}})
async def rotate_key(request: Request) -> Response:
    """Encrypt all secrets of this server anew, with a new key."""
    return json_response(KeyRotated(secrets=await plane_of(request).secrets.rotate_key()))


@router.get("/{name}", response_class=Response, responses={200: {"model": Secret}})
async def get_secret(request: Request, name: str) -> Response:
    """One secret, without its value."""
    return json_response(Secret.of(await plane_of(request).secrets.get(caller_of(request), name)))


@router.put("/{name}", response_class=Response, responses={200: {"model": Secret}}, openapi_extra=takes(ChangeSecret))
async def change_secret(request: Request, name: str) -> Response:
    """Give a secret another value, or other hosts. Sandboxes that have it use the new ones when this answers."""
    body, plane, caller = await read_json(request, ChangeSecret), plane_of(request), caller_of(request)
    record = await plane.secrets.change(caller, name, body.value, body.hosts)
    await plane.grants.changed(caller.workspace, name)
    return json_response(Secret.of(record))


@router.delete("/{name}", status_code=204, response_class=Response)
async def delete_secret(request: Request, name: str) -> Response:
    """Delete a secret, also from the sandboxes that have it."""
    plane, caller = plane_of(request), caller_of(request)
    await plane.secrets.delete(caller, name)
    await plane.grants.changed(caller.workspace, name)
    return Response(status_code=204)
