"""The connections of one slot through one of its doors, out or inward: each is carried to its end, unless new rules
forbid it."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import anyio

from pandastack.egress.decide import Verdict
from pandastack.egress.log import DecisionLog
from pandastack.egress.route import Rules, Wanted
from pandastack.egress.sockets import prepare, reset


@dataclass(eq=False)
class Connection:
    """One connection. Until it is decided, ``wanted`` is None."""

    client: socket.socket
    upstream: socket.socket | None = None
    wanted: Wanted | None = None
    address: str = ""
    brokered: bool = False
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    def cut(self) -> None:
        """End it now, at both ends, also if the broker has it."""
        self.reset()
        self.scope.cancel()

    def reset(self) -> None:
        """The peers get a reset, and no byte that has not been sent yet."""
        for each in (self.client, self.upstream):
            if each:
                reset(each)

    def close(self) -> None:
        self.client.close()
        if self.upstream:
            self.upstream.close()


@dataclass
class Door(ABC):
    """Takes connections of ``sandbox``. ``rules`` are replaced by :meth:`apply`."""

    sandbox: str
    rules: Rules
    log: DecisionLog
    connections: set[Connection] = field(default_factory=set, init=False)

    @abstractmethod
    async def carry(self, connection: Connection) -> None:
        """Find out what it wants, decide, and pass its bytes. An ``OSError`` ends it."""

    @abstractmethod
    def judge(self, connection: Connection, wanted: Wanted) -> Verdict:
        """What the present rules say about a connection that was decided before."""

    def apply(self, rules: Rules) -> None:
        """From now on ``rules`` decide; connections that they do not allow have ended when this returns."""
        self.rules = rules
        for each in [*self.connections]:
            if each.wanted is None:
                continue  # it is not dialled yet, and is judged by the new rules
            verdict = self.judge(each, each.wanted)
            if not verdict.allowed:
                self.report(each.wanted, verdict, each.address, "the policy has changed: ")
                each.cut()

    def cut(self) -> None:
        """End all connections now."""
        for each in [*self.connections]:
            each.cut()

    async def serve(self, client: socket.socket) -> None:
        """Carry one accepted connection to its end."""
        connection = Connection(client)
        self.connections.add(connection)
        try:
            with connection.scope:
                prepare(client)
                await self.carry(connection)
        except OSError:
            connection.reset()
        finally:
            self.connections.discard(connection)
            connection.close()

    def report(self, wanted: Wanted, verdict: Verdict, address: str = "", before: str = "") -> None:
        """Enter the verdict into the log; ``before`` is put before its reason."""
        self.log.add(
            verdict.allowed,
            wanted.via,
            name=wanted.name or "",
            address=address,
            port=wanted.port,
            rule=verdict.rule,
            reason=before + verdict.reason,
            how_to_allow=verdict.how_to_allow,
        )
