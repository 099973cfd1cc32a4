"""Runner pools: what jobs are made of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio.to_thread
from fastapi import APIRouter, Request, Response

from pandastack.api.idempotency import PARAMETER, idempotent, make_once
from pandastack.api.models.runners import CreateRunnerSandbox, PutRunnerPool, RunnerPool, RunnerPools
from pandastack.api.models.sandboxes import Sandbox
from pandastack.api.models.schema import takes
from pandastack.api.requests import caller_of, flag, json_response, limited, plane_of, read_json
from pandastack.api.routes.job_output import events
from pandastack.api.streams import EVENTS, EventStream, StreamEvent
from pandastack.errors import BadRequestError
from pandastack.products import runners as product
from pandastack.store.runners import PoolRecord
from pandastack.store.sandboxes import SandboxRecord

router = APIRouter(prefix="/v1/runner-pools", tags=["runners"])

_TAR = "application/x-tar"


def runners_of(request: Request) -> product.Runners:
    """The runner pools and jobs that serve ``request``."""
    runners: product.Runners = request.app.state.runners
    return runners


def _shown(request: Request, pool: PoolRecord) -> RunnerPool:
    runners = runners_of(request)
    return RunnerPool.of(pool, preparing=runners.pools.is_preparing(pool.id), actions=runners.actions.state(pool))


@router.put(
    "/{name}", response_class=Response, responses={200: {"model": RunnerPool}}, openapi_extra=takes(PutRunnerPool)
)
async def put_runner_pool(request: Request, name: str) -> Response:
    """Make a pool, or change one. Its machines change with the next refresh."""
    body = await read_json(request, PutRunnerPool)
    spec = await anyio.to_thread.run_sync(body.wanted)  # a list of rules takes milliseconds to check
    made = await runners_of(request).put_pool(caller_of(request), product.checked_name(name), spec)
    return json_response(_shown(request, made))


@router.get("", response_class=Response, responses={200: {"model": RunnerPools}})
async def list_runner_pools(request: Request) -> Response:
    """The workspace's pools, oldest first."""
    found = runners_of(request).pools.list(caller_of(request))
    return json_response(RunnerPools(pools=[_shown(request, each) for each in found]))


@router.get("/{name}", response_class=Response, responses={200: {"model": RunnerPool}})
async def get_runner_pool(request: Request, name: str) -> Response:
    """One pool."""
    return json_response(_shown(request, runners_of(request).pools.get(caller_of(request), name)))


@router.delete("/{name}", status_code=204, response_class=Response)
async def delete_runner_pool(request: Request, name: str) -> Response:
    """Delete a pool. Its jobs that have not ended are cancelled."""
    await runners_of(request).delete_pool(caller_of(request), name)
    return Response(status_code=204)


@router.post(
    "/{name}/refresh",
    status_code=202,
    response_class=Response,
    responses={202: {"model": RunnerPool}},
    openapi_extra={"requestBody": {"content": {_TAR: {"schema": {"type": "string", "format": "binary"}}}}},
)
async def refresh_runner_pool(request: Request, name: str) -> Response:
    """Prepare a new version; a body is a tar archive of the checkout. The former version serves until it is made."""
    given = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    if given and request.headers.get("content-type") != _TAR:
        raise BadRequestError("the body must be a tar archive", hint=f"with the header Content-Type: {_TAR}")
    source = limited(request, product.MOST_SOURCE_BYTES) if given else None
    pool = await runners_of(request).pools.refresh(caller_of(request), name, source)
    return json_response(_shown(request, pool), 202)


@router.get("/{name}/logs", response_class=Response, responses={200: {"content": EVENTS}})
async def read_runner_pool_log(request: Request, name: str, follow: str | None = None) -> Response:
    """What the last refresh printed: events `stdout` and `stderr` with `text`; after its end `ended` with the pool."""
    runners, caller = runners_of(request), caller_of(request)

    @asynccontextmanager
    async def source() -> AsyncIterator[AsyncIterator[StreamEvent]]:
        yield _events()

    async def _events() -> AsyncIterator[StreamEvent]:
        async for event in events(runners.pools.output(caller, name, follow=flag(follow))):
            yield event
        shown = _shown(request, runners.pools.get(caller, name))
        if shown.state != "preparing":
            yield "ended", shown.model_dump()

    runners.pools.get(caller, name)
    return EventStream(source, plane_of(request).settings.keep_alive_seconds)


@router.post(
    "/{name}/sandboxes",
    status_code=201,
    response_class=Response,
    responses={201: {"model": Sandbox}},
    openapi_extra=takes(CreateRunnerSandbox, PARAMETER),
)
@idempotent(resumable=True)
async def create_runner_sandbox(request: Request, name: str) -> Response:
    """Create a sandbox of the pool's prepared version: one to look into, or for a runner of another system."""
    body = await read_json(request, CreateRunnerSandbox)
    plane, caller, pools = plane_of(request), caller_of(request), runners_of(request).pools

    async def find(sandbox_id: str) -> SandboxRecord:
        return plane.sandboxes.get(caller, sandbox_id)

    async def make(sandbox_id: str | None) -> SandboxRecord:
        return await pools.make_sandbox(caller, name, replace(body.wanted(), id=sandbox_id), trusted=body.trusted)

    return json_response(Sandbox.of(await make_once(request, find, make), plane), 201)
