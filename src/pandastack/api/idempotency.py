"""``Idempotency-Key``: a repeated creating request gets the first answer, and creates nothing more."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

from fastapi import Request, Response
from starlette.types import Message, Receive

from pandastack.api.requests import caller_of, limited, plane_of
from pandastack.errors import BadRequestError, NotFoundError, PandastackError
from pandastack.services.access.idempotency import Attempt, Keyed

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
PARAMETER = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "Any text of up to 255 visible ASCII characters. The same request with the same key is done once",
    "schema": {"type": "string", "maxLength": 255},
}
_KEY = re.compile(r"[\x21-\x7e]{1,255}")

Made = TypeVar("Made")
Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Response]])


def idempotent(*, resumable: bool = False, secret: bool = False, large: bool = False) -> Callable[[Handler], Handler]:
    """Decorate a route so that it honours the header.

    ``resumable``: it creates through :func:`make_once`. ``secret``: its answer is shown once, and not stored.
    ``large``: its body may be too large to hold in memory, so only its length and type tell requests apart.
    """

    def decorate(handler: Handler) -> Handler:
        @functools.wraps(handler)
        async def keyed(request: Request, **arguments: Any) -> Response:
            if (key := request.headers.get(HEADER)) is None:
                return await handler(request, **arguments)
            body = None if large else await _body(request)
            plane, described = plane_of(request), _described(request, key, body, resumable)
            async with plane.idempotency_keys.attempt(described) as attempt:
                if attempt.replayed is not None:
                    status, answer = attempt.replayed
                    return Response(answer, status, {REPLAYED: "true"}, "application/json")
                receive = request.receive if body is None else _replay(body, request.receive)
                again = Request({**request.scope, "attempt": attempt}, receive)
                try:
                    response = await handler(again, **arguments)
                except PandastackError as error:
                    attempt.status = error.status_code
                    raise
                attempt.status, attempt.answer = response.status_code, None if secret else bytes(response.body)
                return response

        return cast(Handler, keyed)

    return decorate


async def make_once(
    request: Request, find: Callable[[str], Awaitable[Made]], make: Callable[[str | None], Awaitable[Made]]
) -> Made:
    """The result of ``make``, which is given the id that the object must get, or None for any id.

    If the server ended during an earlier attempt, ``find`` first looks for the object with that id; it raises
    :class:`NotFoundError` when there is none.
    """
    attempt: Attempt | None = request.scope.get("attempt")
    if attempt is None:
        return await make(None)
    if attempt.interrupted:
        with suppress(NotFoundError):
            return await find(attempt.object_id)
    return await make(attempt.object_id)


def _described(request: Request, key: str, body: bytes | None, resumable: bool) -> Keyed:
    if not _KEY.fullmatch(key):
        raise BadRequestError(f"{HEADER}: must be 1 to 255 visible ASCII characters", field=HEADER)
    scope, caller = request.scope, caller_of(request)
    parts = (
        request.method.encode(),
        scope["raw_path"],
        scope["query_string"],
        _outline(request) if body is None else body,
    )
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return Keyed(caller.workspace, caller.token, key, digest.hexdigest(), resumable)


def _outline(request: Request) -> bytes:
    """Type and length of a body that is not read, without a form's boundary: it differs each time the form is sent."""
    kind = request.headers.get("content-type", "").partition(";")[0]
    return f"{kind} {request.headers.get('content-length', '')}".encode("latin-1")


async def _body(request: Request) -> bytes:
    return b"".join([chunk async for chunk in limited(request, plane_of(request).settings.max_json_bytes)])


def _replay(body: bytes, receive: Receive) -> Receive:
    """Replay the body, which has been read; then pass on further messages from the client."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again
