"""Language servers over WebSockets: the client's frames go to the server's standard input unchanged."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

import anyio
from fastapi import APIRouter, Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from pandastack.api.models.code import LspLanguages
from pandastack.api.requests import caller_of, json_response, plane_of
from pandastack.api.sockets import NORMAL, REFUSED, receive, refuse, send_json
from pandastack.contract.records import STDOUT, Ended, ExecFailed, Output
from pandastack.errors import PandastackError
from pandastack.services.processes.language_servers import MISSING, SERVERS, LanguageServers, Session, server_for

router = APIRouter(prefix="/v1", tags=["lsp"])

PROTOCOL = "lsp"
LARGEST_FRAME = 1024 * 1024
_LONGEST_LINE = 64 * 1024


@router.get("/lsp/languages", response_class=Response, responses={200: {"model": LspLanguages}})
async def languages() -> Response:
    """Languages that have a server, in templates that have it."""
    note = "; ".join(f"{each.language}: {each.command}, in the template {each.template}" for each in SERVERS)
    return json_response(LspLanguages(supported=[each.language for each in SERVERS], note=note))


@router.websocket("/sandboxes/{sandbox_id}/lsp/{lang}")
async def language_server(websocket: WebSocket, sandbox_id: str, lang: str) -> None:
    """Frames are bytes of the protocol, headers included; text frames to the client are JSON about its server."""
    plane = plane_of(websocket)
    caller = caller_of(websocket)
    try:
        server_for(lang)
        await plane.processes.check(caller, sandbox_id)
    except PandastackError as error:
        await refuse(websocket, error)
        return
    offered = PROTOCOL in websocket.scope.get("subprotocols", ())
    await websocket.accept(subprotocol=PROTOCOL if offered else None)
    try:
        async with plane.language_servers.session(caller, sandbox_id, lang) as session:
            client = _Client(websocket, plane.language_servers, session, plane.settings.lsp_idle_seconds)
            await client.run()
    except PandastackError as error:
        await _say(websocket, error)
    except (WebSocketDisconnect, OSError):
        pass


async def _say(websocket: WebSocket, error: PandastackError) -> None:
    try:
        await send_json(websocket, {"error": error.message} | ({"hint": error.hint} if error.hint else {}))
        await websocket.close(NORMAL)
    except (WebSocketDisconnect, OSError, RuntimeError):
        pass  # the client has disconnected as well


class _Client:
    """One editor and its own server."""

    def __init__(self, websocket: WebSocket, servers: LanguageServers, session: Session, idle_seconds: float) -> None:
        self._websocket = websocket
        self._servers = servers
        self._session = session
        self._idle_seconds = idle_seconds
        self._lines = _Lines()

    async def run(self) -> None:
        """Relay until the server ends, or the client disconnects or is silent for too long."""
        failure: PandastackError | None = None
        try:
            async with self._servers.output(self._session) as records, anyio.create_task_group() as tasks:
                tasks.start_soon(self._read, tasks.cancel_scope)
                async for record in records:
                    if isinstance(record, Output):
                        await self._pass_on(record)
                    elif isinstance(record, Ended):
                        await self._end(record)
                tasks.cancel_scope.cancel()
        except* PandastackError as errors:
            failure = next(each for each in errors.exceptions if isinstance(each, PandastackError))
        except* (WebSocketDisconnect, OSError):
            pass
        if failure is not None:
            raise failure

    async def _read(self, scope: anyio.CancelScope) -> None:
        """Pass on the client's frames; the next one is read only once the server has taken the last."""
        try:
            while True:
                with anyio.move_on_after(self._idle_seconds) as idle:
                    frame = await receive(self._websocket)
                if idle.cancelled_caught:
                    await self._close({"error": "idle timeout"}, NORMAL)
                    break
                data = frame.encode() if isinstance(frame, str) else frame
                if len(data) > LARGEST_FRAME:
                    await self._close({"error": f"a frame may have {LARGEST_FRAME} bytes"}, REFUSED)
                    break
                await self._servers.send(self._session, data)
        except WebSocketDisconnect:
            pass
        scope.cancel()

    async def _pass_on(self, record: Output) -> None:
        if record.kind == STDOUT:
            if record.data:
                await self._websocket.send_bytes(record.data)
            return
        for line in self._lines.feed(record.data):
            await send_json(self._websocket, {"stream": "stderr", "line": line})

    async def _end(self, end: Ended) -> None:
        server = self._session.server
        if isinstance(end, ExecFailed):
            await self._close({"error": end.failure.error}, NORMAL)
        elif end.exit_code == MISSING:
            hint = f"create the sandbox from the template {server.template}"
            await self._close({"error": f"this sandbox has no {server.command}", "hint": hint}, NORMAL)
        else:
            await self._close({"exit": end.exit_code}, NORMAL)

    async def _close(self, last: dict[str, object], code: int) -> None:
        await send_json(self._websocket, last)
        await self._websocket.close(code)


class _Lines:
    """Lines of text from bytes that were cut anywhere; an overlong line is passed on in pieces."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, data: bytes) -> Iterator[str]:
        *lines, self._rest = (self._rest + self._decoder.decode(data)).split("\n")
        yield from lines
        if len(self._rest) > _LONGEST_LINE:
            yield self._rest
            self._rest = ""
