"""Requests of HTTP that functions answer: at a path of the API, and at host names of their own through the gateway."""

from __future__ import annotations

from contextlib import aclosing

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pandastack.api.errors import error_response
from pandastack.api.models.functions import FunctionFailure
from pandastack.api.requests import json_response, limited
from pandastack.errors import PandastackError
from pandastack.products import functions as product
from pandastack.store.functions import RunRecord

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


async def read_request(request: Request, path: str, source: str) -> product.HttpRequest:
    """The request as a function gets it, at ``path``, from the address ``source``. Raises :class:`TooLargeError`."""
    body = b"".join([chunk async for chunk in limited(request, product.MOST_EVENT)])
    return product.HttpRequest(
        method=request.method,
        path=path,
        query=request.scope["query_string"].decode("latin-1"),
        headers=[(name.decode("latin-1"), text.decode("latin-1")) for name, text in request.scope["headers"]],
        body=body,
        source=source,
    )


def path_after(request: Request, mark: str) -> str:
    """What follows the first ``mark`` in the path, as it was sent."""
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    return raw.partition(b"?")[0].decode("latin-1").partition(mark)[2] or "/"


class FunctionAnswer(Response):
    """A function's answer. It is sent while it is made, and an answer that is cut short ends without its end, so that
    the client sees it."""

    def __init__(self, functions: product.Functions, function_id: str, wanted: product.HttpRequest) -> None:
        self._functions = functions
        self._id = function_id
        self._wanted = wanted
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        failure: PandastackError | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_until_gone, receive, tasks.cancel_scope)
            try:
                async with self._functions.http(self._id, self._wanted) as answer:
                    if isinstance(answer, product.StreamedAnswer):
                        await self._stream(answer, send)
                    else:
                        await self._response(answer)(scope, receive, send)
            except PandastackError as error:
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            await error_response(failure)(scope, receive, send)

    def _response(self, answer: product.HttpAnswer | RunRecord) -> Response:
        if isinstance(answer, RunRecord):
            return json_response(FunctionFailure.of(answer), 500)
        is_bare = answer.status in (204, 304)
        response = Response(b"" if is_bare else answer.body, answer.status)
        for name, text in answer.headers:
            response.raw_headers.append((name.lower().encode("latin-1"), text.encode("latin-1")))
        return response

    async def _stream(self, answer: product.StreamedAnswer, send: Send) -> None:
        head = answer.head
        headers = [(name.lower().encode("latin-1"), text.encode("latin-1")) for name, text in head.headers]
        if head.length is not None and head.status not in (204, 304):
            headers.append((b"content-length", str(head.length).encode()))
        await send({"type": "http.response.start", "status": head.status, "headers": headers})
        try:
            async with aclosing(answer.pieces) as pieces:
                async for piece in pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        except (product.Cut, PandastackError):
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    """Cancel ``scope`` when the client has left; its request has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
