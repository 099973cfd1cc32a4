"""Templates."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pandastack.api import models, render
from pandastack.api.requests import json_response, plane_of

router = APIRouter(prefix="/v1/templates", tags=["templates"])


@router.get("", response_class=Response, responses={200: {"model": list[models.Template]}})
async def list_templates(request: Request) -> Response:
    """All templates."""
    return json_response([render.template(source) for source in await plane_of(request).templates.list()])


@router.get("/{name}", response_class=Response, responses={200: {"model": models.Template}})
async def get_template(request: Request, name: str) -> Response:
    """One template, by its name or an alias."""
    return json_response(render.template(await plane_of(request).templates.get(name)))
