"""Tunnels through the engine's interface, in process and over real HTTP, to the real agent as an ordinary process."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
import uvicorn
from anyio.abc import ByteStream
from starlette.applications import Starlette
from starlette.middleware import Middleware

from pandastack.cluster import EngineClient
from pandastack.cluster.tunnel import Tunnel
from pandastack.engine.http.tunnel import tunnel_routes
from pandastack.engine.http.version import VersionMiddleware
from pandastack.errors import BadRequestError, ConflictError, GuestError, NotFoundError, ServerError, UnavailableError
from pandastack.guest import Channel
from pandastack.host.tasks import beside
from tests.support.connections import Connections, all_of, echo, exactly, on_a_port, serving
from tests.support.guests import IDENTITY

pytestmark = pytest.mark.anyio

LARGE = os.urandom(3_000_000)
AGAIN = replace(IDENTITY, continues=True)


def engine_with(channel: Channel) -> Starlette:
    """An engine that has one sandbox, ``box``."""

    def reach(sandbox: str) -> SimpleNamespace:
        if sandbox != "box":
            raise NotFoundError(f"sandbox {sandbox} not found")
        return SimpleNamespace(channel=channel)

    app = Starlette(routes=tunnel_routes("/sandboxes/{id}"), middleware=[Middleware(VersionMiddleware)])
    app.state.engine = SimpleNamespace(registry=SimpleNamespace(reach=reach, reach_again=reach))
    return app


class Server(uvicorn.Server):
    """Serves over HTTP until its block ends."""

    def __init__(self, app: Starlette, listener: socket.socket) -> None:
        super().__init__(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        self._listener = listener
        self.ready = anyio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def run_here(self) -> None:
        await self._serve([self._listener])  # without the handlers of signals


@asynccontextmanager
async def over_http(app: Starlette, kind: str, directory: Path) -> AsyncIterator[EngineClient]:
    listener = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
    with listener:
        listener.bind(str(directory / "engine.sock") if kind == "unix" else ("127.0.0.1", 0))
        listener.listen()
        name = listener.getsockname()
        url = f"unix:{name}" if kind == "unix" else f"http://127.0.0.1:{name[1]}"
        server = Server(app, listener)
        async with beside(server.run_here):
            await server.ready.wait()
            async with EngineClient.connect(url) as client:
                yield client
            server.should_exit = server.force_exit = True


@pytest.fixture(params=["in process", "unix", "tcp"])
async def client(request: pytest.FixtureRequest, channel: Channel, tmp_path: Path) -> AsyncIterator[EngineClient]:
    app = engine_with(channel)
    if request.param == "in process":
        async with EngineClient.in_process(app) as made:
            yield made
    else:
        async with over_http(app, request.param, tmp_path) as made:
            yield made


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[str, Connections]]:
    where, connections = str(tmp_path / "server"), Connections()
    async with serving(await anyio.create_unix_listener(where), connections.handle):
        yield where, connections


@pytest.mark.parametrize("id", [None, "mine"])
async def test_a_slow_program_reads_all_that_was_sent_before_both_ways_ended(
    client: EngineClient, server: tuple[str, Connections], id: str | None
) -> None:
    """More than its socket holds, and the host leaves at once: that ends the connection, and does not break it."""
    (path, connections), read, data = server, list[bytes](), LARGE[:250_000]

    async def read_late(program: ByteStream) -> None:
        await anyio.sleep(0.2)
        read.append(await all_of(program))

    async with anyio.create_task_group() as group, client.tunnel("box", path=path, id=id) as tunnel:
        program = await connections.next()
        await program.send_eof()
        assert await all_of(tunnel) == b""
        group.start_soon(read_late, program)
        await tunnel.send(data)
        await tunnel.send_eof()
    assert read == [data]


@pytest.mark.parametrize("data", [b"", b"hello", LARGE], ids=len)
@pytest.mark.parametrize("id", [None, "mine"])
async def test_bytes_go_both_ways_and_each_way_ends_by_itself(
    client: EngineClient, data: bytes, id: str | None
) -> None:
    async with on_a_port("127.0.0.1", echo) as port, client.tunnel("box", port=port, id=id) as tunnel:
        async with anyio.create_task_group() as group:

            async def send() -> None:
                await tunnel.send(data)
                await tunnel.send_eof()

            group.start_soon(send)
            assert await all_of(tunnel) == data
        await tunnel.wait_closed()
        assert tunnel.over and (tunnel.sent, tunnel.received) == (len(data) + 1, len(data) + 1)


async def test_the_guest_ends_its_way_first(client: EngineClient, server: tuple[str, Connections]) -> None:
    where, connections = server
    async with client.tunnel("box", path=where) as tunnel:
        program = await connections.next()
        await program.send(b"that is all from me")
        await program.send_eof()
        assert await all_of(tunnel) == b"that is all from me"
        await tunnel.send(b"and this from us")
        await tunnel.send_eof()
        assert await all_of(program) == b"and this from us"
        await tunnel.wait_closed()


async def test_refusals_come_before_the_tunnel(client: EngineClient, tmp_path: Path) -> None:
    for sandbox, where, refusal in (
        ("other", {"port": 80}, NotFoundError),
        ("box", {"port": 1}, NotFoundError),
        ("box", {"path": str(tmp_path / "none")}, NotFoundError),
        ("box", {"path": "relative"}, BadRequestError),
        ("box", {"port": 70000}, BadRequestError),
        ("box", {}, BadRequestError),
        ("box", {"port": 80, "id": "NOT/AN/ID"}, BadRequestError),
    ):
        with pytest.raises(refusal):
            async with client.tunnel(sandbox, **where):
                pass
    with pytest.raises(NotFoundError, match="tunnel never"):
        async with client.attach_tunnel("box", Tunnel("never")):
            pass


async def test_another_version_is_refused(client: EngineClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pandastack.cluster.connection._HEADERS", {"x-pandastack-engine-version": "0"})
    with pytest.raises(ServerError, match="version"):
        async with client.tunnel("box", port=80):
            pass


async def test_leaving_the_block_closes_the_connection(client: EngineClient, server: tuple[str, Connections]) -> None:
    where, connections = server
    async with client.tunnel("box", path=where, id="mine") as tunnel:
        program = await connections.next()
    assert await all_of(program) == b""
    assert tunnel.over
    with pytest.raises(NotFoundError):
        async with client.attach_tunnel("box", Tunnel("mine")):
            pass


async def test_what_breaks_the_connection_is_raised(client: EngineClient) -> None:
    connections = Connections()
    async with on_a_port("127.0.0.1", connections.handle) as port, client.tunnel("box", port=port) as tunnel:
        program = await connections.next()
        await program.send(b"last words")
        await exactly(tunnel, 4)
        raw = program.extra(anyio.abc.SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await program.aclose()
        assert await exactly(tunnel, 6) == b" words"
        with pytest.raises(GuestError, match="reset"):
            await tunnel.receive()


async def test_a_stalled_reader_stalls_only_its_own_tunnel(
    client: EngineClient, server: tuple[str, Connections]
) -> None:
    """Both ends of one stand still, full both ways; another works; afterwards nothing is missing."""
    where, connections = server
    async with client.tunnel("box", path=where) as stuck, anyio.create_task_group() as group:
        program = await connections.next()
        group.start_soon(stuck.send, LARGE)
        group.start_soon(program.send, LARGE)
        async with on_a_port("127.0.0.1", echo) as port, client.tunnel("box", port=port) as other:
            await other.send(b"past it")
            assert await exactly(other, 7) == b"past it"
        async with anyio.create_task_group() as readers:

            async def read(stream: ByteStream) -> None:
                assert await exactly(stream, len(LARGE)) == LARGE

            readers.start_soon(read, program)
            readers.start_soon(read, stuck)


async def test_both_sides_send_before_they_read(client: EngineClient) -> None:
    """An echo of more than all buffers hold: acknowledgements must pass the data that wait."""
    async with (
        on_a_port("127.0.0.1", echo) as port,
        client.tunnel("box", port=port, id="mine") as tunnel,
        anyio.create_task_group() as group,
    ):
        group.start_soon(tunnel.send, LARGE)
        await anyio.sleep(0.3)  # until nothing moves
        assert await exactly(tunnel, len(LARGE)) == LARGE


async def test_a_hundred_tunnels_at_once(client: EngineClient) -> None:
    async def one(port: int, number: int) -> None:
        data = number.to_bytes(2, "little") * 20_000
        async with client.tunnel("box", port=port, id=f"t-{number}") as tunnel, anyio.create_task_group() as group:
            group.start_soon(tunnel.send, data)
            assert await exactly(tunnel, len(data)) == data

    async with on_a_port("127.0.0.1", echo) as port, anyio.create_task_group() as group:
        for number in range(100):
            group.start_soon(one, port, number)


async def test_a_tunnel_continues_after_its_attachment_broke(
    client: EngineClient, channel: Channel, server: tuple[str, Connections]
) -> None:
    """The channel begins anew in the middle of both ways, as it does when a machine wakes or is adopted: every byte
    arrives, and once."""
    where, connections = server
    got: dict[str, bytes] = {}

    async def read(name: str, stream: ByteStream) -> None:
        got[name] = await all_of(stream)

    last = anyio.Event()

    async def write(stream: ByteStream) -> None:
        for at in range(0, len(LARGE), 10_000):
            if at > len(LARGE) // 2:
                await last.wait()
            await stream.send(LARGE[at : at + 10_000])
            await anyio.lowlevel.checkpoint()
        await stream.send_eof()

    async with anyio.create_task_group() as group:
        async with client.tunnel("box", path=where, id="mine") as tunnel:
            program = await connections.next()
            for work, *arguments in (
                (write, program),
                (write, tunnel),
                (read, "program", program),
                (read, "host", tunnel),
            ):
                group.start_soon(work, *arguments)
            await anyio.sleep(0.02)
            await channel.resume(AGAIN, at_frame_boundary=True, timeout_s=10)
            await tunnel.wait_detached()
        attachments = 0
        while not tunnel.over:
            async with client.attach_tunnel("box", tunnel):
                attachments += 1
                if attachments == 4:
                    last.set()
                else:
                    await anyio.sleep(0.02)
                    await channel.resume(AGAIN, at_frame_boundary=True, timeout_s=10)
                await tunnel.wait_detached()
    assert got == {"program": LARGE, "host": LARGE}
    assert attachments == 4


async def test_a_tunnel_in_a_copy_is_gone(client: EngineClient, channel: Channel) -> None:
    async with on_a_port("127.0.0.1", echo) as port, client.tunnel("box", port=port, id="mine") as tunnel:
        await channel.resume(IDENTITY, at_frame_boundary=True, timeout_s=10)
        await tunnel.wait_detached()
    with pytest.raises(NotFoundError) as gone:
        async with client.attach_tunnel("box", tunnel):
            pass
    tunnel.fail(gone.value)
    with pytest.raises(NotFoundError):
        await tunnel.receive()


async def test_without_an_id_a_tunnel_ends_with_its_attachment(client: EngineClient, channel: Channel) -> None:
    async with on_a_port("127.0.0.1", echo) as port, client.tunnel("box", port=port) as tunnel:
        await channel.resume(AGAIN, at_frame_boundary=True, timeout_s=10)
        with pytest.raises(UnavailableError):
            await tunnel.receive()
        with pytest.raises(UnavailableError):
            await tunnel.send(b"x")


async def test_each_connection_to_where_the_host_listens_is_a_tunnel(
    client: EngineClient, channel: Channel, free_port: Callable[[], int]
) -> None:
    where = {"port": free_port()}
    async with (
        client.listen("box", **where) as connections,
        await anyio.connect_tcp("127.0.0.1", where["port"]) as program,
    ):
        tunnel = await anext(connections)
        async with client.attach_tunnel("box", tunnel):
            await program.send(b"request")
            assert await exactly(tunnel, 7) == b"request"
            await tunnel.send(b"answer")
            assert await exactly(program, 6) == b"answer"
    await channel.ping()  # until the agent has heard of the end
    with pytest.raises(OSError):
        await anyio.connect_tcp("127.0.0.1", where["port"])


async def test_connections_wait_while_the_host_does_not_listen(
    client: EngineClient, channel: Channel, free_port: Callable[[], int]
) -> None:
    where = {"port": free_port()}
    async with client.listen("box", **where, id="door") as connections:
        await channel.resume(AGAIN, at_frame_boundary=True, timeout_s=10)
        with pytest.raises(UnavailableError):
            await anext(connections)
    async with await anyio.connect_tcp("127.0.0.1", where["port"]) as program:
        await program.send(b"patience")
        async with client.listen("box", **where, id="door") as connections:
            tunnel = await anext(connections)
            async with client.attach_tunnel("box", tunnel):
                assert await exactly(tunnel, 8) == b"patience"


async def test_where_the_host_cannot_listen(client: EngineClient) -> None:
    async with on_a_port("127.0.0.1", echo) as port:
        with pytest.raises(ConflictError):
            async with client.listen("box", port=port):
                pass
