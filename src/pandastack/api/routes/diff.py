"""Differences between the files of two states."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from pandastack.api.models.diffs import Diff
from pandastack.api.requests import caller_of, flag, json_response, plane_of
from pandastack.services.timeline.diffs import NOW, TEMPLATE

router = APIRouter(prefix="/v1/sandboxes/{sandbox_id}", tags=["checkpoints"])

_STATE = f"`{NOW}`, `{TEMPLATE}`, or the id of a checkpoint, a snapshot or another sandbox"


@router.get("/diff", response_class=Response, responses={200: {"model": Diff}})
async def diff_files(
    request: Request,
    sandbox_id: str,
    since: Annotated[str, Query(alias="from", description=f"{_STATE}; default: `{TEMPLATE}`")] = TEMPLATE,
    until: Annotated[str, Query(alias="to", description=f"The same; default: `{NOW}`")] = NOW,
    patch: Annotated[str | None, Query(description="`1`: with a unified diff of each small text file")] = None,
) -> Response:
    """Files that were added, removed or changed between two states of the same template, by path."""
    since, until = since or TEMPLATE, until or NOW
    found = await plane_of(request).diffs.diff(caller_of(request), sandbox_id, since, until, flag(patch))
    return json_response(Diff.of(since, until, found))
