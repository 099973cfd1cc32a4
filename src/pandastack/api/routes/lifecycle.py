"""The idle limit of a sandbox; pause, resume, hibernate, wake. The last four ignore their bodies."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pandastack.api.models.sandboxes import Lifecycle, PatchLifecycle, SandboxStatus
from pandastack.api.models.schema import takes
from pandastack.api.requests import caller_of, json_response, plane_of, read_json
from pandastack.store.sandboxes import Status

router = APIRouter(prefix="/v1/sandboxes/{sandbox_id}", tags=["lifecycle"])


@router.get("/lifecycle", response_class=Response, responses={200: {"model": Lifecycle}})
async def get_lifecycle(request: Request, sandbox_id: str) -> Response:
    """The idle limit, whether it applies, and how long the sandbox has been idle."""
    plane = plane_of(request)
    return json_response(Lifecycle.of(plane.sandboxes.get(caller_of(request), sandbox_id), plane))


@router.patch(
    "/lifecycle",
    response_class=Response,
    responses={200: {"model": Lifecycle}},
    openapi_extra=takes(PatchLifecycle),
)
async def patch_lifecycle(request: Request, sandbox_id: str) -> Response:
    """Change the idle limit, whether it applies, its action, and when checkpoints are taken."""
    plane = plane_of(request)
    wanted = (await read_json(request, PatchLifecycle)).wanted()
    record = await plane.sandboxes.set_lifecycle(caller_of(request), sandbox_id, wanted)
    return json_response(Lifecycle.of(record, plane))


@router.post("/pause", status_code=204, response_class=Response)
async def pause(request: Request, sandbox_id: str) -> Response:
    """Pause the CPUs; memory stays."""
    await plane_of(request).lifecycle.pause(caller_of(request), sandbox_id)
    return Response(status_code=204)


@router.post("/resume", status_code=204, response_class=Response)
async def resume(request: Request, sandbox_id: str) -> Response:
    """Resume a paused sandbox; a running one stays as it is."""
    await plane_of(request).lifecycle.resume(caller_of(request), sandbox_id)
    return Response(status_code=204)


@router.post("/hibernate", response_class=Response, responses={200: {"model": SandboxStatus}})
@router.post("/stop", response_class=Response, responses={200: {"model": SandboxStatus}})
async def hibernate(request: Request, sandbox_id: str) -> Response:
    """Store memory and disk until the sandbox is used or woken; a hibernated one stays as it is."""
    await plane_of(request).lifecycle.hibernate(caller_of(request), sandbox_id)
    return json_response(SandboxStatus(status=Status.HIBERNATED))


@router.post("/wake", response_class=Response, responses={200: {"model": SandboxStatus}})
@router.post("/start", response_class=Response, responses={200: {"model": SandboxStatus}})
async def wake(request: Request, sandbox_id: str) -> Response:
    """Wake a hibernated sandbox, or resume a paused one; a running one stays as it is."""
    await plane_of(request).lifecycle.wake(caller_of(request), sandbox_id)
    return json_response(SandboxStatus(status=Status.RUNNING))
