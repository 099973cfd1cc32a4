"""Messages of the contract in requests and responses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
from starlette.requests import Request
from starlette.responses import Response

from pandastack.contract.codec import decode_request, encode
from pandastack.errors import TooLargeError

T = TypeVar("T")

REQUEST_BYTES = 16 * 1024 * 1024
"""The largest message in bytes. A command's standard input is the largest part of any."""


async def received(request: Request, kind: type[T]) -> T:
    """The message in the request's body. Raises :class:`BadRequestError` or :class:`TooLargeError`."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > REQUEST_BYTES:
            raise TooLargeError(f"the body is over the limit of {REQUEST_BYTES} bytes")
    return decode_request(kind, bytes(body))


async def large_answer(make: Callable[[], object]) -> Response:
    """A response with the result of ``make``, which runs in a thread so that it does not block the event loop."""
    data = await anyio.to_thread.run_sync(lambda: encode(make()))
    return Response(data, media_type="application/json")


def answer(message: object, status: int = 200) -> Response:
    """A message, or a tuple of messages, as the response."""
    return Response(encode(message), status, media_type="application/json")
