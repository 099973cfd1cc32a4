"""Limits on peers that are not authenticated yet. uvicorn itself has none."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from pandastack.api.errors import error_response
from pandastack.errors import BadRequestError, CapacityError, PandastackError

MOST_HEAD_BYTES = 64 * 1024
"""Limit of a request line with its headers."""
MOST_HEADERS = 100
HEAD_SECONDS = 10.0
"""How long a request's headers may take to arrive, and the rest of a body after the answer."""
_REFUSED_AT_ONCE = 64
"""This many connections beyond the limit get an error; further ones are closed."""


def most_connections(wanted: int, descriptors: int, reserve: int = 256) -> int:
    """How many connections a process that can open ``descriptors`` files at once may have.

    ``reserve`` of them, and half of the rest, are for the engine and the store: each sandbox needs some.
    """
    return max(1, min(wanted, (descriptors - reserve) // 2))


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits: 431 for a large head, 408 for a slow one, 503 for too many connections."""

    most_connections = 1000

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._late: asyncio.TimerHandle | None = None
        self._in_head = True
        self._head_bytes = 0
        self._whole = True
        self._refusal: PandastackError = BadRequestError("this is not a valid HTTP request")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        beyond = len(self.connections) - self.most_connections
        if beyond > _REFUSED_AT_ONCE:
            transport.abort()
            return
        if beyond > 0:
            self.app = _refuse
        self._expect_more()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        in_head = self._in_head
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        # A head that began in this piece is only partly in it: it counts from the next piece on.
        self._head_bytes += len(data) if in_head else 0
        if self._head_bytes > MOST_HEAD_BYTES:
            self._reply(_too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._whole = True, False
        self._expect_more()

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes = False, 0
        self._expect_nothing()
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MOST_HEAD_BYTES or len(self.headers) > MOST_HEADERS:
            self._refusal = _too_large()
            raise self._refusal  # the parser ends, and `send_400_response` is called
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._whole = True
        self._expect_nothing()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._whole:
            self._expect_more()

    def handle_websocket_upgrade(self) -> None:
        self._expect_nothing()
        if self.app is _refuse:
            self._reply(_no_room())
        else:
            super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        self._reply(self._refusal)

    def _expect_more(self) -> None:
        self._expect_nothing()
        self._late = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _expect_nothing(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._expect_more()  # another request's answer is on its way
        elif self._in_head and not self._whole:
            self._reply(BadRequestError(f"the headers took longer than {HEAD_SECONDS:g} s", status_code=408))
        else:
            self.transport.close()

    def _reply(self, error: PandastackError) -> None:
        """Answer with ``error`` and close the connection."""
        response = error_response(error)
        headers = [*self.server_state.default_headers, *response.raw_headers, (b"connection", b"close")]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(STATUS_LINE[response.status_code] + lines + b"\r\n" + bytes(response.body))
        self.transport.close()


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    response = error_response(_no_room())
    response.headers["connection"] = "close"
    await response(scope, receive, send)


def _no_room() -> CapacityError:
    return CapacityError("too many connections", retry_after=1, hint="PANDASTACK_MAX_CONNECTIONS")


def _too_large() -> BadRequestError:
    return BadRequestError(
        f"the headers are over the limit of {MOST_HEAD_BYTES} bytes or {MOST_HEADERS} headers", status_code=431
    )
