"""Tunnels over the engine's HTTP interface, one WebSocket each (docs/design/0024-tunnels.md says why)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from functools import partial, wraps

import anyio
from starlette.responses import JSONResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from pandastack.contract import tunnels as messages
from pandastack.contract.codec import decode_request, encode
from pandastack.contract.failures import Failure
from pandastack.contract.tunnels import SERVICES, FromControlPlane, FromEngine
from pandastack.engine.machines.sandbox import Sandbox
from pandastack.errors import BadRequestError, PandastackError, to_body
from pandastack.guest import Channel, Listener, Tunnel
from pandastack.host.tasks import together

_NORMAL, _GOING_AWAY = 1000, 1001
_OFFSET_DIGITS = 19
_PIECE = 256 * 1024
"""The most bytes in a message; clients accept more."""

Endpoint = Callable[[WebSocket], Awaitable[None]]


def tunnel_routes(prefix: str) -> list[WebSocketRoute]:
    """The routes below a sandbox's own."""
    return [WebSocketRoute(f"{prefix}/tunnel", tunnel), WebSocketRoute(f"{prefix}/listen", listen)]


class _Left(Exception):
    """The control plane has disconnected; with ``close`` it wants the connection closed."""

    def __init__(self, *, close: bool = False) -> None:
        self.close = close


class _Over(Exception):
    """The guest reported how the connection ended."""


def _refusing(endpoint: Endpoint) -> Endpoint:
    """Answer the upgrade request with an error raised before it is accepted."""

    @wraps(endpoint)
    async def guarded(socket: WebSocket) -> None:
        try:
            await endpoint(socket)
        except PandastackError as error:
            if socket.application_state is not WebSocketState.CONNECTING:
                raise
            await socket.send_denial_response(JSONResponse(to_body(error), error.status_code))

    return guarded


@_refusing
async def tunnel(socket: WebSocket) -> None:
    """Connect to ``path``, ``port`` or ``service`` in the guest, optionally with an ``id``.

    With ``received``, attach to that id.
    """
    async with _opening(socket) as opened:
        await socket.accept()
        works = partial(_send_data, socket, opened), partial(_report, socket, opened), partial(_take, socket, opened)
        await _serve(socket, opened, messages.Opened(opened.consumed), *works)


def _opening(socket: WebSocket) -> AbstractAsyncContextManager[Tunnel]:
    id, received = socket.query_params.get("id"), socket.query_params.get("received")
    channel = _channel(socket, again=received is not None)
    if received is None and (service := socket.query_params.get("service")) is not None:
        user = socket.query_params.get("user")
        return channel.tunnel(service=checked_service(service), user=user, id=id, acknowledge=False)
    if received is None:
        path, port = _address(socket)
        return channel.tunnel(path=path, port=port, id=id, acknowledge=False)
    if id is None or not received.isdecimal() or len(received) > _OFFSET_DIGITS:
        raise BadRequestError("received: must be an offset in a tunnel with an id", field="received")
    return channel.attach_tunnel(id, int(received), acknowledge=False)


@_refusing
async def listen(socket: WebSocket) -> None:
    """Listen at ``path`` or ``port`` in the guest, optionally with an ``id``."""
    path, port = _address(socket)
    async with _channel(socket).listen(path=path, port=port, id=socket.query_params.get("id")) as listener:
        await socket.accept()
        works = partial(_announce, socket, listener), partial(_take, socket, None)
        await _serve(socket, listener, messages.Opened(), *works)


async def _serve(
    socket: WebSocket, opened: Tunnel | Listener, first: FromEngine, *works: Callable[[], Awaitable[None]]
) -> None:
    """Run ``works`` until one of them ends. A client may leave without closing: with an id, the tunnel stays open."""
    failure = None
    try:
        await _say(socket, first)
        await together(*works)
    except _Left as left:
        if not left.close:
            opened.leave()
            return
        opened.close()
    except _Over:
        pass
    except PandastackError as error:
        if not opened.over and not isinstance(error, BadRequestError):
            await _hang_up(socket, _GOING_AWAY)  # the channel broke: the guest may come back
            return
        failure = Failure.of(error)
    except BaseException:
        opened.leave()
        raise
    with suppress(_Left):
        await _say(socket, messages.Closed(failure))
    await _hang_up(socket, _NORMAL)


async def _send_data(socket: WebSocket, opened: Tunnel) -> None:
    with suppress(anyio.EndOfStream):
        while True:
            await _send(socket, await opened.receive(_PIECE))
    await _say(socket, messages.Ended())
    await opened.wait_closed()
    raise _Over


async def _report(socket: WebSocket, opened: Tunnel) -> None:
    offset = opened.consumed
    while not opened.over:
        offset = await opened.wait_consumed(offset)
        await _say(socket, messages.Consumed(offset))


async def _take(socket: WebSocket, opened: Tunnel | None) -> None:
    """Handle messages of the control plane. Data stay within their window, so they never delay later messages."""
    while True:
        message = await _receive(socket)
        if isinstance(message, bytes) and opened is not None:
            await _send_to(opened, message)
            continue
        match decode_request(FromControlPlane, message if isinstance(message, bytes) else message.encode()):
            case messages.Close():
                raise _Left(close=True)
            case messages.Received(offset) if opened is not None:
                opened.acknowledge(offset)
            case messages.Ended() if opened is not None:
                await opened.send_eof()
            case _:
                raise BadRequestError("kind: not for a listener, only for its tunnels", field="kind")


async def _send_to(opened: Tunnel, data: bytes) -> None:
    with suppress(anyio.BrokenResourceError):  # over: the guest reported it, and that report is on its way
        await opened.send(data)


async def _announce(socket: WebSocket, listener: Listener) -> None:
    async for id in listener.accepted():
        await _say(socket, messages.Accepted(id))
    raise _Over


async def _receive(socket: WebSocket) -> bytes | str:
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise _Left
    data: bytes | None = message.get("bytes")
    return message["text"] if data is None else data


async def _say(socket: WebSocket, message: FromEngine) -> None:
    with _leaving():
        await socket.send_text(encode(message).decode())


async def _send(socket: WebSocket, data: bytes) -> None:
    with _leaving():
        await socket.send_bytes(data)


async def _hang_up(socket: WebSocket, code: int) -> None:
    with suppress(_Left), _leaving():
        await socket.close(code)


@contextmanager
def _leaving() -> Iterator[None]:
    try:
        yield
    except (WebSocketDisconnect, OSError, RuntimeError) as error:  # RuntimeError: already closed
        raise _Left from error


def _channel(socket: WebSocket, *, again: bool = False) -> Channel:
    registry = socket.app.state.engine.registry
    reach: Callable[[str], Sandbox] = registry.reach_again if again else registry.reach
    return reach(socket.path_params["id"]).channel


def checked_service(name: str) -> str:
    """The name of a service of the guest's agent. Raises :class:`BadRequestError` for any other."""
    if name not in SERVICES:
        raise BadRequestError(f"service: must be one of {', '.join(SERVICES)}, not {name[:20]!r}", field="service")
    return name


def _address(socket: WebSocket) -> tuple[str | None, int | None]:
    path, port = socket.query_params.get("path"), socket.query_params.get("port")
    if port is None:
        if not path or not path.startswith("/") or "\0" in path:
            raise BadRequestError("path must be absolute", field="path")
        return path, None
    if not port.isdecimal() or not 1 <= int(port[:6]) <= 65535:
        raise BadRequestError(f"port: must be between 1 and 65535, not {port[:20]!r}", field="port")
    return None, int(port)
