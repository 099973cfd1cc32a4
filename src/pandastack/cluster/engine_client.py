"""Speaks the engine's HTTP interface; the same code in process, over a Unix socket and over TCP."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
import structlog
from pydantic_core import from_json, to_json

from pandastack.cluster.exec_records import ExecResult, Record, RecordParser, StillRunning
from pandastack.cluster.in_process import ASGIApp, StreamingASGITransport
from pandastack.errors import CapacityError, PandastackError, ServerError, UnavailableError, from_body

_ANSWER_SECONDS = 60.0
_EVENTS_SILENCE_SECONDS = 45.0  # the engine sends an empty line every 15 s
_LIMIT = httpx.Timeout(_ANSWER_SECONDS)
_LONG = httpx.Timeout(_ANSWER_SECONDS, read=170.0)  # clients wait 180 s for a snapshot
_NO_LIMIT = httpx.Timeout(_ANSWER_SECONDS, read=None)
_JSON = {"content-type": "application/json"}

log = structlog.get_logger(__name__)


class EngineClient:
    """One engine. Use inside ``async with``.

    Every method raises the error that the engine named, or :class:`UnavailableError` when the engine does not answer;
    after that one, whether the engine acted is unknown.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, base_url: str = "http://engine") -> None:
        # The transport is called directly: an httpx client's redirects, cookies and authentication are not needed here,
        # and they are half the price of a call inside the process.
        self._transport = transport
        self._base_url = httpx.URL(base_url)

    @classmethod
    def in_process(cls, app: ASGIApp) -> EngineClient:
        """A client that calls the ASGI application ``app`` directly."""
        return cls(StreamingASGITransport(app))

    @classmethod
    def connect(cls, url: str) -> EngineClient:
        """A client for ``http://host:port`` or ``unix:/path/to/socket``."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
        if url.startswith("unix:"):
            return cls(httpx.AsyncHTTPTransport(uds=url.removeprefix("unix:"), limits=limits))
        return cls(httpx.AsyncHTTPTransport(limits=limits), base_url=url)

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

    async def health(self) -> dict[str, Any]:
        """What the engine runs on, how strong its isolation is, and whether it is well."""
        return _object(await self._call("GET", "/health"))

    async def templates(self) -> list[dict[str, Any]]:
        """Every template that is ready to use."""
        return _array(await self._call("GET", "/templates"))

    async def template(self, name: str) -> dict[str, Any]:
        """One template by name or alias."""
        return _object(await self._call("GET", "/templates/" + quote(name, safe="")))

    async def create(self, sandbox_id: str, template: str, snapshot: str | None = None) -> dict[str, Any]:
        """Restore a machine of ``template``, or of ``snapshot`` when it is given.

        Returns when its guest executes commands. A refusal for capacity created nothing.
        """
        source = {"template": template} if snapshot is None else {"snapshot": snapshot}
        return _object(await self._call("POST", "/sandboxes", {"id": sandbox_id, **source}))

    async def sandboxes(self) -> list[dict[str, Any]]:
        """Every machine of the engine with its state."""
        return _array(await self._call("GET", "/sandboxes"))

    async def sandbox(self, sandbox_id: str) -> dict[str, Any]:
        """One machine, with what it uses."""
        return _object(await self._call("GET", f"/sandboxes/{sandbox_id}"))

    async def delete(self, sandbox_id: str) -> None:
        """End a machine and free all it has."""
        await self._call("DELETE", f"/sandboxes/{sandbox_id}")

    async def pause(self, sandbox_id: str) -> None:
        """Stop the machine's CPUs; its memory stays."""
        await self._call("POST", f"/sandboxes/{sandbox_id}/pause")

    async def resume(self, sandbox_id: str) -> None:
        """Let the CPUs of a paused machine go on."""
        await self._call("POST", f"/sandboxes/{sandbox_id}/resume")

    async def hibernate(self, sandbox_id: str) -> dict[str, Any]:
        """Put the machine on disk and end it: what that took; empty when it was there already."""
        return _object(await self._call("POST", f"/sandboxes/{sandbox_id}/hibernate"))

    async def wake(self, sandbox_id: str) -> dict[str, Any]:
        """Bring a hibernated machine back; empty when it was running already."""
        return _object(await self._call("POST", f"/sandboxes/{sandbox_id}/wake"))

    async def snapshot(self, sandbox_id: str, snapshot_id: str) -> dict[str, Any]:
        """Capture the machine under a new id; it goes on running."""
        path = f"/sandboxes/{sandbox_id}/snapshots"
        return _object(await self._call("POST", path, {"id": snapshot_id}, limit=_LONG))

    async def snapshots(self) -> list[dict[str, Any]]:
        """Every snapshot that was taken of a sandbox and not deleted."""
        return _array(await self._call("GET", "/snapshots"))

    async def measure(self, going: Sequence[str]) -> dict[str, Any]:
        """``total_bytes``, ``free_bytes`` and ``reserve_bytes`` of the engine's storage, and in ``frees`` for each of
        these snapshots the bytes that become free when it is deleted after those before it."""
        return _object(await self._call("POST", "/snapshots/measure", {"ids": list(going)}))

    async def delete_snapshot(self, snapshot_id: str) -> None:
        """Free what a snapshot has."""
        await self._call("DELETE", f"/snapshots/{snapshot_id}")

    async def fork(self, sandbox_id: str, children: Sequence[str]) -> dict[str, Any]:
        """Copies of the running machine under new ids.

        ``children`` of the answer has for each its machine, or ``error``, ``code`` and ``status``. When none could be
        made the first failure is raised, and nothing was created.
        """
        body = {"children": [{"id": child} for child in children]}
        return _object(await self._call("POST", f"/sandboxes/{sandbox_id}/fork", body))

    async def rewind(self, sandbox_id: str, snapshot_id: str) -> dict[str, Any]:
        """The same sandbox, continued from a snapshot. After a failure its machine may be gone."""
        return _object(await self._call("POST", f"/sandboxes/{sandbox_id}/rewind", {"snapshot": snapshot_id}))

    async def diff(self, before: Mapping[str, str], after: Mapping[str, str], patch: bool) -> dict[str, Any]:
        """What differs between the files of two states of the same template.

        Each is ``{"sandbox": id}``, ``{"snapshot": id}`` or ``{"template": name}``.
        """
        body = {"from": before, "to": after, "patch": patch}
        return _object(await self._call("POST", "/diff", body, limit=_LONG))

    @asynccontextmanager
    async def exec(self, sandbox_id: str, command: Mapping[str, Any]) -> AsyncIterator[AsyncIterator[Record]]:
        """Run a command: yields its records, the result last.

        Leaving the block early kills the command, or with ``leave`` in it lets it go on.
        """
        path = f"/sandboxes/{sandbox_id}/exec"
        async with self._stream("POST", path, content=to_json(command)) as response:
            yield _records(response)

    async def start_process(self, sandbox_id: str, command: Mapping[str, Any]) -> dict[str, Any]:
        """Start a process with the id in ``command``; it runs whether anybody looks at it or not."""
        return _object(await self._call("POST", f"/sandboxes/{sandbox_id}/processes", command))

    async def processes(self, sandbox_id: str) -> dict[str, Any]:
        """``processes`` with the records of the guest, and ``retention``: what it keeps."""
        return _object(await self._call("GET", f"/sandboxes/{sandbox_id}/processes"))

    async def process(self, sandbox_id: str, process: str) -> dict[str, Any]:
        """One record, by id or pid."""
        return _object(await self._call("GET", _process(sandbox_id, process)))

    @asynccontextmanager
    async def attach(
        self, sandbox_id: str, process: str, *, stdout: int | None, stderr: int | None, follow: bool
    ) -> AsyncIterator[AsyncIterator[Record]]:
        """Look at a process's output from these offsets on (None: not at all): yields records, the result last."""
        wanted = {"stdout": stdout, "stderr": stderr, "follow": int(follow)}
        params = {name: str(value) for name, value in wanted.items() if value is not None}
        async with self._stream("GET", _process(sandbox_id, process, "/output"), params=params) as response:
            yield _records(response)

    async def send_input(self, sandbox_id: str, process: str, data: bytes | AsyncIterator[bytes], close: bool) -> int:
        """Write to a process's standard input, and end it with ``close``. Waits while it does not read."""
        url = _process(sandbox_id, process, "/stdin")
        async with self._stream("POST", url, params={"close": str(int(close))}, content=data) as response:
            return int(_object(_decoded(await response.aread()))["bytes"])

    async def signal(self, sandbox_id: str, process: str, number: int) -> None:
        """Send a signal to a process's group."""
        await self._call("POST", _process(sandbox_id, process, "/signal"), {"signal": number})

    async def resize(self, sandbox_id: str, process: str, rows: int, columns: int) -> None:
        """Give a process's terminal another size."""
        await self._call("POST", _process(sandbox_id, process, "/resize"), {"rows": rows, "cols": columns})

    @asynccontextmanager
    async def exchange(self, sandbox_id: str, path: str, data: bytes) -> AsyncIterator[AsyncIterator[bytes]]:
        """Send ``data`` to the Unix socket ``path`` in the guest: yields what comes back, to its end.

        Raises :class:`NotFoundError` when nothing listens there.
        """
        url = f"/sandboxes/{sandbox_id}/connect"
        async with self._stream("POST", url, params={"path": path}, content=data) as response:
            yield response.aiter_raw()

    @asynccontextmanager
    async def read_file(
        self, sandbox_id: str, path: str, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[tuple[int | None, AsyncIterator[bytes]]]:
        """A file of the guest: its length in bytes, when the engine says it, and its content from ``offset``."""
        part = {"offset": str(offset)} if offset else {}
        part |= {} if length is None else {"length": str(length)}
        async with self._stream("GET", f"/sandboxes/{sandbox_id}/files", params={"path": path, **part}) as response:
            length = response.headers.get("content-length")
            yield None if length is None else int(length), response.aiter_raw()

    async def write_file(self, sandbox_id: str, path: str, content: AsyncIterator[bytes]) -> dict[str, Any]:
        """Replace a file of the guest. An exception from ``content`` breaks the transfer off and is raised here."""
        url = f"/sandboxes/{sandbox_id}/files"
        async with self._stream("PUT", url, params={"path": path}, content=content) as response:
            return _object(_decoded(await response.aread()))

    async def delete_file(self, sandbox_id: str, path: str) -> None:
        """Delete a file or directory with all in it; a missing one is fine."""
        await self._call("DELETE", f"/sandboxes/{sandbox_id}/files", params={"path": path})

    async def directory(self, sandbox_id: str, path: str) -> dict[str, Any]:
        """The entries of a directory of the guest."""
        return _object(await self._call("GET", f"/sandboxes/{sandbox_id}/directory", params={"path": path}))

    async def stat(self, sandbox_id: str, path: str) -> dict[str, Any]:
        """One entry of the guest's file system."""
        return _object(await self._call("GET", f"/sandboxes/{sandbox_id}/stat", params={"path": path}))

    async def console(self, sandbox_id: str) -> str:
        """The end of what the machine wrote to its console."""
        async with self._stream("GET", f"/sandboxes/{sandbox_id}/console") as response:
            return (await response.aread()).decode(errors="replace")

    async def events(self) -> AsyncGenerator[dict[str, Any] | None, None]:
        """What happens on the engine, endlessly; None as a sign of life.

        The first item is None: from then on no event is missed.
        """
        silence = httpx.Timeout(_ANSWER_SECONDS, read=_EVENTS_SILENCE_SECONDS)
        async with self._stream("GET", "/events", timeout=silence) as response:
            async for line in response.aiter_lines():
                yield _object(_decoded(line)) if line else None

    async def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        limit: httpx.Timeout = _LIMIT,
    ) -> Any:
        content = None if body is None else to_json(body)
        async with self._stream(method, path, content=content, params=params, timeout=limit) as response:
            text = await response.aread()
        return _decoded(text) if text else None

    @asynccontextmanager
    async def _stream(
        self,
        method: str,
        path: str,
        *,
        content: bytes | AsyncIterator[bytes] | None = None,
        params: Mapping[str, str] | None = None,
        timeout: httpx.Timeout = _NO_LIMIT,
    ) -> AsyncIterator[httpx.Response]:
        target = f"{path}?{httpx.QueryParams(params)}" if params else path
        request = httpx.Request(
            method,
            self._base_url.copy_with(raw_path=target.encode("ascii")),
            content=content,
            headers=_JSON if isinstance(content, bytes) else None,
            extensions={"timeout": timeout.as_dict()},
        )
        with _transport_errors():  # around the caller's block too: that is where the body is read
            response = await self._transport.handle_async_request(request)
            try:
                if response.is_error:
                    await response.aread()
                    raise _error(response)
                yield response
            finally:
                await response.aclose()


def _process(sandbox_id: str, process: str, rest: str = "") -> str:
    return f"/sandboxes/{sandbox_id}/processes/{quote(process, safe='')}{rest}"


async def _records(response: httpx.Response) -> AsyncIterator[Record]:
    parser = RecordParser()
    async for data in response.aiter_raw():
        for record in parser.feed(data):
            yield record
            if isinstance(record, ExecResult | StillRunning):
                return
    raise UnavailableError("the engine ended the command's output without a result; the outcome is unknown")


@contextmanager
def _transport_errors() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        # Neither the kind nor the text of the cause belongs in the message: clients act on words like "timeout".
        log.warning("engine does not answer", cause=repr(error))
        broken = isinstance(error, httpx.RemoteProtocolError | httpx.ReadError)
        raise UnavailableError(f"the engine {'aborted its answer' if broken else 'does not answer'}") from error


def _error(response: httpx.Response) -> PandastackError:
    try:
        body = from_json(response.content)
    except ValueError:
        body = None
    if not isinstance(body, Mapping):
        return ServerError(f"the engine failed with HTTP {response.status_code}")
    error = from_body(response.status_code, body)
    retry_after = response.headers.get("retry-after", "")
    if isinstance(error, CapacityError) and retry_after.isdecimal():
        error.retry_after = int(retry_after)
    return error


def _decoded(text: str | bytes) -> Any:
    try:
        return from_json(text)
    except ValueError as error:
        raise ServerError("the engine's answer is not JSON") from error


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ServerError("the engine's answer is not an object")
    return value


def _array(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise ServerError("the engine's answer is not an array")
    return value
