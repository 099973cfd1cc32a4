"""Messages of netlink(7) by hand. One socket, one request, one acknowledgement: a tenth of a millisecond.

pyroute2 takes half a second to import and some 10 ms for each such request, most of it holding the interpreter.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

ROUTE, NETFILTER = 0, 12
"""Protocols (Linux, include/uapi/linux/netlink.h)."""

CREATE = 0x400 | 0x200
"""For requests that make something which is not there yet: NLM_F_CREATE, NLM_F_EXCL."""

NESTED = 0x8000

_REQUEST, _ACKNOWLEDGE = 1, 4
_ERROR = 2
_DEADLINE = 10.0
_HEADER = struct.Struct("=IHHII")
_BATCH_BEGIN, _BATCH_END = 16, 17
"""NFNL_MSG_BATCH_BEGIN and NFNL_MSG_BATCH_END (Linux, include/uapi/linux/netfilter/nfnetlink.h)."""


@dataclass(frozen=True)
class Message:
    """A request without its number: its kind, further flags and its body."""

    kind: int
    body: bytes
    flags: int = 0

    def pack(self, number: int, flags: int) -> bytes:
        header = _HEADER.pack(_HEADER.size + len(self.body), self.kind, self.flags | flags | _REQUEST, number, 0)
        return header + self.body + b"\0" * (-len(self.body) % 4)


def attribute(kind: int, value: bytes | int) -> bytes:
    """An attribute; numbers have 32 bits."""
    data = struct.pack("=I", value) if isinstance(value, int) else value
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def open_socket(protocol: int) -> socket.socket:
    """A socket in the namespace that the calling thread is in. Raises :class:`OSError`."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    made.settimeout(_DEADLINE)
    return made


def request(protocol: int, kind: int, body: bytes, flags: int = 0) -> None:
    """Carry out one request in the namespace that the calling thread is in. Raises the kernel's :class:`OSError`."""
    with open_socket(protocol) as netlink:
        ask(netlink, Message(kind, body, flags))


def ask(netlink: socket.socket, message: Message) -> None:
    """Carry out one request. Raises the kernel's :class:`OSError`."""
    _send(netlink, message.pack(1, _ACKNOWLEDGE), 1)


def ask_all(netlink: socket.socket, subsystem: int, messages: Sequence[Message]) -> None:
    """Carry out requests of a subsystem of netfilter, all or none. Raises the kernel's :class:`OSError`."""
    edge = struct.pack("!BBH", socket.AF_UNSPEC, 0, subsystem)
    packed = [Message(_BATCH_BEGIN, edge).pack(0, 0)]
    packed += [each.pack(number, _ACKNOWLEDGE) for number, each in enumerate(messages, 1)]
    packed.append(Message(_BATCH_END, edge).pack(0, 0))
    _send(netlink, b"".join(packed), len(messages))


def _send(netlink: socket.socket, data: bytes, last: int) -> None:
    """Send requests, and wait for the acknowledgement of the one with the number ``last``."""
    netlink.sendto(data, (0, 0))
    answered = 0
    while answered < last:
        for number, status in _answers(netlink.recv(65536)):
            answered = number
            if status:
                raise OSError(-status, os.strerror(-status))


def _answers(data: bytes) -> Iterator[tuple[int, int]]:
    """The number and the status of each request that the kernel answers."""
    while data:
        length, kind, _, number, _ = _HEADER.unpack_from(data)
        if kind == _ERROR:
            yield number, struct.unpack_from("=i", data, _HEADER.size)[0]
        data = data[(length + 3) & ~3 :]
