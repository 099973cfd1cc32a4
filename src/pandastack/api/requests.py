"""Reads requests: their caller, and bodies within limits, whatever their content type."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

import anyio
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response

from pandastack.api import errors
from pandastack.api.models.base import Answer
from pandastack.errors import TooLargeError
from pandastack.model.caller import Caller
from pandastack.services import ControlPlane

Model = TypeVar("Model", bound=BaseModel)
Result = TypeVar("Result")


def plane_of(request: HTTPConnection) -> ControlPlane:
    """The control plane that serves ``request``."""
    plane: ControlPlane = request.app.state.plane
    return plane


def caller_of(request: HTTPConnection) -> Caller:
    """The caller of ``request``, as identified by the authentication middleware."""
    caller: Caller = request.scope["caller"]
    return caller


async def read_json(request: Request, model: type[Model]) -> Model:
    """The body as ``model``; an empty one is ``{}``. Raises :class:`BadRequestError` or :class:`TooLargeError`."""
    limit = plane_of(request).settings.max_json_bytes
    body = b"".join([chunk async for chunk in limited(request, limit)])
    try:
        return model.model_validate_json(body if body.strip() else b"{}")
    except ValidationError as error:
        raise errors.of_validation(error) from error


async def limited(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body's chunks. Over ``limit`` bytes raises :class:`TooLargeError`, before reading if the length is given."""
    check_length(request, limit)
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > limit:
            raise _too_large(limit)
        if chunk:
            yield chunk


async def unless_left(request: Request, work: Callable[[], Awaitable[Result]]) -> Result:
    """The result of ``work``, which is cancelled when the client disconnects. The body must have been read.

    Raises ``ClientDisconnect`` in that case.
    """
    results: list[Result] = []
    failure: Exception | None = None

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        try:
            results.append(await work())
        except Exception as error:  # raised as it is, not inside an exception group
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if not results:
        raise ClientDisconnect()
    return results[0]


def check_length(request: Request, limit: int) -> None:
    """Refuse a body whose declared length is over ``limit`` bytes, before any other work."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > limit):
        raise _too_large(limit)


def flag(value: str | None) -> bool:
    """Whether a query parameter is set: clients write ``1`` or ``true``."""
    return (value or "").lower() in ("1", "true", "yes")


def json_response(value: Answer | Sequence[Answer | str], status: int = 200) -> Response:
    """An answer, or a list of them, as JSON."""
    return Response(to_json(value), status, media_type="application/json")


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"the body is over the limit of {limit} bytes")
