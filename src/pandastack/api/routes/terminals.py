"""Terminals over WebSockets: binary frames are bytes of the terminal, text frames are JSON."""

from __future__ import annotations

import math
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from pandastack.api.requests import caller_of, plane_of
from pandastack.api.routes.exec import PROCESS_HEADER
from pandastack.api.sockets import NORMAL, REFUSED, parsed, receive, refuse, send_json
from pandastack.contract.records import Ended, ExecFailed, Output
from pandastack.errors import BadRequestError, PandastackError
from pandastack.services.processes.terminals import Terminals, TerminalView

router = APIRouter(prefix="/v1/sandboxes/{sandbox_id}", tags=["terminals"])

OFFSET_HEADER = "x-pandastack-offset"
WAITING_BYTES = 256 * 1024
"""How much input may wait for a terminal that does not read."""
STUCK_SECONDS = 20.0
"""How long a terminal may take none of it before its viewer is disconnected."""
_EVENT_BYTES = 64
"""The cost of an event in addition to its bytes."""

_FAREWELL_SECONDS = 5.0
"""How long reading the close of a connection may take, once it accepts no more output."""

_Event = bytes | tuple[int, int]
"""Input bytes, or rows and columns."""


@router.websocket("/exec/pty")
@router.websocket("/ssh")
async def terminal(
    websocket: WebSocket,
    sandbox_id: str,
    rows: str = "",
    cols: str = "",
    id: str = "",
    cmd: str = "",
    scrollback: str = "",
    offset: str = "",
) -> None:
    """A login shell in a terminal, or one more viewer: `id` selects an existing terminal, or names a new one."""
    plane = plane_of(websocket)
    try:
        place = await plane.terminals.open(
            caller_of(websocket),
            sandbox_id,
            wanted=id or None,
            size=(_number(rows or "24", "rows"), _number(cols or "80", "cols")) if rows or cols or not id else None,
            cmd=cmd or None,
            scrollback=_number(scrollback, "scrollback") if scrollback else None,
            offset=_number(offset, "offset") if offset else None,
        )
    except PandastackError as error:
        await refuse(websocket, error)
        return
    headers = {PROCESS_HEADER: place.id, OFFSET_HEADER: str(place.offset)}
    await websocket.accept(headers=[(name.encode(), value.encode()) for name, value in headers.items()])
    await _Session(websocket, plane.terminals, place).run()


def _number(text: str, field: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise BadRequestError(f"{field}: must be a whole number", field=field)
    return int(text)


class _Session:
    """One viewer, from the upgrade to the end of the connection."""

    def __init__(self, websocket: WebSocket, terminals: Terminals, place: TerminalView) -> None:
        self._websocket = websocket
        self._terminals = terminals
        self._place = place
        self._waiting = 0
        self._taken = anyio.Event()
        self._left = anyio.Event()

    async def run(self) -> None:
        try:
            send, typed = anyio.create_memory_object_stream[_Event](math.inf)
            async with (
                send,
                typed,
                self._terminals.viewer(self._place) as records,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(self._read, send, tasks.cancel_scope)
                tasks.start_soon(self._type, typed)
                async for record in records:
                    if isinstance(record, Output) and record.data:
                        await self._show(record.data)
                    elif isinstance(record, Ended):
                        await self._end(record)
                tasks.cancel_scope.cancel()
        except* PandastackError as errors:
            await self._fail(errors.exceptions[0])
        except* (WebSocketDisconnect, OSError):
            pass

    async def _show(self, data: bytes) -> None:
        """Pass output on. A closed connection is left for :meth:`_read` to notice, which learns how it ended."""
        try:
            await self._websocket.send_bytes(data)
        except (WebSocketDisconnect, OSError):
            with anyio.move_on_after(_FAREWELL_SECONDS):
                await self._left.wait()
            raise

    async def _end(self, end: Ended) -> None:
        last = {"error": end.failure.error} if isinstance(end, ExecFailed) else {"exit": end.exit_code}
        await send_json(self._websocket, last)
        await self._websocket.close(NORMAL)

    async def _fail(self, error: BaseException) -> None:
        try:
            await send_json(self._websocket, {"error": str(error)})
            await self._websocket.close(NORMAL)
        except (WebSocketDisconnect, OSError, RuntimeError):
            pass  # the viewer has disconnected as well

    async def _read(self, send: MemoryObjectSendStream[_Event], scope: anyio.CancelScope) -> None:
        """Read frames ahead of the terminal, so that the end of the connection is noticed; a stuck one ends it."""
        try:
            while await self._has_room():
                frame = await receive(self._websocket)
                event = frame if isinstance(frame, bytes) else _event(frame)
                if event:
                    self._waiting += _size(event)
                    send.send_nowait(event)
            await self._websocket.close(REFUSED, "the terminal does not take its input")
        except WebSocketDisconnect as gone:
            if gone.code == NORMAL:
                await self._terminals.leave(self._place)
        self._left.set()
        scope.cancel()

    async def _has_room(self) -> bool:
        """Whether another frame may wait: a terminal that is busy gets a while to take what waits already."""
        with anyio.move_on_after(STUCK_SECONDS):
            while self._waiting >= WAITING_BYTES:
                self._taken = anyio.Event()
                await self._taken.wait()
        return self._waiting < WAITING_BYTES

    async def _type(self, typed: MemoryObjectReceiveStream[_Event]) -> None:
        async for event in typed:
            try:
                if isinstance(event, bytes):
                    await self._terminals.type(self._place, event)
                else:
                    await self._terminals.resize(self._place, *event)
            except PandastackError:
                pass  # it has ended, and its exit is about to be sent
            self._waiting -= _size(event)
            self._taken.set()


def _size(event: _Event) -> int:
    return _EVENT_BYTES + (len(event) if isinstance(event, bytes) else 0)


def _event(text: str) -> _Event | None:
    """The request in a text frame: ``{"resize": {"rows", "cols"}}``, its flat form, or ``{"stdin": text}``."""
    try:
        frame = parsed(text)
    except BadRequestError:
        return None
    if isinstance(frame.get("stdin"), str):
        return str(frame["stdin"]).encode(errors="replace")
    size: Any = frame.get("resize", frame if frame.get("type") == "resize" else None)
    if not isinstance(size, dict):
        return None
    rows, cols = (_extent(size.get(name)) for name in ("rows", "cols"))
    return (rows, cols) if rows and cols else None


def _extent(value: Any) -> int:
    """A number of rows or columns; 0 for an invalid one."""
    whole = isinstance(value, int | float) and 1 <= value <= 65535
    return int(value) if whole else 0
