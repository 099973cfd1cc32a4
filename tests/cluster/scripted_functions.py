"""What the process of a function in a guest says, and the programs that its deploy runs there."""

from __future__ import annotations

import json
import struct
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import anyio
from starlette.websockets import WebSocket

from pandastack.contract.codec import encode
from pandastack.contract.processes import ExecSpec
from pandastack.contract.records import STDERR, STDOUT, Output, Record
from pandastack.contract.tunnels import Closed, Ended
from pandastack.products.functions.guest import SOCKET
from tests.cluster.scripted_engine import TEMPLATE, ScriptedEngine, result

Answer = dict[str, Any] | bytes | None


def success(request: dict[str, Any]) -> Answer:
    """A handler that returns its event and its environment."""
    text = json.dumps({"event": request["event"], "env": request["env"]})
    return {"status": "success", "exit_code": 0, "result": text, "stdout": "out\n", "stderr": "", "duration_ms": 5}


def distinct(_request: dict[str, Any]) -> Answer:
    """A copy that draws what no other does."""
    return {"draws": {"random": str(uuid.uuid4())}, "values": {}}


class ScriptedFunctions:
    """Installs itself in an engine: its template, guests' sockets and commands."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.engine = engine
        self.report: dict[str, Any] | bytes = {"kind": "handler"}
        self.install: tuple[int, str] = (0, "")
        self.answer: Callable[[dict[str, Any]], Answer] = success
        """The answer to a request: an object, bytes as they are, or None to close the connection."""
        self.check: Callable[[dict[str, Any]], Answer] = distinct
        """The answer of a copy that is checked before its version serves."""
        self.asked: list[dict[str, Any]] = []
        self.commands: list[str] = []
        self.may_answer = anyio.Event()
        self.may_answer.set()
        for name in ("code-interpreter", "agent"):
            engine.templates["", name] = replace(TEMPLATE, name=name)
        engine.sockets[SOCKET] = self._serve
        engine.exec_records = self._run

    async def _serve(self, _sandbox: str, socket: WebSocket) -> None:
        data = b""
        while len(data) < 4 or len(data) < 4 + struct.unpack_from("!I", data)[0]:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect" or "close" in (message.get("text") or ""):
                return
            data += message.get("bytes") or b""
        request = json.loads(data[4:])
        if "check" in request:
            answer = self.check(request)
        else:
            self.asked.append(request)
            await self.may_answer.wait()
            answer = self.answer(request)
        if isinstance(answer, dict):
            text = json.dumps(answer).encode()
            answer = struct.pack("!I", len(text)) + text
        if answer is not None:
            await socket.send_bytes(answer)
        for last in (Ended(), Closed()):
            await socket.send_text(encode(last).decode())
        await socket.close()

    async def _run(self, spec: ExecSpec) -> AsyncIterator[Record | bytes]:
        self.commands.append(spec.cmd)
        if "setsid" in spec.cmd:
            said = self.report if isinstance(self.report, bytes) else json.dumps(self.report).encode()
            yield Output(STDOUT, said)
            yield result()
        elif "pip" in spec.cmd or "npm" in spec.cmd:
            yield Output(STDERR, self.install[1].encode())
            yield result(self.install[0])
        else:
            yield result()
