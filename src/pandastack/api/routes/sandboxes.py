"""Create, list, get, delete."""

from __future__ import annotations

from dataclasses import replace

import anyio
from fastapi import APIRouter, Request, Response

from pandastack.api.idempotency import PARAMETER, idempotent, make_once
from pandastack.api.listing import METADATA_PARAMETER, Cursor, Limit, Statuses, page_response, sandbox_filter
from pandastack.api.models.sandboxes import CreateSandbox, Sandbox
from pandastack.api.models.schema import takes
from pandastack.api.requests import caller_of, json_response, plane_of, read_json
from pandastack.services.records.listing import Page
from pandastack.store.sandboxes import SandboxRecord

router = APIRouter(prefix="/v1/sandboxes", tags=["sandboxes"])


@router.post(
    "",
    status_code=201,
    response_class=Response,
    responses={201: {"model": Sandbox}},
    openapi_extra=takes(CreateSandbox, PARAMETER),
)
@idempotent(resumable=True)
async def create_sandbox(request: Request) -> Response:
    """Create a sandbox. Answers once it executes commands."""
    body = await read_json(request, CreateSandbox)
    # A list of rules takes milliseconds to check.
    wanted = await anyio.to_thread.run_sync(body.wanted) if isinstance(body.network, dict) else body.wanted()
    plane, caller = plane_of(request), caller_of(request)

    async def find(sandbox_id: str) -> SandboxRecord:
        return plane.sandboxes.get(caller, sandbox_id)

    async def make(sandbox_id: str | None) -> SandboxRecord:
        return await plane.sandboxes.create(caller, replace(wanted, id=sandbox_id))

    record = await make_once(request, find, make)
    return json_response(Sandbox.of(record, plane), 201)


@router.get(
    "",
    response_class=Response,
    responses={200: {"model": list[Sandbox]}},
    openapi_extra={"parameters": [METADATA_PARAMETER]},
)
async def list_sandboxes(
    request: Request, status: Statuses = None, limit: Limit = None, cursor: Cursor = None
) -> Response:
    """The workspace's sandboxes, newest first; all of them by default."""
    plane, page = plane_of(request), Page.of(limit, cursor)
    records, after = plane.sandboxes.page(caller_of(request), sandbox_filter(request, status), page)
    return page_response([Sandbox.of(record, plane) for record in records], after)


@router.get("/{sandbox_id}", response_class=Response, responses={200: {"model": Sandbox}})
async def get_sandbox(request: Request, sandbox_id: str) -> Response:
    """One sandbox."""
    plane = plane_of(request)
    return json_response(Sandbox.of(plane.sandboxes.get(caller_of(request), sandbox_id), plane))


@router.delete("/{sandbox_id}", status_code=204, response_class=Response)
async def delete_sandbox(request: Request, sandbox_id: str) -> Response:
    """Delete a sandbox and everything that belongs to it."""
    await plane_of(request).sandboxes.delete(caller_of(request), sandbox_id)
    return Response(status_code=204)
