"""The idle limit of a sandbox; pause, resume, hibernate, wake. Bodies of the latter are ignored."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pandastack.api import models, render
from pandastack.api.requests import json_response, plane_of, read_json, workspace_of
from pandastack.services.records.spec import LifecyclePatch
from pandastack.store.sandboxes import Status

router = APIRouter(prefix="/v1/sandboxes/{sandbox_id}", tags=["lifecycle"])


@router.get("/lifecycle", response_class=Response, responses={200: {"model": models.Lifecycle}})
async def get_lifecycle(request: Request, sandbox_id: str) -> Response:
    """Idle limit, whether it applies, and for how long the sandbox has been idle."""
    plane = plane_of(request)
    return json_response(render.lifecycle(plane.sandboxes.get(workspace_of(request), sandbox_id), plane))


@router.patch(
    "/lifecycle",
    response_class=Response,
    responses={200: {"model": models.Lifecycle}},
    openapi_extra=models.takes(models.PatchLifecycle),
)
async def patch_lifecycle(request: Request, sandbox_id: str) -> Response:
    """Change the idle limit, whether it applies and what it does, and when checkpoints are taken."""
    plane = plane_of(request)
    body = await read_json(request, models.PatchLifecycle)
    every = body.checkpoint_every
    if every is None and "checkpoint_every" in body.model_fields_set:
        every = 0.0  # null: the one value of this body that says "off"
    patch = LifecyclePatch(body.ttl_seconds, body.persistent, body.on_expire, every, body.checkpoint_after_exec)
    record = await plane.sandboxes.set_lifecycle(workspace_of(request), sandbox_id, patch)
    return json_response(render.lifecycle(record, plane))


@router.post("/pause", status_code=204, response_class=Response)
async def pause(request: Request, sandbox_id: str) -> Response:
    """Stop the CPUs; memory stays."""
    await plane_of(request).lifecycle.pause(workspace_of(request), sandbox_id)
    return Response(status_code=204)


@router.post("/resume", status_code=204, response_class=Response)
async def resume(request: Request, sandbox_id: str) -> Response:
    """Let a paused sandbox go on; one that runs is fine."""
    await plane_of(request).lifecycle.resume(workspace_of(request), sandbox_id)
    return Response(status_code=204)


@router.post("/hibernate", response_class=Response, responses={200: {"model": models.Status}})
@router.post("/stop", response_class=Response, responses={200: {"model": models.Status}})
async def hibernate(request: Request, sandbox_id: str) -> Response:
    """Put memory and disk aside until the sandbox is used or woken; one that is hibernated is fine."""
    await plane_of(request).lifecycle.hibernate(workspace_of(request), sandbox_id)
    return json_response({"status": Status.HIBERNATED})


@router.post("/wake", response_class=Response, responses={200: {"model": models.Status}})
@router.post("/start", response_class=Response, responses={200: {"model": models.Status}})
async def wake(request: Request, sandbox_id: str) -> Response:
    """Continue where the sandbox was hibernated or paused; one that runs is fine."""
    await plane_of(request).lifecycle.wake(workspace_of(request), sandbox_id)
    return json_response({"status": Status.RUNNING})
