"""Asking the host's own name servers: only the egress process does, never a guest.

Sources: RFC 1035 (messages, TCP framing), RFC 6891 (EDNS), resolv.conf(5).
"""

from __future__ import annotations

import random
import socket
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

RESOLV_CONF = Path("/etc/resolv.conf")

ATTEMPT_SECONDS = 2.0
"""How long one server is waited for."""

ROUNDS = 2
"""How often each server is asked."""

CACHED, LONGEST, SHORTEST, FAILURE = 10_000, 300, 1, 2
"""Answers that are cached at most, and seconds: for at most, for at least, and when no server answered."""

CONF_SECONDS = 5.0
"""How long the list of servers is believed."""

PAYLOAD = 1232
"""The largest UDP message that goes everywhere unfragmented (dnsflagday.net)."""

_RANDOM = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Answer:
    """What the host's servers know. ``records``: the chain of aliases and what is at its end; ``authority``: for how
    long there is nothing. ``expires`` on the monotonic clock."""

    rcode: dns.rcode.Rcode
    records: tuple[dns.rrset.RRset, ...]
    authority: tuple[dns.rrset.RRset, ...]
    expires: float

    @property
    def addresses(self) -> list[str]:
        return [item.address for each in self.records if each.rdtype == dns.rdatatype.A for item in each]


class Upstream:
    """The host's name servers, with a cache that all slots share."""

    def __init__(self, servers: Sequence[tuple[str, int]] | None = None, conf: Path = RESOLV_CONF) -> None:
        """``servers``: addresses and ports instead of those in ``conf``."""
        self._fixed, self._conf = servers, conf
        self._servers: Sequence[tuple[str, int]] = ()
        self._read_at = -CONF_SECONDS
        self._cache: OrderedDict[tuple[str, int], Answer] = OrderedDict()
        self._flights: dict[tuple[str, int], anyio.Event] = {}
        self._places = anyio.Semaphore(512)

    async def ask(self, name: str, kind: dns.rdatatype.RdataType) -> Answer:
        """``name`` in normal form. When no server answers, the answer is SERVFAIL."""
        key = (name, int(kind))
        while (cached := self._cached(key)) is None:
            if flight := self._flights.get(key):
                await flight.wait()  # the task that asked may have been cancelled: then the next one asks
                continue
            flight = self._flights[key] = anyio.Event()
            try:
                answer = await self._lookup(name, kind)
                self._cache[key] = answer
                if len(self._cache) > CACHED:
                    self._cache.popitem(last=False)
                return answer
            finally:
                del self._flights[key]
                flight.set()
        return cached

    async def _current(self) -> Sequence[tuple[str, int]]:
        """The host's servers; they may change while we run."""
        if self._read_at + CONF_SECONDS < time.monotonic():
            self._servers = await anyio.to_thread.run_sync(_servers, self._conf)
            self._read_at = time.monotonic()
        return self._servers

    def _cached(self, key: tuple[str, int]) -> Answer | None:
        answer = self._cache.get(key)
        if answer is not None and answer.expires <= time.monotonic():
            del self._cache[key]
            return None
        return answer

    async def _lookup(self, name: str, kind: dns.rdatatype.RdataType) -> Answer:
        servers = self._fixed or await self._current()
        async with self._places:
            for _ in range(ROUNDS):
                for server in servers:
                    with suppress(OSError, dns.exception.DNSException, TimeoutError):
                        with anyio.fail_after(ATTEMPT_SECONDS):
                            reply = await _exchange(server, name, kind)
                        if reply.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                            return _answer(reply, kind)
        return Answer(dns.rcode.SERVFAIL, (), (), time.monotonic() + FAILURE)


def _answer(reply: dns.message.Message, kind: dns.rdatatype.RdataType) -> Answer:
    """Only what belongs to the question: the aliases from its name on, and the records of its type at their end."""
    owner, records = reply.question[0].name, []
    for _ in range(16):
        alias = reply.get_rrset(reply.answer, owner, dns.rdataclass.IN, dns.rdatatype.CNAME)
        if alias is None or kind == dns.rdatatype.CNAME:
            break
        records.append(alias)
        owner = alias[0].target
    found = reply.get_rrset(reply.answer, owner, dns.rdataclass.IN, kind)
    if found is not None:
        records.append(found)
    authority = [each for each in reply.authority if each.rdtype == dns.rdatatype.SOA][:1]
    times = [each.ttl for each in records or authority]
    lives = max(SHORTEST, min([LONGEST, *times]))
    for each in (*records, *authority):
        each.ttl = min(each.ttl, LONGEST)
    return Answer(reply.rcode(), tuple(records), tuple(authority), time.monotonic() + lives)


async def _exchange(server: tuple[str, int], name: str, kind: dns.rdatatype.RdataType) -> dns.message.Message:
    """A new socket for each question: its port is random, and as it is connected, only the server can answer."""
    query = dns.message.make_query(
        dns.name.from_text(name), kind, use_edns=0, payload=PAYLOAD, id=_RANDOM.getrandbits(16)
    )
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.connect(server)
        sock.send(query.to_wire())
        while True:
            await anyio.wait_readable(sock)
            with suppress(BlockingIOError, dns.exception.DNSException):
                reply = dns.message.from_wire(sock.recv(65535))
                if query.is_response(reply):
                    break
    return reply if not reply.flags & dns.flags.TC else await _exchange_tcp(server, query)


async def _exchange_tcp(server: tuple[str, int], query: dns.message.Message) -> dns.message.Message:
    wire = query.to_wire()
    async with await anyio.connect_tcp(server[0], server[1]) as stream:
        await stream.send(len(wire).to_bytes(2) + wire)
        data = b""
        while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2]):
            data += await stream.receive()
    reply = dns.message.from_wire(data[2 : 2 + int.from_bytes(data[:2])])
    if not query.is_response(reply):
        raise OSError("an answer to another question")
    return reply


def _servers(conf: Path) -> list[tuple[str, int]]:
    try:
        lines = [line.split() for line in conf.read_text(errors="replace").splitlines()]
    except OSError:
        return []
    return [(words[1], 53) for words in lines if len(words) > 1 and words[0] == "nameserver"][:3]
