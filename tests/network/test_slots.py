"""Slots for real: two guests, played by the test, that attack each other, the host and private networks."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import anyio
import pytest

from pandastack.engine.layout import runtime_directory
from pandastack.errors import CapacityError, NotFoundError, ServerError
from pandastack.host import facts
from pandastack.model.network import (
    GUEST_ADDRESS,
    GUEST_GATEWAY,
    INWARD_PORT,
    OPEN,
    Egress,
    Limits,
    NetworkPolicy,
    Protocol,
    Rule,
)
from pandastack.network import nft
from pandastack.network.forwarding import forwarding
from pandastack.network.making import Recipe, find_slots, make_slot
from pandastack.network.pool import open_slot_pool
from pandastack.network.slot import NetworkSlot
from pandastack.network.subnets import parse_subnets
from pandastack.network.thread import run_in
from pandastack.vmm.plan import GUEST_MAC
from tests.support import frames, quic
from tests.support.frames import ACK, ICMP, RST, SYN, TCP, UDP, Heard
from tests.support.installation import eventually
from tests.support.slots import MTU, SUBNETS, OpenPool, PlayedGuest
from tests.support.world import OTHER, PRIVATE, PUBLIC, World

pytestmark = pytest.mark.root

PORT = 9999


def is_reset(heard: Heard) -> bool:
    return heard.protocol == TCP and bool(heard.flags & RST)


def is_answer(heard: Heard) -> bool:
    return heard.protocol == TCP and heard.flags & (SYN | ACK) == SYN | ACK


def is_refusal(heard: Heard) -> bool:
    return heard.protocol == ICMP


async def test_a_datagram_goes_out_under_the_hosts_address_and_its_answer_comes_back(
    open_pool: OpenPool, world: World
) -> None:
    async with open_pool() as pool, pool.slot() as slot:
        guest = PlayedGuest(slot)
        with closing(world.datagrams(PORT, PUBLIC)) as there:
            guest.send(frames.datagram(PUBLIC, PORT, b"hello"))
            data, sender = there.recvfrom(100)
            assert data == b"hello" and sender[0] not in (slot.address, GUEST_ADDRESS)
            there.sendto(b"welcome", sender)
            heard = guest.hear(lambda each: each.protocol == UDP)
        assert heard is not None and (heard.source, heard.data) == (PUBLIC, b"welcome")
        received, sent = await pool.counters(slot)
        assert sent >= 42 + 5 and received >= 42 + 7


async def test_the_resolvers_socket_hears_the_guest(open_pool: OpenPool) -> None:
    async with open_pool() as pool, pool.slot() as slot:
        PlayedGuest(slot).send(frames.datagram(GUEST_GATEWAY, 53, b"who is it?"))
        with socket.socket(fileno=socket.dup(pool.listeners(slot).udp)) as resolver:
            resolver.settimeout(2)
            assert resolver.recvfrom(100) == (b"who is it?", (GUEST_ADDRESS, 40000))


@dataclass
class Scene:
    """The attacker, the victim beside it, and the sockets that must stay silent."""

    attacker: PlayedGuest
    own: NetworkSlot
    victim: PlayedGuest
    victim_slot: NetworkSlot
    host: socket.socket


def _attacks(scene: Scene) -> dict[str, bytes]:
    """Frames of which none may arrive anywhere."""
    good = frames.datagram(PUBLIC, PORT, b"attack")
    packet = frames.udp(PUBLIC, PORT, b"attack")
    own_host = [scene.own.host_address, scene.victim_slot.host_address, "10.253.251.1", "127.0.0.1"]
    host_address = next(iter(_host_addresses()), "127.0.0.1")
    targets = [*PRIVATE, *own_host, host_address, scene.victim_slot.address, GUEST_GATEWAY, "255.255.255.255"]
    elsewhere = {f"to {each}": frames.datagram(each, PORT, b"attack") for each in targets}
    return {
        **elsewhere,
        "with another source": frames.datagram(PUBLIC, PORT, b"attack", source="10.0.2.16"),
        "with the other slot's source": frames.datagram(PUBLIC, PORT, b"attack", source=scene.victim_slot.address),
        "with the slot's own outer source": frames.datagram(PUBLIC, PORT, b"attack", source=scene.own.address),
        "with another hardware address": frames.ethernet(good[14:], source="52:54:00:12:34:57"),
        "to everybody": frames.ethernet(good[14:], to="ff:ff:ff:ff:ff:ff"),
        "to a group": frames.ethernet(good[14:], to="01:00:5e:00:00:01"),
        "tagged": frames.tagged(good, 7),
        "tagged as priority": frames.tagged(good, 0),
        "tagged twice": frames.tagged(frames.tagged(good, 7), 8),
        "the first fragment": frames.ethernet(frames.ipv4(PUBLIC, UDP, packet, fragment=0x2000)),
        "a later fragment": frames.ethernet(frames.ipv4(PUBLIC, UDP, packet, fragment=100)),
        "with a source route": frames.ethernet(
            frames.ipv4(PUBLIC, UDP, packet, options=b"\x83\x07\x04\x0a\x63\x00\x01\0")
        ),
        "by another protocol": frames.ethernet(frames.ipv4(PUBLIC, 132, packet)),
        "cut short": good[:20],
        "IPv6": frames.ethernet(b"\x60" + bytes(5) + b"\x3a\xff" + bytes(32), frames.IPV6),
    }


def _host_addresses() -> list[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("203.0.113.1", 9))
        except OSError:
            return []
        return [probe.getsockname()[0]]


async def test_no_attack_gets_anywhere(open_pool: OpenPool, world: World) -> None:
    async with open_pool() as pool, pool.slot() as own, pool.slot() as other:
        with ExitStack() as stack:
            there = stack.enter_context(closing(world.datagrams(PORT)))
            host = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            host.bind(("0.0.0.0", PORT))
            scene = Scene(PlayedGuest(own), own, PlayedGuest(other), other, host)
            for name, frame in _attacks(scene).items():
                try:
                    scene.attacker.send(frame)
                except OSError as error:  # the device itself refuses what is too short
                    assert name == "cut short", error
            scene.attacker.send(frames.datagram(PUBLIC, PORT, b"allowed"))
            assert there.recv(100) == b"allowed", "the first to arrive is the only one that may"
            there.settimeout(0.3)
            host.settimeout(0.1)
            for silent in (there, host):
                with pytest.raises(TimeoutError):
                    silent.recv(100)
            assert scene.victim.hear(seconds=0.1) is None


async def test_arp_is_answered_for_the_gateway_alone(open_pool: OpenPool) -> None:
    async with open_pool() as pool, pool.slot() as slot:
        guest = PlayedGuest(slot)
        taken = slot.tap
        assert taken is not None
        guest.send(
            frames.arp(1, GUEST_ADDRESS, GUEST_MAC, slot.address),
            frames.arp(1, GUEST_ADDRESS, GUEST_MAC, "10.0.2.77"),
            frames.arp(1, "10.0.2.77", GUEST_MAC, GUEST_GATEWAY),
            frames.arp(2, GUEST_GATEWAY, GUEST_MAC, GUEST_ADDRESS),
            frames.arp(1, GUEST_ADDRESS, "52:54:00:12:34:57", GUEST_GATEWAY),
        )
        assert _read_frame(taken, 0.3) is None
        guest.send(frames.WHO_IS_THE_GATEWAY)
        answer = _read_frame(taken, 2)
        assert answer is not None and answer[12:14] == b"\x08\x06" and answer[22:28] == frames.mac("52:55:0a:00:02:02")


def _read_frame(tap: int, seconds: float) -> bytes | None:
    import os
    import select

    return os.read(tap, 65536) if select.select([tap], [], [], seconds)[0] else None


async def test_nobody_reaches_a_guest_or_its_slot(open_pool: OpenPool, world: World) -> None:
    async with open_pool() as pool, pool.slot() as slot, pool.slot() as other:
        guest = PlayedGuest(slot)

        def knock() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for address in (slot.address, GUEST_ADDRESS):
                    for port in (53, PORT):
                        sender.sendto(b"knock", (address, port))

        knock()
        world.in_it(knock)
        PlayedGuest(other).send(frames.datagram(slot.address, 53, b"knock"))
        assert guest.hear(seconds=0.3) is None
        with socket.socket(fileno=socket.dup(pool.listeners(slot).udp)) as resolver:
            resolver.setblocking(False)
            with pytest.raises(BlockingIOError):
                resolver.recv(100)


def connect(guest: PlayedGuest, to: str, port: int, source_port: int) -> Heard | None:
    """Begin a connection; the answer, or a reset."""
    guest.send(frames.segment(to, port, SYN, source_port=source_port))
    answer = guest.hear(lambda heard: is_answer(heard) or is_reset(heard) or is_refusal(heard))
    if answer and is_answer(answer):
        guest.send(
            frames.segment(to, port, ACK, source_port=source_port, sequence=1001, acknowledged=answer.sequence + 1)
        )
    return answer


async def test_the_default_policy_connects_directly(open_pool: OpenPool, world: World) -> None:
    async with open_pool() as pool, pool.slot() as slot:
        guest = PlayedGuest(slot)
        with closing(world.connections(PORT)) as there:
            answer = connect(guest, PUBLIC, PORT, 40001)
            assert answer is not None and is_answer(answer)
            connection, sender = there.accept()
            with connection:
                assert sender[0] not in (slot.address, GUEST_ADDRESS)
        refused = connect(guest, PRIVATE[0], PORT, 40002)
        assert refused is not None and is_reset(refused)


async def test_under_a_policy_of_names_the_proxy_gets_every_connection(open_pool: OpenPool, world: World) -> None:
    policy = NetworkPolicy(Egress.LIST, allow=(Rule("example.org"), Rule(f"{OTHER}/32")))
    async with open_pool() as pool, pool.slot() as slot:
        await pool.apply(slot, policy, "all")
        guest = PlayedGuest(slot)
        with (
            closing(world.connections(PORT)) as there,
            socket.socket(fileno=socket.dup(pool.listeners(slot).proxy)) as proxy,
        ):
            proxy.settimeout(2)
            answer = connect(guest, PUBLIC, PORT, 40001)
            assert answer is not None and is_answer(answer)
            connection, sender = proxy.accept()
            with connection:
                assert sender == (GUEST_ADDRESS, 40001)
                original = connection.getsockopt(socket.SOL_IP, 80, 16)  # SO_ORIGINAL_DST, netfilter_ipv4.h
                assert socket.inet_ntoa(original[4:8]) == PUBLIC
            assert connect(guest, OTHER, PORT, 40002) is not None
            direct, _ = there.accept()
            direct.close()
            forbidden = connect(guest, PRIVATE[0], PORT, 40003)
            assert forbidden is not None and is_reset(forbidden)
            guest.send(frames.segment(GUEST_GATEWAY, 15001, SYN, source_port=40004))
            assert guest.hear(is_answer, 0.3) is None, "the proxy is not reached directly"


@pytest.mark.parametrize("egress", [Egress.ALLOW, Egress.DENY, Egress.NONE])
async def test_the_door_inward_hears_its_own_guest_alone(open_pool: OpenPool, world: World, egress: Egress) -> None:
    async with open_pool() as pool, pool.slot() as slot, pool.slot() as other:
        if egress is not Egress.ALLOW:
            await pool.apply(slot, NetworkPolicy(egress), "all" if egress is Egress.DENY else frozenset())
        guest = PlayedGuest(slot)
        with socket.socket(fileno=socket.dup(pool.listeners(slot).inward)) as door:
            door.settimeout(2)
            for to in (slot.address, slot.host_address):
                PlayedGuest(other).send(frames.segment(to, INWARD_PORT, SYN))
            for knock in (lambda: _knock(slot.address), lambda: world.in_it(lambda: _knock(slot.address))):
                knock()
            answer = connect(guest, GUEST_GATEWAY, INWARD_PORT, 40001)
            if egress is Egress.NONE:
                assert answer is None
                door.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    door.accept()
                return
            assert answer is not None and is_answer(answer)
            connection, sender = door.accept()
            connection.close()
            assert sender == (GUEST_ADDRESS, 40001), "the first that came is the guest"
            door.settimeout(0.1)
            with pytest.raises(TimeoutError):
                door.accept()
        for port in (INWARD_PORT + 1, 443, 15001):
            refused = connect(guest, GUEST_GATEWAY, port, 40100 + port % 100)
            assert refused is not None and is_reset(refused)


def _knock(address: str) -> None:
    """Try to connect with the door of a slot from elsewhere."""
    with socket.socket() as sock:
        sock.settimeout(0.1)
        with pytest.raises(OSError):
            sock.connect((address, INWARD_PORT))


UDP_RULE = Rule("198.51.100.0/24", PORT, Protocol.UDP)


@pytest.mark.parametrize(
    ("policy", "passes"),
    [
        (OPEN, True),
        (NetworkPolicy(Egress.LIST, allow=(UDP_RULE,)), True),
        (NetworkPolicy(Egress.LIST, allow=(UDP_RULE,), deny=(Rule(f"{PUBLIC}/32"),)), False),
        (NetworkPolicy(Egress.LIST, allow=(Rule("198.51.100.0/24", PORT, Protocol.TCP),)), False),
        (NetworkPolicy(Egress.LIST, allow=(Rule("198.51.100.0/24", PORT + 1),)), False),
        (NetworkPolicy(Egress.LIST, allow=(Rule("10.0.0.0/8"), Rule("198.51.100.128/25"))), False),
        (NetworkPolicy(Egress.ALLOW, deny=(Rule("198.51.100.8/29", PORT),)), False),
        (NetworkPolicy(Egress.ALLOW, deny=(Rule("198.51.100.8/29", PORT + 1),)), True),
        (NetworkPolicy(Egress.DENY), False),
        (NetworkPolicy(Egress.NONE), False),
    ],
)
async def test_policies_decide_datagrams(
    open_pool: OpenPool, world: World, policy: NetworkPolicy, passes: bool
) -> None:
    async with open_pool() as pool, pool.slot() as slot:
        await pool.apply(slot, policy, "all" if policy.egress in (Egress.LIST, Egress.DENY) else frozenset())
        with closing(world.datagrams(PORT)) as there:
            there.settimeout(2 if passes else 0.3)
            PlayedGuest(slot).send(frames.datagram(PUBLIC, PORT, b"x"), frames.datagram(PRIVATE[0], PORT, b"private"))
            if passes:
                assert there.recv(10) == b"x"
            else:
                with pytest.raises(TimeoutError):
                    there.recv(10)


def test_an_initial_of_quic_has_the_keys_of_the_specification() -> None:
    """RFC 9001 A.1."""
    assert [each.hex() for each in quic.client_keys(bytes.fromhex("8394c8f03e515708"))] == [
        "1f369613dd76d5467730efcbe3b1a22d",
        "fa044b2f42a3fd3b46fb255c",
        "9f50449e04a0e810283a1e9933adedd2",
    ]
    assert len(quic.initial("example.org")) == quic.SIZE


HTTPS = 443


@pytest.mark.parametrize(
    ("policy", "proxied"),
    [
        (NetworkPolicy(Egress.LIST, allow=(Rule("example.org"),)), "all"),
        (NetworkPolicy(Egress.LIST, allow=(Rule("example.org", HTTPS), UDP_RULE)), "all"),
        (NetworkPolicy(Egress.ALLOW, deny=(Rule("example.org"),)), frozenset({80, HTTPS})),
        (NetworkPolicy(Egress.DENY), "all"),
    ],
)
async def test_a_browser_that_tries_http3_is_refused_at_once_and_falls_back(
    open_pool: OpenPool, world: World, policy: NetworkPolicy, proxied: Literal["all"] | frozenset[int]
) -> None:
    """UDP 443 carries no name that anybody here reads; TCP 443 to the same address is the proxy's."""
    async with open_pool() as pool, pool.slot() as slot:
        await pool.apply(slot, policy, proxied)
        guest = PlayedGuest(slot)
        with (
            closing(world.datagrams(HTTPS)) as there,
            socket.socket(fileno=socket.dup(pool.listeners(slot).proxy)) as proxy,
        ):
            guest.send(frames.datagram(PUBLIC, HTTPS, quic.initial("example.org")))
            assert guest.hear(is_refusal) is not None
            answer = connect(guest, PUBLIC, HTTPS, 40001)
            assert answer is not None and is_answer(answer)
            proxy.settimeout(2)
            proxy.accept()[0].close()
            there.settimeout(0.1)
            with pytest.raises(TimeoutError):
                there.recv(2000)


@pytest.mark.parametrize("policy", [OPEN, NetworkPolicy(Egress.LIST, allow=(Rule("198.51.100.0/24", HTTPS),))])
async def test_http3_reaches_what_is_allowed_by_its_address(
    open_pool: OpenPool, world: World, policy: NetworkPolicy
) -> None:
    async with open_pool() as pool, pool.slot() as slot:
        await pool.apply(slot, policy, "all" if policy.egress is Egress.LIST else frozenset())
        with closing(world.datagrams(HTTPS)) as there:
            sent = quic.initial("example.org")
            PlayedGuest(slot).send(frames.datagram(PUBLIC, HTTPS, sent))
            assert there.recv(2000) == sent


async def test_another_policy_ends_what_it_forbids_and_nothing_else(open_pool: OpenPool, world: World) -> None:
    async with open_pool() as pool, pool.slot() as slot:
        guest = PlayedGuest(slot)
        with closing(world.datagrams(PORT)) as there:
            peers = {}
            for address in (PUBLIC, OTHER):
                guest.send(frames.datagram(address, PORT, b"before"))
                _, peers[address] = there.recvfrom(100)
            await pool.apply(slot, NetworkPolicy(Egress.LIST, allow=(Rule(f"{OTHER}/32"),)), "all")
            guest.send(frames.datagram(PUBLIC, PORT, b"forbidden"), frames.datagram(OTHER, PORT, b"after"))
            assert there.recv(100) == b"after"
            assert guest.hear(is_refusal) is not None
            there.settimeout(0.3)
            with pytest.raises(TimeoutError):
                there.recv(100)


async def test_what_was_cut_is_refused(open_pool: OpenPool, world: World) -> None:
    async with open_pool() as pool, pool.slot() as slot:
        guest = PlayedGuest(slot)
        with closing(world.connections(PORT)) as there:
            assert connect(guest, PUBLIC, PORT, 40001) is not None
            connection, _ = there.accept()
            with connection:
                await pool.cut(slot)
                guest.send(frames.segment(PUBLIC, PORT, ACK, source_port=40001, sequence=1001))
                assert guest.hear(is_reset) is not None
                connection.send(b"still there?")
                assert guest.hear(lambda heard: heard.data != b"", 0.3) is None


async def test_limits_of_packets_and_connections(open_pool: OpenPool, world: World) -> None:
    policy = NetworkPolicy(limits=Limits(packets_per_second=20, connections_per_second=4))
    async with open_pool() as pool, pool.slot() as slot:
        await pool.apply(slot, policy, frozenset())
        guest = PlayedGuest(slot)
        with closing(world.datagrams(PORT)) as there:
            there.settimeout(0.3)
            for number in range(100):
                guest.send(frames.datagram(PUBLIC, PORT, b"x"))
                assert number < 100
            passed = 0
            with pytest.raises(TimeoutError):
                while True:
                    there.recv(10)
                    passed += 1
            assert 5 <= passed <= 30
            await pool.apply(slot, NetworkPolicy(limits=Limits(connections_per_second=4)), frozenset())
            senders = set()
            for port in range(41000, 41040):
                guest.send(frames.datagram(PUBLIC, PORT, b"y", source_port=port))
            with pytest.raises(TimeoutError):
                while True:
                    senders.add(there.recvfrom(10)[1])
            assert 1 <= len(senders) <= 10


async def test_slots_are_made_ahead_and_made_anew(open_pool: OpenPool) -> None:
    async with open_pool(ready=2) as pool:
        await anyio.to_thread.run_sync(eventually, lambda: pool.ready == 2, 10, "two slots wait")
        async with pool.slot() as first:
            pass
        await anyio.to_thread.run_sync(eventually, lambda: first.name not in _devices(), 10, "the slot is removed")
        assert not Path(f"/run/netns/{first.name}").exists()


def _devices() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


async def test_a_small_network_runs_out(open_pool: OpenPool) -> None:
    small = parse_subnets("10.231.9.0/28", "x")
    async with open_pool(subnets=small) as pool, pool.slot(), pool.slot(), pool.slot(), pool.slot():
        with pytest.raises(CapacityError, match="no network slot"):
            async with pool.slot():
                pass


async def test_the_host_using_the_network_itself_is_said_at_once(open_pool: OpenPool, world: World) -> None:
    with pytest.raises(ServerError, match="is used by this host") as caught:
        async with open_pool(subnets=parse_subnets("10.253.0.0/16", "x")):
            pass
    assert "PANDASTACK_NETWORK" in str(caught.value.hint)


async def test_what_a_killed_server_left_is_swept_or_adopted(open_pool: OpenPool, tag: str, world: World) -> None:
    recipe = Recipe(tag, SUBNETS, ["10.0.0.0/8"], GUEST_MAC, MTU)
    kept, lost = (make_slot(recipe, number) for number in (5, 6))
    for fd in kept.listeners.descriptors:
        socket.close(fd)
    lost.close()
    async with open_pool(keep=[kept.slot.name]) as pool:
        assert find_slots(tag) == {kept.slot.name}
        async with pool.slot(kept.slot.name) as slot, pool.slot() as new:
            assert (slot.host_address, slot.address) == SUBNETS.addresses(5)
            assert new.number != slot.number
            with closing(world.datagrams(PORT)) as there:
                PlayedGuest(kept.slot).send(frames.datagram(PUBLIC, PORT, b"alive"))
                assert there.recv(100) == b"alive"
        with pytest.raises(NotFoundError):
            async with pool.slot(lost.slot.name):
                pass
        assert kept.slot.tap is not None
        socket.close(kept.slot.tap)


async def test_installations_share_a_network_without_sharing_slots(open_pool: OpenPool) -> None:
    both = parse_subnets("10.231.0.0/19", "x")
    other = open_slot_pool("feedf00d", both, [], guest_mac=GUEST_MAC, mtu=MTU, locks=runtime_directory(), ready=0)
    async with open_pool(subnets=both) as pool, pool.slot() as mine, other as others, others.slot() as theirs:
        assert both.block_of(mine.number) != both.block_of(theirs.number)
        PlayedGuest(mine).send(frames.datagram(theirs.address, 53, b"attack"))
        assert PlayedGuest(theirs).hear(seconds=0.2) is None
    assert find_slots("feedf00d") == set()


def test_the_last_user_returns_the_hosts_switch(tmp_path: Path) -> None:
    switch = tmp_path / "ip_forward"
    switch.write_text("0\n")
    with forwarding(tmp_path, switch) as first:
        with forwarding(tmp_path, switch) as second:
            assert (first, second, switch.read_text()) == (True, True, "1")
        assert switch.read_text() == "1"
    assert switch.read_text() == "0"
    switch.write_text("1\n")
    with forwarding(tmp_path, switch) as third:
        assert third is False
    assert switch.read_text().strip() == "1"


def test_rules_that_are_wrong_change_nothing(world: World) -> None:
    if facts.program("nft") is None:
        pytest.skip("no nftables")
    with pytest.raises(ServerError, match="refused its rules"):
        run_in(world.netns, lambda: nft.apply("add table inet half\nadd rule inet nothing here\n"))
    run_in(world.netns, lambda: nft.apply("add table inet half\n"))
