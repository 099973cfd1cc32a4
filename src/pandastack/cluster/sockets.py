"""WebSockets to an engine: one interface in process, over a Unix socket and over TCP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

MESSAGE_BYTES = 1024 * 1024
"""The longest message that either side sends."""
_OPEN_SECONDS = 60.0
_CLOSE_SECONDS = 1.0


class SocketClosed(Exception):
    """The other side closed the WebSocket, or it broke."""


@dataclass
class Refused(Exception):
    """The upgrade was answered with an ordinary response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Socket(Protocol):
    """A WebSocket. One task may send while another receives. Both raise :class:`SocketClosed`."""

    headers: Mapping[str, str]
    """The headers of the answer to the upgrade."""

    async def send(self, message: bytes | str) -> None:
        """Send one message; waits while the other side does not read."""

    async def receive(self) -> bytes | str:
        """The next message."""


class Dialer(Protocol):
    """Opens WebSockets to one engine."""

    def __call__(self, target: str, headers: Mapping[str, str]) -> AbstractAsyncContextManager[Socket]:
        """Connect to ``target``, a path with its query. Raises :class:`Refused`, or ``OSError`` without an answer."""


class _NetworkSocket:
    def __init__(self, connection: ClientConnection) -> None:
        assert connection.response is not None
        self.headers: Mapping[str, str] = connection.response.headers
        self._connection = connection

    async def send(self, message: bytes | str) -> None:
        try:
            await self._connection.send(message)
        except ConnectionClosed as error:
            raise SocketClosed(str(error)) from error

    async def receive(self) -> bytes | str:
        try:
            return await self._connection.recv()
        except ConnectionClosed as error:
            raise SocketClosed(str(error)) from error


def network_dialer(url: str) -> Dialer:
    """A dialer for ``http://host:port`` or ``unix:/path/to/socket``."""
    unix = url.removeprefix("unix:") if url.startswith("unix:") else None
    base = "ws://engine" if unix else f"ws://{urlsplit(url).netloc}"
    way: dict[str, Any] = {"unix": True, "path": unix} if unix else {"proxy": None}

    @asynccontextmanager
    async def dial(target: str, headers: Mapping[str, str]) -> AsyncIterator[Socket]:
        try:
            connection = await connect(
                base + target,
                additional_headers=headers,
                compression=None,
                max_size=MESSAGE_BYTES,
                open_timeout=_OPEN_SECONDS,
                close_timeout=_CLOSE_SECONDS,
                **way,
            )
        except InvalidStatus as error:
            response = error.response
            raise Refused(response.status_code, response.headers, bytes(response.body or b"")) from error
        except (WebSocketException, TimeoutError) as error:
            raise OSError(str(error)) from error
        async with connection:
            yield _NetworkSocket(connection)

    return dial
