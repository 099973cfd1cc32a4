"""The caller and the workspace's tokens."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pandastack.api.idempotency import PARAMETER, idempotent
from pandastack.api.models.schema import takes
from pandastack.api.models.tokens import CreateToken, Me, Token
from pandastack.api.requests import caller_of, json_response, plane_of, read_json

router = APIRouter(prefix="/v1/me", tags=["me"])


@router.get("", response_class=Response, responses={200: {"model": Me}})
async def me(request: Request) -> Response:
    """The caller that the token identifies."""
    return json_response(Me.of(caller_of(request)))


@router.get("/tokens", response_class=Response, responses={200: {"model": list[Token]}})
async def list_tokens(request: Request) -> Response:
    """The workspace's tokens, without their texts."""
    records = await plane_of(request).access.list(caller_of(request))
    return json_response([Token.of(record) for record in records])


@router.post(
    "/tokens",
    status_code=201,
    response_class=Response,
    responses={201: {"model": Token}},
    openapi_extra=takes(CreateToken, PARAMETER),
)
@idempotent(secret=True)
async def create_token(request: Request) -> Response:
    """Create a token; its text is in this answer and nowhere else."""
    wanted = await read_json(request, CreateToken)
    label = wanted.label or wanted.name or ""
    text, record = await plane_of(request).access.create(caller_of(request), label, wanted.expires_in_days)
    return json_response(Token.of(record, text), 201)


@router.delete("/tokens/{prefix}", status_code=204, response_class=Response)
async def revoke_token(request: Request, prefix: str) -> Response:
    """Revoke a token, named by its prefix as the list shows it."""
    await plane_of(request).access.revoke(caller_of(request), prefix)
    return Response(status_code=204)
