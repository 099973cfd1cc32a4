"""A sandbox seen from outside: console, events, usage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, Request, Response

from pandastack.api.models.events import Event, Events
from pandastack.api.models.system import Usage
from pandastack.api.requests import caller_of, flag, json_response, plane_of
from pandastack.api.streams import EVENTS, EventStream, StreamEvent
from pandastack.errors import NotFoundError

router = APIRouter(prefix="/v1/sandboxes/{sandbox_id}", tags=["observe"])

_TEXT = "text/plain; charset=utf-8"


@router.get("/logs", response_class=Response, responses={200: {"content": {"text/plain": {}, **EVENTS}}})
async def logs(
    request: Request, sandbox_id: str, stream: str = "both", follow: str = "", tail: int | None = None
) -> Response:
    """The console; it is one stream, whatever `stream` asks for. With `follow`: events `line`."""
    plane, caller = plane_of(request), caller_of(request)
    if not flag(follow):
        return Response(await plane.consoles.read(caller, sandbox_id, tail), media_type=_TEXT)

    @asynccontextmanager
    async def source() -> AsyncIterator[AsyncIterator[StreamEvent]]:
        sandbox = plane.sandboxes.get(caller, sandbox_id)
        with plane.streams.hold(sandbox.id):
            async with plane.consoles.follow(caller, sandbox.id, tail) as lines:
                yield (("line", {"line": line}) async for line in lines)

    return EventStream(source, plane.settings.keep_alive_seconds)


@router.get("/events", response_class=Response, responses={200: {"model": Events, "content": EVENTS}})
async def events(request: Request, sandbox_id: str, tail: int = 50, follow: str = "") -> Response:
    """The sandbox's events, oldest first; `tail` ≤ 0 means all. With `follow`: events `event`."""
    plane, caller = plane_of(request), caller_of(request)
    sandbox = plane.sandboxes.get(caller, sandbox_id)
    limit = min(tail, 1_000_000) if tail > 0 else None
    if not flag(follow):
        records = await plane.events.latest(sandbox.id, limit)
        return json_response(Events(events=[Event.of(record) for record in records]))

    @asynccontextmanager
    async def source() -> AsyncIterator[AsyncIterator[StreamEvent]]:
        with plane.streams.hold(sandbox.id):
            found = plane.events.follow(sandbox.id, limit, lambda: plane.registry.find(sandbox.id) is not None)
            yield (("event", Event.of(record).model_dump()) async for record in found)

    return EventStream(source, plane.settings.keep_alive_seconds)


@router.get("/metrics", response_class=Response, responses={200: {"model": Usage}})
async def usage(request: Request, sandbox_id: str) -> Response:
    """The host resources that the sandbox's machine uses."""
    plane, caller = plane_of(request), caller_of(request)
    used = await plane.sandboxes.usage(caller, sandbox_id)
    if used is None:
        raise NotFoundError(f"no usage is known for sandbox {sandbox_id[:64]}")
    return json_response(Usage.model_validate(used))
