"""Carries the connections of one slot: reads whom each is for, decides, dials, and copies bytes."""

from __future__ import annotations

import math
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import anyio

from pandastack.egress.answered import AnsweredNames
from pandastack.egress.client_hello import MalformedHello, parse_client_hello, repeated_hello
from pandastack.egress.connections import Connection, Door
from pandastack.egress.decide import Verdict
from pandastack.egress.handover import hand_over, until_done
from pandastack.egress.http_head import Head
from pandastack.egress.http_relay import AnotherHost, Switch, in_parallel, pump_answers, pump_requests
from pandastack.egress.opening import PIECES, Kind, Opening, read_opening
from pandastack.egress.refusal import refuse, unreachable
from pandastack.egress.route import Route, Wanted, find_route, may_wait, names_another, still_allowed, wanted_by
from pandastack.egress.sockets import original_destination, prepare, pump, receive, reset, send

OPENING_SECONDS, SILENCE_SECONDS, DIAL_SECONDS = 10.0, 0.2, 10.0
"""For a client to say whom it wants; for one that may wait for the server to speak first; for a host to answer."""


@dataclass
class Proxy(Door):
    """The door out; ``key`` names its slot."""

    key: str
    resolve: Callable[[str], Awaitable[Sequence[str]]]
    answered: AnsweredNames
    broker: Path | None

    def judge(self, connection: Connection, wanted: Wanted) -> Verdict:
        """Whether the present rules allow it where it was dialled."""
        return still_allowed(self.rules, wanted, connection.address, brokered=connection.brokered)

    async def carry(self, connection: Connection) -> None:
        """Read whom the connection is for, decide, dial, and copy bytes."""
        original = original_destination(connection.client)
        await self._serve(connection, await self._opening(connection.client, b"", original), original)

    async def _opening(self, client: socket.socket, begun: bytes, original: tuple[str, int] | None) -> Opening:
        silent = may_wait(self.rules, original, self.answered)
        patience = SILENCE_SECONDS if silent else OPENING_SECONDS
        return await read_opening(client, begun, patience=patience, whole=OPENING_SECONDS)

    async def _serve(self, connection: Connection, opening: Opening, original: tuple[str, int] | None) -> None:
        wanted = wanted_by(opening, original)
        if wanted is None:
            reset(connection.client)
            return
        rules = self.rules
        route = await find_route(rules, opening, wanted, self.answered, self.resolve)
        if not route.verdict.allowed:
            await self._refuse(connection, opening, route.wanted, route.verdict)
            return
        if opening.head and opening.head.connect:
            await self._connect(connection, opening, opening.head, route)
            return
        if not await self._dial(connection, route):
            self.report(route.wanted, route.verdict, before="the host does not answer")
            await unreachable(connection.client, opening, route.wanted)
            return
        if rules is not self.rules:
            late = still_allowed(self.rules, route.wanted, connection.address, brokered=route.brokered)
            if not late.allowed:
                await self._refuse(connection, opening, route.wanted, late)
                return
        connection.wanted, connection.brokered = route.wanted, route.brokered
        self.report(route.wanted, route.verdict, connection.address)
        if route.brokered:
            await self._hand_over(connection, opening, route.wanted)
            return
        await self._relay(connection, opening, route.wanted)

    async def _refuse(self, connection: Connection, opening: Opening, wanted: Wanted, verdict: Verdict) -> None:
        self.report(wanted, verdict, wanted.address or "")
        await refuse(connection.client, opening, wanted, verdict, self.sandbox)

    async def _connect(self, connection: Connection, opening: Opening, head: Head, route: Route) -> None:
        """CONNECT: what comes through the tunnel is judged like a connection to its authority."""
        client, wanted = connection.client, route.wanted
        if not route.addresses:
            await unreachable(client, opening, wanted)
            return
        if wanted.name:
            self.answered.add(wanted.name, route.addresses, 0)
        await send(client, b"HTTP/1.1 200 Connection established\r\n\r\n")
        original = (route.addresses[0], wanted.port)
        inner = await self._opening(client, opening.data[head.size :], original)
        if inner.kind in (Kind.TLS, Kind.HTTP) and wanted.name and inner.name != wanted.name:
            reason = f"CONNECT for {wanted.name}, but the connection is for {inner.name or 'an unnamed host'}"
            await self._refuse(connection, inner, wanted, Verdict(False, "another name", reason=reason))
            return
        if inner.head and inner.head.connect:
            reason = "CONNECT inside CONNECT"
            await self._refuse(connection, inner, wanted, Verdict(False, "malformed", reason=reason))
            return
        await self._serve(connection, inner, original)

    async def _dial(self, connection: Connection, route: Route) -> bool:
        with anyio.move_on_after(DIAL_SECONDS):
            for address in route.addresses:
                upstream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                connection.upstream, connection.address = upstream, address
                try:
                    prepare(upstream)
                    with anyio.fail_after(DIAL_SECONDS / 2):
                        await _connected(upstream, address, route.wanted.port)
                    return True
                except (OSError, TimeoutError):
                    connection.upstream = None
                    upstream.close()
        if connection.upstream:
            connection.upstream.close()
            connection.upstream = None
        return False

    async def _hand_over(self, connection: Connection, opening: Opening, wanted: Wanted) -> None:
        assert connection.upstream is not None
        about: dict[str, str | int | bool] = {
            "slot": self.key,
            "sandbox": self.sandbox,
            "host": wanted.name or "",
            "port": wanted.port,
            "tls": opening.kind is Kind.TLS,
        }
        client, upstream = connection.client, connection.upstream
        control = self.broker and await hand_over(self.broker, client, upstream, opening.data, about)
        if not control:
            verdict = Verdict(False, "secrets", reason="the secret broker did not take the connection")
            await self._refuse(connection, opening, wanted, verdict)
            return
        await until_done(control)

    async def _relay(self, connection: Connection, opening: Opening, wanted: Wanted) -> None:
        client, upstream = connection.client, connection.upstream
        assert upstream is not None
        switch, http = Switch(), opening.kind is Kind.HTTP
        failure = await in_parallel(
            self._pump_client(connection, upstream, opening, wanted, switch),
            pump_answers(upstream, client, switch) if http else pump(upstream, client),
        )
        if isinstance(failure, AnotherHost):
            await self._refuse_later(connection, opening, wanted, failure)
        elif failure is not None:
            raise failure

    async def _pump_client(
        self, connection: Connection, upstream: socket.socket, opening: Opening, wanted: Wanted, switch: Switch
    ) -> None:
        client = connection.client
        if opening.kind is Kind.HTTP and opening.head:
            first = opening.head

            def same(head: Head) -> bool:
                return not head.connect and _authority(head) == _authority(first)

            await pump_requests(client, upstream, opening.data, same, switch)
        elif opening.kind is Kind.TLS and opening.hello:
            size = opening.hello.size
            await send(upstream, opening.data[:size])
            await _pump_second_flight(client, upstream, opening.data[size:], wanted.name)
        else:
            data = opening.data
            if not data:
                late = await read_opening(client, b"", patience=math.inf, whole=OPENING_SECONDS)
                if names_another(self.rules, late, wanted, connection.address):
                    raise AnotherHost(None, "after a silence it was for a name that is not allowed here")
                data = late.data
            await send(upstream, data)
            await pump(client, upstream)

    async def _refuse_later(self, connection: Connection, opening: Opening, wanted: Wanted, error: AnotherHost) -> None:
        """A later request is refused. If it is for an allowed host, the client will try again on a new connection."""
        assert connection.upstream is not None
        reset(connection.upstream)
        connection.wanted = None
        if error.head is None:
            verdict = Verdict(False, "another name", reason=str(error))
            await self._refuse(connection, opening, wanted, verdict)
            return
        again = Opening(Kind.HTTP, b"", head=error.head)
        other = replace(wanted, name=error.head.name, port=error.head.port or wanted.port)
        route = await find_route(self.rules, again, other, self.answered, self.resolve)
        if not route.verdict.allowed:
            await self._refuse(connection, again, other, route.verdict)


def _authority(head: Head) -> tuple[str | None, str | None, int | None]:
    """Whom a request is for. Only one to a proxy states the port that counts."""
    return head.name, head.address, head.port if head.forwarded else None


async def _connected(upstream: socket.socket, address: str, port: int) -> None:
    try:
        upstream.connect((address, port))
    except BlockingIOError:
        await anyio.wait_writable(upstream)
    if error := upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(error, "cannot connect")


async def _pump_second_flight(client: socket.socket, upstream: socket.socket, data: bytes, name: str | None) -> None:
    """Copy what follows the ClientHello. If that is another one, it must be for the same name."""
    try:
        for _ in range(PIECES):
            again = repeated_hello(data)
            hello = parse_client_hello(again) if again else None
            if hello and (hello.name != name or hello.encrypted):
                raise AnotherHost(None, "the second ClientHello is for another name than the first")
            if hello or again == b"":
                break
            if not (more := await receive(client)):
                break
            data += more
        else:
            raise AnotherHost(None, "the client's second flight comes in too many pieces")
    except MalformedHello as error:
        raise AnotherHost(None, f"malformed TLS ClientHello: {error}") from error
    await send(upstream, data)
    await pump(client, upstream)
