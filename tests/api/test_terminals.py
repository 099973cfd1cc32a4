"""Viewers of a terminal: what waits for it is bounded, and how a connection ended is seen."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient, WebSocketTestSession
from starlette.websockets import WebSocket, WebSocketDisconnect

from pandastack.api.routes import terminals
from pandastack.api.routes.terminals import WAITING_BYTES, _Session
from pandastack.contract.records import STDOUT, Output, Record
from pandastack.services.processes.terminals import Terminals, TerminalView
from tests.support.plane import CALLER


class Stuck:
    """A terminal that shows one thing and takes no input; what of the real one a session needs."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.resized = threading.Event()

    @asynccontextmanager
    async def viewer(self, _place: TerminalView) -> AsyncIterator[AsyncIterator[Record]]:
        yield self._records()

    async def _records(self) -> AsyncIterator[Record]:
        yield Output(STDOUT, b"$ ")
        await anyio.sleep_forever()

    async def type(self, _place: TerminalView, data: bytes) -> None:
        self.asked.append(data)
        if data == b"stuck":
            await anyio.sleep_forever()

    async def resize(self, _place: TerminalView, rows: int, cols: int) -> None:
        self.asked.append((rows, cols))
        self.resized.set()

    async def leave(self, _place: TerminalView) -> None:
        self.asked.append("left")


@pytest.fixture
def terminal() -> Stuck:
    return Stuck()


@pytest.fixture
def client(terminal: Stuck) -> TestClient:
    async def route(websocket: WebSocket) -> None:
        await websocket.accept()
        place = TerminalView(CALLER, "sandbox", "terminal", 0)
        await _Session(websocket, cast(Terminals, terminal), place).run()

    return TestClient(Starlette(routes=[WebSocketRoute("/", route)]))


def type_until_closed(socket: WebSocketTestSession, frame: bytes, most: int) -> tuple[int, Any]:
    """How many bytes were sent until the connection was closed, and the code."""
    for _ in range(most // len(frame)):
        socket.send_bytes(frame)
    with pytest.raises(WebSocketDisconnect) as closed:
        socket.receive_bytes()
    return closed.value.code, closed.value.reason


@pytest.mark.parametrize("size", [1, 1000, 64 * 1024, 1024 * 1024])
def test_a_terminal_that_takes_no_input_does_not_fill_the_servers_memory(
    client: TestClient, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminals, "STUCK_SECONDS", 0.1)
    with client.websocket_connect("/") as socket:
        assert socket.receive_bytes() == b"$ "
        socket.send_bytes(b"stuck")
        code, reason = type_until_closed(socket, b"x" * size, max(2 * 1024 * 1024 if size > 1 else 8000, size))
    assert (code, reason) == (1008, "the terminal does not take its input")


def test_a_terminal_that_takes_its_input_gets_all_of_it(client: TestClient, terminal: Stuck) -> None:
    frames = [bytes([n]) * 1000 for n in range(200)]
    with client.websocket_connect("/") as socket:
        for frame in frames:
            socket.send_bytes(frame)
        socket.send_text('{"resize": {"rows": 5, "cols": 7}}')
        assert terminal.resized.wait(20)
        socket.close(1000)
    assert sum(map(len, frames)) < WAITING_BYTES
    assert terminal.asked == [*frames, (5, 7), "left"]
