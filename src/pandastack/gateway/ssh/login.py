"""One client that has logged in: its sandbox, and all that it opens there."""

from __future__ import annotations

import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import asyncssh
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import ByteStream, TaskGroup, TaskStatus

from pandastack.cluster.tunnel import Tunnel
from pandastack.errors import PandastackError
from pandastack.gateway.ssh.relay import Left, relay
from pandastack.gateway.ssh.seams import Streams

_TAKEN_SECONDS = 30.0
"""How long a connection that was made waits for its channel."""
_FREE_PORTS = range(32768, 60999)
_TRIES = 8

log = structlog.get_logger(__name__)

Pipe = tuple[asyncssh.SSHReader[bytes], asyncssh.SSHWriter[bytes]]
Handler = Callable[[asyncssh.SSHReader[bytes], asyncssh.SSHWriter[bytes]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Where:
    """A place in the guest: a port of its loopback, or a Unix socket."""

    port: int | None = None
    path: str | None = None


class GuestListener(asyncssh.SSHListener):
    """A listener in the guest whose connections go to the client."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.scope = anyio.CancelScope()
        self._port = port
        self._closed = anyio.Event()

    def get_port(self) -> int:
        """The port in the guest."""
        return self._port

    def close(self) -> None:
        """Stop listening."""
        self.scope.cancel()

    async def wait_closed(self) -> None:
        """Return once it no longer listens."""
        await self._closed.wait()

    def closed(self) -> None:
        """Note that it no longer listens."""
        self._closed.set()


class Login:
    """The streams of one connection. ``tasks`` outlive it, and end what it left."""

    def __init__(self, streams: Streams, tasks: TaskGroup, sandbox: str, user: str | None) -> None:
        self.sandbox = sandbox
        self.connection: asyncssh.SSHServerConnection
        self._streams = streams
        self._tasks = tasks
        self._user = user
        self._left = anyio.Event()
        self._agent: str | None = None
        self._listeners: list[GuestListener] = []

    def start_soon(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run ``work`` beside the connection; a failure of it is only logged."""
        self._tasks.start_soon(self._guarded, work)

    async def _guarded(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except Exception:
            log.exception("ssh.failed", sandbox_id=self.sandbox)

    def used(self) -> None:
        """Note that the client sent something."""
        self._streams.use(self.sandbox)

    def busy(self) -> AbstractContextManager[None]:
        """What runs in the block is use of the sandbox."""
        return self._streams.busy(self.sandbox)

    def stream(self, *, service: str) -> AbstractAsyncContextManager[ByteStream]:
        """A stream to a service of the guest's agent, as the user of this login."""
        return self._streams.stream(self.sandbox, service=service, user=self._user)

    async def hold(self) -> None:
        """Keep the sandbox as long as the client is connected."""
        with self._streams.connection(self.sandbox):
            await self._left.wait()

    def leave(self) -> None:
        """The client has disconnected."""
        self._left.set()
        for listener in self._listeners:
            listener.close()

    async def environment(self) -> dict[str, str]:
        """What sessions of this connection have in their environment."""
        address, port = self.connection.get_extra_info("peername")[:2]
        env = {"SSH_CONNECTION": f"{address} {port} 127.0.0.1 22", "SSH_CLIENT": f"{address} {port} 22"}
        if self.connection.get_agent_path() is None:
            return env
        if self._agent is None:
            path = f"/tmp/.ssh-agent-{secrets.token_hex(8)}"
            try:
                await self._listen(Where(path=path), self.connection.open_agent_connection)
            except OSError as error:  # the session is useful without
                log.info("ssh.no_agent", sandbox_id=self.sandbox, cause=repr(error))
                return env
            self._agent = path
        return env | {"SSH_AUTH_SOCK": self._agent}

    async def connect(self, where: Where) -> Handler:
        """Connect to ``where``; the handler of the channel passes the bytes.

        Raises :class:`asyncssh.ChannelOpenError` when nothing listens there.
        """
        dialed = _Dialed(self, where)
        try:
            await self._tasks.start(dialed.run)
        except PandastackError as error:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, error.message) from error
        return dialed.take

    @asynccontextmanager
    async def dial(self, where: Where) -> AsyncIterator[ByteStream]:
        """A stream to ``where``."""
        async with self._streams.stream(self.sandbox, port=where.port, path=where.path) as stream:
            yield stream

    async def listen_port(self, host: str, port: int) -> GuestListener:
        """Listen at a port of the guest's loopback (0: any) for the client. Raises :class:`OSError`."""

        async def open_channel(at: int) -> Pipe:
            return await self.connection.open_connection(host, at)

        for _ in range(1 if port else _TRIES):
            wanted = port or random.choice(_FREE_PORTS)
            try:
                return await self._listen(Where(port=wanted), partial(open_channel, wanted))
            except OSError as error:
                failure = error
        raise failure

    async def listen_path(self, path: str) -> GuestListener:
        """Listen at a Unix socket in the guest for the client. Raises :class:`OSError`."""

        async def open_channel() -> Pipe:
            return await self.connection.open_unix_connection(path)

        return await self._listen(Where(path=path), open_channel)

    async def _listen(self, where: Where, open_channel: Callable[[], Awaitable[Pipe]]) -> GuestListener:
        listener = GuestListener(where.port or 0)
        try:
            await self._streams.wake(self.sandbox)
            await self._tasks.start(self._serve, listener, where, open_channel)
        except PandastackError as error:
            raise OSError(error.message) from error
        self._listeners.append(listener)
        return listener

    async def _serve(
        self,
        listener: GuestListener,
        where: Where,
        open_channel: Callable[[], Awaitable[Pipe]],
        *,
        task_status: TaskStatus[None] = TASK_STATUS_IGNORED,
    ) -> None:
        started = False

        class Status(TaskStatus[None]):
            def started(self, value: None = None) -> None:
                nonlocal started
                started = True
                task_status.started()

        def take(tunnel: Tunnel) -> None:
            self.start_soon(lambda: self._carry_back(tunnel, open_channel))

        try:
            with listener.scope:
                await self._streams.listen(self.sandbox, take, port=where.port, path=where.path, task_status=Status())
        except PandastackError as error:
            if not started:
                raise
            log.info("ssh.listener_ended", sandbox_id=self.sandbox, cause=repr(error))
        finally:
            listener.closed()

    async def _carry_back(self, tunnel: Tunnel, open_channel: Callable[[], Awaitable[Pipe]]) -> None:
        try:
            async with self._streams.accepted(self.sandbox, tunnel) as stream:
                reader, writer = await open_channel()
                await relay(reader, writer, stream, self.used)
        except (*Left, PandastackError) as error:
            log.debug("ssh.forward_refused", sandbox_id=self.sandbox, cause=repr(error))


class _Dialed:
    """A connection in the guest that was made before its channel is confirmed. Its task owns it."""

    def __init__(self, login: Login, where: Where) -> None:
        self._login = login
        self._where = where
        self._pipe: Pipe | None = None
        self._taken, self._done = anyio.Event(), anyio.Event()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        started = False
        try:
            async with self._login.dial(self._where) as stream:
                started = True
                task_status.started()
                with anyio.move_on_after(_TAKEN_SECONDS):
                    await self._taken.wait()
                if self._pipe is not None:
                    await relay(*self._pipe, stream, self._login.used)
        except PandastackError as error:
            if not started:
                raise
            log.debug("ssh.forward_broke", sandbox_id=self._login.sandbox, cause=repr(error))
        finally:
            self._done.set()

    async def take(self, reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]) -> None:
        self._pipe = reader, writer
        self._taken.set()
        await self._done.wait()
