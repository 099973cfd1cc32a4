"""Answers the questions of one slot's guest for names.

A name that the policy does not allow is refused here and never asked for elsewhere, because a question can carry data
out. IPv4 only: there is no route for IPv6. Sources: RFC 1035, RFC 8914 (extended errors), RFC 9460 (SVCB, HTTPS).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype as kinds
import dns.rdtypes.svcbbase
import dns.rrset

from pandastack.egress.answered import AnsweredNames
from pandastack.egress.decide import Verdict, decide, decide_name
from pandastack.egress.log import DecisionLog
from pandastack.egress.names import normal_name
from pandastack.egress.pace import Bucket
from pandastack.egress.upstream import PAYLOAD, Answer, Upstream
from pandastack.model.network import GUEST_GATEWAY, INWARD_NAME, Egress, NetworkPolicy, Protocol
from pandastack.model.services import is_inward

QUERY_LIMIT = 1024
"""The most bytes of a question."""

NAME_LIMIT = 180
"""The longest name that is asked for: longer ones carry data, not names."""

FORWARDED = frozenset(
    {kinds.A, kinds.CNAME, kinds.MX, kinds.NS, kinds.SOA, kinds.PTR, kinds.SRV, kinds.TXT, kinds.CAA, kinds.NAPTR}
    | {kinds.HTTPS, kinds.SVCB}
)
"""Types that are asked for. NULL, ANY, transfers and private types serve tunnels only."""

_EMPTY = frozenset({kinds.AAAA, kinds.A6})
_HIDDEN = frozenset({1, 3, 4, 5, 6})
"""Parameters of HTTPS records that lead past the proxy: alpn (HTTP/3), port, ipv4hint, ech, ipv6hint."""


@dataclass
class Resolver:
    """``policy`` and ``forbidden`` may be replaced at any time: the next answer obeys them."""

    upstream: Upstream
    policy: NetworkPolicy
    forbidden: tuple[str, ...]
    log: DecisionLog
    answered: AnsweredNames
    _queries: Bucket = field(default_factory=lambda: Bucket(rate=100, burst=400))
    _texts: Bucket = field(default_factory=lambda: Bucket(rate=2, burst=20))
    _letters: Bucket = field(default_factory=lambda: Bucket(rate=2_000, burst=100_000))
    """Bytes of names that are asked for: what a tunnel could carry."""

    async def answer(self, data: bytes, *, stream: bool = False) -> bytes | None:
        """The reply to a question; None: there is nothing to reply to. ``stream``: it came over TCP."""
        if len(data) > QUERY_LIMIT or not self._queries.take() or self.policy.egress is Egress.NONE:
            return None
        try:
            query = dns.message.from_wire(data)
        except (dns.exception.DNSException, ValueError):
            return None
        if query.flags & dns.flags.QR:
            return None
        reply = await self._reply(query)
        size = 65535 if stream else max(512, min(query.payload, PAYLOAD)) if query.edns >= 0 else 512
        return reply.to_wire(max_size=size, prefer_truncation=True)

    async def _reply(self, query: dns.message.Message) -> dns.message.Message:
        if query.opcode() != dns.opcode.QUERY:
            return _reply(query, dns.rcode.NOTIMP)
        if len(query.question) != 1 or query.question[0].rdclass != dns.rdataclass.IN:
            return _reply(query, dns.rcode.REFUSED)
        question = query.question[0]
        name = normal_name(question.name.to_text(omit_final_dot=True))
        if name is None:
            return _reply(query, dns.rcode.REFUSED)
        if is_inward(name):
            return self._inward(query, name)
        if name == "localhost" or name.endswith(".localhost"):
            return _local(query, "127.0.0.1")
        verdict = self._may_ask(name, question.rdtype)
        if not verdict.allowed:
            return self._refuse(query, name, verdict)
        if question.rdtype in _EMPTY:
            return _reply(query)
        answer = await self.upstream.ask(name, question.rdtype)
        verdict = decide_name(self.policy, name)  # it may have changed meanwhile
        if not verdict.allowed:
            return self._refuse(query, name, verdict)
        return self._give(query, name, answer)

    def _may_ask(self, name: str, kind: kinds.RdataType) -> Verdict:
        verdict = decide_name(self.policy, name)
        if not verdict.allowed:
            return verdict
        if kind not in FORWARDED | _EMPTY:
            return Verdict(False, "dns type", reason=f"records of type {kinds.to_text(kind)} are not answered")
        if len(name) > NAME_LIMIT:
            return Verdict(False, "dns length", reason=f"names of more than {NAME_LIMIT} characters are not answered")
        if not (self._letters.take(len(name)) and (kind != kinds.TXT or self._texts.take())):
            return Verdict(False, "dns rate", reason="too many questions in a short time")
        return verdict

    def _give(self, query: dns.message.Message, name: str, answer: Answer) -> dns.message.Message:
        reply = _reply(query, answer.rcode)
        allowed = []
        for address in answer.addresses:
            verdict = decide(
                self.policy, name=None, address=address, port=0, protocol=Protocol.TCP, forbidden=self.forbidden
            )
            if not verdict.rule.startswith("forbidden"):
                allowed.append(address)
        if answer.addresses and not allowed:
            return self._refuse(query, name, verdict, address)
        for records in answer.records:
            if records.rdtype == kinds.A:
                records = dns.rrset.from_text_list(records.name, records.ttl, "IN", "A", allowed)
                self.answered.add(name, allowed, records.ttl)
            elif records.rdtype in (kinds.HTTPS, kinds.SVCB):
                records = _without_hints(records)
            reply.answer.append(records)
        reply.authority.extend(answer.authority)
        self.log.add(
            True, "dns", name=name, address=allowed[0] if allowed else "", rule=decide_name(self.policy, name).rule
        )
        return reply

    def _refuse(
        self, query: dns.message.Message, name: str, verdict: Verdict, address: str = ""
    ) -> dns.message.Message:
        self.log.add(
            False,
            "dns",
            name=name,
            address=address,
            rule=verdict.rule,
            reason=verdict.reason,
            how_to_allow=verdict.how_to_allow,
        )
        return _reply(query, dns.rcode.REFUSED, verdict.reason)

    def _inward(self, query: dns.message.Message, name: str) -> dns.message.Message:
        """The door inward, under its own name and those of the services that the policy lists."""
        if name == INWARD_NAME:
            return _local(query, GUEST_GATEWAY)
        verdict = decide_name(self.policy, name)
        if not verdict.allowed:
            return self._refuse(query, name, verdict)
        self.log.add(True, "dns", name=name, address=GUEST_GATEWAY, rule=verdict.rule)
        return _local(query, GUEST_GATEWAY)


def _reply(
    query: dns.message.Message, rcode: dns.rcode.Rcode = dns.rcode.NOERROR, blocked: str = ""
) -> dns.message.Message:
    reply = dns.message.make_response(query, recursion_available=True, our_payload=PAYLOAD)
    reply.set_rcode(rcode)
    if blocked and query.edns >= 0:
        options: list[Any] = [dns.edns.EDEOption(dns.edns.EDECode.BLOCKED, blocked)]
        reply.use_edns(0, 0, PAYLOAD, options=options)
    return reply


def _local(query: dns.message.Message, address: str) -> dns.message.Message:
    reply = _reply(query)
    if query.question[0].rdtype == kinds.A:
        reply.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", address))
    return reply


def _without_hints(records: dns.rrset.RRset) -> dns.rrset.RRset:
    stripped = dns.rrset.RRset(records.name, records.rdclass, records.rdtype)
    stripped.update_ttl(records.ttl)
    for each in records:
        # What remains is the alias, or the record's existence. "mandatory" (0) could name what is not there any more.
        params = {key: value for key, value in each.params.items() if key not in _HIDDEN | {0, 2}}
        stripped.add(each.replace(params=params), records.ttl)
    return stripped
