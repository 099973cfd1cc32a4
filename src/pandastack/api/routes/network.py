"""What a sandbox may reach, and what it wanted to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from fastapi import APIRouter, Request, Response

from pandastack.api.models.network import (
    AllowDestination,
    Allowed,
    DestinationChecked,
    EgressLog,
    EgressRecord,
    Network,
    SetNetwork,
    read_policy,
)
from pandastack.api.models.schema import takes
from pandastack.api.requests import caller_of, flag, json_response, plane_of, read_json
from pandastack.api.streams import EVENTS, EventStream, StreamEvent
from pandastack.errors import BadRequestError
from pandastack.services.network.networks import Destination

router = APIRouter(prefix="/v1/sandboxes/{sandbox_id}", tags=["network"])

_MOST_SINCE = 2**63


@router.get("/network", response_class=Response, responses={200: {"model": Network}})
async def get_network(request: Request, sandbox_id: str) -> Response:
    """The policy in force and the bytes so far. A hibernated sandbox is not woken."""
    return json_response(Network.of(await plane_of(request).networks.get(caller_of(request), sandbox_id)))


@router.put("/network", response_class=Response, responses={200: {"model": Network}}, openapi_extra=takes(SetNetwork))
async def set_network(request: Request, sandbox_id: str) -> Response:
    """Replace the whole policy. It is in force when the answer comes; connections that it forbids are cut."""
    plane, caller = plane_of(request), caller_of(request)
    plane.sandboxes.get(caller, sandbox_id)
    body = await read_json(request, SetNetwork)
    if isinstance(body.root, dict) and "egress" not in body.root:  # an empty body must not open everything
        hint = 'the whole policy is replaced: say "allow", "deny", "none" or lists'
        raise BadRequestError("egress: is required", field="egress", hint=hint)
    policy = await anyio.to_thread.run_sync(read_policy, body.root, "")
    return json_response(Network.of(await plane.networks.set(caller, sandbox_id, policy)))


@router.post(
    "/network/allow",
    response_class=Response,
    responses={200: {"model": Allowed}},
    openapi_extra=takes(AllowDestination),
)
async def allow_destination(request: Request, sandbox_id: str) -> Response:
    """Allow one destination more; the rest of the policy stays."""
    plane, caller = plane_of(request), caller_of(request)
    plane.sandboxes.get(caller, sandbox_id)
    wanted = (await read_json(request, AllowDestination)).wanted()
    rule, state = await plane.networks.allow(caller, sandbox_id, wanted)
    return json_response(Allowed.after(rule, state))


@router.get("/network/check", response_class=Response, responses={200: {"model": DestinationChecked}})
async def check_destination(
    request: Request, sandbox_id: str, host: str = "", port: int | None = None, protocol: str | None = None
) -> Response:
    """What would be decided about a connection, by the same function. Nothing is sent or looked up."""
    plane, caller = plane_of(request), caller_of(request)
    plane.sandboxes.get(caller, sandbox_id)
    if not host:
        raise BadRequestError("host: is required", field="host")
    found = await plane.networks.check(caller, sandbox_id, Destination(host, port, protocol))
    return json_response(DestinationChecked.model_validate(found))


@router.get("/egress/log", response_class=Response, responses={200: {"model": EgressLog, "content": EVENTS}})
async def egress_log(request: Request, sandbox_id: str, since: int = 0, follow: str = "") -> Response:
    """Decisions about what the sandbox wanted to reach, after `since`. With `follow`: events `decision`."""
    plane, caller = plane_of(request), caller_of(request)
    if not 0 <= since < _MOST_SINCE:
        raise BadRequestError("since: must be a number from 0", field="since")
    if not flag(follow):
        return json_response(EgressLog.of(await plane.networks.log(caller, sandbox_id, since)))

    @asynccontextmanager
    async def source() -> AsyncIterator[AsyncIterator[StreamEvent]]:
        sandbox = plane.sandboxes.get(caller, sandbox_id)
        with plane.streams.hold(sandbox.id):
            async with plane.networks.follow(caller, sandbox.id, since) as records:
                yield (("decision", EgressRecord.of(record).model_dump()) async for record in records)

    return EventStream(source, plane.settings.keep_alive_seconds)
