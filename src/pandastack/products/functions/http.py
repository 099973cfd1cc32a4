"""Requests of HTTP to functions, whatever host they came to: a run for each, and its answer, whole or in pieces."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from pandastack.errors import ForbiddenError
from pandastack.products.functions.calls import Call, ended
from pandastack.products.functions.lambda_url import (
    Head,
    HttpAnswer,
    HttpRequest,
    Malformed,
    answer_of,
    event_of,
    has_body,
    printed,
)
from pandastack.products.functions.records import Function, Records, unknown_function
from pandastack.products.functions.runs import Runs
from pandastack.products.functions.streams import Stream
from pandastack.store.functions import FunctionState, RunRecord, RunStatus

APPLICATIONS = ("wsgi", "asgi", "fetch")
"""Kinds of functions whose answers are streams, and whose runs end when their clients leave."""


class Cut(Exception):
    """The answer ends before it is whole."""


@dataclass(frozen=True, slots=True)
class StreamedAnswer:
    """An answer that is still being made. ``pieces`` raise :class:`Cut`."""

    head: Head
    pieces: AsyncGenerator[bytes, None]


Reply = HttpAnswer | StreamedAnswer | RunRecord


@asynccontextmanager
async def answered(records: Records, runs: Runs, function_id: str, request: HttpRequest) -> AsyncIterator[Reply]:
    """The answer to a request without a token, as long as the block; the run when it has failed without one. A block
    that ends before its answer ends the run of an application.

    Raises :class:`ForbiddenError` unless the function is public, and the errors of :meth:`Functions.invoke`.
    """
    function = _public(records, function_id)
    stream = Stream()
    try:
        event = event_of(request, str(uuid.uuid4()), time.time())
        body = request.body.decode(errors="replace")
        call = await runs.begin(function, event, body=body, stream=stream)
    except BaseException:
        stream.end()
        stream.leave()
        raise
    try:
        head = await stream.take()
        if not isinstance(head, Head):
            yield _whole(call, await ended(call))
        elif has_body(request.method, head.status) and head.length != 0:
            yield StreamedAnswer(head, _pieces(call, stream, head))
        else:  # its client leaves after the head: that is sent at the end
            while await stream.take() is not None:
                pass
            run = await ended(call)
            yield StreamedAnswer(head, _nothing()) if run.status is RunStatus.SUCCESS else run
    finally:
        stream.leave()
        if call.version.kind in APPLICATIONS:
            runs.leave(call)


def _public(records: Records, function_id: str) -> Function:
    record = records.get(function_id)
    if record is None or record.state is FunctionState.DELETING:
        raise unknown_function(function_id)
    if not record.public:
        hint = "its owner makes it public with `public: true`"
        raise ForbiddenError("the function is private", hint=hint)
    return records.seen(record)


async def _nothing() -> AsyncGenerator[bytes, None]:
    pieces: tuple[bytes, ...] = ()
    for each in pieces:
        yield each


async def _pieces(call: Call, stream: Stream, head: Head) -> AsyncGenerator[bytes, None]:
    """The body, exactly as long as the head says. A client that knows the length leaves after the last byte, so the
    last piece is held back until the run has ended."""
    size, last = 0, b""
    while isinstance(piece := await stream.take(), bytes):
        size += len(piece)
        if head.length is not None and size > head.length:
            raise Cut
        if size == head.length:
            last = piece
        else:
            yield piece
    run = await ended(call)
    if run.status is not RunStatus.SUCCESS or head.length not in (None, size):
        raise Cut
    if last:
        yield last


def _whole(call: Call, run: RunRecord) -> HttpAnswer | RunRecord:
    if run.status is not RunStatus.SUCCESS or call.answer is None:
        return run
    if call.version.kind == "script":
        return printed(call.answer.body or "")
    try:
        return answer_of(json.loads(run.result or "null"))
    except (Malformed, TypeError, ValueError) as error:
        return replace(run, status=RunStatus.ERROR, exit_code=1, error=f"the answer is malformed: {error}")
