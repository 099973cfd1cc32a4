"""``python -m tests.gateway.raw_tunnel ENGINE SANDBOX PORT``: a port whose connections are tunnels, and nothing more.

The least that a door can do: what the PostgreSQL door adds is measured against it. It prints its own port.
"""

from __future__ import annotations

import socket
import sys
import uuid
from functools import partial

import anyio

from pandastack.cluster import EngineClient
from pandastack.gateway.client_socket import ClientGone, ClientSocket
from pandastack.gateway.opening import Count, accept_each, connected


async def pass_bytes(engine: EngineClient, sandbox: str, port: int, client: socket.socket) -> None:
    """Pass the bytes of one connection until its client leaves."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.setblocking(False)
    stream = ClientSocket(tls=False)
    await connected(client, stream)
    async with engine.tunnel(sandbox, port=port, id=str(uuid.uuid4())) as tunnel, anyio.create_task_group() as tasks:

        async def outward() -> None:
            try:
                while True:
                    await stream.send(await tunnel.receive(256 * 1024))
            except (ClientGone, anyio.EndOfStream):
                pass

        tasks.start_soon(outward)
        while data := await stream.receive():
            await tunnel.send(data)
        tasks.cancel_scope.cancel()
    stream.close()


async def serve(engine_path: str, sandbox: str, port: int) -> None:
    """Serve until the process is ended."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    listener.setblocking(False)
    async with EngineClient.connect(f"unix:{engine_path}") as engine, anyio.create_task_group() as tasks:
        print(listener.getsockname()[1], flush=True)
        await accept_each(listener, Count(1000), tasks, partial(pass_bytes, engine, sandbox, port))


if __name__ == "__main__":
    anyio.run(serve, sys.argv[1], sys.argv[2], int(sys.argv[3]), backend_options={"use_uvloop": True})
