"""Copies of a running sandbox, and the promotion of one of them."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pandastack.api.idempotency import PARAMETER, idempotent
from pandastack.api.models.forks import Fork, Forked, ForkTree, Promote, Promoted
from pandastack.api.models.schema import takes
from pandastack.api.requests import caller_of, json_response, plane_of, read_json

router = APIRouter(prefix="/v1/sandboxes/{sandbox_id}", tags=["forks"])

_TREE_COUNT = 2


@router.post(
    "/fork",
    status_code=201,
    response_class=Response,
    responses={201: {"model": Forked}},
    openapi_extra=takes(Fork, PARAMETER),
)
@idempotent()
async def fork(request: Request, sandbox_id: str) -> Response:
    """Copy a sandbox with its memory, processes and disk; the original keeps running."""
    plane = plane_of(request)
    body = await read_json(request, Fork)
    count = 1 if body.count is None else body.count
    done = await plane.forks.fork(caller_of(request), sandbox_id, body.metadata or {}, count)
    return json_response(Forked.of(done, plane), 201)


@router.post(
    "/fork-tree",
    status_code=201,
    response_class=Response,
    responses={201: {"model": ForkTree}},
    openapi_extra=takes(Fork, PARAMETER),
)
@idempotent()
async def fork_tree(request: Request, sandbox_id: str) -> Response:
    """Make several copies of one moment, by default 2. If some of them fail, the answer is a success with `errors`."""
    plane = plane_of(request)
    body = await read_json(request, Fork)
    count = _TREE_COUNT if body.count is None else body.count
    done = await plane.forks.fork_tree(caller_of(request), sandbox_id, body.metadata or {}, count)
    return json_response(ForkTree.of(done, plane), 201)


@router.post(
    "/promote",
    response_class=Response,
    responses={200: {"model": Promoted}},
    openapi_extra=takes(Promote),
)
async def promote(request: Request, sandbox_id: str) -> Response:
    """Make a child of a tree independent of it; `cleanup_siblings` deletes the others."""
    body = await read_json(request, Promote)
    done = await plane_of(request).forks.promote(
        caller_of(request), sandbox_id, bool(body.cleanup_siblings), body.tree_id
    )
    return json_response(Promoted.of(done))
