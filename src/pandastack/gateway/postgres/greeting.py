"""From a TCP connection to a client's first packet: which encryption it asks for, TLS, and then its wish."""

from __future__ import annotations

import asyncio
import socket as sockets
from dataclasses import dataclass

import structlog

from pandastack.gateway.certificates import Certificates
from pandastack.gateway.client_socket import ClientGone, ClientSocket
from pandastack.gateway.opening import TLS, connected, peek, peek_hello
from pandastack.gateway.postgres.messages import (
    INVALID_AUTHORIZATION,
    PROTOCOL_VIOLATION,
    Cancel,
    Encryption,
    Malformed,
    Refusal,
    Startup,
    error,
    packet_size,
    parse_packet,
)

PROTOCOL = "postgresql"
"""The name of the protocol inside TLS (RFC 7301): mandatory where TLS begins at once, and never another."""
_NO_PROTOCOL = b"\x15\x03\x03\0\x02\x02\x78"
"""The fatal alert ``no_application_protocol`` of TLS (RFC 7301 3.2)."""
_HEAD_BYTES = 8

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Greeted:
    """A client that has begun a session, inside TLS. ``rest``: what it sent after that."""

    socket: ClientSocket
    server_name: str | None
    startup: Startup
    rest: bytes


async def encrypted(client: sockets.socket, certificates: Certificates) -> tuple[ClientSocket, str | None] | Cancel:
    """The connection inside TLS, with the server name that the client asked for; or a cancel, which needs no TLS.

    Raises :class:`ClientGone`, :class:`Malformed`, and :class:`Refusal` after which the connection is still plain.
    """
    refused: set[bool] = set()
    while (first := await peek(client)) and first[0] != TLS:
        wish = await _plain_packet(client)
        if isinstance(wish, Cancel):
            return wish
        if isinstance(wish, Startup):
            raise Refusal(INVALID_AUTHORIZATION, "this server only answers over TLS", "connect with sslmode=require")
        if wish.tls in refused or _has_more(client):
            # What was sent before the answer could pass for something said inside TLS (CVE-2021-23214).
            raise Malformed("unencrypted data after an encryption request")
        refused.add(wish.tls)
        await asyncio.get_running_loop().sock_sendall(client, b"S" if wish.tls else b"N")
        if wish.tls:
            break
    if not first:
        raise ClientGone
    return await _inside_tls(client, certificates, direct=first[0] == TLS)


async def _inside_tls(
    client: sockets.socket, certificates: Certificates, *, direct: bool
) -> tuple[ClientSocket, str | None]:
    hello = await peek_hello(client)
    if hello is None:
        raise Malformed("not TLS")
    if PROTOCOL.encode() not in (hello.protocols or (b"" if direct else PROTOCOL.encode(),)):
        await asyncio.get_running_loop().sock_sendall(client, _NO_PROTOCOL)
        raise Malformed("another protocol inside TLS")
    try:
        context = await certificates.context(hello.name)
    except OSError as error:
        log.warning("gateway.no_certificate", cause=str(error))
        raise ClientGone from error
    socket = ClientSocket(tls=True)
    if not await connected(client, socket, context):
        raise ClientGone
    return socket, hello.name


async def _plain_packet(client: sockets.socket) -> Encryption | Cancel | Startup:
    head = await _read(client, _HEAD_BYTES)
    return parse_packet(head + await _read(client, packet_size(head) - _HEAD_BYTES))


async def _read(client: sockets.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await asyncio.get_running_loop().sock_recv(client, count - len(data))
        if not more:
            raise ClientGone
        data += more
    return data


def _has_more(client: sockets.socket) -> bool:
    try:
        return bool(client.recv(1, sockets.MSG_PEEK))
    except BlockingIOError:
        return False


async def greeted(socket: ClientSocket, server_name: str | None) -> Greeted | Cancel:
    """What the client wants, whose first packet is inside TLS. Raises :class:`ClientGone` and :class:`Refusal`."""
    data, size = b"", _HEAD_BYTES
    try:
        while len(data) < size:
            if not (more := await socket.receive()):
                raise ClientGone
            data += more
            if len(data) >= 4:
                size = packet_size(data)
        wish = parse_packet(data[:size])
    except Malformed as broken:
        raise Refusal(PROTOCOL_VIOLATION, str(broken)) from broken
    if isinstance(wish, Encryption):
        raise Refusal(PROTOCOL_VIOLATION, "an encryption request inside TLS")
    if isinstance(wish, Cancel):
        return wish
    return Greeted(socket, server_name, wish, data[size:])


async def refuse_plain(client: sockets.socket, refusal: Refusal) -> None:
    """Tell a client without TLS why it is refused."""
    await asyncio.get_running_loop().sock_sendall(client, error(refusal))
