"""The gate: packets pass between a slot and the world while a process lives that has it open, and else none."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import anyio
import pytest

from pandastack.egress.client import Slot, open_egress
from pandastack.model.network import FORBIDDEN, OPEN, Egress, NetworkPolicy, Protocol, Rule
from pandastack.network import nft
from pandastack.network.gate import Gate
from pandastack.network.pool import SlotPool
from pandastack.network.rules import PASS_BIT
from pandastack.network.slot import PREFIX, NetworkSlot
from pandastack.network.trial import gate_shuts_itself
from tests.support import frames
from tests.support.egress import UID
from tests.support.frames import ACK, SYN, TCP, UDP
from tests.support.installation import eventually
from tests.support.slots import OpenPool, PlayedGuest
from tests.support.world import PUBLIC, World

pytestmark = pytest.mark.root

PORT = 9999
SILENCE = 0.3
"""Seconds without a packet after which none comes."""

NETWORK = NetworkPolicy(Egress.LIST, allow=(Rule("198.51.100.0/24", PORT),))
ONLY_UDP = NetworkPolicy(Egress.LIST, allow=(Rule("198.51.100.0/24", PORT, Protocol.UDP),))


@contextmanager
def held(tag: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has the gate of ``tag`` open, and nothing else to do."""
    opened = Gate(tag).open()
    assert opened is not None, "this kernel knows no owners of tables"
    with subprocess.Popen(["sleep", "600"], pass_fds=[opened]) as process:
        os.close(opened)
        try:
            yield process
        finally:
            process.kill()


def passes(guest: PlayedGuest, there: socket.socket, seconds: float = 10) -> bool:
    """Whether a datagram goes out within ``seconds``."""
    guest.send(frames.datagram(PUBLIC, PORT, b"x"))
    there.settimeout(seconds)
    try:
        return there.recv(10) == b"x"
    except TimeoutError:
        return False


def connect(guest: PlayedGuest, port: int, seconds: float = 10) -> int | None:
    """Begin a connection from ``port``; the number of the next byte to be received, None: no answer."""
    guest.send(frames.segment(PUBLIC, PORT, SYN, source_port=port))
    answer = guest.hear(lambda heard: heard.protocol == TCP and heard.flags & (SYN | ACK) == SYN | ACK, seconds)
    if answer is None:
        return None
    there = answer.sequence + 1
    guest.send(frames.segment(PUBLIC, PORT, ACK, source_port=port, sequence=1001, acknowledged=there))
    return there


def send_on(guest: PlayedGuest, port: int, there: int | None) -> None:
    assert there is not None
    guest.send(frames.segment(PUBLIC, PORT, ACK, b"on", source_port=port, sequence=1001, acknowledged=there))


@pytest.mark.parametrize("policy", [OPEN, NETWORK, ONLY_UDP], ids=["allow", "network", "udp"])
async def test_killing_the_process_shuts_every_direct_path(
    open_pool: OpenPool, world: World, tag: str, policy: NetworkPolicy
) -> None:
    async with open_pool(gate=False) as pool, pool.slot() as slot:
        if policy is not OPEN:
            await pool.apply(slot, policy, "all")
        guest, tcp = PlayedGuest(slot), policy is not ONLY_UDP
        with closing(world.datagrams(PORT, PUBLIC)) as there, closing(world.connections(PORT)) as listener:
            assert not passes(guest, there, SILENCE), "nobody has opened it yet"
            with held(tag) as process:
                assert passes(guest, there)
                if tcp:
                    begun = connect(guest, 40001)
                    connection, _ = listener.accept()
                process.send_signal(signal.SIGKILL)
                process.wait()
            assert not passes(guest, there, SILENCE)
            if not tcp:
                return
            assert connect(guest, 40002, SILENCE) is None
            with connection:
                connection.send(b"an answer")
                assert guest.hear(lambda heard: heard.data != b"", SILENCE) is None, "no answer comes in either"
                with held(tag):
                    assert passes(guest, there)
                    send_on(guest, 40001, begun)
                    assert connection.recv(10) == b"on", "a connection of before continues"


async def test_answers_wait_outside_too(open_pool: OpenPool, world: World, tag: str) -> None:
    async with open_pool(gate=False) as pool, pool.slot() as slot:
        guest = PlayedGuest(slot)
        with closing(world.datagrams(PORT, PUBLIC)) as there:
            with held(tag):
                guest.send(frames.datagram(PUBLIC, PORT, b"x"))
                there.settimeout(5)
                _, sender = there.recvfrom(10)
            there.sendto(b"welcome", sender)
            assert guest.hear(lambda heard: heard.protocol == UDP, SILENCE) is None
            with held(tag):
                there.sendto(b"welcome", sender)
                assert guest.hear(lambda heard: heard.protocol == UDP) is not None


async def test_marks_of_others_open_nothing(open_pool: OpenPool, world: World, tag: str) -> None:
    others = f"marks_{tag}"
    script = [
        f"add table inet {others}",
        f"add chain inet {others} early {{ type filter hook forward priority -150; }}",
    ]
    script += [f'add rule inet {others} early iifname "{PREFIX}{tag}*" meta mark set {PASS_BIT}']
    async with open_pool(gate=False) as pool, pool.slot() as slot:
        nft.apply("".join(f"{line}\n" for line in script))
        try:
            with closing(world.datagrams(PORT, PUBLIC)) as there:
                assert not passes(PlayedGuest(slot), there, SILENCE)
        finally:
            nft.apply(f"delete table inet {others}\n")


async def test_a_gate_opens_for_its_own_installation_alone(open_pool: OpenPool, world: World, tag: str) -> None:
    async with open_pool(gate=False) as pool, pool.slot() as slot:
        with closing(world.datagrams(PORT, PUBLIC)) as there, held(f"{int(tag, 16) ^ 1:08x}"):
            assert not passes(PlayedGuest(slot), there, SILENCE)


async def test_without_owners_the_gate_is_shut_by_hand(open_pool: OpenPool, world: World, tag: str) -> None:
    gate = Gate(tag, owned=False)
    gate.shut()  # there is none
    async with open_pool(gate=False) as pool, pool.slot() as slot:
        guest = PlayedGuest(slot)
        with closing(world.datagrams(PORT, PUBLIC)) as there:
            assert gate.open() is None
            try:
                assert passes(guest, there)
            finally:
                gate.shut()
            assert not passes(guest, there, SILENCE)


async def test_another_process_cannot_shut_it(open_pool: OpenPool, world: World, tag: str) -> None:
    async with open_pool(gate=False) as pool, pool.slot() as slot:
        with closing(world.datagrams(PORT, PUBLIC)) as there, held(tag):
            Gate(tag).shut()
            assert passes(PlayedGuest(slot), there)


async def test_the_next_server_waits_for_the_former_ones_process(open_pool: OpenPool, world: World, tag: str) -> None:
    """Their tables have one name; the former's process ends a moment after its server was killed."""
    async with open_pool(gate=False) as pool, pool.slot() as slot:
        with closing(world.datagrams(PORT, PUBLIC)) as there, held(tag) as former:
            with ThreadPoolExecutor(1) as executor:
                opening = executor.submit(Gate(tag).open)
                await anyio.sleep(0.2)
                assert not opening.done()
                former.kill()
                opened = await anyio.to_thread.run_sync(opening.result)
            assert opened is not None
            assert passes(PlayedGuest(slot), there)
            os.close(opened)
            assert not passes(PlayedGuest(slot), there, SILENCE)


def test_this_kernel_shuts_it_itself() -> None:
    assert gate_shuts_itself()


async def test_the_egress_process_has_it_and_nobody_else(
    open_pool: OpenPool, world: World, tag: str, tmp_path: Path
) -> None:
    """A table with the name of one that lives cannot be made: so the next process has an open gate only because no
    descriptor of the former's was left anywhere."""
    tmp_path.chmod(0o711)
    async with open_pool(gate=False) as pool, pool.slot() as slot:
        guest = PlayedGuest(slot)
        gate = Gate(tag)
        async with open_egress(tmp_path, UID, FORBIDDEN, lambda key, decision: None, gate=gate) as egress:
            await egress.open(served(pool, slot), OPEN)
            with closing(world.datagrams(PORT, PUBLIC)) as there, closing(world.connections(PORT)) as listener:
                assert passes(guest, there)
                begun = connect(guest, 40001)
                connection, _ = listener.accept()
                with connection:
                    first = egress.pid
                    assert first
                    os.kill(first, signal.SIGKILL)
                    while egress.pid:
                        await egress.settled()
                    with anyio.fail_after(60):
                        await egress.ready()
                    assert egress.pid != first
                    assert await anyio.to_thread.run_sync(
                        eventually, lambda: passes(guest, there, SILENCE), 30, "it is back"
                    )
                    send_on(guest, 40001, begun)
                    assert connection.recv(10) == b"on"
        with closing(world.datagrams(PORT, PUBLIC)) as there:
            assert not passes(guest, there, SILENCE), "it ended in order"


def served(pool: SlotPool, slot: NetworkSlot) -> Slot:
    inside = pool.listeners(slot)
    return Slot(slot.name, "sbx-1", inside.udp, inside.tcp, inside.proxy, inside.inward)
