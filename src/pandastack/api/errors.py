"""The one place where errors become responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from pandastack.api.models.errors import Error
from pandastack.errors import (
    AuthError,
    BadRequestError,
    CapacityError,
    KeyInUseError,
    PandastackError,
    RateLimitError,
    StorageFullError,
    for_status,
)

_JSON = "application/json"
_SOURCES = ("query", "path", "header", "body")
_CLIENT_CLOSED_REQUEST = 499


def install(app: FastAPI) -> None:
    """Install the error responses in ``app``."""
    app.add_exception_handler(PandastackError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)


def error_response(error: PandastackError) -> Response:
    """Flat JSON with the error's status.

    Only refusals that are worth retrying soon carry ``Retry-After``: clients take it as a promise that nothing was
    created. They retry after 507 without it.
    """
    headers = {}
    if isinstance(error, KeyInUseError):
        headers["Retry-After"] = "1"
    elif isinstance(error, RateLimitError | CapacityError) and not isinstance(error, StorageFullError):
        headers["Retry-After"] = str(error.retry_after)
    elif isinstance(error, AuthError):
        headers["WWW-Authenticate"] = "Bearer"
    return Response(to_json(Error.of(error)), error.status_code, headers, _JSON)


def invalid(errors: Sequence[Any]) -> BadRequestError:
    """An error that describes the first of pydantic's ``errors`` in a clear sentence."""
    first = errors[0]
    place = list(first["loc"])
    what = first["msg"][:1].lower() + first["msg"][1:]
    if first["type"] == "json_invalid" and not any(isinstance(part, str) for part in place):
        return BadRequestError(f"the body is not valid JSON: {first['ctx']['error']}")
    if not place:
        return BadRequestError("the body must be a JSON object", hint=what)
    field = ".".join(map(str, place))[:128]
    more = f"{len(errors) - 1} more fields are wrong" if len(errors) > 1 else None
    return BadRequestError(f"{field}: {what}", field=field, hint=more)


def of_validation(error: ValidationError) -> BadRequestError:
    """:func:`invalid` for an error raised by a model."""
    return invalid(error.errors(include_url=False, include_input=False))


async def _on_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, PandastackError)
    return error_response(error)


async def _on_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [{**each, "loc": _within(each["loc"])} for each in error.errors()]
    return error_response(invalid(found))


def _within(place: Sequence[Any]) -> Sequence[Any]:
    """The place of a field without the part of the request that it is in."""
    return place[1:] if place and place[0] in _SOURCES else place


async def _on_http(request: Request, error: Exception) -> Response:
    """Errors of the router itself: unknown route, or wrong method."""
    assert isinstance(error, HTTPException)
    what = f"{request.method} {request.url.path[:200]}"
    message = {404: f"no such route: {what}", 405: f"method not allowed: {what}"}.get(
        error.status_code, str(error.detail)
    )
    response = error_response(for_status(error.status_code)(message, status_code=error.status_code))
    response.headers.update(error.headers or {})
    return response


async def _on_disconnect(_request: Request, _error: Exception) -> Response:
    return Response(status_code=_CLIENT_CLOSED_REQUEST)
