"""What the control plane answers its gateway, on a Unix socket of this user: where a request goes, wakes, use.

No token protects it but the socket's mode. Bodies are small JSON objects of our own making, and still checked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pandastack.api import errors
from pandastack.api.errors import error_response
from pandastack.api.function_calls import METHODS, FunctionAnswer, path_after, read_request
from pandastack.api.requests import limited
from pandastack.errors import NotFoundError, PandastackError, UnavailableError
from pandastack.model.databases import DatabaseDirectory, is_database_id
from pandastack.model.previews import Waker
from pandastack.products.functions import Functions
from pandastack.services import ControlPlane
from pandastack.services.ssh.ssh import Door

_M = TypeVar("_M", bound="Message")

_MOST_IDS = 20_000
_MOST_BYTES = 8 * 1024 * 1024


class Message(BaseModel):
    """What the gateway says."""

    model_config = ConfigDict(extra="forbid")


class _RouteWanted(Message):
    sandbox: str | None = Field(None, max_length=64)
    port: int | None = Field(None, ge=1, le=65535)
    token: str | None = Field(None, max_length=256)
    checked: bool = False


class _Inward(Message):
    caller: str = Field(max_length=64)
    service: str = Field(max_length=128)


class _Wake(Message):
    sandbox: str = Field(max_length=64)
    waker: Waker


class _Activity(Message):
    used: list[str] = Field([], max_length=_MOST_IDS)
    connected: list[str] = Field([], max_length=_MOST_IDS)
    asked: list[str] = Field([], max_length=_MOST_IDS)


class _Login(Message):
    sandbox: str = Field(max_length=64)
    fingerprint: str = Field(max_length=128)


class _Logins(Message):
    logins: list[_Login] = Field(max_length=_MOST_IDS)


class _Door(Message):
    port: int = Field(ge=1, le=65535)
    host_key: str = Field(max_length=1024)


class _DatabaseDoor(Message):
    port: int = Field(ge=1, le=65535)


async def _refuse(_request: Request, error: Exception) -> Response:
    assert isinstance(error, PandastackError)
    return error_response(error)


async def _refuse_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError)
    return error_response(errors.of_validation(error))


REFUSALS: Mapping[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    PandastackError: _refuse,
    ValidationError: _refuse_invalid,
}
"""How what the gateway asks for is refused."""


async def read_message(request: Request, kind: type[_M]) -> _M:
    """The body as a ``kind``. Raises :class:`TooLargeError` and ``ValidationError``, which :data:`REFUSALS` answer."""
    return kind.model_validate_json(b"".join([chunk async for chunk in limited(request, _MOST_BYTES)]))


def create_internal_app() -> Starlette:
    """The ASGI application. ``state.plane`` is its control plane, ``state.databases`` the
    :class:`~pandastack.model.databases.DatabaseDirectory` of it, and ``state.functions`` its functions, once they are
    open."""
    app = Starlette(
        routes=[
            Route("/internal/route", _route, methods=["POST"]),
            Route("/internal/inward", _inward, methods=["POST"]),
            Route("/internal/wake", _wake, methods=["POST"]),
            Route("/internal/activity", _activity, methods=["POST"]),
            Route("/internal/ssh/authorize", _authorize, methods=["POST"]),
            Route("/internal/ssh/revoked", _revoked, methods=["POST"]),
            Route("/internal/ssh/door", _announce, methods=["POST"]),
            Route("/internal/databases/door", _announce_databases, methods=["POST"]),
            Route("/internal/databases/{database}/route", _route_database, methods=["POST"]),
            Route("/internal/functions/{function}/http{path:path}", _answer_by_function, methods=METHODS),
        ],
        exception_handlers=REFUSALS,
    )
    app.state.plane = app.state.databases = app.state.functions = None
    return app


def _plane(request: Request) -> ControlPlane:
    plane: ControlPlane | None = request.app.state.plane
    if plane is None:  # it opens, or has closed
        raise UnavailableError("the control plane does not answer yet")
    return plane


def _databases(request: Request) -> DatabaseDirectory:
    databases: DatabaseDirectory | None = request.app.state.databases
    if databases is None:
        raise UnavailableError("the control plane does not answer for databases yet")
    return databases


async def _route(request: Request) -> Response:
    wanted = await read_message(request, _RouteWanted)
    previews = _plane(request).previews
    route = await previews.route(wanted.sandbox, wanted.port, wanted.token, checked=wanted.checked)
    return JSONResponse(asdict(route))


async def _inward(request: Request) -> Response:
    wanted = await read_message(request, _Inward)
    return JSONResponse(asdict(_plane(request).previews.inward_route(wanted.caller, wanted.service)))


async def _wake(request: Request) -> Response:
    wanted = await read_message(request, _Wake)
    await _plane(request).previews.wake(wanted.sandbox, wanted.waker)
    return JSONResponse({})


async def _activity(request: Request) -> Response:
    told = await read_message(request, _Activity)
    running, gone = _plane(request).previews.report(told.used, told.connected, told.asked)
    return JSONResponse({"running": running, "gone": gone})


async def _authorize(request: Request) -> Response:
    login = await read_message(request, _Login)
    return JSONResponse({"allowed": await _plane(request).ssh.allows(login.sandbox, login.fingerprint)})


async def _revoked(request: Request) -> Response:
    asked = await read_message(request, _Logins)
    revoked = await _plane(request).ssh.revoked([(each.sandbox, each.fingerprint) for each in asked.logins])
    return JSONResponse({"revoked": [{"sandbox": sandbox, "fingerprint": key} for sandbox, key in revoked]})


async def _announce(request: Request) -> Response:
    door = await read_message(request, _Door)
    _plane(request).ssh.announced(Door(door.port, door.host_key))
    return JSONResponse({})


async def _route_database(request: Request) -> Response:
    database = request.path_params["database"]
    if not is_database_id(database):
        raise NotFoundError("there is no such database")
    return JSONResponse(asdict(await _databases(request).route(database)))


async def _announce_databases(request: Request) -> Response:
    door = await read_message(request, _DatabaseDoor)
    _databases(request).announced(door.port)
    return JSONResponse({})


async def _answer_by_function(request: Request) -> Response:
    """Answer what came to a function's own host name. Of the client the gateway tells the address, and nobody else."""
    functions: Functions | None = request.app.state.functions
    if functions is None:
        raise UnavailableError("the control plane does not answer for functions yet")
    wanted = await read_request(request, path_after(request, "/http"), request.headers.get("x-forwarded-for", ""))
    return FunctionAnswer(functions, request.path_params["function"], wanted)
