"""Tools for agents: the workspace's, and those of one sandbox.

A tool call becomes a request to this same application with the caller's token, so that agents are subject to the same
rules as all callers. The protocol's library takes a second to import, so it is imported at the first call.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

import anyio.to_thread
import httpx
from fastapi import APIRouter, FastAPI, Request, Response
from starlette.types import Receive, Scope, Send

from pandastack.api.allowance import Allowance
from pandastack.api.requests import caller_of, limited, plane_of
from pandastack.api.streams import while_connected
from pandastack.api.version import SEMVER
from pandastack.cluster import StreamingASGITransport
from pandastack.sdk.wire.call import Call
from pandastack.sdk.wire.coding import refusal_from

router = APIRouter(tags=["agents"])

_MOST_BYTES = 1024 * 1024
_TOO_MANY = -32000
_JSON_RPC = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}
_FIELDS = {"jsonrpc": {"const": "2.0"}, "id": {}, "result": {"type": "object"}, "error": {"type": "object"}}
_MESSAGE = {"type": "object", "properties": _FIELDS, "required": ["jsonrpc", "id"]}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The result, or the protocol's own error",
        "content": {"application/json": {"schema": _MESSAGE}},
    },
    400: {"description": "Not a valid message of the protocol", "content": {"application/json": {"schema": _MESSAGE}}},
}
_TAKEN = {"description": "A notification was accepted; it has no answer"}


@router.post("/mcp", response_class=Response, openapi_extra=_JSON_RPC, responses={**_ANSWERS, 202: _TAKEN})
@router.post("/v1/mcp", response_class=Response, openapi_extra=_JSON_RPC, responses={**_ANSWERS, 202: _TAKEN})
async def workspace_tools(request: Request) -> Response:
    """One message of the Model Context Protocol (JSON-RPC 2.0) about the workspace."""
    body = b"".join([chunk async for chunk in limited(request, _MOST_BYTES)])
    return _Answer(request, body, None)


@router.post(
    "/v1/sandboxes/{sandbox_id}/mcp",
    response_class=Response,
    openapi_extra=_JSON_RPC,
    responses={**_ANSWERS, 204: _TAKEN},
)
async def sandbox_tools(request: Request, sandbox_id: str) -> Response:
    """The same about one sandbox."""
    sandbox = plane_of(request).sandboxes.get(caller_of(request), sandbox_id)
    body = b"".join([chunk async for chunk in limited(request, _MOST_BYTES)])
    return _Answer(request, body, sandbox.id)


class _Answer(Response):
    """The protocol's answer to ``body``. It is cancelled when its caller disconnects; a command keeps running."""

    def __init__(self, request: Request, body: bytes, sandbox_id: str | None) -> None:
        super().__init__()
        self._app: FastAPI = request.app
        self._token: str = request.scope["token"]
        self._body = body
        self._sandbox_id = sandbox_id
        self._admit = _admission(request, sandbox_id)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await while_connected(receive, partial(self._serve, scope, send))

    async def _serve(self, scope: Scope, send: Send) -> None:
        http = await _library("http")
        faces = await _library("faces")
        face = faces.WORKSPACE if self._sandbox_id is None else faces.SANDBOX
        async with self._client(StreamingASGITransport(self._app)) as client:
            server = faces.server(face, SEMVER, _routes(self._app), _Here(client), self._sandbox_id, self._admit)
            await http.answer(face, server, self._body, scope, send)

    def _client(self, transport: httpx.AsyncBaseTransport) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {self._token}"}
        return httpx.AsyncClient(transport=transport, base_url="http://pandastack/v1", headers=headers, timeout=None)


class _Here:
    """The API, called in process, without retries: the caller gets the error, and may retry."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def run(self, call: Call) -> httpx.Response:
        headers = {} if call.content_type is None else {"content-type": call.content_type}
        request = self._http.build_request(
            call.method, call.path, json=call.json, params=call.params or None, content=call.content, headers=headers
        )
        response = await self._http.send(request, stream=True)
        if not (call.streamed and response.is_success):
            await response.aread()
            await response.aclose()
        if not response.is_success:
            raise refusal_from(response.status_code, response.headers, response.content).error
        return response


def _admission(request: Request, sandbox_id: str | None) -> Callable[[], None]:
    """Raises the protocol's error after too many calls by the workspace, or through one sandbox's tools."""
    state = request.app.state
    allowance: Allowance = state.tool_calls if sandbox_id is None else state.sandbox_tool_calls
    key = caller_of(request).workspace if sandbox_id is None else sandbox_id

    def admit() -> None:
        if seconds := allowance.take(key):
            from mcp.shared.exceptions import MCPError

            message = f"too many tool calls: try again in {seconds:.1f} s"
            raise MCPError(_TOO_MANY, message, {"retry_after_seconds": round(seconds, 1)})

    return admit


async def _library(name: str) -> ModuleType:
    return await anyio.to_thread.run_sync(import_module, f"pandastack.mcp.{name}")


def _routes(app: FastAPI) -> frozenset[str]:
    """The routes of this application: only tools whose route exists are offered."""
    if not hasattr(app.state, "documented"):
        paths = app.openapi()["paths"].items()
        app.state.documented = frozenset(f"{method.upper()} {path}" for path, methods in paths for method in methods)
    documented: frozenset[str] = app.state.documented
    return documented
