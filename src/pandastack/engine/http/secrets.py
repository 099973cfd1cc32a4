"""The secrets of a sandbox over the engine's HTTP interface."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pandastack.contract.network import SetSecrets
from pandastack.engine.engine import Engine
from pandastack.engine.http.messages import received


def secret_routes(prefix: str) -> list[Route]:
    """The route below a sandbox's own."""
    return [Route(f"{prefix}/secrets", set_secrets, methods=["PUT"])]


async def set_secrets(request: Request) -> Response:
    """Give the sandbox these secrets, in the place of those it had."""
    engine: Engine = request.app.state.engine
    await engine.brokerage.set(request.path_params["id"], await received(request, SetSecrets))
    return Response(status_code=204)
