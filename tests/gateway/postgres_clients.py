"""Clients of the PostgreSQL door that say exactly what a test wants, and a server that does."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandastack.gateway.postgres.messages import GSS_REQUEST, SSL_REQUEST, Frames
from tests.gateway.world import World

DATABASE = "calm-panda-1"
HOST = f"{DATABASE}.localhost"
USER, PASSWORD = "app", "correct horse"


def ca(world: World) -> Path:
    """The certificate of the authority that signs what the gateway shows."""
    assert world.options is not None
    path = Path(world.options.data) / "authority.pem"
    text = (Path(world.options.data) / "ca.pem").read_text()
    path.write_text(text[text.index("-----BEGIN CERTIFICATE-----") :])
    return path


def parameters(world: World, **more: Any) -> dict[str, Any]:
    """Those of libpq for a client that knows the name, and verifies it."""
    usual = {
        "host": HOST,
        "hostaddr": "127.0.0.1",
        "port": world.postgres_port,
        "user": USER,
        "password": PASSWORD,
        "dbname": USER,
        "sslmode": "verify-full",
        "sslrootcert": str(ca(world)),
        "connect_timeout": 20,
    }
    return {**usual, **more}


def request(code: int, rest: bytes = b"") -> bytes:
    """A packet as a client's first."""
    return struct.pack("!II", 8 + len(rest), code) + rest


def startup(minor: int = 0, major: int = 3, **named: str) -> bytes:
    """A startup packet."""
    named = {"user": USER, "database": USER} | named
    body = b"".join(f"{name}\0{value}\0".encode() for name, value in named.items())
    return request(major << 16 | minor, body + b"\0")


@dataclass
class Raw:
    """A connection whose messages a test writes and reads."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def message(self) -> tuple[bytes, bytes]:
        """The next message: its kind and body."""
        head = await self.reader.readexactly(5)
        return head[:1], await self.reader.readexactly(int.from_bytes(head[1:]) - 4)

    async def error(self) -> dict[str, str]:
        """The fields of an ErrorResponse, which must come next, and be the last."""
        kind, body = await self.message()
        assert kind == b"E"
        assert await self.ended()
        return {chr(field[0]): field[1:].decode() for field in body.split(b"\0") if field}

    async def ended(self) -> bool:
        """Whether the connection ends without another byte."""
        try:
            return await self.reader.read(1) == b""
        except (ConnectionError, ssl.SSLError):
            return True

    async def start_tls(self, *, server_name: str = HOST, protocols: tuple[str, ...] = ()) -> None:
        """Continue inside TLS."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if protocols:
            context.set_alpn_protocols(list(protocols))
        await self.writer.start_tls(context, server_hostname=server_name)


@asynccontextmanager
async def plain(world: World) -> AsyncIterator[Raw]:
    """A connection that has said nothing yet."""
    raw = Raw(*await asyncio.open_connection("127.0.0.1", world.postgres_port))
    try:
        yield raw
    finally:
        raw.writer.transport.abort()
        await asyncio.sleep(0)


@asynccontextmanager
async def secure(world: World, *, server_name: str = HOST) -> AsyncIterator[Raw]:
    """A connection inside TLS, as older clients begin it."""
    async with plain(world) as raw:
        raw.send(request(SSL_REQUEST))
        assert await raw.reader.readexactly(1) == b"S"
        await raw.start_tls(server_name=server_name)
        yield raw


async def ask_gss(raw: Raw) -> bytes:
    """The answer to a wish for GSSAPI."""
    raw.send(request(GSS_REQUEST))
    return await raw.reader.readexactly(1)


Script = Callable[[Raw], Awaitable[None]]


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that plays ``script`` after a client's first packet: its port, and the first packets."""
    packets: list[bytes] = []
    failures: list[BaseException] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = Raw(reader, writer)
        try:
            size = await reader.readexactly(4)
            packets.append(size + await reader.readexactly(int.from_bytes(size) - 4))
            await script(raw)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except BaseException as error:
            failures.append(error)
            raise
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], packets
    assert not failures


def frames(data: bytes) -> list[tuple[bytes, bytes]]:
    """The messages in ``data``."""
    return list(Frames(2**20).feed(data))
