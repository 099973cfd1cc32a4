"""The checkpoints of a sandbox: take, list, delete, rewind, create another sandbox from one."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from fastapi import APIRouter, Request, Response

from pandastack.api.idempotency import PARAMETER, idempotent, make_once
from pandastack.api.models.sandboxes import CreateSandbox, Sandbox
from pandastack.api.models.schema import takes
from pandastack.api.models.snapshots import Capture, Checkpoint, Checkpoints
from pandastack.api.requests import caller_of, json_response, plane_of, read_json
from pandastack.store.sandboxes import SandboxRecord
from pandastack.store.snapshots import SnapshotRecord

router = APIRouter(prefix="/v1/sandboxes/{sandbox_id}/checkpoints", tags=["checkpoints"])


@router.post(
    "",
    status_code=201,
    response_class=Response,
    responses={201: {"model": Checkpoint}},
    openapi_extra=takes(Capture, PARAMETER),
)
@idempotent(resumable=True)
async def take_checkpoint(request: Request, sandbox_id: str) -> Response:
    """Take a checkpoint now; the default label is the last command."""
    body = await read_json(request, Capture)
    timeline, caller = plane_of(request).timeline, caller_of(request)

    async def make(checkpoint_id: str | None) -> SnapshotRecord:
        return await timeline.checkpoint(caller, sandbox_id, body.label, checkpoint_id=checkpoint_id)

    record = await make_once(request, partial(timeline.get, caller, sandbox_id), make)
    return json_response(Checkpoint.of(record), 201)


@router.get("", response_class=Response, responses={200: {"model": Checkpoints}})
async def list_checkpoints(request: Request, sandbox_id: str) -> Response:
    """The sandbox's checkpoints, oldest first."""
    records = await plane_of(request).timeline.checkpoints(caller_of(request), sandbox_id)
    return json_response(Checkpoints(checkpoints=[Checkpoint.of(record) for record in records]))


@router.delete("/{checkpoint_id}", status_code=204, response_class=Response)
async def delete_checkpoint(request: Request, sandbox_id: str, checkpoint_id: str) -> Response:
    """Delete one checkpoint."""
    await plane_of(request).timeline.delete(caller_of(request), sandbox_id, checkpoint_id)
    return Response(status_code=204)


@router.post("/{checkpoint_id}/rewind", response_class=Response, responses={200: {"model": Sandbox}})
async def rewind(request: Request, sandbox_id: str, checkpoint_id: str) -> Response:
    """Rewind the sandbox to a checkpoint; it keeps its id, and loses its work since."""
    plane = plane_of(request)
    record = await plane.timeline.rewind(caller_of(request), sandbox_id, checkpoint_id)
    return json_response(Sandbox.of(record, plane))


@router.post(
    "/{checkpoint_id}/fork",
    status_code=201,
    response_class=Response,
    responses={201: {"model": Sandbox}},
    openapi_extra=takes(CreateSandbox, PARAMETER),
)
@idempotent(resumable=True)
async def fork_checkpoint(request: Request, sandbox_id: str, checkpoint_id: str) -> Response:
    """Create a sandbox that continues from a checkpoint."""
    plane, caller = plane_of(request), caller_of(request)
    body = (await read_json(request, CreateSandbox)).model_copy(update={"from_snapshot": checkpoint_id})
    wanted = body.wanted()

    async def find(child_id: str) -> SandboxRecord:
        return plane.sandboxes.get(caller, child_id)

    async def make(child_id: str | None) -> SandboxRecord:
        return await plane.timeline.fork(caller, sandbox_id, checkpoint_id, replace(wanted, id=child_id))

    record = await make_once(request, find, make)
    return json_response(Sandbox.of(record, plane), 201)
