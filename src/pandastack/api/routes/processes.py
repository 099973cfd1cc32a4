"""Processes of a sandbox: start, inspect, write to, signal."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from pandastack.api.idempotency import PARAMETER, idempotent, make_once
from pandastack.api.models.errors import Error
from pandastack.api.models.processes import (
    Process,
    Processes,
    ResizeTerminal,
    SignalProcess,
    StartProcess,
    Taken,
    WaitProcess,
)
from pandastack.api.models.schema import takes
from pandastack.api.requests import caller_of, flag, json_response, limited, plane_of, read_json, unless_left
from pandastack.api.streams import EVENTS, ByteStream, EventStream, StreamEvent
from pandastack.contract.processes import ProcessRecord
from pandastack.contract.records import STDERR, STDOUT, End, ExecFailed, Output, OutputOffset, Record, StillRunning
from pandastack.errors import BadRequestError, UnavailableError
from pandastack.services.processes.output import OutputText
from pandastack.services.processes.processes import LONGEST_WAIT_SECONDS

router = APIRouter(prefix="/v1/sandboxes/{sandbox_id}/processes", tags=["processes"])

_KINDS = {"stdout": STDOUT, "stderr": STDERR}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_DEFAULT_WAIT_SECONDS = 25.0  # clients wait 30 s for an answer


@router.post(
    "",
    status_code=201,
    response_class=Response,
    responses={201: {"model": Process}},
    openapi_extra=takes(StartProcess, PARAMETER),
)
@idempotent(resumable=True)
async def start(request: Request, sandbox_id: str) -> Response:
    """Start a process. It keeps running without a client, and while the server is away."""
    processes, caller = plane_of(request).processes, caller_of(request)
    body = await read_json(request, StartProcess)

    async def find(process_id: str) -> ProcessRecord:
        return await processes.get(caller, sandbox_id, body.id or process_id)

    async def make(process_id: str | None) -> ProcessRecord:
        named = body.model_copy(update={"id": process_id}) if body.id is None else body
        return await processes.start(caller, sandbox_id, processes.plan(named.model_dump()))

    return json_response(Process.of(await make_once(request, find, make)), 201)


@router.get("", response_class=Response, responses={200: {"model": Processes}})
async def list_processes(
    request: Request,
    sandbox_id: str,
    status: Annotated[str | None, Query(description="Only those that are `running`, or `exited`")] = None,
) -> Response:
    """Running processes and remembered exited ones, oldest first. `exec` leaves records too."""
    plane = plane_of(request)
    if status not in (None, "running", "exited"):
        raise BadRequestError(f"status: unknown status {status[:32]!r}", field="status", hint="running or exited")
    found = await plane.processes.list(caller_of(request), sandbox_id)
    if status is not None:
        chosen = tuple(each for each in found.processes if each.running == (status == "running"))
        found = replace(found, processes=chosen)
    return json_response(Processes.of(found, plane.settings.kept_output_bytes))


@router.get("/{process}", response_class=Response, responses={200: {"model": Process}})
async def get_process(request: Request, sandbox_id: str, process: str) -> Response:
    """One process, by id or pid."""
    record = await plane_of(request).processes.get(caller_of(request), sandbox_id, process)
    return json_response(Process.of(record))


@router.get(
    "/{process}/output",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}, **EVENTS}}},
)
async def output(
    request: Request,
    sandbox_id: str,
    process: str,
    stream: str = "",
    offset: int = 0,
    stderr_offset: int | None = None,
    follow: str = "",
    format: str = "",
) -> Response:
    """Output from `offset` on; a negative offset counts from the end.

    Bytes of one `stream` (`stdout` by default), or events of `both` (the default of `follow=1`; `format=bytes` and
    `format=sse` choose). Output that is no longer retained is skipped, and reported: by the header
    `X-Pandastack-Offset` for bytes, by a `gap` among events.
    """
    plane, caller = plane_of(request), caller_of(request)
    as_events = {"sse": True, "bytes": False, "": flag(follow)}.get(format)
    stream = stream or ("both" if as_events else "stdout")
    if as_events is None:
        raise BadRequestError("format: must be bytes or sse", field="format")
    if stream not in (("stdout", "stderr", "both") if as_events else ("stdout", "stderr")):
        raise BadRequestError("stream: must be stdout or stderr, or with events both", field="stream")
    wanted = _offsets(stream, offset, stderr_offset)

    @asynccontextmanager
    async def events() -> AsyncIterator[AsyncIterator[StreamEvent]]:
        async with plane.processes.view(caller, sandbox_id, process, follow=flag(follow), **wanted) as records:
            yield _events(records, wanted)

    @asynccontextmanager
    async def content() -> AsyncIterator[tuple[Mapping[str, str], AsyncIterator[bytes]]]:
        async with plane.processes.view(caller, sandbox_id, process, follow=flag(follow), **wanted) as records:
            first = await _first_offset(records)
            yield {"x-pandastack-offset": str(first)}, _bytes(records, first)

    return EventStream(events, plane.settings.keep_alive_seconds) if as_events else ByteStream(content)


def _offsets(stream: str, offset: int, stderr_offset: int | None) -> dict[str, int | None]:
    for name, value in (("offset", offset), ("stderr_offset", stderr_offset or 0)):
        if not -(1 << 62) < value < 1 << 62:
            raise BadRequestError(f"{name}: is out of range", field=name)
    second = offset if stderr_offset is None else stderr_offset
    return {"stdout": None if stream == "stderr" else offset, "stderr": None if stream == "stdout" else second}


async def _events(records: AsyncIterator[Record], wanted: Mapping[str, int | None]) -> AsyncIterator[StreamEvent]:
    text = OutputText()
    at = {kind: max(wanted[name] or 0, 0) for name, kind in _KINDS.items()}
    async for record in records:
        if isinstance(record, OutputOffset):
            rest = text.skip(record.kind)
            if rest:
                yield _NAMES[record.kind], {"chunk": rest, "end": at[record.kind]}
            if record.offset > at[record.kind]:
                gap = {"stream": _NAMES[record.kind], "start": at[record.kind], "end": record.offset}
                yield "gap", gap
            at[record.kind] = record.offset
        elif isinstance(record, Output):
            at[record.kind] += len(record.data)
            if chunk := text.feed(record):
                yield _NAMES[record.kind], {"chunk": chunk, "end": at[record.kind] - text.unfinished(record.kind)}
        else:
            for kind, chunk in text.rest():
                yield _NAMES[kind], {"chunk": chunk, "end": at[kind]}
            yield _last(record)


def _last(end: End) -> StreamEvent:
    if isinstance(end, StillRunning):
        return "end", {"status": "running"}
    if isinstance(end, ExecFailed):
        return "error", Error.of(end.failure.exception()).model_dump()
    ended: dict[str, Any] = {"exit_code": end.exit_code, "duration_ms": round(end.duration_us / 1000)}
    return "exit", ended | ({"timed_out": True} if end.timed_out else {})


async def _first_offset(records: AsyncIterator[Record]) -> int:
    async for record in records:
        if isinstance(record, OutputOffset):
            return record.offset
        if isinstance(record, ExecFailed):
            raise record.failure.exception()
    raise UnavailableError("the guest did not report the output's first offset")


async def _bytes(records: AsyncIterator[Record], at: int) -> AsyncIterator[bytes]:
    """A failure in here aborts the connection, so that no client takes a part for the whole."""
    async for record in records:
        if isinstance(record, Output):
            at += len(record.data)
            if record.data:
                yield record.data
        elif isinstance(record, OutputOffset) and record.offset != at:
            raise UnavailableError(f"output from {at} to {record.offset} was discarded before it was sent")
        elif isinstance(record, ExecFailed):
            raise UnavailableError(record.failure.error)


@router.post("/{process}/stdin", response_class=Response, responses={200: {"model": Taken}})
async def send_input(request: Request, sandbox_id: str, process: str, close: str = "") -> Response:
    """Write the body to the standard input; `close=1` ends it. Answers once the process's pipe has taken all of it; if
    the client disconnects before that, the rest is not written."""
    plane, caller = plane_of(request), caller_of(request)
    data = b"".join([chunk async for chunk in limited(request, plane.settings.max_json_bytes)])
    send = partial(plane.processes.send_input, caller, sandbox_id, process, data, close=flag(close))
    return json_response(Taken(bytes=await unless_left(request, send)))


@router.post(
    "/{process}/signal",
    status_code=204,
    response_class=Response,
    openapi_extra=takes(SignalProcess),
)
async def signal(request: Request, sandbox_id: str, process: str) -> Response:
    """Send a signal to the process's group: `TERM` unless the body names another."""
    body = await read_json(request, SignalProcess)
    await plane_of(request).processes.signal(caller_of(request), sandbox_id, process, body.signal)
    return Response(status_code=204)


@router.post(
    "/{process}/resize",
    status_code=204,
    response_class=Response,
    openapi_extra=takes(ResizeTerminal),
)
async def resize(request: Request, sandbox_id: str, process: str) -> Response:
    """Resize the process's terminal."""
    body = await read_json(request, ResizeTerminal)
    await plane_of(request).processes.resize(caller_of(request), sandbox_id, process, body.rows, body.cols)
    return Response(status_code=204)


@router.post(
    "/{process}/wait",
    response_class=Response,
    responses={200: {"model": Process}},
    openapi_extra=takes(WaitProcess),
)
async def wait(request: Request, sandbox_id: str, process: str) -> Response:
    """Answers when the process has exited, or with `running` after the timeout."""
    body = await read_json(request, WaitProcess)
    seconds = _DEFAULT_WAIT_SECONDS if body.timeout_seconds is None else body.timeout_seconds
    if not 0 <= seconds <= LONGEST_WAIT_SECONDS:
        raise BadRequestError(
            f"timeout_seconds: must be between 0 and {LONGEST_WAIT_SECONDS:.0f}", field="timeout_seconds"
        )
    wait_for = partial(plane_of(request).processes.wait, caller_of(request), sandbox_id, process, seconds)
    return json_response(Process.of(await unless_left(request, wait_for)))
