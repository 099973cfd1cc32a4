"""Middleware around every request. Plain ASGI: bodies stream through untouched."""

from __future__ import annotations

import math
import re
import time
import uuid
from typing import Any
from urllib.parse import parse_qsl, urlencode

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pandastack.api.errors import error_response
from pandastack.api.metrics import Metrics
from pandastack.api.origin import check_origin
from pandastack.errors import AuthError, PandastackError, RateLimitError, ServerError
from pandastack.model.caller import Caller

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,64}")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_ALLOWED_HEADERS = ("content-type", "authorization", "x-api-key", "idempotency-key")
_EXPOSED_HEADERS = b"x-request-id, retry-after, x-pandastack-process, idempotency-replayed, x-next-cursor"
_OPEN_PATHS = frozenset({"/v1/version"})
_HOOKS = "/v1/github/hooks/"  # signed with the secret of one workspace
_SERVER_HOOK = "/v1/webhooks/github"  # signed with the operator's
_LINKS = "/v1/p/"  # the token is in the path, and the gateway checks it
_OWN_CHECKS = (
    re.compile(r"/v1/databases/[^/]+/proxy(/.*)?", re.DOTALL),  # the broker has a token of its own
    re.compile(r"/v1/functions/[^/]+/http-invoke(/.*)?", re.DOTALL),  # refused unless the function is public
)

log = structlog.get_logger(__name__)


class Edge:
    """Request ids, CORS, the access log, metrics, and a flat 500 for unexpected errors."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        exchange = _Exchange(_request_id(headers.get("x-request-id")), send)
        structlog.contextvars.bind_contextvars(request_id=exchange.request_id)
        try:
            if scope["method"] == "OPTIONS":
                await _preflight(headers)(scope, receive, exchange.send)
            else:
                await self._app(scope, receive, exchange.send)
        except Exception as error:
            log.error("request.failed", method=scope["method"], path=scope["path"], exc_info=error)
            if exchange.status is not None:
                raise  # too late for an answer: the server aborts the connection, so that the client notices
            failure = ServerError("internal server error", detail={"request_id": exchange.request_id})
            await error_response(failure)(scope, receive, exchange.send)
        finally:
            self._record(scope, exchange)

    def _record(self, scope: Scope, exchange: _Exchange) -> None:
        seconds = time.perf_counter() - exchange.started_at
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.request(method, route, exchange.status or 0, seconds)
        note = log.debug if (exchange.status or 0) < 500 else log.warning
        note("request", method=method, path=scope["path"], status=exchange.status, ms=round(seconds * 1000, 2))


class _Exchange:
    """One outgoing response: records the status, adds the headers that all responses carry."""

    def __init__(self, request_id: str, send: Send) -> None:
        self.request_id = request_id
        self.started_at = time.perf_counter()
        self.status: int | None = None
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            given = list(message.get("headers", ()))
            ours = [
                (b"x-request-id", self.request_id.encode("ascii")),
                (b"access-control-allow-origin", b"*"),
                (b"access-control-expose-headers", _EXPOSED_HEADERS),
            ]
            # A server in a sandbox may have set them itself; browsers refuse two.
            names = {name for name, _ in given}
            message["headers"] = [*given, *(header for header in ours if header[0] not in names)]
        await self._send(message)


class Authentication:
    """Requires a valid token for ``/v1`` and ``/mcp``.

    Stores the caller in ``scope["caller"]``, and the token in ``scope["token"]`` for requests on the caller's behalf.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "lifespan" or not is_guarded(path, scope.get("method", "GET")):
            await self._app(scope, receive, send)
            return
        state = scope["app"].state
        try:
            check_origin(scope, state.plane.settings.allowed_origins)
            scope["token"] = _token(scope)
            scope["caller"] = await _identified(scope, state)
            if seconds := state.requests.take(scope["caller"].token):
                raise RateLimitError("too many requests with this token", retry_after=math.ceil(seconds))
        except PandastackError as error:
            await error_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)


async def _identified(scope: Scope, state: Any) -> Caller:
    """The caller of a request. A peer that has sent too many wrong tokens is refused before another look-up."""
    access, failures, token = state.plane.access, state.failed_logins, scope["token"]
    peer = (scope.get("client") or ("",))[0]
    if not access.has_seen(token) and (seconds := failures.wait(peer)):
        raise RateLimitError("too many requests without a valid token", retry_after=math.ceil(seconds))
    try:
        caller: Caller = await access.identify(token)
    except AuthError:
        failures.take(peer)
        raise
    return caller


def is_guarded(path: str, method: str = "GET") -> bool:
    """Whether a request of a path needs a token."""
    if path in _OPEN_PATHS or path.startswith((_LINKS, _HOOKS)) or (path == _SERVER_HOOK and method == "POST"):
        return False
    if any(each.fullmatch(path) for each in _OWN_CHECKS):
        return False
    return path in ("/v1", "/mcp") or path.startswith("/v1/")


def _token(scope: Scope) -> str:
    """The token of a request. A token in the query is removed from it, so that no log shows it."""
    headers = Headers(scope=scope)
    in_query = _take_from_query(scope)
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and given.strip():
        return given.strip()
    if token := headers.get("x-api-key") or in_query:
        return token
    raise AuthError("missing bearer token", hint="send the header Authorization: Bearer pds_…")


def _take_from_query(scope: Scope) -> str | None:
    query = scope.get("query_string", b"")
    if b"access_token" not in query:
        return None
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    scope["query_string"] = urlencode([pair for pair in pairs if pair[0] != "access_token"]).encode("ascii")
    return dict(pairs).get("access_token")


def _request_id(given: str | None) -> str:
    return given if given and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _preflight(headers: Headers) -> Response:
    asked = headers.get("access-control-request-headers", "").lower().split(",")
    own = [name for name in map(str.strip, asked) if re.fullmatch(r"x-(pandastack-[a-z0-9-]+|request-id)", name)]
    response = Response(status_code=204)
    answer = MutableHeaders(raw=response.raw_headers)
    answer["access-control-allow-methods"] = ", ".join(_METHODS)
    answer["access-control-allow-headers"] = ", ".join([*_ALLOWED_HEADERS, *own])
    answer["access-control-max-age"] = "600"
    return response
