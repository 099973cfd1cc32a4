"""``python -m pandastack.bench.raw_port ENGINE``: ports of this host whose connections are tunnels, and nothing more.

The least that a door can do: what the PostgreSQL door adds is measured against it. For each line ``SANDBOX PORT`` on
its input it opens a port to that port in the sandbox, and prints its number.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import anyio

from pandastack.cluster import EngineClient
from pandastack.errors import PandastackError
from pandastack.gateway.client_socket import ClientGone, ClientSocket
from pandastack.gateway.opening import Count, accept_each, connected

_PIECE = 256 * 1024


class RawPorts:
    """The process, as its parent uses it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def open(self, sandbox: str, port: int) -> int:
        """A port of this host that leads to ``port`` in the sandbox."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{sandbox} {port}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise PandastackError("the process of the raw tunnels has ended")
        return int(line)


@contextmanager
def raw_ports(engine: Path) -> Iterator[RawPorts]:
    """A process that opens them as long as the block runs; ``engine`` is where the gateway finds its tunnels."""
    argv = [sys.executable, "-m", "pandastack.bench.raw_port", str(engine)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield RawPorts(process)
        finally:
            process.terminate()


async def _pass_bytes(engine: EngineClient, sandbox: str, port: int, client: socket.socket) -> None:
    """Pass the bytes of one connection until its client leaves."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.setblocking(False)
    stream = ClientSocket(tls=False)
    await connected(client, stream)
    try:
        async with (
            engine.tunnel(sandbox, port=port, id=str(uuid.uuid4())) as tunnel,
            anyio.create_task_group() as tasks,
        ):

            async def outward() -> None:
                try:
                    while True:
                        await stream.send(await tunnel.receive(_PIECE))
                except (ClientGone, anyio.EndOfStream):
                    pass

            tasks.start_soon(outward)
            while data := await stream.receive():
                await tunnel.send(data)
            tasks.cancel_scope.cancel()
    except* PandastackError as error:
        print(f"raw port: {error.exceptions[0]}", file=sys.stderr)  # the client sees the end
    finally:
        stream.close()


async def _serve(engine_path: str) -> None:
    async with (
        EngineClient.connect(f"unix:{engine_path}") as engine,
        anyio.create_task_group() as tasks,
        await anyio.open_file(sys.stdin.fileno(), closefd=False) as lines,
    ):
        async for line in lines:
            sandbox, port = line.split()
            listener = socket.create_server(("127.0.0.1", 0), backlog=128)
            listener.setblocking(False)
            tasks.start_soon(
                accept_each, listener, Count(1000), tasks, partial(_pass_bytes, engine, sandbox, int(port))
            )
            print(listener.getsockname()[1], flush=True)
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(_serve, sys.argv[1], backend_options={"use_uvloop": True})
    os._exit(0)  # a thread may still wait for input
