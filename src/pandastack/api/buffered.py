"""Answers that hold much guest output, which counts against the output budget until they have been sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing

import anyio.to_thread
from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pandastack.api.models.base import Answer
from pandastack.api.models.errors import Error
from pandastack.services.output_budget import Lease
from pandastack.services.processes.commands import Outcome

_PIECE = 64 * 1024


class BufferedResponse(Response):
    """JSON, given in ``parts`` and sent in pieces. The lease is closed at the end, also after a failure."""

    media_type = "application/json"

    def __init__(self, parts: Sequence[bytes | bytearray], lease: Lease, status_code: int = 200) -> None:
        super().__init__(status_code=status_code, headers={"content-length": str(sum(map(len, parts)))})
        self._parts = parts
        self._lease = lease

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with closing(self._lease):
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for part in self._parts:
                for start in range(0, len(part), _PIECE):
                    piece = bytes(part[start : start + _PIECE])
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def buffered_response(answer: Callable[[], Answer], lease: Lease) -> Response:
    """The result of ``answer`` as JSON. Both steps run in a thread when they may take a while."""
    with ExitStack() as undo:
        undo.enter_context(closing(lease))
        body = await anyio.to_thread.run_sync(lambda: to_json(answer())) if lease.size > _PIECE else to_json(answer())
        undo.pop_all()
    return BufferedResponse([body], lease)


def outcome_response(answer: Answer, outcome: Outcome) -> Response:
    """``answer``, or the error of the outcome, with its output as ``stdout`` and ``stderr``.

    The output is already JSON: encoding all of it at once would delay every other request.
    """
    failure = outcome.failure
    rest = to_json(Error.of(failure) if failure else answer, exclude={"stdout", "stderr"}).removeprefix(b"{")
    parts = (b'{"stdout":"', outcome.stdout.content, b'","stderr":"', outcome.stderr.content, b'",', rest)
    return BufferedResponse(parts, outcome.lease, failure.status_code if failure else 200)
