"""A host that records what arrives, and repeats it."""

from __future__ import annotations

import gzip
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio.abc import ByteStream, SocketStream, UNIXSocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.tls import TLSListener, TLSStream

from pandastack.broker import BrokerClient
from pandastack.broker.authority import Authority, make_ca
from pandastack.broker.messages import Handover, encode_handover

HOST = "api.example.org"
_WHOLE = 8 * 1024 * 1024


@dataclass
class Origin:
    port: int = 0
    requests: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def open_origin(trust: Path, host: str = HOST, *, tls: bool = True) -> AsyncIterator[Origin]:
    """A host with a certificate of an authority of its own, which is written to ``trust``."""
    authority, origin = Authority(make_ca()), Origin()
    trust.write_text(authority.pem)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    origin.port = listener.extra(anyio.abc.SocketAttribute.local_port)
    serving = TLSListener(listener, authority.context(host), standard_compatible=False) if tls else listener

    async def answer(stream: ByteStream) -> None:
        with suppress(anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, ssl.SSLError):
            async with stream:
                reader = BufferedByteReceiveStream(stream)
                while await _one(origin, reader, stream):
                    pass

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serving.serve, answer)
        yield origin
        tasks.cancel_scope.cancel()
    await serving.aclose()


async def _one(origin: Origin, reader: BufferedByteReceiveStream, stream: ByteStream) -> bool:
    head = await reader.receive_until(b"\r\n\r\n", _WHOLE) + b"\r\n\r\n"
    lower = head.lower()
    body = b""
    if b"\r\ntransfer-encoding: chunked\r\n" in lower:
        while (size := int(await reader.receive_until(b"\r\n", 100), 16)) > 0:
            body += await reader.receive_exactly(size)
            await reader.receive_exactly(2)
        await reader.receive_exactly(2)
    elif b"\r\ncontent-length:" in lower:
        body = await reader.receive_exactly(int(lower.split(b"\r\ncontent-length:")[1].split(b"\r\n")[0]))
    seen = head + body
    origin.requests.append(seen)
    match head.split()[1].partition(b"?")[0]:
        case b"/gzip":
            packed = gzip.compress(seen)
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed))
            await stream.send(packed)
        case b"/br":
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx")
        case b"/close":
            await stream.send(
                b"HTTP/1.1 200 OK\r\nX-Echo: " + head.split(b"x-key: ")[-1].split(b"\r\n")[0] + b"\r\n\r\n"
            )
            await stream.send(seen)
            return False
        case b"/bye":
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbye")
            return False
        case b"/slowly":
            await stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for at in range(0, len(seen), 7):
                piece = seen[at : at + 7]
                await stream.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            await stream.send(b"0\r\n\r\n")
        case b"/ws":
            await stream.send(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: x\r\n\r\n"
            )
            await stream.send(b"\x81\x05hello")
            while True:
                origin.requests.append(await reader.receive())
        case _:
            if head.startswith(b"HEAD"):
                await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
            else:
                await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(seen) + seen)
    return True


async def hand_over(
    broker: BrokerClient, port: int, *, slot: str = "slot", host: str = HOST, tls: bool = True, begun: bytes = b""
) -> tuple[bytes, UNIXSocketStream, SocketStream]:
    """Do what the egress process does: the answer of the broker, the connection that hands over, which must stay
    open, and the client's end."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        with socket.create_connection(("127.0.0.1", listener.extra(anyio.abc.SocketAttribute.local_port))) as client:
            proxied, _ = listener.extra(anyio.abc.SocketAttribute.raw_socket).accept()
            ours = client.dup()
    with proxied, socket.create_connection(("127.0.0.1", port)) as upstream:
        proxied.setblocking(False)
        upstream.setblocking(False)
        wanted = encode_handover(Handover(slot, "sandbox", host, 443, tls, len(begun)))
        handing = await anyio.connect_unix(str(broker.socket))
        await handing.send_fds(wanted + begun, [proxied.fileno(), upstream.fileno()])
        said = await handing.receive()
    return said, handing, await SocketStream.from_socket(ours)


@asynccontextmanager
async def connect(broker: BrokerClient, port: int, *, slot: str = "slot", host: str = HOST) -> AsyncIterator[TLSStream]:
    """A guest's connection to a bound host, through the broker, with the certificate checked as a guest does."""
    said, handing, stream = await hand_over(broker, port, slot=slot, host=host)
    async with handing, stream:
        assert said == b'{"ok":true}\n'
        context = ssl.create_default_context(cadata=broker.ca_pem)
        context.set_alpn_protocols(["h2", "http/1.1"])
        yield await TLSStream.wrap(stream, hostname=host, ssl_context=context, standard_compatible=False)
