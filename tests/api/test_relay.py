"""The API's own doors to previews: everything passes through the gateway's socket, and on to a native server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from pandastack.api import create_app
from pandastack.api.relay import Gateway
from pandastack.cluster import EngineClient, Engines
from tests.cluster.scripted_engine import ScriptedEngine
from tests.gateway.native import Native, exchange, native_server, shown
from tests.gateway.world import TOKEN, World, gateway
from tests.support.api import SETTINGS

pytestmark = pytest.mark.anyio


@dataclass
class Doors:
    api: int
    token: str
    sandbox: str
    native: Native
    world: World

    async def ask(self, target: str, method: str = "GET", headers: str = "", body: bytes = b"") -> tuple:  # type: ignore[type-arg]
        head = f"{method} {target} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {self.token}\r\n{headers}\r\n"
        return await exchange(self.api, head.encode() + body)

    @property
    def proxy(self) -> str:
        return f"/v1/sandboxes/{self.sandbox}/proxy/{self.native.port}"


@pytest.fixture
async def doors(tmp_path: Path, database_url: str) -> AsyncIterator[Doors]:
    """The real API over TCP. Its sandbox is, for the gateway's world, the only one there is."""
    tokens: list[str] = []
    engine = Engines.local(EngineClient.in_process(ScriptedEngine().app))
    async with native_server() as native, gateway(World(), tmp_path) as world:
        assert world.options is not None
        app = create_app(
            engine, database_url, SETTINGS, on_first_token=tokens.append, gateway=Gateway(world.options.inner)
        )
        async with (
            app.router.lifespan_context(app),
            _answering(uvicorn.Config(app, port=0, log_level="error", lifespan="off")) as port,
        ):
            made = await exchange(port, _post("/v1/sandboxes", tokens[0], b'{"template": "base"}'))
            sandbox = json.loads(made[2])["id"]
            with anyio.fail_after(30):
                yield Doors(port, tokens[0], sandbox, native, world)


def _post(path: str, token: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@asynccontextmanager
async def _answering(config: uvicorn.Config) -> AsyncIterator[int]:
    config.timeout_graceful_shutdown = 0
    server = uvicorn.Server(config)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server._serve)
        while not server.started:  # noqa: ASYNC110
            await anyio.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
        server.should_exit = True


async def test_a_request_through_the_proxy(doors: Doors) -> None:
    status, headers, body = await doors.ask(f"{doors.proxy}/a%2Fb/../c?d=e&access_token=x", headers="Cookie: own=1\r\n")
    target, seen = shown(body)
    assert (status, target) == (200, "/a%2Fb/../c?d=e")
    assert seen["x-forwarded-prefix"] == doors.proxy
    assert seen["x-forwarded-host"] == "api.test"
    assert not {"authorization", "cookie"} & seen.keys()
    assert headers["access-control-allow-origin"] == "*"


async def test_bodies_both_ways(doors: Doors) -> None:
    body = b"x" * 3_000_000
    status, _, answer = await doors.ask(f"{doors.proxy}/size", "POST", f"Content-Length: {len(body)}\r\n", body)
    assert (status, json.loads(answer)) == (200, {"bytes": len(body)})
    assert len((await doors.ask(f"{doors.proxy}/large?pieces=40"))[2]) == 40 * 65536
    early = await doors.ask(f"{doors.proxy}/early", "POST", "Content-Length: 50000000\r\n", b"z" * 1000)
    assert early[0] == 413


async def test_a_link(doors: Doors) -> None:
    doors.world.switches = {"port": str(doors.native.port)}
    status, headers, body = await exchange(doors.api, f"GET /v1/p/{TOKEN}/x?y HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert (status, shown(body)[0]) == (200, "/x?y")
    assert headers["content-security-policy"].startswith("sandbox")
    assert (await exchange(doors.api, b"GET /v1/p/pvt_wrong/ HTTP/1.1\r\nHost: a\r\n\r\n"))[0] == 401
    assert (await exchange(doors.api, f"GET /v1/p/{TOKEN}/../x HTTP/1.1\r\nHost: a\r\n\r\n".encode()))[0] == 400


async def test_websockets(doors: Doors) -> None:
    headers = {"Authorization": f"Bearer {doors.token}"}
    async with connect(f"ws://127.0.0.1:{doors.api}{doors.proxy}/ws", additional_headers=headers) as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"
    with pytest.raises(InvalidStatus) as refused:
        async with connect(f"ws://127.0.0.1:{doors.api}{doors.proxy}1/ws", additional_headers=headers):
            pass
    assert refused.value.response.status_code in (400, 502)


async def test_a_tunnel_for_any_protocol(doors: Doors) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"said " + await reader.read())  # only once the client has ended
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = f"ws://127.0.0.1:{doors.api}/v1/sandboxes/{doors.sandbox}/tunnel/{port}"
    async with connect(url, additional_headers={"Authorization": f"Bearer {doors.token}"}) as socket:
        await socket.send(b"one ")
        await socket.send(b"two")
        await socket.send('{"eof": true}')
        frames = [frame async for frame in socket]
    assert b"".join(each for each in frames if isinstance(each, bytes)) == b"said one two"
    assert json.loads(frames[-1]) == {"eof": True}
    server.close()
