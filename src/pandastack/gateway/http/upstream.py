"""HTTP/1.1 to what listens in sandboxes, over streams that are used again while they are fresh."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import h11
import structlog
from anyio.abc import ByteStream, TaskGroup

from pandastack.errors import GuestError, PandastackError, ServerError, UnavailableError
from pandastack.gateway.control import Control
from pandastack.gateway.reach import Reach
from pandastack.gateway.stream import SleepingStream
from pandastack.model.previews import Waker

MOST_HEAD_BYTES = 256 * 1024
"""The longest head of a response."""
_PIECE = 256 * 1024
_IDLE_SECONDS = 4.0
"""Shorter than servers keep an idle connection: the usual least is 5 s."""
_MOST_IDLE = 32
"""Idle connections to one port."""

log = structlog.get_logger(__name__)

_Key = tuple[str, int, Waker]
"""A connection is used again only for requests that may wake the sandbox as the one that it was made for."""


class Upstream:
    """One connection to a server in a guest, or to the control plane, which answers for functions."""

    def __init__(self) -> None:
        self.http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MOST_HEAD_BYTES)
        self.stream: ByteStream
        self.is_reused = False
        self.idle_since = 0.0
        self.opened, self.done = anyio.Event(), anyio.Event()
        self.failure: PandastackError | None = None
        self.no_answer: PandastackError = GuestError(
            "the server in the sandbox closed the connection without an answer, or sent a wrong one"
        )
        """What is said when the connection breaks before there is an answer."""

    @property
    def is_quiet(self) -> bool:
        """Whether it leads into a sandbox, and nothing of it was not received."""
        return isinstance(self.stream, SleepingStream) and self.stream.tunnel.is_quiet

    def encode(self, event: h11.Event) -> bytes:
        """What :meth:`send` is to send for an event."""
        return self.http.send(event) or b""

    async def send(self, data: bytes) -> None:
        """Send bytes of events, if there are any."""
        if data:
            await self.stream.send(data)

    async def next_event(self) -> h11.Event:
        """The next event; raises ``h11.RemoteProtocolError``, and the stream's errors."""
        while (event := self.http.next_event()) is h11.NEED_DATA:
            await self.receive()
        return event  # type: ignore[return-value]

    async def receive(self) -> None:
        """Receive more of what events are made of."""
        try:
            self.http.receive_data(await self.stream.receive(_PIECE))
        except anyio.EndOfStream:
            self.http.receive_data(b"")

    def is_reusable(self) -> bool:
        """Whether another request may be sent."""
        return self.http.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE} and self.is_quiet


class Upstreams:
    """The connections to all servers. Made by :func:`open_upstreams`."""

    def __init__(self, reach: Reach, control: Control, tasks: TaskGroup) -> None:
        self._reach = reach
        self._control = control
        self._tasks = tasks
        self._idle: dict[_Key, list[Upstream]] = {}

    async def take(self, sandbox: str, port: int, waker: Waker, *, fresh: bool) -> Upstream:
        """A connection: an idle one, unless it must be ``fresh``. Raises the errors of :meth:`Reach.stream`."""
        idle = self._idle.get((sandbox, port, waker), [])
        while idle and not fresh:
            upstream = idle.pop()
            if upstream.is_quiet:
                upstream.is_reused = True
                return upstream
            upstream.done.set()
        upstream = Upstream()
        self._tasks.start_soon(self._run, sandbox, port, waker, upstream)
        try:
            await upstream.opened.wait()
        except BaseException:
            upstream.done.set()
            raise
        if upstream.failure is not None:
            raise upstream.failure
        return upstream

    @asynccontextmanager
    async def to_control(self) -> AsyncIterator[Upstream]:
        """A connection to the control plane, for one request. Raises :class:`UnavailableError`."""
        upstream = Upstream()
        upstream.no_answer = UnavailableError("the server ended before it had answered")
        async with await self._control.dial() as upstream.stream:
            yield upstream

    def give_back(self, sandbox: str, port: int, waker: Waker, upstream: Upstream) -> None:
        """Keep the connection for another request, or end it."""
        idle = self._idle.setdefault((sandbox, port, waker), [])
        if not upstream.is_reusable() or len(idle) >= _MOST_IDLE:
            upstream.done.set()
            return
        upstream.http.start_next_cycle()
        upstream.idle_since = anyio.current_time()
        idle.append(upstream)

    async def _run(self, sandbox: str, port: int, waker: Waker, upstream: Upstream) -> None:
        """The connection's life, in a task of its own: closing it costs no client time."""
        try:
            async with self._reach.stream(sandbox, port=port, waker=waker) as upstream.stream:
                upstream.opened.set()
                await upstream.done.wait()
        except PandastackError as error:
            upstream.failure = error
        except Exception as error:  # one connection's trouble is not another's
            log.error("gateway.stream_failed", sandbox_id=sandbox, exc_info=error)
            upstream.failure = ServerError("the connection into the sandbox failed")
        finally:
            upstream.opened.set()

    async def clean(self) -> None:
        """End what was idle for too long or went to sleep, until cancelled."""
        while True:
            await anyio.sleep(1)
            now = anyio.current_time()
            for key, idle in list(self._idle.items()):
                stale = [each for each in idle if now - each.idle_since > _IDLE_SECONDS or not each.is_quiet]
                for each in stale:
                    each.done.set()
                    idle.remove(each)
                if not idle:
                    del self._idle[key]


@asynccontextmanager
async def open_upstreams(reach: Reach, control: Control) -> AsyncIterator[Upstreams]:
    """The connections, which live inside the block."""
    async with anyio.create_task_group() as tasks:
        upstreams = Upstreams(reach, control, tasks)
        tasks.start_soon(upstreams.clean)
        yield upstreams
        tasks.cancel_scope.cancel()
