"""What a tunnel carries between a program in the guest and the control plane's end of it.

The guest is the bare machine's; on the host all that a tunnel passes through is there, the engine's interface too.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from anyio.abc import UNIXSocketStream
from starlette.applications import Starlette
from starlette.middleware import Middleware

from pandastack.bench.raw import RawChannel
from pandastack.cluster import EngineClient
from pandastack.engine.http.tunnel import tunnel_routes
from pandastack.engine.http.version import VersionMiddleware
from pandastack.guest import Channel, Identity

MEGABYTES = 16
PATH = "/run/bench-tunnel"
_PROGRAM = """
import os, socket, sys
path = sys.argv[1]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path + ".new")
listener.listen()
os.rename(path + ".new", path)
asked = None
while asked != b"q":
    connection = listener.accept()[0]
    asked = connection.recv(1)
    if asked == b"d":
        connection.sendall(bytes(int(sys.argv[2])))
    while connection.recv(262144):
        pass
    connection.close()
os.unlink(path)
"""
"""Reads until the end; sends so much before when it is asked to by ``d``, and ends after ``q``."""


@dataclass
class Rates:
    """MB/s."""

    download: list[float] = field(default_factory=list)
    raw_download: list[float] = field(default_factory=list)
    upload: list[float] = field(default_factory=list)
    raw_upload: list[float] = field(default_factory=list)


def measure(raw: RawChannel, n: int, path: str = PATH) -> Rates:
    """``n`` transfers each way, in turns with the same over the bare channel, of a guest that has python3."""
    rates, large = Rates(), b"u" + bytes(MEGABYTES * 1_000_000)
    server = f"setsid python3 -c '{_PROGRAM}' {path} {MEGABYTES}000000 </dev/null >/dev/null 2>&1 &"
    raw.command(f"{server} until test -e {path}; do sleep 0.1; done")
    for round_number in range(n + 1):
        taken = [_raw(raw, path, b"d"), _raw(raw, path, large), *anyio.run(_transfer, raw.socket, path, large)]
        if round_number:  # code that runs for the first time is translated
            for each, rate in zip(
                (rates.raw_download, rates.raw_upload, rates.download, rates.upload), taken, strict=True
            ):
                each.append(rate)
    raw.tunnel(path, b"q")
    return rates


def _raw(raw: RawChannel, path: str, data: bytes) -> float:
    started = time.perf_counter()
    raw.tunnel(path, data)
    return MEGABYTES / (time.perf_counter() - started)


async def _transfer(guest: socket.socket, path: str, large: bytes) -> tuple[float, float]:
    timeout = guest.gettimeout()
    guest.setblocking(False)
    try:
        async with _client(guest) as client:
            return await _timed(client, path, b"d"), await _timed(client, path, large)
    finally:
        guest.settimeout(timeout)


@dataclass
class _OneGuest:
    """All that the routes need of an engine: one sandbox."""

    channel: Channel

    @property
    def registry(self) -> _OneGuest:
        return self

    def reach(self, _sandbox: str) -> _OneGuest:
        return self


@asynccontextmanager
async def _client(guest: socket.socket) -> AsyncIterator[EngineClient]:
    async with Channel(await UNIXSocketStream.from_socket(guest.dup())) as channel:
        identity = Identity(hostname="bench", machine_id="0" * 32)
        await channel.resume(identity, at_frame_boundary=True, timeout_s=20)
        app = Starlette(routes=tunnel_routes("/sandboxes/{id}"), middleware=[Middleware(VersionMiddleware)])
        app.state.engine = _OneGuest(channel)
        async with EngineClient.in_process(app) as client:
            yield client


async def _timed(client: EngineClient, path: str, data: bytes) -> float:
    """MB/s of sending ``data`` and receiving what it asks for."""
    started = time.perf_counter()
    async with client.tunnel("guest", path=path, id=str(uuid.uuid4())) as tunnel:
        await tunnel.send(data)
        await tunnel.send_eof()
        async for _ in tunnel:
            pass
        await tunnel.wait_closed()
    return MEGABYTES / (time.perf_counter() - started)
