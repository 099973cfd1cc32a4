"""Lifecycle and snapshots of sandboxes over the engine's HTTP interface."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pandastack.engine.engine import Engine
from pandastack.engine.http.bodies import fork_specs, identifier, identifiers, json_body
from pandastack.engine.machines.sandbox import Sandbox
from pandastack.engine.origins.disk_usage import measure
from pandastack.engine.sandboxes.copies import Child
from pandastack.errors import PandastackError, to_body


def lifecycle_routes(prefix: str) -> list[Route]:
    """The routes below a sandbox's own, and those of snapshots."""
    return [
        Route(f"{prefix}/pause", pause, methods=["POST"]),
        Route(f"{prefix}/resume", resume, methods=["POST"]),
        Route(f"{prefix}/hibernate", hibernate, methods=["POST"]),
        Route(f"{prefix}/wake", wake, methods=["POST"]),
        Route(f"{prefix}/snapshots", snapshot, methods=["POST"]),
        Route(f"{prefix}/fork", fork, methods=["POST"]),
        Route(f"{prefix}/rewind", rewind, methods=["POST"]),
        Route("/snapshots", list_snapshots, methods=["GET"]),
        Route("/snapshots/measure", measure_snapshots, methods=["POST"]),
        Route("/snapshots/{id}", delete_snapshot, methods=["DELETE"]),
    ]


def machine_json(sandbox: Sandbox, boot_mode: str) -> dict[str, Any]:
    """What whoever asked for a sandbox learns of its machine."""
    size = sandbox.origin.template
    return {
        "id": sandbox.id,
        "template": size.name,
        "cpu": size.cpu,
        "memory_mb": size.memory_mb,
        "boot_ms": round(sum(sandbox.phases.values())),
        "boot_mode": boot_mode,
        "phases": sandbox.phases,
        "pid": sandbox.machine.pid,
    }


def _target(request: Request) -> tuple[Engine, str]:
    engine: Engine = request.app.state.engine
    return engine, request.path_params["id"]


async def pause(request: Request) -> Response:
    engine, sandbox_id = _target(request)
    await engine.lifecycle.pause(sandbox_id)
    return Response(status_code=204)


async def resume(request: Request) -> Response:
    engine, sandbox_id = _target(request)
    await engine.lifecycle.resume(sandbox_id)
    return Response(status_code=204)


async def hibernate(request: Request) -> Response:
    engine, sandbox_id = _target(request)
    captured = await engine.lifecycle.hibernate(sandbox_id)
    return JSONResponse(asdict(captured) if captured else {})


async def wake(request: Request) -> Response:
    engine, sandbox_id = _target(request)
    return JSONResponse(machine_json(await engine.lifecycle.wake(sandbox_id), "wake"))


async def snapshot(request: Request) -> Response:
    engine, sandbox_id = _target(request)
    snapshot_id = identifier(await json_body(request), "id")
    captured = await engine.copies.snapshot(sandbox_id, snapshot_id)
    template = engine.saved.get(snapshot_id).name
    return JSONResponse({"id": snapshot_id, "template": template, **asdict(captured)}, 201)


async def fork(request: Request) -> Response:
    engine, sandbox_id = _target(request)
    parent = engine.registry.reach(sandbox_id)
    specs = fork_specs(await json_body(request), parent.spec.env)
    forked = await engine.copies.fork(sandbox_id, specs)
    failures = [each.made for each in forked.children if isinstance(each.made, PandastackError)]
    if len(failures) == len(specs):
        raise failures[0]
    children = [_child_json(each) for each in forked.children]
    return JSONResponse({**asdict(forked.captured), "children": children}, 201)


def _child_json(child: Child) -> dict[str, Any]:
    if isinstance(child.made, PandastackError):
        return {"id": child.spec.sandbox, "status": child.made.status_code, **to_body(child.made)}
    return machine_json(child.made, "fork")


async def rewind(request: Request) -> Response:
    engine, sandbox_id = _target(request)
    snapshot_id = identifier(await json_body(request), "snapshot")
    return JSONResponse(machine_json(await engine.rewinder.rewind(sandbox_id, snapshot_id), "snapshot"))


async def list_snapshots(request: Request) -> Response:
    saved = request.app.state.engine.saved
    return JSONResponse([{"id": name} for name in saved.names()])


async def measure_snapshots(request: Request) -> Response:
    engine, going = request.app.state.engine, identifiers(await json_body(request), "ids")
    return JSONResponse(asdict(await anyio.to_thread.run_sync(measure, engine.pool, engine.saved, going)))


async def delete_snapshot(request: Request) -> Response:
    snapshot_id = identifier(request.path_params, "id")  # a UUID cannot lead out of the directory
    request.app.state.engine.saved.remove(snapshot_id)
    return Response(status_code=204)
