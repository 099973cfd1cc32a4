"""The door inward of one slot: hands connections to services of the sandbox's workspace over to the gateway.

The gateway gets, over a Unix stream socket, one line of JSON, ``{"caller": id of the sandbox, "service": what the
connection is for}``, and then the client's bytes. It asks the control plane what is behind the service.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path

import anyio

from pandastack.egress.connections import Connection, Door
from pandastack.egress.decide import NO_SERVICE, Verdict, decide_service
from pandastack.egress.http_head import Head
from pandastack.egress.http_relay import AnotherHost, Switch, in_parallel, pump_answers, pump_requests
from pandastack.egress.opening import Kind, Opening, read_opening
from pandastack.egress.proxy import OPENING_SECONDS
from pandastack.egress.refusal import refuse, respond
from pandastack.egress.route import Wanted
from pandastack.egress.sockets import reset, send
from pandastack.model.network import INWARD_PORT
from pandastack.model.services import is_inward, parse_service, service_at

GATEWAY_SECONDS = 5.0
"""How long the gateway may take to accept a connection."""


@dataclass
class InwardDoor(Door):
    """``sandbox`` is the caller. ``gateway`` None: nothing is behind the door."""

    gateway: Path | None

    def judge(self, connection: Connection, wanted: Wanted) -> Verdict:
        """Whether the present rules list the service."""
        return self._decide(wanted)

    async def carry(self, connection: Connection) -> None:
        """Read which service the connection is for, decide, and pass bytes between client and gateway."""
        opening = await read_opening(connection.client, b"", patience=OPENING_SECONDS, whole=OPENING_SECONDS)
        await self._serve(connection, opening)

    async def _serve(self, connection: Connection, opening: Opening) -> None:
        if opening.kind is Kind.RAW and not opening.data:
            reset(connection.client)  # it wanted nothing
            return
        wanted, verdict = _wanted(opening.head), _objection(opening)
        verdict = verdict or self._decide(wanted)
        if not verdict.allowed:
            await self._refuse(connection, opening, wanted, verdict)
            return
        if not await self._connect(connection, wanted):
            self.report(wanted, verdict, before="the gateway does not answer")
            body = {"error": "the gateway does not answer", "code": "unavailable", "host": wanted.name or ""}
            await respond(connection.client, "503 Service Unavailable", {**body, "port": INWARD_PORT})
            return
        verdict = self._decide(wanted)  # the policy may have changed meanwhile
        if not verdict.allowed:
            await self._refuse(connection, opening, wanted, verdict)
            return
        connection.wanted = wanted
        self.report(wanted, verdict)
        await self._relay(connection, opening, wanted)

    def _decide(self, wanted: Wanted) -> Verdict:
        return decide_service(self.rules.policy, wanted.name or "", wanted.port)

    async def _connect(self, connection: Connection, wanted: Wanted) -> bool:
        """Connect with the gateway, and tell it who calls for what."""
        if self.gateway is None:
            return False
        line = json.dumps({"caller": self.sandbox, "service": str(service_at(wanted.name or ""))})
        gateway = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            with anyio.fail_after(GATEWAY_SECONDS):
                gateway.connect(str(self.gateway))
                await send(gateway, line.encode() + b"\n")
        except (OSError, TimeoutError):
            gateway.close()
            return False
        except BaseException:
            gateway.close()
            raise
        connection.upstream = gateway
        return True

    async def _relay(self, connection: Connection, opening: Opening, wanted: Wanted) -> None:
        client, gateway = connection.client, connection.upstream
        assert gateway is not None
        switch = Switch()

        def same(head: Head) -> bool:
            return not head.connect and _wanted(head) == wanted

        failure = await in_parallel(
            pump_requests(client, gateway, opening.data, same, switch, any_protocol=True),
            pump_answers(gateway, client, switch),
        )
        if isinstance(failure, AnotherHost):
            await self._refuse_later(connection, opening, failure)
        elif failure is not None:
            raise failure

    async def _refuse_later(self, connection: Connection, opening: Opening, failure: AnotherHost) -> None:
        """A later request on the connection is for another service. If that is listed, the client will try again on a
        new connection."""
        assert connection.upstream is not None
        reset(connection.upstream)
        connection.wanted = None
        if failure.head is None:
            verdict = Verdict(False, "malformed", reason=str(failure))
            await self._refuse(connection, opening, _wanted(opening.head), verdict)
            return
        again, wanted = Opening(Kind.HTTP, b"", head=failure.head), _wanted(failure.head)
        verdict = _objection(again) or self._decide(wanted)
        if not verdict.allowed:
            await self._refuse(connection, again, wanted, verdict)

    async def _refuse(self, connection: Connection, opening: Opening, wanted: Wanted, verdict: Verdict) -> None:
        self.report(wanted, verdict)
        if verdict.rule != NO_SERVICE:
            await refuse(connection.client, opening, wanted, verdict, self.sandbox)
            return
        hosts = [each.host for each in map(parse_service, self.rules.policy.services) if each]
        body: dict[str, object] = {"error": verdict.reason, "code": "not_found", "services": hosts}
        await respond(connection.client, "404 Not Found", body)


def _wanted(head: Head | None) -> Wanted:
    return Wanted("service", head.name if head else None, None, INWARD_PORT)


def _objection(opening: Opening) -> Verdict | None:
    """Why a connection is refused whatever the policy lists: it is not HTTP, or not for a name of this platform."""
    if opening.kind is not Kind.HTTP or opening.head is None:
        reason = opening.fault or "the door inward speaks HTTP without TLS"
        return Verdict(False, "malformed", reason=reason)
    if opening.head.connect:
        return Verdict(False, "malformed", reason="the door inward takes requests for services, not CONNECT")
    if not is_inward(opening.head.name or ""):
        where = opening.head.name or opening.head.address or "no host"
        return Verdict(False, NO_SERVICE, reason=f"the request is for {where}, and services have names of their own")
    return None
