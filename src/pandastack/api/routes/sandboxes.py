"""Create, list, get, delete."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pandastack.api import models, render
from pandastack.api.requests import json_response, plane_of, read_json, workspace_of
from pandastack.errors import BadRequestError
from pandastack.services.records.spec import NewSandbox

router = APIRouter(prefix="/v1/sandboxes", tags=["sandboxes"])


@router.post(
    "",
    status_code=201,
    response_class=Response,
    responses={201: {"model": models.Sandbox}},
    openapi_extra=models.takes(models.CreateSandbox),
)
async def create_sandbox(request: Request) -> Response:
    """Answers when the sandbox executes commands."""
    plan = wanted(await read_json(request, models.CreateSandbox))
    plane = plane_of(request)
    record = await plane.sandboxes.create(workspace_of(request), plan)
    return json_response(render.sandbox(record, plane), 201)


@router.get("", response_class=Response, responses={200: {"model": list[models.Sandbox]}})
async def list_sandboxes(request: Request) -> Response:
    """The workspace's sandboxes, newest first."""
    plane = plane_of(request)
    records = plane.sandboxes.list(workspace_of(request))
    return json_response([render.sandbox(record, plane) for record in records])


@router.get("/{sandbox_id}", response_class=Response, responses={200: {"model": models.Sandbox}})
async def get_sandbox(request: Request, sandbox_id: str) -> Response:
    """One sandbox."""
    plane = plane_of(request)
    return json_response(render.sandbox(plane.sandboxes.get(workspace_of(request), sandbox_id), plane))


@router.delete("/{sandbox_id}", status_code=204, response_class=Response)
async def delete_sandbox(request: Request, sandbox_id: str) -> Response:
    """End a sandbox and all it has."""
    await plane_of(request).sandboxes.delete(workspace_of(request), sandbox_id)
    return Response(status_code=204)


def wanted(body: models.CreateSandbox) -> NewSandbox:
    """What a body asks for. With a snapshot, `template` means nothing: clients send a default alongside."""
    if body.volumes and body.from_snapshot:
        raise BadRequestError("volumes: not together with from_snapshot", field="volumes")
    if body.volumes:
        raise BadRequestError(f"unknown volume {body.volumes[0].name[:64]!r}", field="volumes")
    if not body.template and not body.from_snapshot:
        raise BadRequestError("template: is required", field="template", hint="GET /v1/templates lists the templates")
    return NewSandbox(
        template="" if body.from_snapshot else body.template or "",
        ttl_seconds=body.ttl_seconds,
        persistent=bool(body.persistent),
        metadata=body.metadata or {},
        snapshot=body.from_snapshot or None,
        on_expire=body.on_expire,
        checkpoint_every=body.checkpoint_every,
        checkpoint_after_exec=bool(body.checkpoint_after_exec),
    )
