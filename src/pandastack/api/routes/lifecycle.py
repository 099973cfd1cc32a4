"""The idle limit of a sandbox."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pandastack.api import models
from pandastack.api.requests import json_response, plane_of, read_json, workspace_of
from pandastack.services import ControlPlane
from pandastack.store.sandboxes import SandboxRecord

router = APIRouter(prefix="/v1/sandboxes/{sandbox_id}/lifecycle", tags=["lifecycle"])


@router.get("", response_class=Response, responses={200: {"model": models.Lifecycle}})
async def get_lifecycle(request: Request, sandbox_id: str) -> Response:
    """Idle limit, whether it applies, and for how long the sandbox has been idle."""
    plane = plane_of(request)
    return _answer(plane, plane.sandboxes.get(workspace_of(request), sandbox_id))


@router.patch(
    "",
    response_class=Response,
    responses={200: {"model": models.Lifecycle}},
    openapi_extra=models.takes(models.PatchLifecycle),
)
async def patch_lifecycle(request: Request, sandbox_id: str) -> Response:
    """Change the idle limit, or whether it applies."""
    plane = plane_of(request)
    body = await read_json(request, models.PatchLifecycle)
    record = await plane.sandboxes.set_lifecycle(workspace_of(request), sandbox_id, body.ttl_seconds, body.persistent)
    return _answer(plane, record)


def _answer(plane: ControlPlane, record: SandboxRecord) -> Response:
    return json_response(
        {
            "ttl_seconds": record.ttl_seconds,
            "persistent": record.persistent,
            "idle_seconds": plane.sandboxes.idle_seconds(record),
        }
    )
