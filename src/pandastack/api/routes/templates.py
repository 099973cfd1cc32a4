"""Templates."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pandastack.api.models.templates import Template
from pandastack.api.requests import caller_of, json_response, plane_of

router = APIRouter(prefix="/v1/templates", tags=["templates"])


@router.get("", response_class=Response, responses={200: {"model": list[Template]}})
async def list_templates(request: Request) -> Response:
    """The templates that the workspace may use: first those of every workspace, then its own."""
    return json_response([Template.of(each) for each in await plane_of(request).templates.list(caller_of(request))])


@router.get("/{name}", response_class=Response, responses={200: {"model": Template}})
async def get_template(request: Request, name: str) -> Response:
    """One template, by its name or an alias."""
    return json_response(Template.of(await plane_of(request).templates.get(caller_of(request), name)))


@router.delete("/{name}", status_code=204, response_class=Response)
async def delete_template(request: Request, name: str) -> Response:
    """Delete a template of the workspace. Sandboxes and snapshots that were made from it stay."""
    await plane_of(request).templates.delete(caller_of(request), name)
    return Response(status_code=204)
