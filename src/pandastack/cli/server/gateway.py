"""The server's side of its gateway: starts it or takes it over, holds its leash, starts it again when it dies."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import structlog
import uvicorn
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from pandastack.api.errors import error_response
from pandastack.errors import NotFoundError, PandastackError, ServerError
from pandastack.gateway.options import Options
from pandastack.host.tasks import beside

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

LOG_FILE = "gateway.log"
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_LONGEST_PAUSE = 10.0
_LINE_BYTES = 4096
_TUNNEL = re.compile("/sandboxes/[^/]{1,64}/(tunnel|listen)")

log = structlog.get_logger(__name__)


class GatewayProcess:
    """The gateway of this server, which may be older than the server. Made by :func:`open_gateway`."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.ports: dict[str, int] = {}
        """The port of each open door: ``http``, ``ssh``, ``postgres``."""
        self.pid = 0
        """The process, once it answered."""
        self._process: subprocess.Popen[bytes] | None = None
        self._leash: SocketStream | None = None

    async def open(self, *, fallback: Collection[str] = ()) -> None:
        """Take the leash of the gateway that runs, if it is the wanted one, or start one. Raises :class:`ServerError`.

        A gateway of before that has other options is stopped first: it may hold the port. Of the ports in ``fallback``
        (such as ``http_port``), one that another program has is replaced by a free one.
        """
        answer = await self.ask()
        if answer is not None and answer.get("other"):
            await self.stop()
            answer = None
        deadline = anyio.current_time() + _START_SECONDS
        if answer is None:
            if fallback:
                self.options = _with_free_ports(self.options, fallback)
            await anyio.to_thread.run_sync(self._start)
        while answer is None:
            if (self._process is not None and self._process.poll() is not None) or anyio.current_time() > deadline:
                await self.stop()
                raise ServerError(
                    f"the gateway did not start:\n{self._last_words()}",
                    hint="choose another --gateway-port, --ssh-port or --postgres-port",
                )
            await anyio.sleep(0.02)
            answer = await self.ask()
        self.ports = {str(name): int(port) for name, port in answer["ports"].items()}

    async def keep(self) -> None:
        """Start the gateway again whenever it dies, at the same ports, until cancelled."""
        pause = 0.1
        while True:
            began = time.monotonic()
            await self._until_gone()
            log.warning("gateway.died", pid=self.pid)
            await self.let_go()
            await anyio.to_thread.run_sync(self.reap)
            pause = 0.1 if time.monotonic() - began > 60 else min(pause * 2, _LONGEST_PAUSE)
            await anyio.sleep(pause)
            self.options = replace(
                self.options,
                http_port=self.ports.get("http", self.options.http_port),
                ssh_port=self.ports.get("ssh", self.options.ssh_port),
                postgres_port=self.ports.get("postgres", self.options.postgres_port),
            )
            with suppress(PandastackError):
                await self.open()

    async def stop(self) -> None:
        """End the gateway, kindly at first."""
        if self._leash is not None:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await self._leash.send(b"stop\n")
        with anyio.move_on_after(_STOP_SECONDS, shield=True):
            await self._until_gone()
        if self._process is not None or self.pid:
            await anyio.to_thread.run_sync(self.reap)
        await self.let_go()

    async def let_go(self) -> None:
        """Drop the leash, as a server does that is killed."""
        if self._leash is not None:
            await self._leash.aclose()
            self._leash = None

    async def ask(self) -> dict[str, Any] | None:
        """Take the leash; what the gateway answers, None when there is none."""
        try:
            leash = await anyio.connect_unix(self.options.leash)
        except OSError:
            return None
        try:
            await leash.send(self.options.text().encode() + b"\n")
            with anyio.fail_after(_START_SECONDS):
                line = await BufferedByteReceiveStream(leash).receive_until(b"\n", _LINE_BYTES)
            answer: dict[str, Any] = json.loads(line)
        except (anyio.BrokenResourceError, anyio.EndOfStream, anyio.IncompleteRead, TimeoutError, ValueError):
            await leash.aclose()
            return None
        self._leash, self.pid = leash, int(str(answer["pid"]))
        return answer

    async def _until_gone(self) -> None:
        """Return once the gateway has let go of its end of the leash."""
        if self._leash is not None:
            with suppress(anyio.BrokenResourceError, anyio.EndOfStream, anyio.ClosedResourceError):
                while True:
                    await self._leash.receive()

    def _start(self) -> None:
        argv = [sys.executable, "-m", "pandastack.gateway", self.options.text()]
        with (Path(self.options.data) / LOG_FILE).open("ab") as output:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self.pid = self._process.pid

    def reap(self) -> None:
        """Wait for the process, and kill it when it hangs."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            descriptor = -1
        if descriptor >= 0:
            try:
                if not select.select([descriptor], [], [], 2.0)[0] and self._is_ours():
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    select.select([descriptor], [], [], 2.0)
            except ProcessLookupError:
                pass
            finally:
                os.close(descriptor)
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
            self._process = None
        self.pid = 0

    def _is_ours(self) -> bool:
        """Whether the pid is still a gateway's: its number may have been given to another process."""
        with suppress(OSError):
            return b"pandastack.gateway" in Path(f"/proc/{self.pid}/cmdline").read_bytes()
        return False

    def _last_words(self) -> str:
        with suppress(OSError):
            return "\n".join((Path(self.options.data) / LOG_FILE).read_text(errors="replace").splitlines()[-5:])
        return ""


@asynccontextmanager
async def open_gateway(
    options: Options, engine: ASGIApp, control: ASGIApp, *, fallback: Collection[str] = ()
) -> AsyncIterator[GatewayProcess]:
    """Serve the gateway what it needs, and keep it running inside the block; afterwards it is gone.

    Of the ports in ``fallback`` (such as ``http_port``), one that another program has is replaced by a free one.
    """
    make_directory(Path(options.directory), options.uid)
    gateway = GatewayProcess(options)
    async with beside(
        partial(_answer, only_tunnels(engine), options.engine, options.uid),
        partial(_answer, control, options.control, options.uid),
    ):
        try:
            await gateway.open(fallback=fallback)
            async with beside(gateway.keep):
                yield gateway
        finally:
            with anyio.CancelScope(shield=True):
                await gateway.stop()
            for left in (options.inner, options.leash):  # the directory is not the gateway's
                left.unlink(missing_ok=True)


def make_directory(path: Path, uid: int | None) -> None:
    """The directory of the sockets. A gateway with a user of its own may enter it, and make nothing in it: the server
    connects to sockets there as root, and must find those that root has made."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if uid is not None:
        os.chown(path, 0, uid)
    path.chmod(0o700 if uid is None else 0o710)


def only_tunnels(engine: ASGIApp) -> ASGIApp:
    """The engine as the gateway may use it: it reads what strangers send, and has no business but to pass bytes."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and _TUNNEL.fullmatch(scope["path"]):
            await engine(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await error_response(NotFoundError("the gateway may only open tunnels"))(scope, receive, send)

    return app


def _with_free_ports(options: Options, names: Collection[str]) -> Options:
    ports = {name: getattr(options, name) for name in names}
    moved: dict[str, Any] = {name: 0 for name, port in ports.items() if port and not _is_free(options.host, port)}
    return replace(options, **moved)


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


async def _answer(app: ASGIApp, path: Path, uid: int | None) -> None:
    """Serve an application on a Unix socket of the user ``uid`` (None: this one) until cancelled."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with listener:
        listener.bind(str(path))
        path.chmod(0o600)
        if uid is not None:
            os.chown(path, uid, uid)
        configuration = uvicorn.Config(
            app,
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,  # answers of functions are passed on as they are
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
            ws_max_size=1024 * 1024 + 1024,
            ws_per_message_deflate=False,
            ws_ping_interval=None,  # both ends are on this host
        )
        server = _Server(configuration)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_serve_to_its_end, server, listener)
                try:
                    await anyio.sleep_forever()
                finally:
                    server.should_exit = True
        finally:
            path.unlink(missing_ok=True)


async def _serve_to_its_end(server: uvicorn.Server, listener: socket.socket) -> None:
    """A cancelled server would leave the tasks of its connections behind: it is told to end instead."""
    with anyio.CancelScope(shield=True):
        await server.serve([listener])


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the caller's
