"""Sandboxes and their snapshots over the engine's HTTP interface."""

from __future__ import annotations

from dataclasses import asdict, replace

import anyio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from pandastack.contract.codec import check_request
from pandastack.contract.failures import Failure
from pandastack.contract.fields import Uuid
from pandastack.contract.records import STDOUT, Output, encode_record
from pandastack.contract.references import SnapshotRef, TemplateRef
from pandastack.contract.sandboxes import (
    NOTHING_CAPTURED,
    BootMode,
    CreateSandbox,
    ForkAnswer,
    ForkSandbox,
    NotStarted,
    RewindSandbox,
    SandboxInfo,
    SandboxState,
    Started,
    Usage,
    WakeSandbox,
)
from pandastack.contract.sandboxes import SandboxSpec as WantedSandbox
from pandastack.contract.snapshots import (
    ExpectCreates,
    MeasureSnapshots,
    MemoryFound,
    SearchMemory,
    SnapshotInfo,
    TakeSnapshot,
)
from pandastack.contract.volumes import OwnVolume
from pandastack.engine.engine import Engine
from pandastack.engine.http.exec import SIGN_OF_LIFE
from pandastack.engine.http.messages import answer, received
from pandastack.engine.http.streaming import Write, WrittenResponse
from pandastack.engine.machines.sandbox import Hibernated, Sandbox
from pandastack.engine.origins.disk_usage import measure
from pandastack.engine.origins.volumes import MIB
from pandastack.engine.sandboxes.copies import Child
from pandastack.engine.spec import SandboxSpec
from pandastack.errors import BadRequestError, PandastackError
from pandastack.host.usage import process_usage
from pandastack.model.previews import Visibility, WakePolicy
from pandastack.snapshots.search import search_snapshot


def sandbox_routes() -> list[Route]:
    """The routes of sandboxes as wholes, and those of snapshots."""
    one = "/sandboxes/{id}"
    return [
        Route("/sandboxes", create, methods=["POST"]),
        Route("/sandboxes", list_sandboxes, methods=["GET"]),
        Route(one, get_sandbox, methods=["GET"]),
        Route(one, delete_sandbox, methods=["DELETE"]),
        Route(f"{one}/console", console),
        Route(f"{one}/pause", pause, methods=["POST"]),
        Route(f"{one}/resume", resume, methods=["POST"]),
        Route(f"{one}/hibernate", hibernate, methods=["POST"]),
        Route(f"{one}/wake", wake, methods=["POST"]),
        Route(f"{one}/snapshots", snapshot, methods=["POST"]),
        Route(f"{one}/fork", fork, methods=["POST"]),
        Route(f"{one}/rewind", rewind, methods=["POST"]),
        Route("/snapshots", list_snapshots, methods=["GET"]),
        Route("/snapshots/measure", measure_snapshots, methods=["POST"]),
        Route("/snapshots/{id}", delete_snapshot, methods=["DELETE"]),
        Route("/snapshots/{id}/search", search_memory, methods=["POST"]),
        Route("/snapshots/{id}/expect", expect_creates, methods=["POST"]),
    ]


def started(sandbox: Sandbox, boot_mode: BootMode) -> Started:
    """The response about a running sandbox."""
    size, template = sandbox.origin.size, sandbox.origin.template
    return Started(
        id=sandbox.id,
        template=sandbox.origin.name,
        cpu=size.cpus,
        memory_mb=size.memory_mb,
        disk_mb=size.disk_mb,
        boot_ms=round(sum(sandbox.phases.values())),
        boot_mode=BootMode.BOOT if sandbox.memory_lost else boot_mode,
        phases=sandbox.phases,
        pid=sandbox.machine.pid,
        memory_lost=sandbox.memory_lost or None,
        network=sandbox.spec.network,
        previews=None if template.previews is None else Visibility(template.previews),
        wake=None if template.wake is None else WakePolicy(template.wake),
        own_volumes=_own_volumes(sandbox),
    )


def _own_volumes(sandbox: Sandbox) -> tuple[OwnVolume, ...]:
    attached, snapshot = {each.place for each in sandbox.spec.volumes}, sandbox.origin.snapshot
    return tuple(
        OwnVolume(path, snapshot.disks[1 + place].path.stat().st_size // MIB)
        for place, path in enumerate(snapshot.manifest.mounts)
        if place not in attached
    )


def sandbox_info(sandbox: Sandbox | Hibernated, usage: Usage | None = None) -> SandboxInfo:
    """A sandbox as it is now."""
    if isinstance(sandbox, Hibernated):
        lost = sandbox.origin.snapshot.manifest.memory_lost or None
        return SandboxInfo(sandbox.id, sandbox.origin.name, SandboxState.HIBERNATED, memory_lost=lost)
    return SandboxInfo(
        id=sandbox.id,
        template=sandbox.origin.name,
        state=SandboxState(sandbox.state),
        pid=sandbox.machine.pid,
        started_at=sandbox.started_at,
        failure=sandbox.failure,
        usage=usage,
    )


def _spec(wanted: WantedSandbox) -> SandboxSpec:
    return SandboxSpec(wanted.id, wanted.hostname or wanted.id[:8], dict(wanted.env))


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


def _target(request: Request) -> tuple[Engine, str]:
    return _engine(request), request.path_params["id"]


async def create(request: Request) -> Response:
    engine, wanted = _engine(request), await received(request, CreateSandbox)
    async with engine.brokerage.beginning(wanted.spec.id, wanted.secrets):
        sandbox = await _create(engine, wanted)
        await engine.brokerage.introduce(sandbox)
    return answer(started(sandbox, BootMode.SNAPSHOT), 201)


async def _create(engine: Engine, wanted: CreateSandbox) -> Sandbox:
    spec = _spec(wanted.spec)
    secrets = wanted.secrets.env if wanted.secrets else ()
    match wanted.start_from:
        case TemplateRef(name, owner):
            return await engine.sandboxes.create(
                spec,
                name,
                wanted.size,
                owner=owner,
                network=wanted.network,
                secrets=secrets,
                boot=wanted.boot,
                volumes=wanted.volumes,
            )
        case SnapshotRef(snapshot_id):
            if wanted.volumes:
                message = "volumes: a sandbox of a snapshot has copies of those that were captured"
                raise BadRequestError(message, field="volumes")
            return await engine.sandboxes.create_from(
                spec, snapshot_id, wanted.size, network=wanted.network, secrets=secrets, boot=wanted.boot
            )


async def list_sandboxes(request: Request) -> Response:
    return answer(tuple(sandbox_info(each) for each in _engine(request).registry.list()))


async def get_sandbox(request: Request) -> Response:
    sandbox = _engine(request).registry.get(request.path_params["id"])
    used = process_usage(sandbox.machine.pid) if isinstance(sandbox, Sandbox) else None
    return answer(sandbox_info(sandbox, Usage(**asdict(used)) if used else None))


async def delete_sandbox(request: Request) -> Response:
    engine, sandbox_id = _target(request)
    await engine.sandboxes.delete(sandbox_id)
    engine.brokerage.forget(sandbox_id)
    return Response(status_code=204)


async def console(request: Request) -> Response:
    """The end of the console as text; with ``follow=1`` as a stream of output records that begins with it."""
    console = _engine(request).registry.reach(request.path_params["id"]).console
    if request.query_params.get("follow") != "1":
        return PlainTextResponse(console.tail().decode("utf-8", "replace"))

    async def body(write: Write) -> None:
        async for piece in console.pieces():
            await write(encode_record(Output(STDOUT, piece)))

    return WrittenResponse(body, "application/octet-stream", SIGN_OF_LIFE)


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
    return answer(await engine.lifecycle.hibernate(sandbox_id) or NOTHING_CAPTURED)


async def wake(request: Request) -> Response:
    engine, sandbox_id = _target(request)
    wanted = await received(request, WakeSandbox)
    return answer(started(await engine.lifecycle.wake(sandbox_id, boot=wanted.boot), BootMode.WAKE))


async def snapshot(request: Request) -> Response:
    engine, sandbox_id = _target(request)
    wanted = await received(request, TakeSnapshot)
    return answer(await engine.copies.snapshot(sandbox_id, wanted.id), 201)


async def fork(request: Request) -> Response:
    engine, sandbox_id = _target(request)
    wanted = await received(request, ForkSandbox)
    parent = engine.registry.reach(sandbox_id).spec
    specs = [
        replace(each, env={**parent.env, **each.env}, network=parent.network) for each in map(_spec, wanted.children)
    ]
    engine.brokerage.inherit(sandbox_id, [each.sandbox for each in specs])
    try:
        forked = await engine.copies.fork(sandbox_id, specs)
    finally:
        for each in specs:
            if engine.registry.find(each.sandbox) is None:
                engine.brokerage.forget(each.sandbox)
    failures = [each.made for each in forked.children if isinstance(each.made, PandastackError)]
    if len(failures) == len(specs):
        raise failures[0]
    return answer(ForkAnswer(forked.captured, tuple(map(_child, forked.children))), 201)


def _child(child: Child) -> Started | NotStarted:
    if isinstance(child.made, PandastackError):
        return NotStarted(child.spec.sandbox, Failure.of(child.made))
    return started(child.made, BootMode.FORK)


async def rewind(request: Request) -> Response:
    engine, sandbox_id = _target(request)
    wanted = await received(request, RewindSandbox)
    return answer(started(await engine.rewinder.rewind(sandbox_id, wanted.snapshot), BootMode.SNAPSHOT))


async def list_snapshots(request: Request) -> Response:
    return answer(tuple(SnapshotInfo(name) for name in _engine(request).saved.names()))


async def measure_snapshots(request: Request) -> Response:
    engine, wanted = _engine(request), await received(request, MeasureSnapshots)
    return answer(await anyio.to_thread.run_sync(measure, engine.pool, engine.saved, wanted.ids))


async def delete_snapshot(request: Request) -> Response:
    snapshot_id = check_request(Uuid, request.path_params["id"], "id")  # a UUID cannot lead out of the directory
    engine = _engine(request)
    engine.warm_pool.snapshots.forget(engine.saved.path(snapshot_id))
    await engine.saved.remove(snapshot_id)
    return Response(status_code=204)


async def search_memory(request: Request) -> Response:
    engine, snapshot_id = _engine(request), check_request(Uuid, request.path_params["id"], "id")
    wanted = await received(request, SearchMemory)
    snapshot = engine.saved.get(snapshot_id).snapshot
    parents = [each.snapshot.memory for each in engine.templates.list() if each.key == snapshot.manifest.parent]
    template = next(iter(parents), None)
    found = await anyio.to_thread.run_sync(search_snapshot, snapshot, template, wanted.values)
    return answer(MemoryFound(*found))


async def expect_creates(request: Request) -> Response:
    engine, snapshot_id = _engine(request), check_request(Uuid, request.path_params["id"], "id")
    wanted = await received(request, ExpectCreates)
    engine.sandboxes.expect(snapshot_id, wanted.count, wanted.seconds)
    return Response(status_code=204)
