"""The caller and the workspace's tokens."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pandastack.api import models, render
from pandastack.api.requests import identity_of, json_response, plane_of, read_json, workspace_of

router = APIRouter(prefix="/v1/me", tags=["me"])


@router.get("", response_class=Response)
async def me(request: Request) -> Response:
    """Who the token stands for."""
    identity = identity_of(request)
    return json_response(
        {
            "id": identity.workspace,
            "user_id": identity.workspace,
            "name": identity.workspace,
            "email": "",
            "workspace": identity.workspace,
            "current_org": None,
            "orgs": [],
            "auth_method": "token",
            "token_prefix": identity.token_prefix,
        }
    )


@router.get("/tokens", response_class=Response, responses={200: {"model": list[models.Token]}})
async def list_tokens(request: Request) -> Response:
    """The workspace's tokens, without their texts."""
    records = await plane_of(request).access.list(workspace_of(request))
    return json_response([render.token(record) for record in records])


@router.post(
    "/tokens",
    status_code=201,
    response_class=Response,
    responses={201: {"model": models.Token}},
    openapi_extra=models.takes(models.CreateToken),
)
async def create_token(request: Request) -> Response:
    """A new token; its text is in the answer and nowhere else."""
    wanted = await read_json(request, models.CreateToken)
    label = wanted.label or wanted.name or ""
    text, record = await plane_of(request).access.create(workspace_of(request), label, wanted.expires_in_days)
    return json_response(render.token(record, text), 201)


@router.delete("/tokens/{prefix}", status_code=204, response_class=Response)
async def revoke_token(request: Request, prefix: str) -> Response:
    """End a token, named by its first characters as the list shows them."""
    await plane_of(request).access.revoke(workspace_of(request), prefix)
    return Response(status_code=204)
