"""QMP, QEMU's control protocol (docs/interop/qmp-spec.rst): one command at a time, events are dropped."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import UNIXSocketStream

from pandastack.errors import ServerError

_LINE_LIMIT = 1024 * 1024


class ControlError(ServerError):
    """QEMU refused a command or is gone."""

    code = "vmm_control_failed"


class Control:
    """An open QMP session."""

    def __init__(self, stream: UNIXSocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._lock = anyio.Lock()

    async def execute(self, command: str, arguments: dict[str, Any] | None = None, *, fds: Sequence[int] = ()) -> Any:
        """Run one command and return what it answers. ``fds`` travel with it. Raises :class:`ControlError`."""
        message: dict[str, Any] = {"execute": command}
        if arguments:
            message["arguments"] = arguments
        data = json.dumps(message).encode() + b"\n"
        async with self._lock:
            try:
                await (self._stream.send_fds(data, list(fds)) if fds else self._stream.send(data))
                return await self._answer(command)
            except (anyio.BrokenResourceError, anyio.EndOfStream, anyio.ClosedResourceError) as error:
                raise ControlError(f"the VMM ended during {command}") from error

    async def _answer(self, command: str) -> Any:
        while True:
            message = json.loads(await self._line())
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise ControlError(f"{command}: {message['error'].get('desc', 'failed')}")

    async def _line(self) -> bytes:
        while b"\n" not in self._buffer:
            if len(self._buffer) > _LINE_LIMIT:
                raise ControlError("the VMM sent an endless line")
            self._buffer += await self._stream.receive()
        line, _, rest = self._buffer.partition(b"\n")
        self._buffer = rest
        return bytes(line)

    async def greet(self) -> None:
        await self._line()
        await self.execute("qmp_capabilities")


@asynccontextmanager
async def connect(path: Path) -> AsyncIterator[Control]:
    """A QMP session with the VMM that listens at ``path``, ready for commands."""
    async with await anyio.connect_unix(path) as stream:
        control = Control(stream)
        try:
            await control.greet()
        except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
            raise ControlError("the VMM ended before it answered") from error
        yield control
