"""Requests that came through a reverse proxy are those of its client, if the operator trusts the proxy."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from pandastack.model.forwarded import Client, client_of

_OF_SOCKETS = {"http": "ws", "https": "wss"}


class Proxied:
    """Puts the client's address and scheme into the scope."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and (peer := scope.get("client")):
            trusted = scope["app"].state.plane.settings.trusted_proxies
            scheme = "https" if scope["scheme"] in ("https", "wss") else "http"
            client = client_of(scope["headers"], Client(peer[0], scheme), trusted)
            if client != Client(peer[0], scheme):
                scope["client"] = client.address, 0
                scope["scheme"] = _OF_SOCKETS[client.scheme] if scope["type"] == "websocket" else client.scheme
        await self._app(scope, receive, send)
