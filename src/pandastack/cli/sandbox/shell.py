"""``pandastack sandbox shell``: a terminal of a sandbox in this one."""

from __future__ import annotations

import asyncio
import json as codec
import os
import signal
import sys
import termios
import tty
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode, urlsplit, urlunsplit

import typer

from pandastack.cli.connection import Id
from pandastack.errors import ConnectionError, PandastackError, from_body

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

RETRY_SECONDS = 60.0
"""How long a broken connection is retried, in seconds."""
_PAUSE_SECONDS = 0.5
_END_OF_INPUT = b"\x04"
_CHUNK = 16 * 1024
_GOING_AWAY = 1001
"""The close code of a connection whose shell is to keep running."""


def shell(
    sandbox_id: Id,
    attach: Annotated[
        str | None, typer.Option("--attach", metavar="PROCESS", help="The id or pid of an existing terminal.")
    ] = None,
    command: Annotated[str | None, typer.Option("--command", help="A command instead of a login shell.")] = None,
) -> None:
    """Open a shell in a sandbox. The exit status is the shell's.

    A broken connection is reestablished where it stopped. After this terminal closes, the shell stays for five minutes.
    """
    raise typer.Exit(run_terminal(sandbox_id, attach or str(uuid.uuid4()), command))


def run_terminal(sandbox_id: str, terminal_id: str, command: str | None) -> int:
    """Join this terminal to one of a sandbox until its program ends; returns the exit status."""
    from pandastack.config import resolve_client

    settings = resolve_client(None, None)
    terminal = Terminal(settings.api_url, settings.api_key or "", sandbox_id, terminal_id, command)
    with raw_mode(sys.stdin.fileno()):
        return asyncio.run(terminal.run())


@contextmanager
def raw_mode(fd: int) -> Iterator[None]:
    """Pass every key on unchanged; afterwards the terminal's settings are restored in any case."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSAFLUSH, before)


class Terminal:
    """A terminal of a sandbox, over as many connections as it takes."""

    def __init__(self, api_url: str, token: str, sandbox_id: str, terminal_id: str, command: str | None) -> None:
        self._api_url = api_url
        self._token = token
        self._sandbox_id = sandbox_id
        self._query: dict[str, Any] = {"id": terminal_id} | ({"cmd": command} if command else {})
        self._offset: int | None = None
        self._exit: int | None = None
        self._socket: ClientConnection | None = None
        self._connected = asyncio.Event()
        self._typed: asyncio.Queue[bytes] = asyncio.Queue(64)

    async def run(self) -> int:
        """The shell's exit status. Raises the error that kept it from starting, or ConnectionError when it is lost."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGWINCH, self._resize)
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._leave, number)
        reader, sender = asyncio.create_task(self._read_keys()), asyncio.create_task(self._send())
        try:
            await self._connect_again_and_again(loop)
        finally:
            reader.cancel()
            sender.cancel()
            loop.remove_reader(sys.stdin.fileno())
        assert self._exit is not None
        return self._exit

    def _leave(self, number: int) -> None:
        """Detach: end here and leave the shell running."""
        self._exit = 128 + number
        if self._socket is not None:
            closing = asyncio.ensure_future(self._socket.close(_GOING_AWAY))
            closing.add_done_callback(lambda done: done.exception())

    async def _connect_again_and_again(self, loop: asyncio.AbstractEventLoop) -> None:
        lost_at: float | None = None
        while self._exit is None:
            try:
                if await self._once():
                    lost_at = None
            except OSError as error:
                if self._offset is None:
                    raise ConnectionError(f"cannot reach {self._api_url}: {error}") from error
            if self._exit is not None:
                return
            if lost_at is None:
                lost_at = loop.time()
                typer.echo("\r\n[pandastack: the connection broke; retrying]\r", err=True)  # the terminal is raw
            if loop.time() - lost_at > RETRY_SECONDS:
                raise ConnectionError("the connection is lost", hint=f"--attach {self._query['id']} reattaches to it")
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _once(self) -> bool:
        """Run one connection to its end; returns whether it was established."""
        from websockets.asyncio.client import connect
        from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

        headers = {"Authorization": f"Bearer {self._token}"}
        try:
            async with connect(self._url(), additional_headers=headers, max_size=None, compression=None) as socket:
                assert socket.response is not None
                if self._offset is None:
                    self._offset = int(socket.response.headers.get("x-pandastack-offset", "0"))
                self._socket = socket
                self._connected.set()
                async for frame in socket:
                    self._take(frame)
        except InvalidStatus as error:
            if self._offset is None or error.response.status_code in (401, 404):
                raise _refusal(error.response.status_code, bytes(error.response.body or b"")) from error
        except ConnectionClosed:
            return True
        except InvalidHandshake as error:
            raise OSError(str(error)) from error
        finally:
            self._socket = None
        return True

    def _url(self) -> str:
        parts = urlsplit(self._api_url)
        query = dict(self._query)
        if self._offset is not None:
            query["offset"] = self._offset
        if sys.stdin.isatty():
            size = os.get_terminal_size(sys.stdin.fileno())
            query |= {"rows": size.lines, "cols": size.columns}
        path = f"{parts.path}/v1/sandboxes/{self._sandbox_id}/exec/pty"
        scheme = "wss" if parts.scheme == "https" else "ws"
        return urlunsplit((scheme, parts.netloc, path, urlencode(query), ""))

    def _take(self, frame: str | bytes) -> None:
        if isinstance(frame, bytes):
            self._offset = (self._offset or 0) + len(frame)
            _write_all(sys.stdout.fileno(), frame)
            return
        last = codec.loads(frame)
        if "exit" in last:
            self._exit = int(last["exit"])
        elif "error" in last:
            raise PandastackError(str(last["error"]))

    async def _read_keys(self) -> None:
        """Read what is typed as it comes, and no faster than the other side reads."""
        loop, fd = asyncio.get_running_loop(), sys.stdin.fileno()
        while True:
            try:
                data = await _readable(loop, fd)
            except PermissionError:  # a file, or /dev/null: always readable
                data = await asyncio.to_thread(os.read, fd, _CHUNK)
            await self._typed.put(data or _END_OF_INPUT)
            if not data:
                return

    async def _send(self) -> None:
        while True:
            data = await self._typed.get()
            while not await self._sent(data):
                self._connected.clear()
                await self._connected.wait()

    async def _sent(self, data: bytes | str) -> bool:
        from websockets.exceptions import ConnectionClosed

        if self._socket is None:
            return False
        try:
            await self._socket.send(data)
        except ConnectionClosed:
            return False
        return True

    def _resize(self) -> None:
        size = os.get_terminal_size(sys.stdin.fileno())
        frame = codec.dumps({"resize": {"rows": size.lines, "cols": size.columns}})
        task = asyncio.ensure_future(self._sent(frame))
        task.add_done_callback(lambda done: done.exception())


async def _readable(loop: asyncio.AbstractEventLoop, fd: int) -> bytes:
    """Wait for input and read it; PermissionError when it cannot be waited for."""
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
        return os.read(fd, _CHUNK)
    finally:
        loop.remove_reader(fd)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _refusal(status: int, body: bytes) -> PandastackError:
    try:
        return from_body(status, codec.loads(body or b"{}"))
    except ValueError:
        return from_body(status, {})
