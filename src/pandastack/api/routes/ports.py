"""The ports of a sandbox, and links to what listens at them."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pandastack.api.idempotency import PARAMETER, idempotent
from pandastack.api.models.previews import AddPort, MakePreview, Port, Preview, PreviewToken
from pandastack.api.models.schema import takes
from pandastack.api.requests import caller_of, json_response, plane_of, read_json
from pandastack.errors import BadRequestError

router = APIRouter(prefix="/v1/sandboxes/{sandbox_id}", tags=["previews"])


@router.get("/ports", response_class=Response, responses={200: {"model": list[Port]}})
async def list_ports(request: Request, sandbox_id: str) -> Response:
    """TCP ports that programs in the sandbox listen at, and those that have a label. Looking wakes nobody."""
    found = await plane_of(request).ports.list(caller_of(request), sandbox_id)
    return json_response([Port.of(port, proxy_of(request, sandbox_id)) for port in found])


@router.post(
    "/ports",
    status_code=201,
    response_class=Response,
    responses={201: {"model": Port}},
    openapi_extra=takes(AddPort, PARAMETER),
)
@idempotent(resumable=True)
async def add_port(request: Request, sandbox_id: str) -> Response:
    """Give a port a label. Every port can be reached, with a label or without."""
    plane, caller = plane_of(request), caller_of(request)
    plane.sandboxes.get(caller, sandbox_id)
    body = await read_json(request, AddPort)
    port = await plane.ports.add(caller, sandbox_id, body.port, body.label)
    return json_response(Port.of(port, proxy_of(request, sandbox_id)), 201)


@router.delete("/ports/{port}", status_code=204, response_class=Response)
async def remove_port(request: Request, sandbox_id: str, port: str) -> Response:
    """Take a port's label."""
    plane, caller = plane_of(request), caller_of(request)
    plane.sandboxes.get(caller, sandbox_id)
    await plane.ports.remove(caller, sandbox_id, number(port))
    return Response(status_code=204)


@router.post(
    "/preview-token", response_class=Response, responses={200: {"model": Preview}}, openapi_extra=takes(MakePreview)
)
async def make_preview(request: Request, sandbox_id: str) -> Response:
    """A link to a port of the sandbox that works without another token, until it expires or is revoked."""
    plane, caller = plane_of(request), caller_of(request)
    plane.sandboxes.get(caller, sandbox_id)
    body = await read_json(request, MakePreview)
    text, record = await plane.previews.create_token(caller, sandbox_id, body.port, body.ttl_seconds, body.paths or [])
    return json_response(Preview.of(record, text, base_of(request)))


@router.post("/preview", response_class=Response, responses={200: {"model": Preview}}, openapi_extra=takes(MakePreview))
async def make_preview_by_its_other_name(request: Request, sandbox_id: str) -> Response:
    """The same as `preview-token`."""
    return await make_preview(request, sandbox_id)


@router.get("/preview-token", response_class=Response, responses={200: {"model": list[PreviewToken]}})
async def list_previews(request: Request, sandbox_id: str) -> Response:
    """The sandbox's links that have not expired, without their tokens."""
    found = await plane_of(request).previews.tokens(caller_of(request), sandbox_id)
    return json_response([PreviewToken.of(record) for record in found])


@router.delete("/preview-token/{prefix}", status_code=204, response_class=Response)
async def revoke_preview(request: Request, sandbox_id: str, prefix: str) -> Response:
    """Revoke a link. Requests that run end by themselves; new ones are refused within a second."""
    await plane_of(request).previews.revoke(caller_of(request), sandbox_id, prefix)
    return Response(status_code=204)


def number(text: str) -> int:
    """A port in a path. Raises :class:`BadRequestError`."""
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:6]) <= 65535:
        raise BadRequestError("port: must be between 1 and 65535", field="port")
    return int(text)


def base_of(request: Request) -> str:
    """The address of the API: the configured one, or that of the request."""
    configured = plane_of(request).settings.public_base_url.rstrip("/")
    return configured or f"{request.url.scheme}://{request.url.netloc}"


def proxy_of(request: Request, sandbox_id: str) -> str:
    """The address of a sandbox's proxy."""
    return f"{base_of(request)}/v1/sandboxes/{sandbox_id}/proxy"
