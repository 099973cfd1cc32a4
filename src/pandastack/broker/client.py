"""The engine's side of the broker: starts its process, gives it the secrets of slots, and starts it again."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import structlog
from anyio.abc import UNIXSocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from pandastack.broker import messages
from pandastack.broker.authority import CaFiles, open_ca
from pandastack.broker.bindings import Binding, Use
from pandastack.errors import ServerError, UnavailableError
from pandastack.host.tasks import beside

_ORDER_SECONDS = 5.0
_START_SECONDS = 30.0
"""How long a new process may take to answer. A host that is too busy for that is no less so at the next try."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_LONG_ENOUGH = 10.0
"""Seconds after which a process that ends is started again at once."""

_BACKLOG = 256

log = structlog.get_logger(__name__)


class BrokerClient:
    """The broker of an engine. Made by :func:`open_broker`.

    What was bound is remembered, in memory only, and bound again in a process that takes the place of a dead one.
    Until then handed over connections wait, or are refused.
    """

    def __init__(self, ca: CaFiles, path: Path, on_use: Callable[[Use], None]) -> None:
        self.ca_pem = ca.certificate
        """What guests must trust."""
        self.socket = path
        """Where connections are handed over: see :mod:`pandastack.broker.messages`."""
        self._ca = ca
        self._on_use = on_use
        self._bindings: dict[str, tuple[Binding, ...]] = {}
        self._orders: UNIXSocketStream | None = None
        self._pid: int | None = None
        self._waiting: dict[int, anyio.Event] = {}
        self._number = 0
        self._sending = anyio.Lock()

    @property
    def pid(self) -> int | None:
        """The process id of the broker, while it runs."""
        return self._pid

    async def bind(self, slot: str, bindings: Sequence[Binding]) -> None:
        """Give a slot its secrets, in the place of those it had; returns when they are in force. Its connections end.

        Raises :class:`UnavailableError` when the broker does not answer; it gets them as soon as it runs again.
        """
        self._bindings[slot] = tuple(bindings)
        await self._order(do="bind", slot=slot, bindings=messages.encode_bindings(bindings))

    async def unbind(self, slot: str) -> None:
        """Take the secrets of a slot away, and end its connections. A broker that is down knows none of them."""
        if self._bindings.pop(slot, None) is not None:
            with suppress(UnavailableError):
                await self._order(do="unbind", slot=slot)

    async def _order(self, seconds: float = _ORDER_SECONDS, **order: Any) -> None:
        if self._orders is None:
            raise UnavailableError("the secret broker is not running", hint="it is being started again; try again")
        number, done = self._number + 1, anyio.Event()
        self._number, self._waiting[number] = number, done
        try:
            with anyio.fail_after(seconds):
                async with self._sending:
                    await self._orders.send(messages.line({"id": number, **order}))
                await done.wait()
        except (TimeoutError, OSError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise UnavailableError("the secret broker does not answer") from error
        finally:
            del self._waiting[number]

    async def keep_running(self, argv: Sequence[str], listener: socket.socket, started: anyio.Event) -> None:
        """Run the process, and run it again when it ends, until cancelled."""
        pause = _FIRST_PAUSE
        while True:
            since = anyio.current_time()
            try:
                await self._run(argv, listener, started)
            except Exception as error:  # a broker that cannot run must not end the engine
                log.error("broker.failed", cause=repr(error))
            if anyio.current_time() - since > _LONG_ENOUGH:
                pause = _FIRST_PAUSE
            log.warning("broker.ended", again_in_seconds=pause)
            await anyio.sleep(pause)
            pause = min(_LONGEST_PAUSE, 2 * pause)

    async def _run(self, argv: Sequence[str], listener: socket.socket, started: anyio.Event) -> None:
        ours, theirs = socket.socketpair()
        async with await UNIXSocketStream.from_socket(ours) as orders:
            with theirs:
                words = [*argv, "--orders", str(theirs.fileno()), "--listener", str(listener.fileno())]
                process = await anyio.open_process(
                    words, stdin=None, stdout=None, stderr=None, pass_fds=(theirs.fileno(), listener.fileno())
                )
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._begin, orders, process.pid, started)
                    await self._listen(orders)
                    tasks.cancel_scope.cancel()
            finally:
                self._orders = self._pid = None
                with anyio.CancelScope(shield=True):
                    with suppress(ProcessLookupError):
                        process.kill()
                    await process.wait()

    async def _begin(self, orders: UNIXSocketStream, pid: int, started: anyio.Event) -> None:
        self._orders = orders
        await self._order(_START_SECONDS, do="start", certificate=self._ca.certificate, key=self._ca.key)
        for slot, bindings in list(self._bindings.items()):
            await self._order(do="bind", slot=slot, bindings=messages.encode_bindings(bindings))
        self._pid = pid
        started.set()

    async def _listen(self, orders: UNIXSocketStream) -> None:
        """Take what the broker says, until it ends."""
        reader = BufferedByteReceiveStream(orders)
        with suppress(anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
            while True:
                said = json.loads(await reader.receive_until(b"\n", messages.ORDER_LIMIT))
                if "use" in said:
                    self._on_use(messages.decode_use(said["use"]))
                elif waiting := self._waiting.get(said["done"]):
                    waiting.set()


@asynccontextmanager
async def open_broker(
    directory: Path,
    uid: int | None,
    on_use: Callable[[Use], None],
    *,
    sockets: Path | None = None,
    callers: Collection[int] = (),
    trust: Path | None = None,
) -> AsyncIterator[BrokerClient]:
    """Run a broker inside the block.

    ``directory`` keeps the installation's certificate authority; the values of secrets are never written anywhere.
    ``uid``: the user that the process becomes (None: ours). ``sockets``: where the socket is (default: ``directory``).
    ``callers``: the users who may hand connections over, besides ours. ``trust``: PEM file of the authorities that
    vouch for hosts (default: those of this host). Raises :class:`ServerError` when the process does not start.
    """
    ca = await anyio.to_thread.run_sync(open_ca, directory)
    path = (sockets or directory) / "broker.sock"
    with _listening(path, callers) as listener:
        client = BrokerClient(ca, path, on_use)
        argv = [sys.executable, "-m", "pandastack.broker", *_options(uid, callers, trust)]
        started = anyio.Event()
        async with beside(partial(client.keep_running, argv, listener, started)):
            with anyio.move_on_after(2 * _START_SECONDS):
                await started.wait()
            if not started.is_set():
                raise ServerError("the secret broker does not start", hint="the log of the server has its output")
            yield client


def _options(uid: int | None, callers: Collection[int], trust: Path | None) -> list[str]:
    may = map(str, sorted({os.geteuid(), *callers}))
    return [
        *([] if uid is None else ["--uid", str(uid)]),
        *([] if trust is None else ["--trust", str(trust)]),
        "--callers",
        *may,
    ]


@contextmanager
def _listening(path: Path, callers: Collection[int]) -> Iterator[socket.socket]:
    """A socket of handovers that exists while the block runs."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        path.chmod(0o666 if callers else 0o600)  # the broker checks the credentials of who connects
        listener.listen(_BACKLOG)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)
