"""The caller's workspace and its settings."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pandastack.api.models.schema import takes
from pandastack.api.models.workspaces import PatchWorkspace, Workspace
from pandastack.api.requests import caller_of, json_response, plane_of, read_json

router = APIRouter(prefix="/v1/workspace", tags=["me"])


@router.get("", response_class=Response, responses={200: {"model": Workspace}})
async def get_workspace(request: Request) -> Response:
    """The workspace that the token belongs to."""
    return json_response(Workspace.of(plane_of(request).workspaces.of(caller_of(request))))


@router.patch("", response_class=Response, responses={200: {"model": Workspace}}, openapi_extra=takes(PatchWorkspace))
async def change_workspace(request: Request) -> Response:
    """Change its settings; what is missing or null stays."""
    wanted = await read_json(request, PatchWorkspace)
    changed = await plane_of(request).workspaces.change(caller_of(request), previews=wanted.visibility())
    return json_response(Workspace.of(changed))
