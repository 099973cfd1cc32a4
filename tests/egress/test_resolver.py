"""Answers to questions, with a name server of our own behind it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import anyio
import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import pytest

from pandastack.egress.answered import AnsweredNames
from pandastack.egress.log import Decision, DecisionLog
from pandastack.egress.pace import Bucket
from pandastack.egress.resolver import Resolver
from pandastack.egress.upstream import Upstream
from pandastack.model.network import FORBIDDEN, Egress, NetworkPolicy, Rule
from tests.support.egress_world import Names

pytestmark = pytest.mark.anyio

LISTED = NetworkPolicy(Egress.LIST, allow=(Rule("allowed.test"), Rule("mixed.test"), Rule("inner.test")))


@pytest.fixture
def names() -> Iterator[Names]:
    """It listens on loopback until it is asked for ``end.``."""
    names = Names(records={"allowed.test": [["203.0.113.5"]]}, ttl=60)
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    names.port = server.getsockname()[1]

    def serve() -> None:
        while (received := server.recvfrom(4096))[0] != b"end":
            server.sendto(names.reply(received[0]), received[1])

    thread = threading.Thread(target=serve)
    thread.start()
    yield names
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"end", server.getsockname())
    thread.join(5)
    server.close()


class Asked:
    def __init__(self, names: Names, policy: NetworkPolicy = LISTED) -> None:
        self.decisions: list[Decision] = []
        upstream = Upstream([("127.0.0.1", names.port)])
        self.answered = AnsweredNames()
        log = DecisionLog(self.decisions.append)
        self.resolver = Resolver(upstream, policy, FORBIDDEN, log, self.answered)

    async def __call__(self, name: str, kind: str = "A", *, edns: int = 0, stream: bool = False) -> dns.message.Message:
        query = dns.message.make_query(name, kind, use_edns=edns)
        reply = await self.resolver.answer(query.to_wire(), stream=stream)
        assert reply is not None
        parsed = dns.message.from_wire(reply)
        assert query.is_response(parsed)
        return parsed


def records(reply: dns.message.Message) -> list[str]:
    return [item.to_text() for each in reply.answer for item in each]


async def test_an_allowed_name(names: Names) -> None:
    asked = Asked(names)
    reply = await asked("aLLowed.test")
    assert (reply.rcode(), records(reply)) == (dns.rcode.NOERROR, ["203.0.113.5"])
    assert reply.flags & dns.flags.RA
    assert asked.answered.of("203.0.113.5") == ["allowed.test"]
    assert (asked.decisions[0].allowed, asked.decisions[0].name) == (True, "allowed.test")
    await asked("allowed.test")
    assert names.asked == ["allowed.test"]  # the second answer comes from the cache


async def test_a_name_that_does_not_exist(names: Names) -> None:
    reply = await Asked(names, NetworkPolicy())("missing.test")
    assert reply.rcode() == dns.rcode.NXDOMAIN


async def test_nothing_of_ipv6(names: Names) -> None:
    asked = Asked(names)
    assert records(await asked("allowed.test", "AAAA")) == []
    assert (await asked("denied.test", "AAAA")).rcode() == dns.rcode.REFUSED
    assert names.asked == []


async def test_forbidden_addresses_are_not_told(names: Names) -> None:
    names.records |= {"mixed.test": [["10.0.0.1", "203.0.113.6"]], "inner.test": [["192.168.0.1"]]}
    asked = Asked(names)
    assert records(await asked("mixed.test")) == ["203.0.113.6"]
    reply = await asked("inner.test")
    assert reply.rcode() == dns.rcode.REFUSED
    assert asked.decisions[-1].rule == "forbidden 192.168.0.0/16"
    assert "192.168.0.1 is in 192.168.0.0/16" in asked.decisions[-1].reason
    open_one = Asked(names, NetworkPolicy())
    assert (await open_one("inner.test")).rcode() == dns.rcode.REFUSED


async def test_refusals_are_explained_only_to_those_who_understand(names: Names) -> None:
    asked = Asked(names)
    explained = await asked("denied.test")
    assert [option.code for option in explained.options] == [dns.edns.EDECode.BLOCKED]
    plain = await asked("denied.test", edns=-1)
    assert (plain.rcode(), plain.edns) == (dns.rcode.REFUSED, -1)


@pytest.mark.parametrize("kind", ["NULL", "ANY", "AXFR", "TYPE65399", "KEY", "DNSKEY"])
async def test_types_that_serve_tunnels(names: Names, kind: str) -> None:
    asked = Asked(names, NetworkPolicy())
    assert (await asked("allowed.test", kind, stream=True)).rcode() == dns.rcode.REFUSED
    assert names.asked == []


async def test_texts_are_slow_and_long_names_refused(names: Names) -> None:
    names.records |= {f"t{each}.test": [[]] for each in range(30)}
    asked = Asked(names, NetworkPolicy())
    codes = [(await asked(f"t{each}.test", "TXT", stream=True)).rcode() for each in range(30)]
    assert codes[0] == dns.rcode.NOERROR
    assert codes[-1] == dns.rcode.REFUSED
    long = ".".join(["x" * 50] * 4)
    assert (await asked(long)).rcode() == dns.rcode.REFUSED
    asked.resolver._letters = Bucket(rate=0, burst=20)
    assert (await asked("allowed.test")).rcode() == dns.rcode.NOERROR
    assert (await asked("allowed.test")).rcode() == dns.rcode.REFUSED


async def test_truncation(names: Names) -> None:
    names.records["big.test"] = [[f"203.0.113.{each}" for each in range(200)]]
    asked = Asked(names, NetworkPolicy())
    cut = await asked("big.test")
    assert cut.flags & dns.flags.TC
    whole = await asked("big.test", stream=True)
    assert len(records(whole)) == 200


async def test_hints_that_lead_past_the_proxy(names: Names) -> None:
    """HTTP/3 with a name, and a hello whose name cannot be read: a client that never hears of them uses neither."""
    upstream = names.reply(dns.message.make_query("allowed.test", "HTTPS").to_wire())
    assert all(word in dns.message.from_wire(upstream).to_text() for word in ("alpn", "ech", "h3", "ipv4hint"))
    (text,) = records(await Asked(names)("allowed.test", "HTTPS"))
    assert all(word not in text for word in ("alpn", "ech", "h3", "ipv4hint"))


@pytest.mark.parametrize("kind", [Egress.ALLOW, Egress.LIST, Egress.DENY])
async def test_services_are_found_if_the_policy_lists_them(names: Names, kind: Egress) -> None:
    asked = Asked(names, NetworkPolicy(kind, services=("sandbox:b:8000", "db:Main")))
    for name in (
        "8000-b.sandbox.pandastack.internal",
        "8000-B.Sandbox.PandaStack.internal",
        "main.db.pandastack.internal",
    ):
        assert records(await asked(name)) == ["10.0.2.2"]
        assert records(await asked(name, "AAAA")) == []
    assert {(each.allowed, each.via, each.address, each.rule) for each in asked.decisions} == {
        (True, "dns", "10.0.2.2", "service sandbox:b:8000"),
        (True, "dns", "10.0.2.2", "service db:Main"),
    }
    asked.decisions.clear()
    for name, rule in {
        "8001-b.sandbox.pandastack.internal": "services",
        "8000-c.sandbox.pandastack.internal": "services",
        "b.sandbox.pandastack.internal": "no service",
        "pandastack.internal": "no service",
        "secret-data.pandastack.internal": "no service",
    }.items():
        assert (await asked(name)).rcode() == dns.rcode.REFUSED
        assert (asked.decisions[-1].allowed, asked.decisions[-1].name, asked.decisions[-1].rule) == (False, name, rule)
    assert names.asked == []


async def test_names_of_the_host_itself(names: Names) -> None:
    asked = Asked(names, NetworkPolicy(Egress.DENY))
    assert records(await asked("gateway.pandastack.internal")) == ["10.0.2.2"]
    assert records(await asked("gateway.pandastack.internal", "AAAA")) == []
    assert records(await asked("localhost")) == ["127.0.0.1"]
    assert (await asked("allowed.test")).rcode() == dns.rcode.REFUSED
    assert names.asked == []


async def test_odd_messages(names: Names) -> None:
    asked = Asked(names, NetworkPolicy())
    query = dns.message.make_query("allowed.test", "A")
    query.set_opcode(dns.opcode.STATUS)
    reply = await asked.resolver.answer(query.to_wire())
    assert reply and dns.message.from_wire(reply).rcode() == dns.rcode.NOTIMP
    for junk in (b"", b"x", b"\0" * 12, query.to_wire()[:-1], b"\0" * 2000):
        reply = await asked.resolver.answer(junk)
        assert reply is None or dns.message.from_wire(reply).rcode() != dns.rcode.NOERROR
    answer = dns.message.make_response(dns.message.make_query("allowed.test", "A"))
    assert await asked.resolver.answer(answer.to_wire()) is None


async def test_a_flood_is_dropped(names: Names) -> None:
    asked = Asked(names)
    wire = dns.message.make_query("denied.test", "A").to_wire()
    replies = [await asked.resolver.answer(wire) for _ in range(600)]
    assert replies[0] is not None and replies[-1] is None


async def test_no_server_answers() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    reply = await Asked(Names(port=port), NetworkPolicy())("allowed.test")
    assert reply.rcode() == dns.rcode.SERVFAIL


async def test_one_question_for_many_who_ask(names: Names) -> None:
    asked = Asked(names)
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(asked, "allowed.test")
    assert names.asked == ["allowed.test"]
