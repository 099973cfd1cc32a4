"""A world for the gateway: an engine whose tunnels end at native ports, and a control plane that a test scripts.

The engine speaks the contract's tunnels over a real Unix socket, and keeps connections while a sandbox sleeps as a
guest does. It has no machines and proves nothing about them: `tests/system` has those.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket, WebSocketDisconnect

from pandastack.cli.server.certificates import Certificates
from pandastack.cluster import EngineClient
from pandastack.contract.codec import decode_request, encode
from pandastack.contract.tunnels import Close, Closed, Consumed, Ended, FromControlPlane, FromEngine, Opened, Received
from pandastack.engine.http.version import VersionMiddleware
from pandastack.errors import (
    AuthError,
    ConflictError,
    GuestError,
    NotFoundError,
    PandastackError,
    RateLimitError,
    to_body,
)
from pandastack.gateway.control import Control
from pandastack.gateway.http.door import open_http_doors
from pandastack.gateway.listeners import open_listeners
from pandastack.gateway.options import Options
from pandastack.gateway.postgres import kept_secret, open_postgres_doors
from pandastack.gateway.reach import Reach, open_reach
from pandastack.host.tasks import beside

SANDBOX = "11111111-2222-4333-8444-555555555555"
TOKEN = "pvt_" + "x" * 32


class Connection:
    """One connection to a native server, which outlives its attachments."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.consumed = 0
        self.kept, self.base = bytearray(), 0
        """What the server sent and the client did not acknowledge, from this offset on."""
        self.ended = self.host_ended = False


@dataclass(frozen=True)
class Report:
    """What the gateway told at one moment: whose clients sent bytes, who has connections, who is asked for."""

    used: tuple[str, ...]
    connected: tuple[str, ...]
    asked: tuple[str, ...]


@dataclass
class World:
    """``asleep``: sandboxes that are hibernated. ``private``: whether previews want :data:`TOKEN`."""

    asleep: set[str] = field(default_factory=set)
    private: bool = False
    paths: tuple[str, ...] = ()
    switches: dict[str, str] = field(default_factory=dict)
    services: dict[str, int] = field(default_factory=dict)
    """What exists of what sandboxes may list: the native port of each service."""
    databases: dict[str, int] = field(default_factory=dict)
    """The native port of the server of each database."""
    database_refusals: dict[str, PandastackError] = field(default_factory=dict)
    """What is answered instead of the route of a database."""
    most_clients: int = 20
    """How many clients a database takes."""
    wakes: int = 0
    wakers: list[str] = field(default_factory=list)
    """Who woke it, or tried to."""
    wake_refusals: dict[str, PandastackError] = field(default_factory=dict)
    """What each kind of waker is answered instead."""
    may_wake: asyncio.Event = field(default_factory=asyncio.Event)
    """A wake lasts until it is set; it is, unless a test clears it."""
    ending: int = 0
    """How often the engine still answers that the guest is away, as its machine ends."""
    is_lost: bool = False
    """Whether a sleeping sandbox has lost its memory, and its connections with it."""
    denied: int = 0
    """How many connections the engine has refused because the sandbox slept."""
    reports: list[Report] = field(default_factory=list)
    connections: dict[str, Connection] = field(default_factory=dict)
    port: int = 0
    postgres_port: int = 0
    announced: list[int] = field(default_factory=list)
    """What the door for PostgreSQL has told of its port."""
    control: ASGIApp | None = None
    """What answers in place of the scripted control plane."""
    reach: Reach | None = None
    options: Options | None = None
    _sockets: set[asyncio.Task[None]] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced, when there is another report or denial."""

    def __post_init__(self) -> None:
        self.may_wake.set()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def reported(self, wanted: Callable[[Report], bool] = lambda _: True, *, times: int = 1) -> list[Report]:
        """The next ``times`` reports, of which the last one is ``wanted``, and those between.

        What happened before the call is in the second one at the latest: the first may have been on its way.
        """
        begun, count = len(self.reports), 0
        at = begun
        while True:
            while at == len(self.reports):
                await self._changed.wait()
            count += wanted(self.reports[at])
            at += 1
            if count == times:
                return self.reports[begun:at]

    async def until_denied(self, times: int) -> None:
        """Return once the engine has refused so many connections."""
        while self.denied < times:
            await self._changed.wait()

    def hibernate(self) -> None:
        """Every attachment breaks; the connections stay."""
        self.asleep.add(SANDBOX)
        for task in self._sockets:
            task.cancel()

    def lose_memory(self, *, ending: int) -> None:
        """As when its machine is killed: it sleeps, once the engine has noticed."""
        self.ending, self.is_lost = ending, True
        self.hibernate()

    def rewind(self) -> None:
        """As when the sandbox went back to an older state: its connections are closed, it runs."""
        for task in self._sockets:
            task.cancel()
        for connection in self.connections.values():
            connection.writer.close()
        self.connections.clear()

    async def close(self) -> None:
        """Close the connections that are left: those of a sandbox that still sleeps, or of a gateway that is gone."""
        for connection in self.connections.values():
            connection.writer.close()
            with suppress(OSError):
                await connection.writer.wait_closed()

    def host(self, port: int) -> str:
        """The host name of a preview."""
        return f"{port}-{SANDBOX}.localhost:{self.port}"

    # The engine.

    async def tunnel(self, websocket: WebSocket) -> None:
        try:
            connection = await self._connection(websocket)
        except PandastackError as error:
            await websocket.send_denial_response(JSONResponse(to_body(error), error.status_code))
            return
        await websocket.accept()
        task = asyncio.ensure_future(self._serve(websocket, connection))
        self._sockets.add(task)
        with suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError, OSError):
            await task
        self._sockets.discard(task)
        with suppress(RuntimeError, OSError, WebSocketDisconnect):
            await websocket.close(1001)

    async def _connection(self, websocket: WebSocket) -> Connection:
        if self.ending:
            self.ending -= 1
            raise GuestError("the guest does not answer")
        if websocket.path_params["id"] in self.asleep:
            if self.is_lost and "received" in websocket.query_params:
                raise NotFoundError("it has ended with the sandbox's memory")
            self.denied += 1
            self._notify()
            raise ConflictError("the sandbox is hibernated")
        query = websocket.query_params
        if "received" in query:
            if (found := self.connections.get(query["id"])) is None:
                raise NotFoundError("this tunnel is not open (any more)")
            drop = int(query["received"]) - found.base
            del found.kept[:drop]
            found.base += drop
            return found
        try:
            streams = await asyncio.open_connection("127.0.0.1", int(query["port"]))
        except OSError:
            raise NotFoundError(f"nothing in the guest listens at port {query['port']}") from None
        made = self.connections[query["id"]] = Connection(*streams)
        return made

    async def _serve(self, websocket: WebSocket, connection: Connection) -> None:
        await _say(websocket, Opened(connection.consumed))
        if connection.kept:
            await websocket.send_bytes(bytes(connection.kept))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._out, websocket, connection)
            while True:
                message = await websocket.receive()
                if message["type"] == "websocket.disconnect":
                    break
                if (data := message.get("bytes")) is not None:
                    connection.writer.write(data)
                    with suppress(ConnectionError):  # the server has closed it
                        await connection.writer.drain()
                    connection.consumed += len(data)
                    await _say(websocket, Consumed(connection.consumed))
                    continue
                match decode_request(FromControlPlane, message["text"].encode()):
                    case Received(offset):
                        step = min(offset - connection.base, len(connection.kept))
                        del connection.kept[:step]
                        connection.base += step
                    case Ended():
                        connection.host_ended = True
                        connection.writer.write_eof()
                        connection.consumed += 1
                        await _say(websocket, Consumed(connection.consumed))
                        if connection.ended:
                            break
                    case Close():
                        break
            tasks.cancel_scope.cancel()
        connection.writer.close()
        with suppress(WebSocketDisconnect, RuntimeError, OSError):
            await _say(websocket, Closed())

    async def _out(self, websocket: WebSocket, connection: Connection) -> None:
        while not connection.ended:
            data = await connection.reader.read(65536)
            connection.kept += data
            if data:
                await websocket.send_bytes(data)
            connection.ended = not data
        await _say(websocket, Ended())
        if connection.host_ended:
            await _say(websocket, Closed())

    # The control plane.

    async def route(self, request: Request) -> Response:
        wanted = await request.json()
        if wanted["sandbox"] not in (None, SANDBOX) and not wanted["checked"]:
            return _refusal(NotFoundError("there is no such preview"))
        by_token = wanted["sandbox"] is None
        if (by_token or (self.private and not wanted["checked"])) and wanted["token"] != TOKEN:
            return _refusal(AuthError("this preview is private"))
        port = int(self.switches["port"]) if by_token else wanted["port"]
        answer: dict[str, Any] = {
            "sandbox": wanted["sandbox"] or SANDBOX,
            "port": port,
            "running": SANDBOX not in self.asleep,
        }
        answer |= {"host": self.switches.get("host", "rewrite"), "origin": self.switches.get("origin", "keep")}
        answer["waker"] = "bearer" if wanted["token"] == TOKEN or wanted["checked"] else "visitor"
        return JSONResponse({**answer, "paths": self.paths, "expires_at": 4e9 if wanted["token"] else None})

    async def inward(self, request: Request) -> Response:
        service = (await request.json())["service"]
        if (port := self.services.get(service)) is None:
            return _refusal(NotFoundError(f"there is no service {service}"))
        return JSONResponse(
            {"sandbox": SANDBOX, "port": port, "running": SANDBOX not in self.asleep, "waker": "bearer"}
        )

    async def route_database(self, request: Request) -> Response:
        database = request.path_params["database"]
        if (refusal := self.database_refusals.get(database)) is not None:
            return _refusal(refusal)
        if (port := self.databases.get(database)) is None:
            return _refusal(NotFoundError("there is no such database"))
        return JSONResponse({"sandbox": SANDBOX, "port": port, "max_connections": self.most_clients})

    async def announce_databases(self, request: Request) -> Response:
        self.announced.append((await request.json())["port"])
        return JSONResponse({})

    async def wake(self, request: Request) -> Response:
        wanted = await request.json()
        self.wakers.append(wanted["waker"])
        if (refusal := self.wake_refusals.get(wanted["waker"])) is not None:
            return _refusal(refusal)
        self.wakes += 1
        await self.may_wake.wait()
        if self.is_lost:  # the machine that boots knows none of the connections
            for connection in self.connections.values():
                connection.writer.close()
            self.connections.clear()
            self.is_lost = False
        self.asleep.discard(wanted["sandbox"])
        return JSONResponse({})

    async def activity(self, request: Request) -> Response:
        told = await request.json()
        self.reports.append(Report(*(tuple(told[name]) for name in ("used", "connected", "asked"))))
        self._notify()
        return JSONResponse({"running": [each for each in told["asked"] if each not in self.asleep], "gone": []})

    def engine_app(self) -> ASGIApp:
        route = WebSocketRoute("/sandboxes/{id}/tunnel", self.tunnel)
        return Starlette(routes=[route], middleware=[Middleware(VersionMiddleware)])

    def control_app(self) -> ASGIApp:
        verbs = {"route": self.route, "inward": self.inward, "wake": self.wake, "activity": self.activity}
        verbs |= {"databases/{database}/route": self.route_database, "databases/door": self.announce_databases}
        return Starlette(routes=[Route(f"/internal/{name}", verb, methods=["POST"]) for name, verb in verbs.items()])


@asynccontextmanager
async def gateway(world: World, directory: Path, **options: Any) -> AsyncIterator[World]:
    """The gateway's doors in this process, in front of ``world``."""
    world.options = Options(directory=str(directory), data=str(directory), **options)
    with open_listeners(world.options) as listeners:
        world.port, world.postgres_port = listeners.ports()["http"], listeners.ports().get("postgres", 0)
        secret = kept_secret(directory) if listeners.postgres else None
        certificates = Certificates(world.options, directory)
        async with (
            beside(
                partial(serve, world.engine_app(), world.options.engine),
                partial(serve, certificates.serve_beside(world.control or world.control_app()), world.options.control),
            ),
            EngineClient.connect(f"unix:{world.options.engine}") as engine,
            Control.connect(world.options.control) as control,
            open_reach(engine, control) as world.reach,
            open_http_doors(world.options, listeners, world.reach, control),
            open_postgres_doors(world.options, listeners, secret, world.reach, control),
        ):
            try:
                yield world
            finally:
                await world.close()


async def serve(app: ASGIApp, path: Path) -> None:
    """Serve an application on a Unix socket until cancelled."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_level="error",
            server_header=False,
            ws_ping_interval=None,
            timeout_graceful_shutdown=0,
        )
        await _Server(config).serve([listener])


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _say(websocket: WebSocket, message: FromEngine) -> None:
    await websocket.send_text(encode(message).decode())


def _refusal(error: PandastackError) -> Response:
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, RateLimitError) else None
    return JSONResponse(to_body(error), error.status_code, headers)
