"""What the gateway adds to a request, and how many it passes on: its own process, native servers, real tunnels."""

from __future__ import annotations

import statistics
from pathlib import Path

import anyio
import pytest

from pandastack.bench.gateway import measure
from pandastack.cli.server.gateway import open_gateway
from pandastack.cluster import EngineClient
from pandastack.gateway.options import Options
from tests.gateway.world import SANDBOX, World

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.alone]

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


async def _answer(stream: anyio.abc.SocketStream) -> None:
    """The least that a server can do."""
    async with stream:
        data = b""
        async for chunk in stream:
            data += chunk
            while b"\r\n\r\n" in data:
                data = data.partition(b"\r\n\r\n")[2]
                await stream.send(ANSWER)


async def test_five_hundred_requests_a_second_and_three_milliseconds(tmp_path: Path) -> None:
    options, world = Options(directory=str(tmp_path / "run"), data=str(tmp_path)), World()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with (
        listener,
        anyio.create_task_group() as tasks,
        open_gateway(options, world.engine_app(), world.control_app()) as gateway,
        EngineClient.connect(f"unix:{options.engine}") as engine,
    ):
        tasks.start_soon(listener.serve, _answer)
        host = f"{port}-{SANDBOX}.localhost"
        added = await measure(engine, SANDBOX, port, ("127.0.0.1", gateway.ports["http"]), host)
        print(
            f"gateway {statistics.median(added.gateway):.2f} ms {statistics.median(added.gateway_rate):.0f}/s,"
            f" tunnel {statistics.median(added.tunnel):.2f} ms {statistics.median(added.tunnel_rate):.0f}/s"
        )
        assert statistics.median(added.gateway) <= statistics.median(added.tunnel) + 3
        assert statistics.median(added.gateway_rate) >= 500
        tasks.cancel_scope.cancel()
