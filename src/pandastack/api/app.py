"""Builds the application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from pandastack.api import errors
from pandastack.api.allowance import Allowance
from pandastack.api.metrics import Metrics
from pandastack.api.middleware import Authentication, Edge, is_guarded
from pandastack.api.models.errors import Error
from pandastack.api.routes import (
    archives,
    builds,
    checkpoints,
    diff,
    exec_socket,
    files,
    forks,
    lifecycle,
    lsp,
    mcp,
    me,
    observe,
    processes,
    repl,
    sandboxes,
    snapshots,
    system,
    templates,
    terminals,
)
from pandastack.api.routes import exec as exec_routes
from pandastack.api.version import SEMVER
from pandastack.cluster import Engines
from pandastack.services import Settings, open_control_plane

ROUTERS = (
    system.router,
    me.router,
    builds.router,
    templates.router,
    sandboxes.router,
    exec_routes.router,
    exec_socket.router,
    processes.router,
    terminals.router,
    repl.router,
    files.router,
    archives.router,
    observe.router,
    lifecycle.router,
    snapshots.router,
    forks.router,
    checkpoints.router,
    diff.router,
    lsp.router,
    mcp.router,
)


def create_app(
    engines: Engines,
    database_url: str,
    settings: Settings | None = None,
    *,
    on_first_token: Callable[[str], None] | None = None,
) -> FastAPI:
    """The control plane's ASGI application. Its lifespan opens store and engines and runs the background tasks.

    ``on_first_token`` receives the API token that is created when the database has none.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        chosen = settings or Settings.from_env()
        async with open_control_plane(engines, database_url, chosen, on_first_token) as plane:
            app.state.plane = plane
            app.state.tool_calls = Allowance(chosen.mcp_calls_per_minute)
            app.state.sandbox_tool_calls = Allowance(chosen.mcp_sandbox_calls_per_minute)
            app.state.requests = Allowance(chosen.requests_per_minute)
            app.state.failed_logins = Allowance(chosen.failed_logins_per_minute)
            metrics.watch(plane)
            yield

    app = FastAPI(
        title="PandaStack",
        version=SEMVER,
        summary="Sandboxes that are virtual machines of their own",
        lifespan=lifespan,
        redirect_slashes=False,
        responses={"default": {"model": Error, "description": "What went wrong"}},
    )
    app.state.metrics = metrics
    errors.install(app)
    for router in ROUTERS:
        app.include_router(router)
    # Outermost last.
    app.add_middleware(Authentication)
    app.add_middleware(Edge, metrics=metrics)
    _document_authentication(app)
    return app


def _document_authentication(app: FastAPI) -> None:
    build = app.openapi

    def openapi() -> dict[str, Any]:
        schema = build()
        schemes = schema.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["token"] = {"type": "http", "scheme": "bearer", "description": "An API token: pds_…"}
        for path, operations in schema["paths"].items():
            for operation in operations.values():
                operation["security"] = [{"token": []}] if is_guarded(path) else []
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
