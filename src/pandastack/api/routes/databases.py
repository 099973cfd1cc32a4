"""Databases of the workspace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from fastapi import APIRouter, Query, Request, Response

from pandastack.api.idempotency import PARAMETER, idempotent, make_once
from pandastack.api.models.databases import (
    CloneDatabase,
    CreateDatabase,
    Database,
    DatabaseConnection,
    DatabaseLog,
    DatabaseStatistics,
    DatabaseWaking,
    UpdateDatabase,
    broker_url,
)
from pandastack.api.models.schema import takes
from pandastack.api.requests import caller_of, flag, json_response, read_json
from pandastack.api.routes.ports import base_of
from pandastack.api.streams import ByteStream
from pandastack.errors import BadRequestError
from pandastack.products import databases as product
from pandastack.store.sandboxes import Status

router = APIRouter(prefix="/v1/databases", tags=["databases"])

_FEWEST_LINES, _LINES = 10, 300
_DUMP, _SQL = "application/vnd.postgresql.dump", "application/sql"


def databases_of(request: Request) -> product.Databases:
    """The databases that serve ``request``."""
    databases: product.Databases = request.app.state.databases
    return databases


def _shown(request: Request, database: product.Database, status: int = 200) -> Response:
    return json_response(Database.of(database, base_of(request)), status)


async def _made(request: Request, wanted: product.NewDatabase) -> Response:
    databases, caller = databases_of(request), caller_of(request)

    async def find(database_id: str) -> product.Database:
        return replace(await databases.get(caller, database_id), password=None)

    async def make(database_id: str | None) -> product.Database:
        return await databases.create(caller, replace(wanted, id=database_id))

    return _shown(request, await make_once(request, find, make), 202)


@router.post(
    "",
    status_code=202,
    response_class=Response,
    responses={202: {"model": Database}},
    openapi_extra=takes(CreateDatabase, PARAMETER),
)
@idempotent(resumable=True)
async def create_database(request: Request) -> Response:
    """Make a PostgreSQL database. It can be used once its status is `running`, with `connection_url`."""
    return await _made(request, (await read_json(request, CreateDatabase)).wanted())


@router.get("", response_class=Response, responses={200: {"model": list[Database]}})
async def list_databases(request: Request) -> Response:
    """The workspace's databases, newest first, without passwords."""
    return json_response(
        [Database.of(each, base_of(request)) for each in databases_of(request).list(caller_of(request))]
    )


@router.get("/{database_id}", response_class=Response, responses={200: {"model": Database}})
async def get_database(request: Request, database_id: str) -> Response:
    """One database, with its password, and whether its disk has room."""
    return _shown(request, await databases_of(request).get(caller_of(request), database_id))


@router.patch(
    "/{database_id}",
    response_class=Response,
    responses={200: {"model": Database}},
    openapi_extra=takes(UpdateDatabase),
)
async def update_database(request: Request, database_id: str) -> Response:
    """Have it run always, or sleep when it is idle; give it a larger disk as it runs."""
    body = await read_json(request, UpdateDatabase)
    found = await databases_of(request).update(caller_of(request), database_id, body.always_on, body.disk_gb)
    return _shown(request, found)


@router.delete("/{database_id}", status_code=204, response_class=Response)
async def delete_database(request: Request, database_id: str) -> Response:
    """Delete a database with everything in it. Its copies stay."""
    await databases_of(request).delete(caller_of(request), database_id)
    return Response(status_code=204)


@router.get("/{database_id}/connection", response_class=Response, responses={200: {"model": DatabaseConnection}})
async def get_database_connection(request: Request, database_id: str) -> Response:
    """Where clients connect to, with the password. Connecting wakes a database that sleeps."""
    found = await databases_of(request).connection(caller_of(request), database_id)
    told = {"broker_url": broker_url(base_of(request), database_id), "broker_token": found.broker_token or ""}
    return json_response(DatabaseConnection(connection_url=found.url or "", **told))


@router.post(
    "/{database_id}/wake", status_code=202, response_class=Response, responses={202: {"model": DatabaseWaking}}
)
async def wake_database(request: Request, database_id: str) -> Response:
    """Begin to wake a database that sleeps."""
    found = await databases_of(request).wake(caller_of(request), database_id)
    detail = "it runs already" if found.status == Status.RUNNING else None
    return json_response(DatabaseWaking(id=found.record.id, detail=detail), 202)


@router.post(
    "/{database_id}/clone",
    status_code=202,
    response_class=Response,
    responses={202: {"model": Database}},
    openapi_extra=takes(CloneDatabase, PARAMETER),
)
@idempotent(resumable=True)
async def clone_database(request: Request, database_id: str) -> Response:
    """Copy a database as it runs now, with its memory, or as it was: other password, no sessions."""
    body = await read_json(request, CloneDatabase)
    source = await databases_of(request).original(caller_of(request), database_id)
    return await _made(request, product.checked_clone(source, body.label, body.size, body.target_time))


@router.post("/{database_id}/reset-credentials", response_class=Response, responses={200: {"model": Database}})
async def reset_database_credentials(request: Request, database_id: str) -> Response:
    """Give a database another password, and end every session of it."""
    return _shown(request, await databases_of(request).reset_credentials(caller_of(request), database_id))


@router.post("/{database_id}/reset", status_code=202, response_class=Response, responses={202: {"model": Database}})
async def reset_database(request: Request, database_id: str) -> Response:
    """Give a copy the present data of its source in place of its own. Its id, address and password stay."""
    return _shown(request, await databases_of(request).reset(caller_of(request), database_id), 202)


@router.post("/{database_id}/failover", response_class=Response, responses={200: {"model": Database}})
async def fail_over_database(request: Request, database_id: str) -> Response:
    """Move a database to another node. Not supported: there is one."""
    databases_of(request).failover(caller_of(request), database_id)


@router.get("/{database_id}/stats", response_class=Response, responses={200: {"model": DatabaseStatistics}})
async def get_database_stats(request: Request, database_id: str) -> Response:
    """Numbers of its server. Asking does not wake it."""
    databases, caller = databases_of(request), caller_of(request)
    numbers = await databases.statistics(caller, database_id)
    always_on = databases.find(caller, database_id).always_on
    return json_response(DatabaseStatistics.of(numbers, databases.awake(caller, database_id), always_on))


@router.get("/{database_id}/logs", response_class=Response, responses={200: {"model": DatabaseLog}})
async def get_database_logs(request: Request, database_id: str, lines: int = _LINES) -> Response:
    """The last lines of its server's log, 300 of them or `lines`. Asking does not wake it."""
    if not _FEWEST_LINES <= lines <= product.MOST_LINES:
        message = f"lines: must be from {_FEWEST_LINES} to {product.MOST_LINES}"
        raise BadRequestError(message, field="lines")
    return json_response(DatabaseLog(logs=await databases_of(request).log(caller_of(request), database_id, lines)))


@router.get(
    "/{database_id}/export",
    response_class=Response,
    responses={200: {"content": {_DUMP: {}, _SQL: {}}, "description": "A dump; one that breaks off has no end"}},
)
async def export_database(
    request: Request,
    database_id: str,
    database: str = Query("", description="A database of the server; by default `pandastack`"),
    format: str = Query("custom", description="`custom`, for pg_restore, or `plain`: SQL"),
) -> Response:
    """Everything in a database as it is now, as pg_dump writes it. One that sleeps is woken."""
    if format not in list(product.Format):
        raise BadRequestError(f"format: must be {' or '.join(product.Format)}", field="format")
    databases, form = databases_of(request), product.Format(format)
    record = databases.usable(caller_of(request), database_id)

    @asynccontextmanager
    async def source() -> AsyncIterator[tuple[dict[str, str], AsyncIterator[bytes]]]:
        async with databases.dumps.export(record, database or None, form) as chunks:
            yield {}, chunks

    return ByteStream(source, media_type=_DUMP if form is product.Format.CUSTOM else _SQL)


@router.post(
    "/{database_id}/import",
    status_code=204,
    response_class=Response,
    openapi_extra={"requestBody": {"content": {_DUMP: {}}}},
)
async def import_database(
    request: Request,
    database_id: str,
    database: str = Query("", description="A database of the server; by default `pandastack`"),
    clean: str = Query("", description="`1`: what the dump has is deleted before it is created"),
) -> Response:
    """Restore a dump of the custom format as the role `pandastack`, in one transaction: all of it or nothing."""
    databases = databases_of(request)
    record = databases.usable(caller_of(request), database_id)
    await databases.dumps.load(record, database or None, request.stream(), clean=flag(clean))
    return Response(status_code=204)
