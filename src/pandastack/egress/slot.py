"""One slot in the egress process: its listeners, and everything that came through them."""

from __future__ import annotations

import itertools
import socket
import traceback
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import dns.rdatatype
from anyio.abc import TaskGroup

from pandastack.egress.answered import AnsweredNames
from pandastack.egress.connections import Door
from pandastack.egress.inward import InwardDoor
from pandastack.egress.log import Decision, DecisionLog
from pandastack.egress.proxy import Proxy
from pandastack.egress.refused import Packet, judge, read_packets
from pandastack.egress.resolver import QUERY_LIMIT, Resolver
from pandastack.egress.route import Rules
from pandastack.egress.sockets import prepare, receive, reset, send
from pandastack.egress.upstream import Upstream

CONNECTIONS, INWARD_CONNECTIONS, QUESTIONS, NAME_CONNECTIONS = 256, 64, 64, 4
"""Of one slot at once: connections through the proxy, through the door inward, questions over UDP, connections for
questions."""

NAME_SECONDS = 10.0
"""How long a connection for questions may be quiet."""

FAULTS = 100
"""Faults of ours that the process writes down; guests must not fill the disk."""

_faults = itertools.count()
_AT_ONCE = 16
"""Connections or questions that are taken before other slots get their turn."""


_REPORT_LIMIT = 65536
"""Bytes of one report of the packet filter, more than the kernel puts into one."""


@dataclass
class Places:
    """Descriptors of the whole process: ``left`` of them may still be opened for connections."""

    left: int


class SlotServer:
    """Serves the listeners until :meth:`close`. It owns the descriptors."""

    def __init__(
        self,
        key: str,
        sandbox: str,
        listeners: Sequence[int],
        rules: Rules,
        *,
        upstream: Upstream,
        broker: Path | None,
        gateway: Path | None,
        places: Places,
        report: Callable[[Decision], None],
    ) -> None:
        """``listeners``: descriptors for questions by UDP, by TCP, for the proxy, for the door inward and, where the
        kernel reports what the packet filter refuses, of the socket that hears it."""
        self._sockets = [socket.socket(fileno=each) for each in listeners]
        self._refused = self._sockets[4] if len(listeners) > 4 else None
        self._places = places
        self._scope = anyio.CancelScope()
        self._closed = anyio.Event()
        self._questions = self._name_connections = 0
        self.log = DecisionLog(report)
        answered = AnsweredNames()
        self._resolver = Resolver(upstream, rules.policy, rules.forbidden, self.log, answered)

        async def resolve(name: str) -> list[str]:
            answer = await upstream.ask(name, dns.rdatatype.A)
            return answer.addresses

        self._proxy = Proxy(sandbox, rules, self.log, key, resolve, answered, broker)
        self._inward = InwardDoor(sandbox, rules, self.log, gateway)

    def apply(self, rules: Rules) -> None:
        """Effective when this returns: names, new connections, and those that exist."""
        self._resolver.policy, self._resolver.forbidden = rules.policy, rules.forbidden
        self._proxy.apply(rules)
        self._inward.apply(rules)

    @property
    def rules(self) -> Rules:
        return self._proxy.rules

    @property
    def descriptors(self) -> int:
        """How many it was made with."""
        return len(self._sockets)

    def close(self) -> None:
        """End everything of the slot now; its sockets are closed a moment later: see :meth:`wait_closed`."""
        self._proxy.cut()
        self._inward.cut()
        self._scope.cancel()

    async def wait_closed(self) -> None:
        """Return once nothing of the slot is open here."""
        await self._closed.wait()

    async def run(self) -> None:
        udp, tcp, proxy, inward, *_ = self._sockets
        try:
            with self._scope:
                for each in self._sockets:
                    each.setblocking(False)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._answer_datagrams, udp, tasks)
                    tasks.start_soon(_accept, tcp, tasks, self._name_place, self._answer_stream)
                    tasks.start_soon(_accept, proxy, tasks, self._proxy_place, partial(self._carry, self._proxy))
                    tasks.start_soon(_accept, inward, tasks, self._inward_place, partial(self._carry, self._inward))
                    if self._refused:
                        tasks.start_soon(self._log_refusals, self._refused)
        finally:
            for each in self._sockets:
                each.close()
            self._closed.set()

    async def _log_refusals(self, refused: socket.socket) -> None:
        """What the packet filter refuses is a decision like any other; here it gets its reason."""
        while True:
            await anyio.wait_readable(refused)
            for _ in range(_AT_ONCE):
                try:
                    data = refused.recv(_REPORT_LIMIT)
                except BlockingIOError:
                    break
                except OSError:  # there were more than fit
                    continue
                with _contained():
                    for packet in read_packets(data):
                        self._log_refusal(packet)
            await anyio.lowlevel.checkpoint()

    def _log_refusal(self, packet: Packet) -> None:
        verdict = judge(self.rules.policy, packet, self.rules.forbidden)
        self.log.add(
            False,
            packet.via,
            address=packet.address,
            port=packet.port,
            rule=verdict.rule,
            reason=verdict.reason,
            how_to_allow=verdict.how_to_allow,
        )

    async def _answer_datagrams(self, udp: socket.socket, tasks: TaskGroup) -> None:
        while True:
            await anyio.wait_readable(udp)
            with suppress(BlockingIOError):
                for _ in range(_AT_ONCE):
                    try:
                        data, peer = udp.recvfrom(QUERY_LIMIT + 1)
                    except BlockingIOError:
                        break
                    except OSError:  # an ICMP error about an earlier reply
                        continue
                    if self._questions < QUESTIONS:
                        self._questions += 1
                        tasks.start_soon(self._answer_datagram, udp, data, peer)

    async def _answer_datagram(self, udp: socket.socket, data: bytes, peer: tuple[str, int]) -> None:
        try:
            with _contained(), suppress(OSError):
                if reply := await self._resolver.answer(data):
                    udp.sendto(reply, peer)
        finally:
            self._questions -= 1

    def _name_place(self) -> bool:
        return self._name_connections < NAME_CONNECTIONS

    async def _answer_stream(self, client: socket.socket) -> None:
        self._name_connections += 1
        try:
            with _contained(), client, suppress(OSError, TimeoutError):
                prepare(client)
                data = b""
                while True:
                    with anyio.fail_after(NAME_SECONDS):
                        while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2]):
                            if not (more := await receive(client, 4096)):
                                return
                            data += more
                    size = int.from_bytes(data[:2])
                    reply = await self._resolver.answer(data[2 : 2 + size], stream=True)
                    if reply is None:
                        return
                    data = data[2 + size :]
                    with anyio.fail_after(NAME_SECONDS):
                        await send(client, len(reply).to_bytes(2) + reply)
        finally:
            self._name_connections -= 1

    def _proxy_place(self) -> bool:
        if len(self._proxy.connections) < CONNECTIONS and self._places.left >= 2:
            return True
        self.log.add(
            False, "tcp", rule="limit", reason=f"more than {CONNECTIONS} connections through the proxy at once"
        )
        return False

    def _inward_place(self) -> bool:
        if len(self._inward.connections) < INWARD_CONNECTIONS and self._places.left >= 2:
            return True
        reason = f"more than {INWARD_CONNECTIONS} connections through the door inward at once"
        self.log.add(False, "service", rule="limit", reason=reason)
        return False

    async def _carry(self, door: Door, client: socket.socket) -> None:
        self._places.left -= 2  # the client's and the server's
        try:
            with _contained():
                await door.serve(client)
        finally:
            self._places.left += 2


@contextmanager
def _contained() -> Iterator[None]:
    """A fault of ours that a guest finds ends its connection, not the process that serves everybody."""
    try:
        yield
    except Exception:
        if next(_faults) < FAULTS:
            traceback.print_exc()


async def _accept(
    listener: socket.socket,
    tasks: TaskGroup,
    place: Callable[[], bool],
    serve: Callable[[socket.socket], Coroutine[Any, Any, None]],
) -> None:
    """Serve what connects, each connection in a task; those for which there is no ``place`` are reset."""
    while True:
        await anyio.wait_readable(listener)
        for _ in range(_AT_ONCE):
            try:
                client, _ = listener.accept()
            except BlockingIOError:
                break
            except OSError:  # out of descriptors, or the client has left already
                await anyio.sleep(0.02)
                break
            if place():
                tasks.start_soon(serve, client)
                await anyio.lowlevel.checkpoint()  # it takes its place before the next is asked for
            else:
                reset(client)
                client.close()
