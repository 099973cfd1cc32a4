"""The engine's HTTP interface: the only way the control plane reaches it, on one host as on many.

A thin translation between the messages of :mod:`pandastack.contract` and what the engine works with.
"""

from __future__ import annotations

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pandastack.contract.codec import encode
from pandastack.contract.health import Health
from pandastack.engine.engine import Engine
from pandastack.engine.http.builds import build_routes
from pandastack.engine.http.compare import compare
from pandastack.engine.http.exec import execute
from pandastack.engine.http.files import file_routes
from pandastack.engine.http.messages import answer
from pandastack.engine.http.network import network_routes
from pandastack.engine.http.processes import process_routes
from pandastack.engine.http.sandboxes import sandbox_routes
from pandastack.engine.http.secrets import secret_routes
from pandastack.engine.http.streaming import KeepAlive, Write, WrittenResponse
from pandastack.engine.http.templates import template_routes
from pandastack.engine.http.tunnel import tunnel_routes
from pandastack.engine.http.version import VersionMiddleware
from pandastack.engine.http.volumes import volume_routes
from pandastack.errors import CapacityError, PandastackError, to_public_body
from pandastack.model.accelerator import Accelerator
from pandastack.model.confinement import Measure

EVENT_KEEP_ALIVE = 15.0

log = structlog.get_logger(__name__)


def create_engine_app(engine: Engine) -> Starlette:
    """The engine as an ASGI application."""
    sandbox = "/sandboxes/{id}"
    app = Starlette(
        routes=[
            Route("/health", health),
            Route("/events", follow_events),
            Route("/diff", compare, methods=["POST"]),
            *template_routes(),
            *sandbox_routes(),
            Route(f"{sandbox}/exec", execute, methods=["POST"]),
            *build_routes(),
            *process_routes(sandbox),
            *secret_routes(sandbox),
            *file_routes(sandbox),
            *tunnel_routes(sandbox),
            *network_routes(sandbox),
            *volume_routes(),
        ],
        middleware=[Middleware(VersionMiddleware)],
        exception_handlers={PandastackError: _refuse, HTTPException: _refuse_http},
    )
    app.state.engine = engine
    app.state.builds = engine.builds
    return app


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, PandastackError)
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, CapacityError) else None
    if error.public is not None:
        log.error("request.failed", path=request.url.path, error=str(error))
    return JSONResponse(to_public_body(error), error.status_code, headers)


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail, "code": "http"}, error.status_code)


async def health(request: Request) -> Response:
    engine = _engine(request)
    accelerator = engine.templates.weakest_accelerator()
    measures = engine.confinement | ({Measure.KVM} if accelerator is Accelerator.KVM else set())
    return answer(
        Health(
            status="ok",
            checks={
                "pool": "ok",
                "vmm": "ok",
                "reflink": "ok" if engine.pool.reflink else "copying",
                "rehearsals": engine.rehearsals.report(),
            },
            accelerator=accelerator.value,
            isolation=accelerator.isolation,
            vmm=engine.driver.identity,
            sandboxes=sum(each.state == "running" for each in engine.registry.list()),
            confinement={each.value: each in measures for each in Measure},
        )
    )


async def follow_events(request: Request) -> Response:
    """Every event from now on, one message a line, with empty lines as keep-alive."""
    events = _engine(request).events

    async def body(write: Write) -> None:
        async with events.subscribe() as subscription:
            await write(b"\n")
            async for event in subscription:
                await write(encode(event) + b"\n")

    return WrittenResponse(body, "application/x-ndjson", KeepAlive(b"\n", EVENT_KEEP_ALIVE))
