"""Passes requests for previews on to the gateway, which reaches into sandboxes, and its answers back.

Raw HTTP/1.1 over the gateway's Unix socket: a client library would resolve dot segments, and would send the whole of a
body before it reads the answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import anyio
import h11
from anyio.abc import SocketStream
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from pandastack.api.errors import error_response
from pandastack.errors import PandastackError, UnavailableError

_PIECE = 256 * 1024
_MOST_HEAD = 256 * 1024
_MOST_MESSAGE = 1024 * 1024
_OPEN_SECONDS = 300.0
_HOP = frozenset(b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade expect".split())
_HANDSHAKE = frozenset(
    b"sec-websocket-key sec-websocket-version sec-websocket-extensions sec-websocket-protocol host".split()
)
_TOLD = b"x-pandastack-"


class Gateway:
    """The gateway's door for the control plane."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def dial(self) -> SocketStream:
        """A connection. Raises :class:`UnavailableError`."""
        try:
            return await anyio.connect_unix(self.path)
        except OSError as error:
            raise no_gateway() from error

    @asynccontextmanager
    async def stream(self, told: Mapping[str, str]) -> AsyncIterator[tuple[SocketStream, bytes]]:
        """A connection that carries a port's own bytes, and the first of them. Raises the gateway's refusal."""
        async with await self.dial() as stream:
            http = _Connection(stream)
            headers = [*_telling(told), (b"Host", b"gateway"), (b"Connection", b"Upgrade")]
            headers.append((b"Upgrade", b"pandastack-stream"))
            await http.send(h11.Request(method="GET", target="/", headers=headers))
            await http.send(h11.EndOfMessage())
            event = await http.next_event()
            if not isinstance(event, h11.InformationalResponse):
                raise UnavailableError("nothing listens at this port, or the sandbox cannot run")
            yield stream, http.http.trailing_data[0]


def no_gateway() -> UnavailableError:
    """The error while no gateway runs."""
    return UnavailableError("the gateway does not run", hint="start the server with pandastack up")


def gateway_of(connection: HTTPConnection) -> Gateway:
    """The gateway of this server. Raises :class:`UnavailableError` when it has none."""
    gateway: Gateway | None = getattr(connection.app.state, "gateway", None)
    if gateway is None:
        raise no_gateway()
    return gateway


class Relayed(Response):
    """The gateway's answer to a request for ``target``; ``told`` is what the gateway has to know of it."""

    def __init__(self, request: Request, target: bytes, told: Mapping[str, str]) -> None:
        self._request = request
        self._target = target
        self._told = told
        self._gateway = gateway_of(request)
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with await self._gateway.dial() as stream:
            http = _Connection(stream)
            headers = [(name, value) for name, value in scope["headers"] if _passes(name)]
            if any(name == b"transfer-encoding" for name, _ in scope["headers"]):
                headers.append((b"Transfer-Encoding", b"chunked"))
            if not any(name == b"host" for name, _ in headers):
                headers.append((b"Host", b"localhost"))
            head = h11.Request(method=scope["method"], target=self._target, headers=[*headers, *_telling(self._told)])
            begun = False
            try:
                await http.send(head)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(partial(self._upload, http, tasks.cancel_scope))
                    event = await http.next_event()
                    while isinstance(event, h11.InformationalResponse):
                        event = await http.next_event()
                    if not isinstance(event, h11.Response):
                        raise UnavailableError("the gateway ended without an answer")
                    begun = True
                    raw = [(name, value) for name, value in event.headers if name not in _HOP]
                    await send({"type": "http.response.start", "status": event.status_code, "headers": raw})
                    while isinstance(event := await http.next_event(), h11.Data):
                        await send({"type": "http.response.body", "body": bytes(event.data), "more_body": True})
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                    tasks.cancel_scope.cancel()
            except* (h11.ProtocolError, anyio.BrokenResourceError, PandastackError) as group:
                if begun:
                    raise OSError("the gateway aborted its answer") from group
                failure = UnavailableError("the gateway aborted the request")
                await error_response(failure)(scope, receive, send)

    async def _upload(self, http: _Connection, scope: anyio.CancelScope) -> None:
        """Pass the body on; when the client leaves, all of it ends."""
        try:
            async for chunk in self._request.stream():
                if chunk:
                    await http.send(h11.Data(data=chunk))
            await http.send(h11.EndOfMessage())
            while (await self._request.receive())["type"] != "http.disconnect":
                pass
        except ClientDisconnect:
            pass
        except (h11.LocalProtocolError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # the answer says more
        scope.cancel()


class _Connection:
    def __init__(self, stream: SocketStream) -> None:
        self.http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_HEAD)
        self._stream = stream

    async def send(self, event: h11.Event) -> None:
        if data := self.http.send(event):
            await self._stream.send(data)

    async def next_event(self) -> object:
        while (event := self.http.next_event()) is h11.NEED_DATA:
            try:
                self.http.receive_data(await self._stream.receive(_PIECE))
            except anyio.EndOfStream:
                self.http.receive_data(b"")
        return event


async def relay_websocket(websocket: WebSocket, target: str, told: Mapping[str, str]) -> None:
    """Pass a WebSocket on, message by message. Before it is accepted, the gateway's refusal is its answer."""
    offered = [each.strip() for each in websocket.headers.get("sec-websocket-protocol", "").split(",") if each.strip()]
    headers = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in websocket.scope["headers"]
        if _passes(name) and name not in _HANDSHAKE
    ]
    headers += [(name.decode(), value.decode("latin-1")) for name, value in _telling(told)]
    try:
        far = await connect(
            f"ws://{websocket.headers.get('host') or 'localhost'}{target}",
            unix=True,
            path=str(gateway_of(websocket).path),
            additional_headers=headers,
            subprotocols=[Subprotocol(each) for each in offered] or None,
            compression=None,
            max_size=_MOST_MESSAGE,
            open_timeout=_OPEN_SECONDS,
            ping_interval=None,  # a ping of ours must keep nobody awake
            user_agent_header=None,
        )
    except InvalidStatus as error:
        answer = error.response
        content = answer.headers.get("content-type", "text/plain")
        await websocket.send_denial_response(
            Response(bytes(answer.body or b""), answer.status_code, {"content-type": content})
        )
        return
    except (OSError, TimeoutError, WebSocketException) as error:
        raise no_gateway() from error
    async with far:
        await websocket.accept(far.subprotocol)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_outwards, far, websocket, tasks.cancel_scope)
            await _inwards(websocket, far)
            tasks.cancel_scope.cancel()


async def _inwards(websocket: WebSocket, far: ClientConnection) -> None:
    with suppress(ConnectionClosed):
        while (message := await websocket.receive())["type"] == "websocket.receive":
            data = message.get("bytes")
            await far.send(message["text"] if data is None else data)
        await far.close(message.get("code") or 1000)


async def _outwards(far: ClientConnection, websocket: WebSocket, scope: anyio.CancelScope) -> None:
    with suppress(WebSocketDisconnect, OSError, RuntimeError):
        async for message in far:
            await (websocket.send_text(message) if isinstance(message, str) else websocket.send_bytes(message))
        code = far.close_code
        await websocket.close(code if code and code not in (1005, 1006) else 1000, far.close_reason or None)
    scope.cancel()


def _passes(name: bytes) -> bool:
    return name not in _HOP and not name.startswith(_TOLD)


def _telling(told: Mapping[str, str]) -> Sequence[tuple[bytes, bytes]]:
    return [(_TOLD + name.encode(), value.encode("latin-1")) for name, value in told.items()]
