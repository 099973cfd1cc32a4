"""The control plane's side of the recording proxy: starts its process for one build, and gives it connections."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path

import anyio
from anyio.abc import ByteStream, UNIXSocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from pandastack.contract.codec import decode_answer, encode
from pandastack.errors import PandastackError, ServerError
from pandastack.recorder.messages import LINE_LIMIT, Mode, Ready, Report, Start
from pandastack.recorder.pair import PairStream

_START_SECONDS = 60.0
_END_SECONDS = 600.0
"""How long fetches may take that run when a build ends."""
_REFETCH_SECONDS = 3600.0
_GONE = (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, anyio.IncompleteRead)


class Recorder:
    """A running process. Made by :func:`open_recorder`. ``certificate`` is what the guest is to trust, as PEM."""

    def __init__(self, orders: UNIXSocketStream, connections: UNIXSocketStream) -> None:
        self.certificate = ""
        self._orders = orders
        self._reader = BufferedByteReceiveStream(orders)
        self._connections = connections
        self._sending = anyio.Lock()

    async def start(self, start: Start) -> None:
        """Say what it is to do. Raises :class:`ServerError`."""
        with _answering(_START_SECONDS):
            await self._orders.send(encode(start) + b"\n")
            if start.mode is not Mode.REFETCH:
                self.certificate = decode_answer(Ready, await self._line()).certificate

    async def carry(self, guest: ByteStream) -> None:
        """Carry one connection of the guest until it ends."""
        ours, theirs = socket.socketpair()
        async with PairStream(ours) as proxy:
            with closing(theirs):
                async with self._sending:
                    await self._connections.send_fds(b"c", [theirs.fileno()])
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_pump, guest, proxy)
                await _pump(proxy, guest)
                tasks.cancel_scope.cancel()  # the proxy has ended: nobody reads what the guest still sends

    async def finish(self) -> Report:
        """End the build, and learn what was fetched and what was refused. Raises :class:`ServerError`."""
        with _answering(_END_SECONDS):
            await self._orders.send(b"\n")
            return decode_answer(Report, await self._line())

    async def refetched(self) -> Report:
        """The result of a refetch. Raises :class:`ServerError`."""
        with _answering(_REFETCH_SECONDS):
            return decode_answer(Report, await self._line())

    async def _line(self) -> bytes:
        return await self._reader.receive_until(b"\n", LINE_LIMIT)


async def _pump(source: ByteStream, target: ByteStream) -> None:
    """Copy bytes until one side is gone; the end is passed on."""
    with suppress(*_GONE, PandastackError):
        async for piece in source:
            await target.send(piece)
        await target.send_eof()


@asynccontextmanager
async def open_recorder(directory: Path, start: Start, uid: int | None) -> AsyncIterator[Recorder]:
    """Run the process while the block runs.

    ``directory`` has the bodies of a replay, and gets those that are fetched. ``uid``: the user that the process
    becomes (None: ours); a directory that it writes to is that user's. Raises :class:`ServerError`.
    """
    with socketpair() as (ours, theirs), socketpair() as (sent, taken), _opened(directory) as bodies:
        options = [("orders", theirs.fileno()), ("connections", taken.fileno()), ("directory", bodies)]
        argv = [sys.executable, "-m", "pandastack.recorder", *(f"--{name}={number}" for name, number in options)]
        argv += [] if uid is None else [f"--uid={uid}"]
        argv += ["--no-network"] if start.mode is Mode.REPLAY and os.geteuid() == 0 else []
        fds = [number for _, number in options]
        process = await anyio.open_process(argv, stdin=None, stdout=None, stderr=None, pass_fds=fds)
        try:
            theirs.close()
            taken.close()
            async with (
                await UNIXSocketStream.from_socket(ours.dup()) as orders,
                await UNIXSocketStream.from_socket(sent.dup()) as connections,
            ):
                recorder = Recorder(orders, connections)
                await recorder.start(start)
                yield recorder
        finally:
            with anyio.CancelScope(shield=True):
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()


@contextmanager
def socketpair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets, closed with the block."""
    one, other = socket.socketpair()
    with one, other:
        yield one, other


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _answering(seconds: float) -> Iterator[None]:
    try:
        with anyio.fail_after(seconds):
            yield
    except (*_GONE, TimeoutError) as error:
        hint = "the log of the server has its output"
        raise ServerError(
            "the recording proxy does not answer", hint=hint, public="the recording proxy failed"
        ) from error
