"""Commands: one answer at the end, or a stream of events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from fastapi import APIRouter, Request, Response

from pandastack.api.buffered import outcome_response
from pandastack.api.models.errors import Error
from pandastack.api.models.exec import CommandResult, ExecCommand, StreamedCommand
from pandastack.api.models.schema import takes
from pandastack.api.requests import caller_of, plane_of, read_json
from pandastack.api.streams import EVENTS, EventStream, StreamEvent
from pandastack.contract.records import STDERR, STDOUT, Ended, ExecResult, Output, Record
from pandastack.errors import BadRequestError
from pandastack.services.processes.commands import failure_of
from pandastack.services.processes.output import OutputText
from pandastack.services.processes.spec import Command

router = APIRouter(prefix="/v1/sandboxes/{sandbox_id}", tags=["exec"])

_NAMES = {STDOUT: "stdout", STDERR: "stderr"}

PROCESS_HEADER = "x-pandastack-process"
"""The header with the id of a command's record, sent before the answer is complete."""


@router.post(
    "/exec",
    response_class=Response,
    responses={200: {"model": CommandResult}},
    openapi_extra=takes(ExecCommand),
)
async def execute(request: Request, sandbox_id: str) -> Response:
    """Run a command to its end. A timeout is an error (500) whose message contains `timeout`."""
    plane = plane_of(request)
    body = await read_json(request, ExecCommand)
    command = plane.commands.plan(body.cmd, body.timeout_seconds, body.id)
    outcome = await plane.commands.run(caller_of(request), sandbox_id, command)
    return outcome_response(CommandResult.of(outcome, command), outcome)


@router.post(
    "/exec/stream",
    response_class=Response,
    openapi_extra=takes(StreamedCommand),
    responses={200: {"content": EVENTS}},
)
async def execute_streaming(request: Request, sandbox_id: str) -> Response:
    """Events `stdout` and `stderr` with a `chunk`, then `exit` or `error`. Disconnecting kills the command.

    With `"on_disconnect": "keep"` it keeps running, and `…/processes/{id}/output` has the rest; the id is in the header
    `X-Pandastack-Process`. An event's `end` is the offset to continue from: the one after the chunk's last byte.
    """
    plane = plane_of(request)
    body = await read_json(request, StreamedCommand)
    if body.on_disconnect not in (None, "kill", "keep"):
        raise BadRequestError("on_disconnect: must be kill or keep", field="on_disconnect")
    command = plane.commands.plan(body.cmd, body.timeout_seconds, body.id)
    command = replace(command, leave=body.on_disconnect == "keep")

    @asynccontextmanager
    async def source() -> AsyncIterator[AsyncIterator[StreamEvent]]:
        async with plane.commands.stream(caller_of(request), sandbox_id, command) as records:
            yield _events(records, command)

    return EventStream(source, plane.settings.keep_alive_seconds, {PROCESS_HEADER: command.id})


async def _events(records: AsyncIterator[Record], command: Command) -> AsyncIterator[StreamEvent]:
    text, ends = OutputText(), dict.fromkeys(_NAMES, 0)
    async for record in records:
        if isinstance(record, Output):
            ends[record.kind] += len(record.data)
            if chunk := text.feed(record):
                end = ends[record.kind] - text.unfinished(record.kind)
                yield _NAMES[record.kind], {"chunk": chunk, "end": end}
        if not isinstance(record, Ended):
            continue
        for kind, chunk in text.rest():
            yield _NAMES[kind], {"chunk": chunk, "end": ends[kind]}
        if failure := failure_of(record, command):
            yield "error", Error.of(failure).model_dump()
        elif isinstance(record, ExecResult):
            yield "exit", {"exit_code": record.exit_code, "duration_ms": round(record.duration_us / 1000)}
