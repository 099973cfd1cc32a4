"""What listens in a sandbox, by path: for its owner, and for anyone who has a link. The gateway does the work."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import anyio
from anyio.abc import SocketStream
from fastapi import APIRouter, Request, Response
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketDisconnect

from pandastack.api.relay import Relayed, gateway_of, relay_websocket
from pandastack.api.requests import caller_of, plane_of
from pandastack.api.routes.ports import number
from pandastack.api.sockets import NORMAL, REFUSED, parsed, receive, refuse, send_json
from pandastack.errors import BadRequestError, PandastackError, UnavailableError
from pandastack.store.sandboxes import Status

router = APIRouter(tags=["previews"])

_PIECE = 256 * 1024
_PROXY = "/v1/sandboxes/{sandbox_id}/proxy/{port}"
_LINK = "/v1/p/{token}"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_ANY: dict[int | str, dict[str, Any]] = {
    "default": {"description": "What the server in the sandbox answers", "content": {"*/*": {}}}
}


async def proxy(request: Request, sandbox_id: str, port: str) -> Response:
    """Pass the request on to a port of the sandbox; the prefix is taken from the path. Wakes what is hibernated.

    503 while the sandbox cannot run, 502 when nothing listens at the port.
    """
    told = await _told(request, sandbox_id, port)
    return Relayed(request, _rest(request, 6), told)


async def proxy_below(request: Request, sandbox_id: str, port: str, rest: str) -> Response:
    """The same for a path."""
    return await proxy(request, sandbox_id, port)


async def link(request: Request, token: str) -> Response:
    """Pass the request on to what a link opens. A browser is sent on to the preview's own host name, if it has one."""
    return Relayed(request, _target(request), _seen(request))


async def link_below(request: Request, token: str, rest: str) -> Response:
    """The same for a path."""
    return await link(request, token)


_BELOW = "/{rest:path}"
for _path, _handler in (
    (_PROXY, proxy),
    (_PROXY + _BELOW, proxy_below),
    (_LINK, link),
    (_LINK + _BELOW, link_below),
):
    for _method in _METHODS:
        router.add_api_route(
            _path,
            _handler,
            methods=[_method],
            name=f"{_handler.__name__}_{_method.lower()}",
            response_class=Response,
            responses=_ANY,
            include_in_schema=_method == "GET",  # the same for all
        )


@router.websocket(_PROXY)
@router.websocket(_PROXY + _BELOW)
async def proxy_websocket(websocket: WebSocket, sandbox_id: str, port: str) -> None:
    """The same for a WebSocket."""
    try:
        told = await _told(websocket, sandbox_id, port)
        await relay_websocket(websocket, _rest(websocket, 6).decode("latin-1"), told)
    except PandastackError as error:
        await refuse(websocket, error)


@router.websocket(_LINK)
@router.websocket(_LINK + _BELOW)
async def link_websocket(websocket: WebSocket, token: str) -> None:
    """The same for a WebSocket."""
    try:
        await relay_websocket(websocket, _target(websocket).decode("latin-1"), _seen(websocket))
    except PandastackError as error:
        await refuse(websocket, error)


@router.websocket("/v1/sandboxes/{sandbox_id}/tunnel/{port}")
async def tunnel(websocket: WebSocket, sandbox_id: str, port: str) -> None:
    """A TCP connection to a port of the sandbox: binary frames are its bytes, `{"eof": true}` is the end of a side."""
    try:
        told = {**await _told(websocket, sandbox_id, port), "raw": "1"}
        async with gateway_of(websocket).stream(told) as (stream, first):
            await websocket.accept()
            if first:
                await websocket.send_bytes(first)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(_carry_out, stream, websocket, tasks.cancel_scope))
                await _carry_in(websocket, stream)
                tasks.cancel_scope.cancel()
    except PandastackError as error:
        await refuse(websocket, error)


async def _carry_in(websocket: WebSocket, stream: SocketStream) -> None:
    """Pass frames in until the client leaves."""
    try:
        while True:
            frame = await receive(websocket)
            if isinstance(frame, bytes):
                await stream.send(frame)
            elif parsed(frame).get("eof") is True:
                await stream.send_eof()
    except (WebSocketDisconnect, anyio.BrokenResourceError):
        pass
    except BadRequestError as error:
        await websocket.close(REFUSED, error.message[:100])


async def _carry_out(stream: SocketStream, websocket: WebSocket, scope: anyio.CancelScope) -> None:
    try:
        async for data in stream:
            await websocket.send_bytes(data)
        await send_json(websocket, {"eof": True})
        await websocket.close(NORMAL)
    except (WebSocketDisconnect, OSError, RuntimeError, anyio.BrokenResourceError):
        scope.cancel()


async def _told(request: HTTPConnection, sandbox_id: str, port: str) -> Mapping[str, str]:
    """What the gateway has to know, once the caller may use the sandbox.

    Raises :class:`NotFoundError`, :class:`BadRequestError` for an invalid port, :class:`UnavailableError`.
    """
    plane = plane_of(request)
    record, wanted = plane.sandboxes.get(caller_of(request), sandbox_id), number(port)
    if record.status not in (Status.RUNNING, Status.HIBERNATED):
        refusal = await plane.registry.refusal(record)
        raise UnavailableError(refusal.message, hint=refusal.hint)
    prefix = f"/v1/sandboxes/{record.id}/proxy/{wanted}"
    return {"sandbox": record.id, "port": str(wanted), "prefix": prefix, **_seen(request)}


def _seen(request: HTTPConnection) -> dict[str, str]:
    scheme = {"ws": "http", "wss": "https"}.get(request.url.scheme, request.url.scheme)
    return {"scheme": scheme, "client": request.client.host if request.client else ""}


def _target(request: HTTPConnection) -> bytes:
    """The path and query as the client wrote them."""
    query: bytes = request.scope.get("query_string", b"")
    path: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    return path + (b"?" + query if query else b"")


def _rest(request: HTTPConnection, depth: int) -> bytes:
    """The target without its first ``depth - 1`` segments."""
    path, mark, query = _target(request).partition(b"?")
    parts = path.split(b"/", depth)
    return b"/" + (parts[depth] if len(parts) > depth else b"") + mark + query
