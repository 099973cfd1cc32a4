"""Bytes between two sockets, without a copy that is not needed and without memory that grows."""

from __future__ import annotations

import ctypes
import socket
import struct
from contextlib import suppress

import anyio
import anyio.lowlevel

CHUNK = 128 * 1024
"""Bytes that are read at once, and the most that a direction holds while its receiver is slow."""

_TURN = 8
"""Chunks after which other connections get their turn."""

_LIBC = ctypes.CDLL(None, use_errno=True)
_SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h
_SCRATCH = bytearray(CHUNK)
"""Shared by all connections: what cannot be sent at once is copied out of it."""


def original_destination(client: socket.socket) -> tuple[str, int] | None:
    """Where the client connected to before the packet filter redirected it; None: to this very socket."""
    try:
        raw = client.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, 16)
    except OSError:
        return None
    port, address = struct.unpack("!2xH4s8x", raw)
    destination = (socket.inet_ntoa(address), port)
    return None if destination == client.getsockname() else destination


def prepare(sock: socket.socket) -> None:
    """Send small pieces at once, and notice within minutes that the other end is gone."""
    sock.setblocking(False)
    for level, option, value in (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 20),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 5),
    ):
        sock.setsockopt(level, option, value)


def reset(sock: socket.socket) -> None:
    """End the connection now: the peer gets a reset, and no byte that has not been sent yet.

    The descriptor stays open, so that a task that waits for it can still leave. A Unix socket knows no reset: its
    peer gets the end.
    """
    with suppress(OSError):
        if sock.family == socket.AF_UNIX:
            sock.shutdown(socket.SHUT_RDWR)
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Disconnecting (connect(2), AF_UNSPEC) drops what is queued and sends the reset at once.
        _disconnect(sock)


def _disconnect(sock: socket.socket) -> None:
    _LIBC.connect(sock.fileno(), b"\0" * 16, 16)  # Python's own connect knows no AF_UNSPEC


async def receive(sock: socket.socket, most: int = CHUNK) -> bytes:
    """The next bytes; empty at the end of the stream."""
    while True:
        try:
            return sock.recv(most)
        except BlockingIOError:
            await anyio.wait_readable(sock)


async def receive_into(sock: socket.socket) -> memoryview:
    """The next bytes, in a buffer that the next call by anybody overwrites."""
    while True:
        try:
            return memoryview(_SCRATCH)[: sock.recv_into(_SCRATCH)]
        except BlockingIOError:
            await anyio.wait_readable(sock)


async def send(sock: socket.socket, data: bytes | memoryview) -> None:
    with suppress(BlockingIOError):
        data = data[sock.send(data) :]
    if not data:
        return
    rest = memoryview(bytes(data))
    while rest:
        await anyio.wait_writable(sock)
        with suppress(BlockingIOError):
            rest = rest[sock.send(rest) :]


async def pump(source: socket.socket, sink: socket.socket) -> None:
    """Copy until the source ends, and pass the end on."""
    turns = 0
    while data := await receive_into(source):
        await send(sink, data)
        turns += 1
        if turns % _TURN == 0:
            await anyio.lowlevel.checkpoint()
    finish(sink)


def finish(sink: socket.socket) -> None:
    """No more bytes this way; the other way stays open."""
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
