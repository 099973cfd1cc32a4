"""HTTP to one engine: sends requests, reads answers, and raises failures of either as our own errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

import anyio
import httpx
import structlog
from pydantic_core import from_json

from pandastack.cluster.sockets import Dialer, Refused, Socket
from pandastack.contract.codec import decode_answer, encode
from pandastack.contract.version import HEADER, VERSION, check_version
from pandastack.errors import CapacityError, PandastackError, ServerError, UnavailableError, from_body

ANSWER_SECONDS = 60.0
TURN_SECONDS = 300.0
"""The longest silence before an answer: on a busy host a create waits for its turn."""

ANSWER_BYTES = 64 * 1024 * 1024
"""The longest answer that is read whole; the bodies of files and commands are streamed."""

_DECODED_HERE = 128 * 1024
"""Longer answers are decoded in a thread: others wait for the event loop."""

_LIMIT = httpx.Timeout(ANSWER_SECONDS, read=TURN_SECONDS)
_NO_LIMIT = httpx.Timeout(ANSWER_SECONDS, read=None)
_HEADERS = {HEADER: VERSION}
_JSON_HEADERS = {**_HEADERS, "content-type": "application/json"}

T = TypeVar("T")

log = structlog.get_logger(__name__)


class EngineConnection:
    """Use inside ``async with``. Every method raises the errors of :class:`~pandastack.cluster.EngineClient`."""

    def __init__(self, transport: httpx.AsyncBaseTransport, dial: Dialer, base_url: str) -> None:
        # The transport is called directly: the redirects, cookies and authentication of an httpx client are not needed,
        # and they are half the price of a call inside the process.
        self._transport = transport
        self._dial = dial
        self._base_url = httpx.URL(base_url)

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._transport.__aexit__(kind, error, traceback)

    async def ask(
        self,
        kind: type[T],
        method: str,
        path: str,
        message: object = None,
        params: Mapping[str, str] | None = None,
        limit: httpx.Timeout = _LIMIT,
    ) -> T:
        """Send a message, or none, and return the answer as a ``kind``."""
        data = await self.call(method, path, message, params, limit)
        if len(data) < _DECODED_HERE:
            return decode_answer(kind, data)
        return await anyio.to_thread.run_sync(partial(decode_answer, kind, data))

    async def call(
        self,
        method: str,
        path: str,
        message: object = None,
        params: Mapping[str, str] | None = None,
        limit: httpx.Timeout = _LIMIT,
    ) -> bytes:
        """Send a message, or none, and return the bytes of the answer."""
        content = None if message is None else encode(message)
        async with self.stream(method, path, content=content, params=params, timeout=limit) as response:
            return await whole(response)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        content: bytes | AsyncIterator[bytes] | None = None,
        params: Mapping[str, str] | None = None,
        timeout: httpx.Timeout = _NO_LIMIT,
    ) -> AsyncIterator[httpx.Response]:
        """A response that is read inside the block."""
        target = f"{path}?{httpx.QueryParams(params)}" if params else path
        request = httpx.Request(
            method,
            self._base_url.copy_with(raw_path=target.encode("ascii")),
            content=content,
            headers=_JSON_HEADERS if isinstance(content, bytes) else _HEADERS,
            extensions={"timeout": timeout.as_dict()},
        )
        with _transport_errors():  # covers the caller's block too, where the body is read
            response = await self._transport.handle_async_request(request)
            try:
                await _check(response)
                yield response
            finally:
                await response.aclose()

    @asynccontextmanager
    async def socket(self, path: str, params: Mapping[str, str]) -> AsyncIterator[Socket]:
        """A WebSocket. Its own methods raise :class:`~pandastack.cluster.sockets.SocketClosed`."""
        try:
            opening = self._dial(f"{path}?{httpx.QueryParams(params)}", _HEADERS)
            socket = await opening.__aenter__()
        except Refused as refused:
            raise _refusal(refused.status, refused.headers, refused.body) from refused
        except OSError as error:
            log.warning("engine.unreachable", cause=repr(error))
            raise UnavailableError("the engine does not answer") from error
        async with AsyncExitStack() as stack:
            stack.push_async_exit(opening.__aexit__)
            check_version(engine=socket.headers.get(HEADER), control_plane=VERSION)
            yield socket


async def whole(response: httpx.Response) -> bytes:
    """The body of an answer; raises :class:`ServerError` when it is longer than any message."""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > ANSWER_BYTES:
            raise ServerError(f"the engine's answer is longer than {ANSWER_BYTES} bytes")
    return bytes(body)


async def _check(response: httpx.Response) -> None:
    """Raise the error in the response, if there is one, or the one for a wrong version."""
    if response.is_error:
        raise _refusal(response.status_code, response.headers, await whole(response))
    check_version(engine=response.headers.get(HEADER), control_plane=VERSION)


@contextmanager
def _transport_errors() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        # Neither the kind nor the text of the cause belongs in the message: clients act on words like "timeout".
        log.warning("engine.unreachable", cause=repr(error))
        broken = isinstance(error, httpx.RemoteProtocolError | httpx.ReadError)
        raise UnavailableError(f"the engine {'aborted its answer' if broken else 'does not answer'}") from error


def _refusal(status: int, headers: Mapping[str, str], text: bytes) -> PandastackError:
    """The error in a response, or the one for a wrong version."""
    version = headers.get(HEADER)
    if version is not None:  # a proxy in between may fail without knowing of versions
        check_version(engine=version, control_plane=VERSION)
    try:
        body = from_json(text)
    except ValueError:
        body = None
    if not isinstance(body, Mapping):
        return ServerError(f"the engine failed with HTTP {status}")
    error = from_body(status, body)
    retry_after = headers.get("retry-after", "")
    if isinstance(error, CapacityError) and retry_after.isdecimal():
        error.retry_after = int(retry_after)
    return error
