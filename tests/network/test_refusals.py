"""What the packet filter of a slot refuses is in the log, with its reason: a slot, a guest and the egress process."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from pandastack.egress.client import EgressProcess, Slot, open_egress
from pandastack.egress.log import Decision
from pandastack.model.network import FORBIDDEN, OPEN, Egress, NetworkPolicy, Protocol, Rule
from pandastack.network.gate import Gate
from pandastack.network.making import Recipe, make_slot, remove_slots
from pandastack.network.refusals import can_log
from pandastack.network.rules import LOG_BURST, plan_slot_rules
from pandastack.vmm.plan import GUEST_MAC
from tests.support import frames
from tests.support.egress import UID
from tests.support.frames import SYN
from tests.support.slots import MTU, SUBNETS, OpenPool, PlayedGuest
from tests.support.world import OTHER, PRIVATE, PUBLIC, World

pytestmark = pytest.mark.root

PORT = 9999
LIST = NetworkPolicy(Egress.LIST, allow=(Rule(f"{PUBLIC}/32", PORT), Rule("example.org")))
NO_MAIL = NetworkPolicy(deny=(Rule("198.51.100.0/24", 25, Protocol.TCP),))


@dataclass
class Scene:
    """``decisions`` are all that came, in order."""

    guest: PlayedGuest
    egress: EgressProcess
    slot: Slot
    decisions: list[Decision]

    async def wait(self, wanted: Callable[[Decision], bool]) -> Decision:
        with anyio.fail_after(20):
            while True:
                for each in self.decisions:
                    if wanted(each):
                        return each
                await anyio.sleep(0.01)


OpenScene = Callable[..., AbstractAsyncContextManager[Scene]]


@pytest.fixture
def scene(open_pool: OpenPool, world: World, tag: str, tmp_path: Path) -> OpenScene:
    if not can_log():
        pytest.skip("this kernel does not report what its packet filter refuses")

    @asynccontextmanager
    async def opened(policy: NetworkPolicy, before: tuple[bytes, ...] = ()) -> AsyncIterator[Scene]:
        decisions: list[Decision] = []
        async with open_pool(gate=False) as pool, pool.slot() as slot:
            await pool.apply(slot, policy, "all" if policy.has_domains else frozenset())
            guest = PlayedGuest(slot)
            guest.send(*before)
            if before:
                await anyio.sleep(1)  # the kernel reports after a fifth of a second
            tmp_path.chmod(0o711)
            process = open_egress(
                tmp_path, UID, FORBIDDEN, lambda _, decision: decisions.append(decision), gate=Gate(tag)
            )
            async with process as egress:
                inside = pool.listeners(slot)
                listeners = inside.udp, inside.tcp, inside.proxy, inside.inward
                served = Slot(slot.name, "sbx-1", *listeners, refused=inside.refused)
                await egress.open(served, policy)
                yield Scene(guest, egress, served, decisions)

    return opened


def shown(decision: Decision) -> tuple[object, ...]:
    return decision.via, decision.address, decision.port, decision.rule, decision.how_to_allow


PING = frames.ethernet(frames.ipv4(OTHER, 1, b"\x08\0\xf7\xff\0\0\0\0"))


@pytest.mark.parametrize(
    ("policy", "frame", "expected"),
    [
        (OPEN, frames.datagram(PRIVATE[0], PORT, b"x"), ("udp", PRIVATE[0], PORT, "forbidden 10.0.0.0/8", "")),
        (OPEN, frames.segment(PRIVATE[2], 80, SYN), ("tcp", PRIVATE[2], 80, "forbidden 169.254.0.0/16", "")),
        (OPEN, frames.segment(PUBLIC, 853, SYN), ("tcp", PUBLIC, 853, "names", f"{PUBLIC}:853")),
        (OPEN, frames.ethernet(frames.ipv4(PUBLIC, 50, bytes(16))), ("other", PUBLIC, 0, "protocol", PUBLIC)),
        (NO_MAIL, frames.segment(PUBLIC, 25, SYN), ("tcp", PUBLIC, 25, "deny 198.51.100.0/24:25/tcp", "")),
        (LIST, frames.datagram(PUBLIC, 123, b"x"), ("udp", PUBLIC, 123, "default", f"{PUBLIC}:123")),
        (LIST, frames.datagram(OTHER, 443, b"x"), ("quic", OTHER, 443, "default", f"{OTHER}:443")),
        (LIST, PING, ("icmp", OTHER, 0, "default", OTHER)),
    ],
    ids=["private", "metadata", "dns over tls", "another protocol", "denied network", "udp", "quic", "ping"],
)
async def test_a_refusal_is_logged(
    scene: OpenScene, policy: NetworkPolicy, frame: bytes, expected: tuple[object, ...]
) -> None:
    async with scene(policy) as found:
        found.guest.send(frame)
        decision = await found.wait(lambda each: True)
        assert not decision.allowed and decision.reason
        assert shown(decision) == expected


async def test_what_passes_is_not_logged_and_a_change_counts_at_once(scene: OpenScene, world: World) -> None:
    async with scene(LIST) as found:
        with closing(world.datagrams(PORT, PUBLIC)) as there:
            found.guest.send(frames.datagram(PUBLIC, PORT, b"x"))
            assert there.recv(10) == b"x"
        found.guest.send(frames.datagram(PUBLIC, 123, b"x"))
        assert (await found.wait(lambda each: each.port == 123)).rule == "default"
        await found.egress.change(found.slot.key, NetworkPolicy(Egress.DENY), ())
        found.guest.send(frames.datagram(PUBLIC, 124, b"x"))
        assert (await found.wait(lambda each: each.port == 124)).rule == "deny"
        assert {each.port for each in found.decisions} == {123, 124}


async def test_a_flood_is_bounded_by_the_kernel(scene: OpenScene) -> None:
    async with scene(OPEN) as found:
        for port in range(1, 2001):
            found.guest.send(frames.datagram(PRIVATE[0], port, b"x"))
        with anyio.fail_after(60):  # the rate lets another one through in a while
            while not any(each.port == 9 for each in found.decisions[LOG_BURST:]):
                found.guest.send(frames.datagram(PRIVATE[0], 9, b"x"))
                await anyio.sleep(0.05)
        flood = [each for each in found.decisions if each.port != 9]
        assert LOG_BURST // 2 <= len(flood) < 500


async def test_the_next_process_reads_what_was_refused_meanwhile(scene: OpenScene) -> None:
    async with scene(OPEN) as found:
        found.guest.send(frames.datagram(PRIVATE[0], 1, b"x"))
        await found.wait(lambda each: each.port == 1)
        first = found.egress.pid
        assert first
        os.kill(first, signal.SIGKILL)
        while found.egress.pid:
            await found.egress.settled()
        found.guest.send(frames.datagram(PRIVATE[0], 2, b"x"))
        await found.wait(lambda each: each.port == 2)
        assert found.egress.pid != first


async def test_refusals_of_before_are_nobodys(scene: OpenScene) -> None:
    """A machine that was made ahead may have tried something before it was a sandbox's."""
    async with scene(OPEN, before=(frames.datagram(PRIVATE[0], 1, b"x"),)) as found:
        found.guest.send(frames.datagram(PRIVATE[0], 2, b"x"))
        await found.wait(lambda each: each.port == 2)
        assert [each.port for each in found.decisions] == [2]


def test_kernels_without_reports_refuse_all_the_same(tag: str, open_pool: OpenPool) -> None:
    made = make_slot(Recipe(tag, SUBNETS, FORBIDDEN, GUEST_MAC, MTU, logs=False), 3)
    try:
        assert made.listeners.refused is None and len(made.listeners.descriptors) == 4
        guest = PlayedGuest(made.slot)
        guest.send(frames.datagram(PRIVATE[0], PORT, b"x"))
        assert guest.hear(lambda heard: heard.protocol == frames.ICMP) is not None
    finally:
        made.close()
        remove_slots([made.slot.name])
    rules = plan_slot_rules(GUEST_MAC, FORBIDDEN, logs=False)
    assert " log " not in rules and " log " in plan_slot_rules(GUEST_MAC, FORBIDDEN)
