"""Many commands over one WebSocket: JSON text frames, each with the caller's id of the command."""

from __future__ import annotations

from typing import Any

import anyio
from anyio.abc import TaskGroup
from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from pandastack.api.requests import caller_of, plane_of
from pandastack.api.sockets import parsed, receive, refuse, send_json
from pandastack.contract.records import STDERR, STDOUT, Ended, ExecResult, Output
from pandastack.errors import BadRequestError, PandastackError
from pandastack.model.caller import Caller
from pandastack.services import ControlPlane
from pandastack.services.processes.commands import failure_of
from pandastack.services.processes.output import OutputText
from pandastack.services.processes.spec import Command

router = APIRouter(prefix="/v1/sandboxes/{sandbox_id}", tags=["exec"])

_NAMES = {STDOUT: "stdout", STDERR: "stderr"}


@router.websocket("/exec/ws")
async def execute_many(websocket: WebSocket, sandbox_id: str) -> None:
    """`{"id", "cmd", "timeout_seconds"?}` starts, `{"id", "cancel": true}` ends a command; closing ends them all."""
    plane, caller = plane_of(websocket), caller_of(websocket)
    try:
        await plane.processes.check(caller, sandbox_id)
    except PandastackError as error:
        await refuse(websocket, error)
        return
    await websocket.accept()
    try:
        async with anyio.create_task_group() as tasks:
            session = _Session(websocket, plane, caller, sandbox_id, tasks)
            try:
                while True:
                    await session.take(await receive(websocket))
            finally:
                tasks.cancel_scope.cancel()
    except* (WebSocketDisconnect, OSError):
        pass


class _Session:
    """The commands of one connection."""

    def __init__(
        self, websocket: WebSocket, plane: ControlPlane, caller: Caller, sandbox_id: str, tasks: TaskGroup
    ) -> None:
        self._websocket = websocket
        self._plane = plane
        self._caller = caller
        self._sandbox_id = sandbox_id
        self._tasks = tasks
        self._running: dict[str, anyio.CancelScope] = {}

    async def take(self, frame: str | bytes) -> None:
        """Carry out the request in a frame; an invalid one gets an error."""
        name = ""
        try:
            asked = parsed(frame)
            name = str(asked["id"]) if isinstance(asked.get("id"), str) else ""
            if not name or len(name) > 256:
                raise BadRequestError("id required")
            if asked.get("cancel") is True:
                if name in self._running:
                    self._running[name].cancel()
                return
            if name in self._running:
                raise BadRequestError("id in use")
            self._start(name, asked)
        except PandastackError as error:
            await self._send(name, error=error.message)

    def _start(self, name: str, asked: dict[str, Any]) -> None:
        cmd, seconds = asked.get("cmd"), asked.get("timeout_seconds")
        if not isinstance(cmd, str) or not cmd:
            raise BadRequestError("cmd required")
        if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float)):
            raise BadRequestError("timeout_seconds: must be a number")
        command = self._plane.commands.plan(cmd, seconds)
        self._running[name] = anyio.CancelScope()
        self._tasks.start_soon(self._run, name, command)

    async def _run(self, name: str, command: Command) -> None:
        scope = self._running[name]
        last: dict[str, Any] = {"error": "cancelled"}
        with scope:
            last = await self._follow(name, command)
        del self._running[name]
        await self._send(name, **last)

    async def _follow(self, name: str, command: Command) -> dict[str, Any]:
        text = OutputText()
        try:
            async with self._plane.commands.stream(self._caller, self._sandbox_id, command) as records:
                async for record in records:
                    if isinstance(record, Output) and (chunk := text.feed(record)):
                        await self._send(name, stream=_NAMES[record.kind], data=chunk)
                    elif isinstance(record, Ended):
                        for kind, rest in text.rest():
                            await self._send(name, stream=_NAMES[kind], data=rest)
                        return _last(record, command)
        except PandastackError as error:
            return {"error": error.message}
        return {"error": "the command's outcome is unknown"}

    async def _send(self, name: str, **values: Any) -> None:
        await send_json(self._websocket, {"id": name, **values})


def _last(end: Ended, command: Command) -> dict[str, Any]:
    if failure := failure_of(end, command):
        return {"error": failure.message}
    assert isinstance(end, ExecResult)
    return {"exit": end.exit_code}
