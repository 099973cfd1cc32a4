"""Commands: one answer at the end, or a stream of events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, Request, Response

from pandastack.api import models
from pandastack.api.errors import body_of
from pandastack.api.requests import json_response, plane_of, read_json, workspace_of
from pandastack.api.streams import Event, EventStream
from pandastack.cluster.exec_records import STDERR, STDOUT, ExecResult, Record
from pandastack.services.commands import Command, OutputText, failure_of

router = APIRouter(prefix="/v1/sandboxes/{sandbox_id}", tags=["exec"])

_NAMES = {STDOUT: "stdout", STDERR: "stderr"}


@router.post(
    "/exec",
    response_class=Response,
    responses={200: {"model": models.ExecResult}},
    openapi_extra=models.takes(models.ExecCommand),
)
async def execute(request: Request, sandbox_id: str) -> Response:
    """Run a command to its end. A timeout is an error (500) whose message contains `timeout`."""
    plane = plane_of(request)
    body = await read_json(request, models.ExecCommand)
    command = plane.commands.plan(body.cmd, body.timeout_seconds)
    outcome = await plane.commands.run(workspace_of(request), sandbox_id, command)
    answer: dict[str, Any] = {
        "stdout": outcome.stdout,
        "stderr": outcome.stderr,
        "exit_code": outcome.exit_code,
        "duration_ms": round(outcome.duration_us / 1000),
        "guest_us": outcome.duration_us,
    }
    return json_response(answer | ({"truncated": outcome.truncated} if outcome.truncated else {}))


@router.post(
    "/exec/stream",
    response_class=Response,
    openapi_extra=models.takes(models.ExecCommand),
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def execute_streaming(request: Request, sandbox_id: str) -> Response:
    """Events `stdout` and `stderr` with a `chunk`, then `exit` or `error`. Leaving early kills the command."""
    plane = plane_of(request)
    body = await read_json(request, models.ExecCommand)
    command = plane.commands.plan(body.cmd, body.timeout_seconds)

    @asynccontextmanager
    async def source() -> AsyncIterator[AsyncIterator[Event]]:
        async with plane.commands.stream(workspace_of(request), sandbox_id, command) as records:
            yield _events(records, command)

    return EventStream(source, plane.settings.keep_alive_seconds)


async def _events(records: AsyncIterator[Record], command: Command) -> AsyncIterator[Event]:
    text = OutputText()
    async for record in records:
        if not isinstance(record, ExecResult):
            if chunk := text.feed(record):
                yield _NAMES[record.kind], {"chunk": chunk}
            continue
        for kind, chunk in text.rest():
            yield _NAMES[kind], {"chunk": chunk}
        if failure := failure_of(record, command):
            yield "error", body_of(failure)
        else:
            yield "exit", {"exit_code": record.exit_code, "duration_ms": round(record.duration_us / 1000)}
