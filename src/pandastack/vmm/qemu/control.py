"""QMP, QEMU's control protocol (docs/interop/qmp-spec.rst): one command at a time, events as they come.

A guest may have taken over its VMM, so the VMM is not trusted: lines are bounded, every command has a deadline, and a
VMM that breaks the protocol is ended.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import UNIXSocketStream

from pandastack.errors import ServerError
from pandastack.host.tasks import beside

COMMAND_DEADLINE = 20.0
"""Seconds that the VMM may take to answer a command."""

LINE_LIMIT = 1024 * 1024
_TEXT_LIMIT = 500

RATE = 128 * 1024
"""Bytes a second that are read from a VMM; QEMU sends a hundredth of that. More has to wait in its own memory."""

Message = dict[str, Any]
_GONE = (anyio.BrokenResourceError, anyio.EndOfStream, anyio.ClosedResourceError)


class ControlError(ServerError):
    """QEMU refused a command, broke the protocol or is gone."""

    code = "vmm_control_failed"
    public = "the VMM failed"


class Control:
    """An open QMP session. Made by :func:`connect`."""

    def __init__(
        self, stream: UNIXSocketStream, end: Callable[[], None], on_event: Callable[[Message], None] | None = None
    ) -> None:
        self._stream = stream
        self._end = end
        self._on_event = on_event
        self._lock = anyio.Lock()
        self._number = 0
        self._answer: Message | None = None
        self._answered = anyio.Event()
        self._gone = False
        self.breach = ""
        """How the VMM broke the protocol, if it did; it was ended because of it."""

    async def execute(self, command: str, arguments: Message | None = None, *, fds: Sequence[int] = ()) -> Any:
        """Run one command and return its answer. ``fds`` are sent along. Raises :class:`ControlError`."""
        async with self._lock:
            self._number += 1
            self._answer, self._answered = None, anyio.Event()
            message = {"execute": command, "id": self._number, **({"arguments": arguments} if arguments else {})}
            try:
                with anyio.fail_after(COMMAND_DEADLINE):
                    await self._send(json.dumps(message).encode() + b"\n", fds)
                    await self._wait_answered()
            except _GONE as error:
                raise ControlError(self.breach or f"the VMM ended during {command}") from error
            except TimeoutError as error:
                raise self._break(f"the VMM did not answer {command} within {COMMAND_DEADLINE:g} s") from error
            return _result(command, self._answer or {})

    async def _send(self, data: bytes, fds: Sequence[int]) -> None:
        await (self._stream.send_fds(data, list(fds)) if fds else self._stream.send(data))

    async def _wait_answered(self) -> None:
        if not self._gone:
            await self._answered.wait()
        if self._answer is None:
            raise anyio.EndOfStream

    async def read(self) -> None:
        """Read the VMM's answers and events until it ends. Must run concurrently with the commands."""
        try:
            async for line in _lines(self._stream):
                self._take(_message(line))
        except _GONE:
            pass
        except ControlError as error:
            self._break(str(error))
        finally:
            self._gone = True
            self._answered.set()

    def _take(self, message: Message) -> None:
        if message.get("id") == self._number:
            self._answer = message
            self._answered.set()
        elif "event" in message and self._on_event is not None:
            self._on_event(message)

    def _break(self, breach: str) -> ControlError:
        self.breach = self.breach or breach
        self._end()
        return ControlError(breach)


async def _lines(stream: UNIXSocketStream) -> AsyncIterator[bytes]:
    """The VMM's output line by line, at no more than :data:`RATE`."""
    rest, allowance, refilled = b"", RATE, anyio.current_time()
    while True:
        data = await stream.receive()
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > LINE_LIMIT:
            raise ControlError("the VMM sent an endless line")
        now = anyio.current_time()
        allowance = min(RATE, allowance + int((now - refilled) * RATE)) - len(data)
        refilled = now
        if allowance < 0:
            await anyio.sleep(-allowance / RATE)


def _message(line: bytes) -> Message:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ControlError("the VMM sent invalid JSON") from error
    if not isinstance(message, dict):
        raise ControlError("the VMM sent a malformed message")
    return message


def _result(command: str, message: Message) -> Any:
    if "return" in message:
        return message["return"]
    error = message.get("error")
    reason = error.get("desc") if isinstance(error, dict) else None
    raise ControlError(f"{command}: {str(reason or 'failed')[:_TEXT_LIMIT]}")


@asynccontextmanager
async def connect(
    path: Path, end: Callable[[], None], on_event: Callable[[Message], None] | None = None
) -> AsyncIterator[Control]:
    """A QMP session with the VMM that listens at ``path``, ready for commands.

    ``end`` is called when the VMM breaks the protocol, ``on_event`` with each event as it comes.
    """
    async with await anyio.connect_unix(path) as stream:
        control = Control(stream, end, on_event)
        async with beside(control.read):
            await control.execute("qmp_capabilities")
            yield control
