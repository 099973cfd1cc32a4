"""What a connection is, from its first bytes: the name it is for, if its protocol states one."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import Enum, auto

import anyio

from pandastack.egress.client_hello import ClientHello, MalformedHello, looks_like_tls, parse_client_hello
from pandastack.egress.http_head import Head, MalformedHead, looks_like_http, parse_head
from pandastack.egress.sockets import receive

PIECES = 64
"""Pieces in which an opening may arrive. It is read anew with each, so this bounds the work."""


class Kind(Enum):
    TLS = auto()
    HTTP = auto()
    RAW = auto()
    """Neither: the protocol states no name, or the client waits for the server to begin."""
    BROKEN = auto()
    """TLS or HTTP that servers may read in different ways."""


@dataclass(frozen=True, slots=True)
class Opening:
    """``data``: everything read so far, to be passed on."""

    kind: Kind
    data: bytes
    hello: ClientHello | None = None
    head: Head | None = None
    fault: str = ""

    @property
    def name(self) -> str | None:
        return self.hello.name if self.hello else self.head.name if self.head else None


def classify(data: bytes) -> Opening | None:
    """None: more bytes would tell."""
    try:
        if looks_like_tls(data):
            hello = parse_client_hello(data)
            return Opening(Kind.TLS, data, hello=hello) if hello else None
        http = looks_like_http(data)
        if http is None:
            return None
        if not http:
            return Opening(Kind.RAW, data)
        start = len(data) - len(data.lstrip(b"\r\n"))  # servers skip empty lines before a request
        head = parse_head(data[start:])
        return Opening(Kind.HTTP, data[start:], head=head) if head else None
    except MalformedHello as error:
        return Opening(Kind.BROKEN, data, fault=f"malformed TLS ClientHello: {error}")
    except MalformedHead as error:
        return Opening(Kind.BROKEN, data, fault=f"malformed HTTP request: {error}")


async def read_opening(client: socket.socket, begun: bytes, *, patience: float, whole: float) -> Opening:
    """Read until it is clear. A client that sends nothing for ``patience`` seconds waits for the server: RAW. One that
    has begun gets ``whole`` seconds."""
    data = begun
    if not data:
        with anyio.move_on_after(patience):
            data = await receive(client)
            if not data:
                return Opening(Kind.RAW, b"")
    if not data:
        return Opening(Kind.RAW, b"")
    with anyio.move_on_after(whole):
        for _ in range(PIECES):
            if opening := classify(data):
                return opening
            more = await receive(client)
            if not more:
                break
            data += more
    # Whatever it is, passing it on unread would let the rest of it pass as well.
    return Opening(Kind.BROKEN, data, fault="the opening is incomplete")
