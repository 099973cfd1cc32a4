"""The engine's HTTP interface: the only way the control plane reaches it, on one host as on many.

A thin translation; the routes are listed in :func:`create_engine_app`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from pandastack.engine.engine import Engine
from pandastack.engine.http.bodies import create_source, json_body, sandbox_spec
from pandastack.engine.http.compare import diff
from pandastack.engine.http.exec import execute
from pandastack.engine.http.files import file_routes
from pandastack.engine.http.processes import process_routes
from pandastack.engine.http.sandboxes import lifecycle_routes, machine_json
from pandastack.engine.http.streaming import KeepAlive, Write, WrittenResponse
from pandastack.engine.http.tunnel import connect_routes
from pandastack.engine.machines.sandbox import Hibernated, Sandbox
from pandastack.engine.origins.origin import Origin
from pandastack.errors import CapacityError, PandastackError, to_body
from pandastack.host.usage import process_usage

EVENT_KEEP_ALIVE = 15.0


def create_engine_app(engine: Engine) -> Starlette:
    """The engine as an ASGI application."""
    sandbox = "/sandboxes/{id}"
    app = Starlette(
        routes=[
            Route("/health", health),
            Route("/templates", list_templates),
            Route("/templates/{name}", get_template),
            Route("/events", follow_events),
            Route("/sandboxes", create_sandbox, methods=["POST"]),
            Route("/sandboxes", list_sandboxes, methods=["GET"]),
            Route(sandbox, get_sandbox, methods=["GET"]),
            Route(sandbox, delete_sandbox, methods=["DELETE"]),
            Route(f"{sandbox}/console", console),
            Route(f"{sandbox}/exec", execute, methods=["POST"]),
            Route("/diff", diff, methods=["POST"]),
            *process_routes(sandbox),
            *file_routes(sandbox),
            *connect_routes(sandbox),
            *lifecycle_routes(sandbox),
        ],
        exception_handlers={PandastackError: _refuse, HTTPException: _refuse_http},
    )
    app.state.engine = engine
    return app


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, PandastackError)
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, CapacityError) else None
    return JSONResponse(to_body(error), error.status_code, headers)


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail, "code": "http"}, error.status_code)


async def health(request: Request) -> Response:
    engine = _engine(request)
    accelerator = engine.templates.weakest_accelerator()
    return JSONResponse(
        {
            "status": "ok",
            "checks": {"pool": "ok", "vmm": "ok", "reflink": "ok" if engine.pool.reflink else "copying"},
            "accelerator": accelerator.value,
            "isolation": accelerator.isolation,
            "vmm": engine.vmm,
            "sandboxes": sum(each.state == "running" for each in engine.registry.list()),
        }
    )


def _template_json(installed: Origin) -> dict[str, Any]:
    return installed.template.to_json() | {"manifest": json.loads(installed.snapshot.manifest.to_json())}


async def list_templates(request: Request) -> Response:
    return JSONResponse([_template_json(each) for each in _engine(request).templates.list()])


async def get_template(request: Request) -> Response:
    return JSONResponse(_template_json(_engine(request).templates.get(request.path_params["name"])))


def _sandbox_json(sandbox: Sandbox | Hibernated) -> dict[str, Any]:
    known = {"id": sandbox.id, "template": sandbox.origin.name, "state": sandbox.state}
    if isinstance(sandbox, Hibernated):
        return known
    machine = {"pid": sandbox.machine.pid, "started_at": sandbox.started_at, "failure": sandbox.failure}
    return known | machine


async def create_sandbox(request: Request) -> Response:
    engine, body = _engine(request), await json_body(request)
    spec = sandbox_spec(body)
    template, snapshot = create_source(body)
    if snapshot is not None:
        sandbox = await engine.sandboxes.create_from(spec, snapshot)
    else:
        assert template is not None  # one of the two, says create_source
        sandbox = await engine.sandboxes.create(spec, template)
    return JSONResponse(machine_json(sandbox, "snapshot"), 201)


async def list_sandboxes(request: Request) -> Response:
    return JSONResponse([_sandbox_json(each) for each in _engine(request).registry.list()])


async def get_sandbox(request: Request) -> Response:
    sandbox = _engine(request).registry.get(request.path_params["id"])
    usage = process_usage(sandbox.machine.pid) if isinstance(sandbox, Sandbox) else None
    return JSONResponse(_sandbox_json(sandbox) | {"usage": asdict(usage) if usage else None})


async def delete_sandbox(request: Request) -> Response:
    await _engine(request).sandboxes.delete(request.path_params["id"])
    return Response(status_code=204)


async def console(request: Request) -> Response:
    text = _engine(request).registry.reach(request.path_params["id"]).console.tail().decode("utf-8", "replace")
    return PlainTextResponse(text)


async def follow_events(request: Request) -> Response:
    """Every event from now on, a JSON object a line, an empty line now and then."""
    events = _engine(request).events

    async def body(write: Write) -> None:
        async with events.subscribe() as subscription:
            await write(b"\n")
            async for event in subscription:
                await write(json.dumps(asdict(event)).encode() + b"\n")

    return WrittenResponse(body, "application/x-ndjson", KeepAlive(b"\n", EVENT_KEEP_ALIVE))
