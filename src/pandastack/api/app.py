"""Builds the application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette

from pandastack.api import errors
from pandastack.api.allowance import Allowance
from pandastack.api.metrics import Metrics
from pandastack.api.middleware import Authentication, Edge, is_guarded
from pandastack.api.models.errors import Error
from pandastack.api.proxied import Proxied
from pandastack.api.relay import Gateway
from pandastack.api.routes import (
    archives,
    broker,
    builds,
    checkpoints,
    database_backups,
    databases,
    diff,
    exec_socket,
    files,
    forks,
    function_aliases,
    functions,
    github,
    hermetic_builds,
    jobs,
    lifecycle,
    lsp,
    mcp,
    me,
    network,
    observe,
    ports,
    previews,
    processes,
    registries,
    repl,
    runners,
    sandboxes,
    schedules,
    secrets,
    snapshots,
    ssh,
    system,
    templates,
    terminals,
    volumes,
    webhooks,
    workspaces,
)
from pandastack.api.routes import exec as exec_routes
from pandastack.api.scheduled_functions import open_scheduled
from pandastack.api.version import SEMVER
from pandastack.cluster import Engines
from pandastack.products.builds import open_builds
from pandastack.products.databases import open_databases
from pandastack.products.functions import open_functions
from pandastack.products.runners import open_runners
from pandastack.services import Settings, open_control_plane
from pandastack.services.webhooks.outside import OwnNetworks

ROUTERS = (
    system.router,
    me.router,
    workspaces.router,
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
    network.router,
    secrets.router,
    volumes.router,
    registries.router,
    ssh.router,
    ports.router,
    previews.router,
    hermetic_builds.router,
    databases.router,
    database_backups.router,
    broker.router,
    schedules.router,
    functions.router,
    function_aliases.router,
    runners.router,
    jobs.router,
    github.router,  # before the one whose paths its own are below
    webhooks.router,
)


def create_app(
    engines: Engines,
    database_url: str,
    settings: Settings | None = None,
    *,
    on_first_token: Callable[[str], None] | None = None,
    gateway: Gateway | None = None,
    internal: Starlette | None = None,
    recorder_uid: int | None = None,
    own_networks: OwnNetworks = tuple,
) -> FastAPI:
    """The control plane's ASGI application. Its lifespan opens store and engines and runs the background tasks.

    ``on_first_token`` receives the API token that is created when the database has none. ``gateway`` reaches into
    sandboxes for previews by path; ``internal`` is the application that answers the gateway: it gets the same control
    plane. ``recorder_uid`` is the user of the processes that fetch for builds (None: ours). ``own_networks`` gives the
    host's own networks, which webhooks do not reach.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        chosen = settings or Settings.from_env()
        async with (
            open_control_plane(engines, database_url, chosen, on_first_token, own_networks) as plane,
            open_builds(plane, database_url, recorder_uid) as app.state.hermetic_builds,
            open_databases(plane, database_url) as app.state.databases,
            open_functions(plane, database_url) as app.state.functions,
            open_scheduled(plane, app.state.functions) as app.state.schedules,
            open_runners(plane, database_url) as app.state.runners,
        ):
            app.state.plane = plane
            if internal is not None:
                internal.state.plane, internal.state.databases = plane, app.state.databases
                internal.state.functions = app.state.functions
            app.state.tool_calls = Allowance(chosen.mcp_calls_per_minute)
            app.state.sandbox_tool_calls = Allowance(chosen.mcp_sandbox_calls_per_minute)
            app.state.requests = Allowance(chosen.requests_per_minute)
            app.state.failed_logins = Allowance(chosen.failed_logins_per_minute)
            metrics.watch(plane, app.state.databases)
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
    app.state.gateway = gateway
    errors.install(app)
    for router in ROUTERS:
        app.include_router(router)
    # Outermost last.
    app.add_middleware(Authentication)
    app.add_middleware(Edge, metrics=metrics)
    app.add_middleware(Proxied)
    _document_authentication(app)
    return app


def _schemes(path: str, method: str) -> list[str]:
    if path.startswith(broker.router.prefix) and not path.endswith("/health"):
        return ["broker_token", "token"]
    return ["token"] if is_guarded(path, method) else []


def _document_authentication(app: FastAPI) -> None:
    build = app.openapi

    def openapi() -> dict[str, Any]:
        schema = build()
        schemes = schema.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["token"] = {"type": "http", "scheme": "bearer", "description": "An API token: pds_…"}
        schemes["broker_token"] = {"type": "http", "scheme": "bearer", "description": "A database's: pds_pg_…"}
        for path, operations in schema["paths"].items():
            for method, operation in operations.items():
                operation["security"] = [{each: []} for each in _schemes(path, method.upper())]
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
