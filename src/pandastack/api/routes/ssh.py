"""SSH keys of the workspace, and where SSH clients connect."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pandastack.api.idempotency import PARAMETER, idempotent
from pandastack.api.models.schema import takes
from pandastack.api.models.ssh import AddSshKey, SshDoor, SshKey
from pandastack.api.requests import caller_of, json_response, plane_of, read_json

router = APIRouter(prefix="/v1", tags=["ssh"])


@router.get("/ssh", response_class=Response, responses={200: {"model": SshDoor}})
async def door(request: Request) -> Response:
    """The port of the SSH server, and its public key for `known_hosts`."""
    return json_response(SshDoor.of(plane_of(request).ssh.door))


@router.get("/ssh-keys", response_class=Response, responses={200: {"model": list[SshKey]}})
async def list_keys(request: Request) -> Response:
    """The workspace's public keys, oldest first."""
    records = await plane_of(request).ssh.list(caller_of(request))
    return json_response([SshKey.of(record) for record in records])


@router.post(
    "/ssh-keys",
    status_code=201,
    response_class=Response,
    responses={201: {"model": SshKey}},
    openapi_extra=takes(AddSshKey, PARAMETER),
)
@idempotent()
async def add_key(request: Request) -> Response:
    """Add a public key. It opens every sandbox of the workspace."""
    wanted = await read_json(request, AddSshKey)
    record = await plane_of(request).ssh.add(caller_of(request), wanted.public_key, wanted.name)
    return json_response(SshKey.of(record), 201)


@router.delete("/ssh-keys/{key_id}", status_code=204, response_class=Response)
async def delete_key(request: Request, key_id: str) -> Response:
    """Remove a key. Connections that it opened end within seconds."""
    await plane_of(request).ssh.delete(caller_of(request), key_id)
    return Response(status_code=204)
