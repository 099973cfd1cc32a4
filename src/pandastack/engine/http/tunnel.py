"""Connections to what listens in a guest, over the engine's HTTP interface: the request's body goes in whole, and what
comes back is the response, as it comes."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pandastack.engine.http.streaming import Write, WrittenResponse
from pandastack.engine.machines.sandbox import Sandbox
from pandastack.errors import BadRequestError
from pandastack.guest import Tunnel
from pandastack.host.tasks import beside


def connect_routes(prefix: str) -> list[Route]:
    """The route below a sandbox's own."""
    return [Route(f"{prefix}/connect", connect, methods=["POST"])]


async def connect(request: Request) -> Response:
    """Connect to ``path`` (a Unix socket) or ``port`` (TCP, on the guest's loopback); leaving early ends it."""
    sandbox: Sandbox = request.app.state.engine.registry.reach(request.path_params["id"])
    path, port = _address(request)
    body = await request.body()

    async def pass_on(write: Write) -> None:
        async with sandbox.channel.tunnel(path=path, port=port) as tunnel, beside(partial(_feed, tunnel, body)):
            async for chunk in tunnel:
                await write(chunk)

    return WrittenResponse(pass_on, "application/octet-stream")


def _address(request: Request) -> tuple[str | None, int | None]:
    path, port = request.query_params.get("path"), request.query_params.get("port")
    if port is None:
        if not path or not path.startswith("/") or "\0" in path:
            raise BadRequestError("path must be absolute", field="path")
        return path, None
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise BadRequestError(f"port: must be between 1 and 65535, not {port[:20]!r}", field="port")
    return None, int(port)


async def _feed(tunnel: Tunnel, body: bytes) -> None:
    with suppress(anyio.BrokenResourceError):  # it answered before it read all
        await tunnel.send(body)
        await tunnel.send_eof()
