"""Refuses control planes of another version, before anything is done for them."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pandastack.contract.version import HEADER, VERSION, check_version
from pandastack.errors import PandastackError, to_body


class VersionMiddleware:
    """Every request names its version, and so does every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_version(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = VERSION
            await send(message)

        try:
            check_version(engine=VERSION, control_plane=Headers(scope=scope).get(HEADER))
        except PandastackError as error:
            await JSONResponse(to_body(error), error.status_code)(scope, receive, send_with_version)
        else:
            await self._app(scope, receive, send_with_version)
