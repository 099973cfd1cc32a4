"""The query broker of each database: statements over HTTP, with its own token or one of its workspace."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json

from pandastack.api.buffered import BufferedResponse
from pandastack.api.errors import error_response
from pandastack.api.models.broker import (
    BrokerHealth,
    BrokerInfo,
    NewSqlDatabase,
    QuerySql,
    RunSql,
    RunTransaction,
    SqlAnswer,
    SqlDatabase,
    SqlDatabases,
    SqlDone,
    SqlTransactionDone,
)
from pandastack.api.models.schema import takes
from pandastack.api.requests import json_response, read_json, unless_left
from pandastack.api.routes.databases import databases_of
from pandastack.errors import AuthError, NotFoundError, RateLimitError
from pandastack.products.databases.credentials import BROKER_PREFIX
from pandastack.products.databases.query.broker import Answered, Broker
from pandastack.products.databases.query.session import Outcome
from pandastack.products.databases.spec import DATABASE, ROLE
from pandastack.store.databases import DatabaseRecord

router = APIRouter(prefix="/v1/databases/{database_id}/proxy", tags=["query broker"])

_API_TOKEN = "pds_"
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


def _broker(request: Request) -> Broker:
    return databases_of(request).broker


async def _identified(request: Request, database_id: str) -> DatabaseRecord:
    """The database, if the request has its token, or one of its workspace. Raises :class:`AuthError`,
    :class:`RateLimitError`, and for a token of a workspace ``NotFoundError`` and ``ConflictError``."""
    state, peer = request.app.state, (request.client.host if request.client else "")
    if seconds := state.failed_logins.wait(peer):
        raise RateLimitError("too many requests without a valid token", retry_after=math.ceil(seconds))
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    token = given.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    try:
        if token.startswith(_API_TOKEN) and not token.startswith(BROKER_PREFIX):
            caller = await state.plane.access.identify(token)
            record, name = databases_of(request).usable(caller, database_id), caller.token
        else:
            record = await _broker(request).identify(database_id, token)
            name = f"broker {record.id}"
    except AuthError:
        state.failed_logins.take(peer)
        raise
    if seconds := state.requests.take(name):
        raise RateLimitError("too many requests with this token", retry_after=math.ceil(seconds))
    return record


@router.get("/v1/health", response_class=Response, responses={200: {"model": BrokerHealth}})
async def get_broker_health(request: Request, database_id: str) -> Response:
    """Whether there is a database to ask: 503 while it is made, and once it has failed. Needs no token, wakes none."""
    await databases_of(request).route(database_id)
    return json_response(BrokerHealth())


@router.get("/v1/info", response_class=Response, responses={200: {"model": BrokerInfo}})
async def get_broker_info(request: Request, database_id: str) -> Response:
    """The server's version, and the broker's limits."""
    record = await _identified(request, database_id)
    version = await unless_left(request, lambda: _broker(request).version(record))
    return json_response(BrokerInfo(version=version, database=DATABASE, username=ROLE))


@router.post("/v1/query", response_class=Response, responses={200: {"model": SqlAnswer}}, openapi_extra=takes(QuerySql))
async def query_database(request: Request, database_id: str) -> Response:
    """Carry out one statement, and return its rows. One that sleeps is woken."""
    record = await _identified(request, database_id)
    work = (await read_json(request, QuerySql)).work()
    answered = await unless_left(request, lambda: _broker(request).run(record, work))
    (outcome,), (body,) = answered.outcomes, answered.bodies
    return _response(answered, [b"{", body, _rest(outcome), b',"duration_ms":', to_json(answered.duration_ms), b"}"])


@router.post("/v1/exec", response_class=Response, responses={200: {"model": SqlDone}}, openapi_extra=takes(RunSql))
async def execute_in_database(request: Request, database_id: str) -> Response:
    """Carry out one statement, and say how many rows it affected."""
    record = await _identified(request, database_id)
    work = (await read_json(request, RunSql)).work()
    answered = await unless_left(request, lambda: _broker(request).run(record, work))
    with closing(answered.lease):
        (outcome,) = answered.outcomes
        affected = len(outcome.rows) if outcome.affected is None else outcome.affected
        return json_response(SqlDone(rows_affected=affected, duration_ms=answered.duration_ms))


@router.post(
    "/v1/transaction",
    response_class=Response,
    responses={200: {"model": SqlTransactionDone}},
    openapi_extra=takes(RunTransaction),
)
async def run_transaction_in_database(request: Request, database_id: str) -> Response:
    """Carry out statements that all happen, or none. `detail.statement` of an error says which one it was, from 0."""
    record = await _identified(request, database_id)
    work = (await read_json(request, RunTransaction)).work()
    answered = await unless_left(request, lambda: _broker(request).run(record, work))
    parts = [b'{"results":[']
    for place, (outcome, body) in enumerate(zip(answered.outcomes, answered.bodies, strict=True)):
        parts += [b",{" if place else b"{", body, _rest(outcome), b"}"]
    return _response(answered, [*parts, b'],"duration_ms":', to_json(answered.duration_ms), b"}"])


@router.get("/v1/databases", response_class=Response, responses={200: {"model": SqlDatabases}})
async def list_sql_databases(request: Request, database_id: str) -> Response:
    """The databases of the server, by name."""
    record = await _identified(request, database_id)
    found = await unless_left(request, lambda: _broker(request).databases(record))
    return json_response(SqlDatabases(databases=[SqlDatabase.of(each) for each in found]))


@router.post(
    "/v1/databases",
    status_code=201,
    response_class=Response,
    responses={201: {"model": SqlDatabase}},
    openapi_extra=takes(NewSqlDatabase),
)
async def create_sql_database(request: Request, database_id: str) -> Response:
    """Create a database in the server."""
    record = await _identified(request, database_id)
    wanted = await read_json(request, NewSqlDatabase)
    return json_response(SqlDatabase(name=await _broker(request).create(record, wanted.name)), 201)


@router.delete("/v1/databases/{name}", status_code=204, response_class=Response)
async def drop_sql_database(request: Request, database_id: str, name: str) -> Response:
    """Delete a database of the server that nobody uses."""
    await _broker(request).drop(await _identified(request, database_id), name)
    return Response(status_code=204)


@router.api_route("", methods=_METHODS, include_in_schema=False)
@router.api_route("/{rest:path}", methods=_METHODS, include_in_schema=False)
async def no_such_broker_route(request: Request, database_id: str) -> Response:
    """Refuse what the broker does not have, once the token is known to be right."""
    await _identified(request, database_id)
    hint = "POST …/v1/query, …/v1/exec and …/v1/transaction carry out statements"
    return error_response(NotFoundError("the query broker has no such route", hint=hint))


def _rest(outcome: Outcome) -> bytes:
    told = {"count": len(outcome.rows), "truncated": outcome.cut, "rows_affected": outcome.affected}
    return b"," + to_json(told)[1:-1]


def _response(answered: Answered, parts: Sequence[bytes]) -> Response:
    return BufferedResponse(parts, answered.lease)
