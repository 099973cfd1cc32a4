"""Refuses control planes of another version before doing anything for them."""

from __future__ import annotations

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from pandastack.contract.version import HEADER, VERSION, check_version
from pandastack.errors import PandastackError, to_body

_HEADER = HEADER.encode()
_BEGINNINGS = ("http.response.start", "websocket.accept", "websocket.http.response.start")


class VersionMiddleware:
    """Middleware: every request and every response names its version."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        async def send_with_version(message: Message) -> None:
            if message["type"] in _BEGINNINGS:
                message["headers"] = [*message.get("headers", ()), (_HEADER, VERSION.encode())]
            await send(message)

        try:
            theirs = dict(scope["headers"]).get(_HEADER)
            check_version(engine=VERSION, control_plane=None if theirs is None else theirs.decode("latin-1"))
        except PandastackError as error:
            response = JSONResponse(to_body(error), error.status_code)
            if scope["type"] == "websocket":
                await WebSocket(scope, receive, send_with_version).send_denial_response(response)
            else:
                await response(scope, receive, send_with_version)
        else:
            await self._app(scope, receive, send_with_version)
