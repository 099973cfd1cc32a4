"""What the engine and the egress process say to each other: JSON lines over a socket pair, descriptors beside them.

Orders go to the process, each is answered with its ``id``; decisions come back unasked.
"""

from __future__ import annotations

import array
import json
import os
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import anyio

from pandastack.errors import ServerError
from pandastack.model.network import Egress, Limits, NetworkPolicy, Protocol, Rule

LINE_LIMIT = 4 * 1024 * 1024
"""The most bytes of one message."""

DESCRIPTORS = 8
"""The most descriptors beside one message."""


class Link:
    """One end of the socket pair. One task receives; several may send."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._sending = anyio.Lock()
        self._data = bytearray()
        self._searched = 0
        self._descriptors: deque[int] = deque()

    async def send(self, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Raises ``OSError`` when the other end is gone. A cancelled call may leave half a message: drop the link."""
        data = memoryview(json.dumps(message, separators=(",", ":")).encode() + b"\n")
        beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        async with self._sending:
            while data:
                try:
                    sent = self._socket.sendmsg([data], beside, socket.MSG_NOSIGNAL)
                except BlockingIOError:
                    await anyio.wait_writable(self._socket)
                    continue
                data, beside = data[sent:], []

    async def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next message and the descriptors that it says (``fds``) belong to it; None at the end of the stream."""
        while (end := self._data.find(b"\n", self._searched)) < 0:
            self._searched = len(self._data)
            if self._searched > LINE_LIMIT:
                raise ServerError("egress: a message is too long")
            if not await self._read():
                return None
        message = json.loads(self._data[:end])
        del self._data[: end + 1]
        self._searched = 0
        count = message.get("fds", 0)
        return message, [self._descriptors.popleft() for _ in range(min(count, len(self._descriptors)))]

    async def _read(self) -> bool:
        room = socket.CMSG_SPACE(DESCRIPTORS * array.array("i").itemsize)
        while True:
            try:
                data, beside, _, _ = self._socket.recvmsg(256 * 1024, room, socket.MSG_CMSG_CLOEXEC)
                break
            except BlockingIOError:
                await anyio.wait_readable(self._socket)
            except ConnectionError:
                return False
        for level, kind, raw in beside:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                numbers = array.array("i")
                numbers.frombytes(raw[: len(raw) - len(raw) % numbers.itemsize])
                self._descriptors.extend(numbers)
        self._data += data
        return bool(data)

    def close(self) -> None:
        self._socket.close()
        for each in self._descriptors:
            with suppress(OSError):
                os.close(each)
        self._descriptors.clear()


def policy_to_wire(policy: NetworkPolicy) -> dict[str, Any]:
    return asdict(policy)


def policy_from_wire(data: Mapping[str, Any]) -> NetworkPolicy:
    return NetworkPolicy(
        egress=Egress(data["egress"]),
        allow=_rules(data["allow"]),
        deny=_rules(data["deny"]),
        services=tuple(data["services"]),
        secrets=tuple(data["secrets"]),
        limits=Limits(**data["limits"]),
    )


def _rules(data: Sequence[Mapping[str, Any]]) -> tuple[Rule, ...]:
    return tuple(Rule(e["target"], e["port"], Protocol(e["protocol"]) if e["protocol"] else None) for e in data)
