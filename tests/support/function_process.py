"""The process of a function, run here as it runs in a guest."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.websockets import WebSocket

from pandastack.contract.codec import decode_request, encode
from pandastack.contract.tunnels import WINDOW, Closed, Consumed, Ended, FromControlPlane, Received
from pandastack.in_guest import function_programs

CONTEXT = {"function_id": "i", "function_name": "n", "version": 1, "run_id": "r", "memory_mb": 512}
_FD3 = 'exec "$@" 3>&1 >/dev/null 2>&1'


@dataclass
class Process:
    """A deployed function: what it reported, and calls to it."""

    root: Path
    report: dict[str, Any]

    @contextmanager
    def called(self, event: Any = None, *, seconds: float = 30, **more: Any) -> Iterator[Iterator[bytes]]:
        """A call, and the frames that it sends as they come."""
        request = {"event": event, "env": {"KEY": "value"}, "timeout_seconds": seconds, "context": CONTEXT, **more}
        data = json.dumps(request).encode()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(str(self.root / "s"))
            connection.sendall(struct.pack("!I", len(data)) + data)
            with connection.makefile("rb") as answer:

                def frames() -> Iterator[bytes]:
                    while head := answer.read(4):
                        yield answer.read(struct.unpack("!I", head)[0])

                yield frames()

    def call(self, event: Any = None, *, seconds: float = 30, **more: Any) -> dict[str, Any] | None:
        """The answer; None when the process has ended."""
        with self.called(event, seconds=seconds, **more) as frames:
            found = next(frames, None)
            return None if found is None else json.loads(found)

    async def tunnel(self, _sandbox: str, websocket: WebSocket) -> None:
        """Lead a tunnel of the engine to the process, no faster than its other end reads."""
        reader, writer = await asyncio.open_unix_connection(str(self.root / "s"))
        room, sent, taken, consumed = asyncio.Event(), 0, 0, 0

        async def outwards() -> None:
            nonlocal sent
            while data := await reader.read(65536):
                while sent - taken + len(data) > WINDOW:
                    room.clear()
                    await room.wait()
                sent += len(data)
                await websocket.send_bytes(data)
            for last in (Ended(), Closed()):
                await websocket.send_text(encode(last).decode())

        task = asyncio.ensure_future(outwards())
        try:
            while (message := await websocket.receive())["type"] != "websocket.disconnect":
                if (data := message.get("bytes")) is not None:
                    writer.write(data)
                    consumed += len(data)
                    await websocket.send_text(encode(Consumed(consumed)).decode())
                elif isinstance(told := decode_request(FromControlPlane, message["text"].encode()), Received):
                    taken = told.offset
                    room.set()
                else:
                    break
        finally:
            task.cancel()
            writer.close()
            with suppress(asyncio.CancelledError, RuntimeError, OSError):
                await task


def begun(stack: ExitStack, home: Path, source: str, runtime: str, file: str, name: str | None) -> Process:
    """The process of a function, which ends with ``stack``."""
    root, programs = home / "fn", home / "programs"
    root.mkdir(parents=True)
    programs.mkdir()
    for each, content in function_programs(runtime).items():
        (programs / each).write_bytes(content)
    file = file or {"python": "handler.py", "nodejs": "handler.js"}[runtime]
    (root / file).write_text(source)
    given = {"root": str(root), "entrypoint": file, "name": name, "socket": str(home / "s")}
    program = [sys.executable, str(programs / "runtime.py")]
    if runtime == "nodejs":
        program = ["node", str(programs / "runtime.mjs")]
    argv = ["sh", "-c", _FD3, "sh", *program, json.dumps({**given, "output": str(home / "out")})]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    stack.callback(process.wait)
    stack.callback(process.kill)
    assert process.stdout is not None
    said = stack.enter_context(process.stdout).read()
    return Process(home, json.loads(said))
