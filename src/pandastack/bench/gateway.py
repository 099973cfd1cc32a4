"""``bench gateway``: what the gateway adds to a request, and how many it passes on; the raw tunnel is the base.

A request over a tunnel of the engine and the same one through the gateway, in turns, to one server.
"""

from __future__ import annotations

import asyncio
import shlex
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio

from pandastack.bench.api import Api
from pandastack.bench.report import Row, summarize
from pandastack.cluster import EngineClient
from pandastack.errors import PandastackError

PORT = 8000
"""Where the server in the guest listens."""

WARM_UP = 5
CLIENTS = 16
RATE_ROUNDS = 3
RATE_SECONDS = 1.0
START_SECONDS = 20

_READY = "/run/bench-gateway"

_SERVER = r"""
import asyncio, sys

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Least(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.data = transport, b""

    def data_received(self, data):
        *whole, self.data = (self.data + data).split(b"\r\n\r\n")
        self.transport.write(ANSWER * len(whole))


async def main():
    server = await asyncio.get_running_loop().create_server(Least, "127.0.0.1", int(sys.argv[1]), backlog=256)
    open(sys.argv[2], "w").close()
    await server.serve_forever()


asyncio.run(main())
"""
"""The least that a server can do, with Python's standard library; connections are kept."""


@dataclass
class Added:
    """Milliseconds of one request each way, and requests a second with :data:`CLIENTS` connections at once."""

    gateway: list[float] = field(default_factory=list)
    tunnel: list[float] = field(default_factory=list)
    gateway_rate: list[float] = field(default_factory=list)
    tunnel_rate: list[float] = field(default_factory=list)


def start_server(api: Api, sandbox: str) -> None:
    """Start the server in a sandbox; it listens afterwards. Raises :class:`PandastackError`."""
    start = f"setsid python3 -c {shlex.quote(_SERVER)} {PORT} {_READY} </dev/null >/dev/null 2>&1 &"
    wait = f"for i in $(seq {START_SECONDS * 10}); do test -e {_READY} && exit; sleep 0.1; done; exit 1"
    done = api.execute(sandbox, f"{start} {wait}")
    if done["exit_code"]:
        raise PandastackError(f"no server in the guest after {START_SECONDS} s", hint="the template needs python3")


async def measure(
    engine: EngineClient,
    sandbox: str,
    port: int,
    door: tuple[str, int],
    host: str,
    *,
    n: int = 200,
    rounds: int = RATE_ROUNDS,
    seconds: float = RATE_SECONDS,
) -> Added:
    """``n`` requests in turns, then ``rounds`` of :data:`CLIENTS` connections for ``seconds`` each way, in turns.

    ``door`` is the gateway's address, ``host`` the preview's name. Raises :class:`PandastackError` for an answer
    that is not 200.
    """
    added, head = Added(), f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection(*door)
    async with engine.tunnel(sandbox, port=port, id=str(uuid.uuid4())) as tunnel:
        for round_number in range(n + WARM_UP):
            started = time.perf_counter()
            await tunnel.send(head)
            await _answer(tunnel.receive)
            between = time.perf_counter()
            writer.write(head)
            await _answer(lambda: reader.read(65536))
            ended = time.perf_counter()
            if round_number >= WARM_UP:
                added.tunnel.append((between - started) * 1000)
                added.gateway.append((ended - between) * 1000)
    writer.close()
    for _ in range(rounds):
        added.gateway_rate.append(await _rate(seconds, head, door))
        added.tunnel_rate.append(await _tunnel_rate(seconds, head, engine, sandbox, port))
    return added


def rows(added: Added) -> list[Row]:
    """The report's rows: the gateway is compared with the raw tunnel."""
    more = [one - two for one, two in zip(added.gateway, added.tunnel, strict=True)]
    return [
        summarize("tunnel_request", "ms", added.tunnel),
        summarize("gateway_request", "ms", added.gateway, added.tunnel),
        summarize("gateway_added", "ms", more),
        summarize("tunnel_requests_per_s", "1/s", added.tunnel_rate),
        summarize("gateway_requests_per_s", "1/s", added.gateway_rate, added.tunnel_rate),
    ]


async def _rate(seconds: float, head: bytes, door: tuple[str, int]) -> float:
    done = 0

    async def one() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection(*door)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            writer.write(head)
            await _answer(lambda: reader.read(65536))
            done += 1
        writer.close()

    async with anyio.create_task_group() as tasks:
        for _ in range(CLIENTS):
            tasks.start_soon(one)
    return done / seconds


async def _tunnel_rate(seconds: float, head: bytes, engine: EngineClient, sandbox: str, port: int) -> float:
    done = 0

    async def one() -> None:
        nonlocal done
        async with engine.tunnel(sandbox, port=port, id=str(uuid.uuid4())) as tunnel:
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                await tunnel.send(head)
                await _answer(tunnel.receive)
                done += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(CLIENTS):
            tasks.start_soon(one)
    return done / seconds


async def _answer(receive: Callable[[], Awaitable[bytes]]) -> None:
    """Read one answer that has a length. Raises :class:`PandastackError` when it is not 200 or there is none."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := await receive()):
            raise PandastackError("the connection was closed without an answer")
        data += more
    top, _, body = data.partition(b"\r\n\r\n")
    line, *fields = top.split(b"\r\n")
    length = next((int(each[15:]) for each in fields if each.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        if not (more := await receive()):
            raise PandastackError("the connection was closed in the middle of an answer")
        body += more
    if line.split(b" ")[1:2] != [b"200"]:
        raise PandastackError(f"{line.decode('latin-1')[:100]}: {body.decode(errors='replace')[:200]}")
