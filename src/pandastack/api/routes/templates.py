"""Templates."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pandastack.api.models.templates import Template
from pandastack.api.requests import json_response, plane_of

router = APIRouter(prefix="/v1/templates", tags=["templates"])


@router.get("", response_class=Response, responses={200: {"model": list[Template]}})
async def list_templates(request: Request) -> Response:
    """All templates."""
    return json_response([Template.of(source) for source in await plane_of(request).templates.list()])


@router.get("/{name}", response_class=Response, responses={200: {"model": Template}})
async def get_template(request: Request, name: str) -> Response:
    """One template, by its name or an alias."""
    return json_response(Template.of(await plane_of(request).templates.get(name)))
