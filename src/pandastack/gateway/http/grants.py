"""What comes first on a connection through the door inward: who calls, and for which service.

The egress process writes it (:mod:`pandastack.egress.inward`); nobody else can connect. It has decided already that the
caller's policy lists the service. The control plane decides again, and knows what is behind it.
"""

from __future__ import annotations

import asyncio
import json
import socket as sockets
import struct
from dataclasses import dataclass

import anyio

LONGEST_LINE = 1024
LINE_SECONDS = 5.0
_CREDENTIALS = struct.Struct("3i")
"""``struct ucred``: process, user, group; see unix(7)."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One connection's: the id of the sandbox that calls, and the service as policies list it, with its port."""

    caller: str
    service: str


def peer_uid(client: sockets.socket) -> int:
    """The user at the other end of a Unix socket, as it was when that connected."""
    raw = client.getsockopt(sockets.SOL_SOCKET, sockets.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1])


def parse_grant(line: bytes) -> Grant | None:
    """None: it is not such a line."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    if not isinstance(told, dict) or told.keys() != {"caller", "service"}:
        return None
    caller, service = told["caller"], told["service"]
    if not all(isinstance(each, str) and each and each.isascii() and each.isprintable() for each in (caller, service)):
        return None
    return Grant(caller, service)


async def read_grant(client: sockets.socket) -> tuple[Grant, bytes] | None:
    """The grant, and the client's bytes that came with it. None: there is none, or it does not come in time."""
    loop, data = asyncio.get_running_loop(), b""
    with anyio.move_on_after(LINE_SECONDS):
        while b"\n" not in data:
            more = await loop.sock_recv(client, 64 * 1024)
            if not more or (len(data) > LONGEST_LINE):
                return None
            data += more
        line, _, rest = data.partition(b"\n")
        grant = parse_grant(line) if len(line) <= LONGEST_LINE else None
        return None if grant is None else (grant, rest)
    return None
