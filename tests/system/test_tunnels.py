"""Tunnels into real machines: every kind of address, through sleeps, copies and the death of the engine."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import ByteStream, TaskGroup

from pandastack.cluster import EngineClient
from pandastack.cluster.tunnel import Tunnel
from pandastack.contract.processes import ExecSpec
from pandastack.contract.records import ExecResult, Output
from pandastack.contract.references import TemplateRef
from pandastack.contract.sandboxes import SandboxSpec
from pandastack.engine.http.app import create_engine_app
from pandastack.errors import ConflictError, NotFoundError, UnavailableError
from tests.support.engine_server import engine_process
from tests.support.installation import Installation, eventually
from tests.support.machines import opened

pytestmark = pytest.mark.anyio

LARGE = os.urandom(2_000_000)
END = b"|end"

SERVER = """
import os, socket, threading

def serve(connection):
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)
        connection.sendall(b"|end")

def listen(family, address):
    listener = socket.socket(family)
    listener.bind(address)
    listener.listen()
    while True:
        threading.Thread(target=serve, args=[listener.accept()[0]]).start()

places = (socket.AF_INET, ("127.0.0.1", 7001)), (socket.AF_INET6, ("::1", 7002)), (socket.AF_UNIX, "/run/echo")
for family, address in places:
    threading.Thread(target=listen, args=[family, address]).start()
while not os.path.exists("/run/echo"):
    pass
open("/run/ready", "w")
"""
"""Echoes, and says that it read the end."""

START = f"cat > /run/server.py <<'EOS'\n{SERVER}\nEOS\nsetsid python3 /run/server.py </dev/null >/run/log 2>&1 &\n"
WAIT = "until test -e /run/ready; do sleep 0.1; done; cat /run/log"


async def execute(client: EngineClient, sandbox: str, cmd: str) -> str:
    text = b""
    async with client.exec(sandbox, ExecSpec(cmd=cmd, timeout_seconds=60)) as records:
        async for record in records:
            if isinstance(record, Output):
                text += record.data
            elif isinstance(record, ExecResult):
                assert record.exit_code == 0, text
    return text.decode()


@asynccontextmanager
async def sandbox_in(client: EngineClient) -> AsyncIterator[str]:
    """A sandbox in which :data:`SERVER` runs."""
    sandbox = str(uuid.uuid4())
    await client.create(SandboxSpec(sandbox), TemplateRef("base"))
    try:
        assert await execute(client, sandbox, START + WAIT) == ""
        yield sandbox
    finally:
        await client.delete(sandbox)


@pytest.fixture
async def client(place: Installation) -> AsyncIterator[EngineClient]:
    async with opened(place) as engine, EngineClient.in_process(create_engine_app(engine)) as client:
        with anyio.fail_after(300):
            yield client


@pytest.fixture
async def sandbox(client: EngineClient) -> AsyncIterator[str]:
    async with sandbox_in(client) as made:
        yield made


async def all_of(stream: ByteStream) -> bytes:
    return b"".join([chunk async for chunk in stream])


class Echo:
    """Sends :data:`LARGE` and its end, and collects what comes back, however often the tunnel is attached anew."""

    def __init__(self, tunnel: Tunnel, group: TaskGroup) -> None:
        self.tunnel = tunnel
        self.got = b""
        group.start_soon(self._send)
        group.start_soon(self._receive)

    async def _send(self) -> None:
        await self.tunnel.send(LARGE)
        await self.tunnel.send_eof()

    async def _receive(self) -> None:
        async for chunk in self.tunnel:
            self.got += chunk

    async def some(self, more: int = 200_000) -> None:
        """Wait until some more has come."""
        goal = min(len(self.got) + more, len(LARGE))
        while len(self.got) < goal:  # noqa: ASYNC110
            await anyio.sleep(0.001)  # the tunnel has no event for it


@pytest.mark.parametrize("where", [{"port": 7001}, {"port": 7002}, {"path": "/run/echo"}], ids=["v4", "v6", "unix"])
async def test_every_kind_of_address_and_each_end_by_itself(
    client: EngineClient, sandbox: str, where: dict[str, int | str]
) -> None:
    async with client.tunnel(sandbox, **where) as tunnel, anyio.create_task_group() as group:  # type: ignore[arg-type]
        echo = Echo(tunnel, group)
        await tunnel.wait_closed()
    assert echo.got == LARGE + END


async def test_a_port_that_nobody_listens_at(client: EngineClient, sandbox: str) -> None:
    with pytest.raises(NotFoundError, match="port 7003"):
        async with client.tunnel(sandbox, port=7003):
            pass


async def test_programs_reach_what_the_host_offers(client: EngineClient, sandbox: str) -> None:
    program = "import socket; s = socket.create_connection(('localhost', 7010)); s.sendall(b'ask'); print(s.recv(99))"
    async with client.listen(sandbox, port=7010) as connections, anyio.create_task_group() as group:

        async def ask() -> None:
            assert await execute(client, sandbox, f'python3 -c "{program}"') == "b'answer'\n"

        group.start_soon(ask)
        tunnel = await anext(connections)
        async with client.attach_tunnel(sandbox, tunnel):
            assert await tunnel.receive() == b"ask"
            await tunnel.send(b"answer")
            await tunnel.send_eof()
            assert await all_of(tunnel) == b""


async def test_a_tunnel_sleeps_and_wakes_with_its_sandbox(client: EngineClient, sandbox: str) -> None:
    async with anyio.create_task_group() as group, client.tunnel(sandbox, port=7001, id="through-sleep") as tunnel:
        echo = Echo(tunnel, group)
        for _ in range(2):
            await echo.some()
            await client.hibernate(sandbox)
            await tunnel.wait_detached()
            with pytest.raises(ConflictError):
                async with client.attach_tunnel(sandbox, tunnel):
                    pass
            await client.wake(sandbox)
            await group.start(stay_attached, client, sandbox, tunnel)
        await tunnel.wait_closed()
    assert echo.got == LARGE + END


async def stay_attached(
    client: EngineClient, sandbox: str, tunnel: Tunnel, *, task_status: anyio.abc.TaskStatus[None]
) -> None:
    async with client.attach_tunnel(sandbox, tunnel):
        task_status.started()
        await tunnel.wait_detached()


async def test_copies_and_rewinds_have_no_tunnels(client: EngineClient, sandbox: str) -> None:
    """Their host ends belong to the sandbox in the time that it left; its own goes on while it is copied."""
    child, snapshot = str(uuid.uuid4()), str(uuid.uuid4())
    async with client.tunnel(sandbox, port=7001, id="of-the-parent") as tunnel:
        await tunnel.send(b"before")
        assert await tunnel.receive() == b"before"
        await client.fork(sandbox, [SandboxSpec(child)])
        await client.snapshot(sandbox, snapshot)
        await tunnel.send(b"after")
        assert await tunnel.receive() == b"after"
        await gone(client, child, tunnel)
        await client.rewind(sandbox, snapshot)
        await tunnel.wait_detached()
    await gone(client, sandbox, tunnel)
    async with client.tunnel(sandbox, port=7001, id="of-the-parent") as again:
        await again.send_eof()
        assert await all_of(again) == END
    await client.delete(child)
    await client.delete_snapshot(snapshot)


async def gone(client: EngineClient, sandbox: str, tunnel: Tunnel) -> None:
    with pytest.raises(NotFoundError):
        async with client.attach_tunnel(sandbox, Tunnel(tunnel.id)):
            pass


async def test_a_tunnel_without_an_id_ends_when_the_sandbox_sleeps(client: EngineClient, sandbox: str) -> None:
    async with client.tunnel(sandbox, port=7001) as tunnel:
        await client.hibernate(sandbox)
        with pytest.raises(UnavailableError):
            await tunnel.receive()
    await client.wake(sandbox)
    async with client.tunnel(sandbox, port=7001) as tunnel:
        await tunnel.send_eof()
        assert await all_of(tunnel) == END


async def test_a_tunnel_outlives_an_engine_that_is_killed(place: Installation) -> None:
    """The engine alone in a process, killed in the middle of both ways; the next one adopts the machine."""
    killed = 0
    with anyio.fail_after(300):
        async with anyio.create_task_group() as group:
            async with engine_process(place) as (process, client):
                sandbox = str(uuid.uuid4())
                await client.create(SandboxSpec(sandbox), TemplateRef("base"))
                assert await execute(client, sandbox, START + WAIT) == ""
                async with client.tunnel(sandbox, port=7001, id="through-a-crash") as tunnel:
                    echo = Echo(tunnel, group)
                    await echo.some()
                    process.send_signal(signal.SIGKILL)
                    await tunnel.wait_detached()
            while not tunnel.over:
                async with engine_process(place) as (process, client), client.attach_tunnel(sandbox, tunnel):
                    if killed < 2:
                        killed += 1
                        await echo.some()
                        process.send_signal(signal.SIGKILL)
                    await tunnel.wait_detached()
        assert echo.got == LARGE + END
        assert killed == 2
    # The last engine was told to stop, and ended the machine.
    eventually(lambda: place.left_behind() == [], 20, "nothing is left behind")
