"""Snapshots of sandboxes, which last until deleted; a create restores them."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Request, Response

from pandastack.api.idempotency import PARAMETER, idempotent, make_once
from pandastack.api.listing import Cursor, Limit, page_response
from pandastack.api.models.schema import takes
from pandastack.api.models.snapshots import Capture, Snapshot, Snapshots
from pandastack.api.requests import caller_of, json_response, plane_of, read_json
from pandastack.services.records.listing import Page
from pandastack.store.snapshots import SnapshotRecord

router = APIRouter(prefix="/v1", tags=["snapshots"])


@router.post(
    "/sandboxes/{sandbox_id}/snapshots",
    status_code=201,
    response_class=Response,
    responses={201: {"model": Snapshot}},
    openapi_extra=takes(Capture, PARAMETER),
)
@idempotent(resumable=True)
async def take_snapshot(request: Request, sandbox_id: str) -> Response:
    """Take a snapshot. Answers once it can be used; the sandbox keeps running."""
    body = await read_json(request, Capture)
    plane, caller = plane_of(request), caller_of(request)

    async def make(snapshot_id: str | None) -> SnapshotRecord:
        return await plane.timeline.snapshot(caller, sandbox_id, body.label, snapshot_id=snapshot_id)

    record = await make_once(request, partial(plane.snapshots.get, caller), make)
    return json_response(Snapshot.of(record), 201)


@router.get("/snapshots", response_class=Response, responses={200: {"model": Snapshots}})
async def list_snapshots(
    request: Request, sandbox_id: str | None = None, limit: Limit = None, cursor: Cursor = None
) -> Response:
    """The workspace's snapshots, newest first."""
    snapshots, page = plane_of(request).snapshots, Page.of(limit, cursor)
    records, after = await snapshots.page(caller_of(request), sandbox_id or None, page)
    return page_response(Snapshots(snapshots=[Snapshot.of(record) for record in records]), after)


@router.get("/snapshots/{snapshot_id}", response_class=Response, responses={200: {"model": Snapshot}})
async def get_snapshot(request: Request, snapshot_id: str) -> Response:
    """One snapshot."""
    return json_response(Snapshot.of(await plane_of(request).snapshots.get(caller_of(request), snapshot_id)))


@router.delete("/snapshots/{snapshot_id}", status_code=204, response_class=Response)
async def delete_snapshot(request: Request, snapshot_id: str) -> Response:
    """Delete a snapshot; sandboxes made from it stay."""
    snapshots = plane_of(request).snapshots
    await snapshots.delete(await snapshots.get(caller_of(request), snapshot_id))
    return Response(status_code=204)
