"""Backups of databases."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pandastack.api.idempotency import PARAMETER, idempotent
from pandastack.api.models.database_backups import DatabaseBackups
from pandastack.api.requests import caller_of, json_response
from pandastack.api.routes.databases import databases_of

router = APIRouter(prefix="/v1/databases", tags=["databases"])


@router.get("/{database_id}/backups", response_class=Response, responses={200: {"model": DatabaseBackups}})
async def get_database_backups(request: Request, database_id: str) -> Response:
    """The times that a database can be restored to, and its base backups. Asking does not wake it."""
    return json_response(DatabaseBackups.of(await databases_of(request).get(caller_of(request), database_id)))


@router.post(
    "/{database_id}/backups",
    status_code=201,
    response_class=Response,
    responses={201: {"model": DatabaseBackups}},
    openapi_extra={"parameters": [PARAMETER]},
)
@idempotent()
async def back_up_database(request: Request, database_id: str) -> Response:
    """Take a base backup now. What was committed before can be restored then. A database that sleeps is woken."""
    found = await databases_of(request).back_up(caller_of(request), database_id)
    return json_response(DatabaseBackups.of(found), 201)
