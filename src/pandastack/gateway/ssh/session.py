"""A session of SSH: a shell, a command or SFTP in the sandbox (RFC 4254, section 6)."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from signal import Signals
from typing import TYPE_CHECKING

import anyio
import asyncssh
import structlog
from anyio.abc import ByteStream

from pandastack.contract.processes import TerminalSize
from pandastack.contract.sessions import (
    SessionExit,
    SessionFailed,
    SessionOutput,
    SessionParser,
    input_end_frame,
    input_frames,
    resize_frame,
    signal_frame,
    start_frame,
)
from pandastack.errors import PandastackError
from pandastack.gateway.ssh.relay import Left

if TYPE_CHECKING:
    from pandastack.gateway.ssh.login import Login

_HELD_BYTES = 256 * 1024
"""Input that waits for the sandbox; beyond that the client waits."""
_PIECE = 64 * 1024
_SFTP = "sftp"
_MOST_VARIABLES = 256
_FAILED = 255
"""The exit status of what did not run, as with OpenSSH's client."""
_SHELL = re.compile(r"\s*(exec\s+)?(/\S*/)?(ba|da|z|k|fi)?sh(\s+-[ils]+|\s+--login)*\s*")
_VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]*")

log = structlog.get_logger(__name__)


class Session(asyncssh.SSHServerSession[bytes]):
    """One session channel. A task of its own carries it from its start to its end."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._cmd: str | None = None
        self._service = "session"
        self._pty = False
        self._held: deque[bytes] = deque()
        self._held_bytes = 0
        self._input_ended = False
        self._arrived = anyio.Event()
        self._writable = anyio.Event()
        self._writable.set()
        self._scope = anyio.CancelScope()

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def connection_lost(self, exc: Exception | None) -> None:
        self._scope.cancel()

    def pty_requested(self, term_type: str, term_size: tuple[int, int, int, int], term_modes: object) -> bool:
        self._pty = True
        return True

    def shell_requested(self) -> bool:
        return True

    def exec_requested(self, command: str) -> bool:
        self._cmd = command
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        self._service = subsystem
        return subsystem == _SFTP

    def session_started(self) -> None:
        self._login.start_soon(self._carry)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._login.used()
        self._hold(data)

    def eof_received(self) -> bool:
        self._input_ended = True
        self._notify()
        return True  # the session may go on without input

    def signal_received(self, signal: str) -> None:
        if (number := getattr(Signals, f"SIG{signal}", None)) is not None and self._service != _SFTP:
            self._hold_frames([signal_frame(number)])

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        if self._service != _SFTP:
            self._hold_frames([resize_frame(_size(width, height))])

    def pause_writing(self) -> None:
        self._writable = anyio.Event()

    def resume_writing(self) -> None:
        self._writable.set()

    def _hold(self, data: bytes) -> None:
        self._hold_frames([data] if self._service == _SFTP else input_frames(data))

    def _hold_frames(self, frames: Iterable[bytes]) -> None:
        for frame in frames:
            self._held.append(frame)
            self._held_bytes += len(frame)
        if self._held_bytes > _HELD_BYTES:
            self._channel.pause_reading()
        self._notify()

    def _notify(self) -> None:
        self._arrived.set()
        self._arrived = anyio.Event()

    async def _carry(self) -> None:
        with self._scope:
            try:
                async with self._login.stream(service=self._service) as stream:
                    if self._service != _SFTP:
                        await stream.send(await self._start())
                    await self._run(stream)
            except PandastackError as error:
                log.info("ssh.session_failed", sandbox_id=self._login.sandbox, cause=repr(error))
                self._fail(error.message)
            except Left:
                pass
        self._channel.close()

    async def _start(self) -> bytes:
        env = dict(_variables(self._channel))
        env |= await self._login.environment()
        width, height, *_ = self._channel.get_terminal_size()
        if not self._pty:
            return start_frame(self._cmd, env, None)
        env["TERM"] = self._channel.get_terminal_type() or "xterm-256color"
        return start_frame(self._cmd, env, _size(width, height))

    async def _run(self, stream: ByteStream) -> None:
        outward = self._pass_files if self._service == _SFTP else self._pass_output
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._inward, stream)
            try:
                with self._use():
                    await outward(stream)
            except PandastackError as error:
                self._fail(error.message)
            except Left:
                pass
            tasks.cancel_scope.cancel()

    async def _inward(self, stream: ByteStream) -> None:
        """Pass the client's bytes on. What goes wrong with the stream, the other direction hears as well."""
        try:
            while True:
                while self._held:
                    await self._send_held(stream)
                if self._input_ended:
                    await (stream.send_eof() if self._service == _SFTP else stream.send(input_end_frame()))
                    self._input_ended = False
                await self._arrived.wait()
        except (*Left, PandastackError):
            pass

    async def _send_held(self, stream: ByteStream) -> None:
        frame = self._held.popleft()
        await stream.send(frame)
        before, self._held_bytes = self._held_bytes, self._held_bytes - len(frame)
        if before > _HELD_BYTES >= self._held_bytes:
            self._channel.resume_reading()

    def _use(self) -> AbstractContextManager[None]:
        """A command that runs is use of the sandbox. An interactive shell is only when somebody types."""
        runs = self._cmd is not None and not self._pty and not _SHELL.fullmatch(self._cmd)
        return self._login.busy() if runs else nullcontext()

    async def _pass_files(self, stream: ByteStream) -> None:
        try:
            while True:
                self._channel.write(await stream.receive(_PIECE))
                await self._writable.wait()
        except anyio.EndOfStream:
            self._channel.exit(0)

    async def _pass_output(self, stream: ByteStream) -> None:
        parser = SessionParser()
        try:
            while True:
                for each in parser.feed(await stream.receive(_PIECE)):
                    if self._take(each):
                        return
                await self._writable.wait()
        except anyio.EndOfStream:
            self._fail("the session broke")

    def _take(self, said: SessionOutput | SessionExit | SessionFailed) -> bool:
        """Whether that was the end."""
        match said:
            case SessionOutput(data, error):
                self._channel.write(data, asyncssh.EXTENDED_DATA_STDERR if error else None)
                return False
            case SessionExit(code, 0):
                self._channel.exit(code)
            case SessionExit(_, signal):
                self._channel.exit_with_signal(_name(signal))
            case SessionFailed(reason):
                self._fail(reason)
        return True

    def _fail(self, reason: str) -> None:
        if not self._channel.is_closing():
            if self._service != _SFTP:
                self._channel.write(f"pandastack: {reason}\r\n".encode(), asyncssh.EXTENDED_DATA_STDERR)
            self._channel.exit(_FAILED)


def _variables(channel: asyncssh.SSHServerChannel[bytes]) -> list[tuple[str, str]]:
    found = channel.get_environment().items()
    return [(name, value) for name, value in found if _VARIABLE.fullmatch(name)][:_MOST_VARIABLES]


def _size(width: int, height: int) -> TerminalSize:
    """A terminal that does not tell its size has the usual one."""
    return TerminalSize(min(height, 65535) or 24, min(width, 65535) or 80)


def _name(signal: int) -> str:
    try:
        return Signals(signal).name.removeprefix("SIG")
    except ValueError:
        return f"RT{signal}"
