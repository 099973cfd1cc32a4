"""Byte streams of a handed over connection."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import anyio
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

HANDSHAKE_SECONDS = 15.0


class Begun(ByteStream):
    """A stream of which somebody has read the first bytes already."""

    def __init__(self, first: bytes, stream: ByteStream) -> None:
        self._first = first
        self._stream = stream

    async def receive(self, max_bytes: int = 65536) -> bytes:
        if self._first:
            piece, self._first = self._first[:max_bytes], self._first[max_bytes:]
            return piece
        return await self._stream.receive(max_bytes)

    async def send(self, item: bytes) -> None:
        await self._stream.send(item)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return self._stream.extra_attributes


async def accept_tls(stream: ByteStream, context: ssl.SSLContext) -> TLSStream:
    """The server's side of TLS. Raises ``OSError``, ``TimeoutError`` or an error of anyio."""
    with anyio.fail_after(HANDSHAKE_SECONDS):
        return await TLSStream.wrap(stream, server_side=True, ssl_context=context, standard_compatible=False)


async def open_tls(stream: ByteStream, host: str, context: ssl.SSLContext) -> TLSStream:
    """The client's side of TLS with a host whose certificate is checked. Raises the same."""
    with anyio.fail_after(HANDSHAKE_SECONDS):
        return await TLSStream.wrap(
            stream, server_side=False, hostname=host, ssl_context=context, standard_compatible=False
        )


def trusting(ca_file: str | None) -> ssl.SSLContext:
    """What checks hosts: the authorities that this host trusts, or those of a file."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


async def close(stream: ByteStream) -> None:
    """Close without waiting for the far end."""
    with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.BusyResourceError):
        await anyio.aclose_forcefully(stream)
