"""The process dies, hangs and comes back; the engine's side neither waits for it nor lets anything through."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import anyio
import pytest

from pandastack.errors import NotFoundError
from pandastack.host.processes.confinement import confinement_of
from pandastack.model.network import Egress, NetworkPolicy, Rule
from tests.support.egress import POLICY, UID, Subject
from tests.support.egress_world import HERE, World

pytestmark = [pytest.mark.anyio, pytest.mark.root]

REQUEST = b"GET /x HTTP/1.1\r\nHost: allowed.test\r\n\r\n"
LOOKUP = 0.4
"""Seconds without an answer after which nobody answers."""


def get(world: World, host: str = "allowed.test", timeout: float = 5) -> str:
    try:
        with world.connect(HERE, 80) as sock:
            sock.settimeout(timeout)
            sock.sendall(REQUEST.replace(b"allowed.test", host.encode()))
            return sock.recv(65536).split()[1].decode()
    except ConnectionError:
        return "reset"
    except TimeoutError:
        return "silence"


def lookup(world: World, timeout: float = 5) -> str:
    try:
        return world.lookup("allowed.test", "A", timeout)[0]
    except TimeoutError:
        return "silence"


async def gone(subject: Subject) -> None:
    """Wait until the engine's side knows that its process is dead."""
    while subject.egress.pid:
        await subject.egress.settled()


async def works(subject: Subject) -> bool:
    name = await anyio.to_thread.run_sync(lookup, subject.world)
    return (name, await anyio.to_thread.run_sync(get, subject.world)) == ("NOERROR", "200")


async def test_it_has_no_privileges(subject: Subject) -> None:
    assert subject.egress.pid
    confinement = confinement_of(subject.egress.pid)
    assert (confinement.uid, confinement.groups, confinement.capabilities) == (UID, (), 0)
    assert confinement.no_new_privileges
    environment = Path(f"/proc/{subject.egress.pid}/environ").read_bytes().split(b"\0")
    assert {each.partition(b"=")[0] for each in environment} <= {b"PATH", b"LC_ALL", b""}


async def test_killed_it_fails_closed_and_comes_back(subject: Subject) -> None:
    assert await works(subject)
    sock = await anyio.to_thread.run_sync(subject.world.connect, HERE, 80)
    with sock:
        sock.sendall(REQUEST)
        assert await anyio.to_thread.run_sync(sock.recv, 100)
        first = subject.egress.pid
        assert first
        os.kill(first, signal.SIGKILL)
        await gone(subject)
        with pytest.raises((ConnectionError, EOFError)):
            if not await anyio.to_thread.run_sync(sock.recv, 100):
                raise EOFError
    asked = len(subject.world.names.asked)
    assert await anyio.to_thread.run_sync(lookup, subject.world, 0.05) == "silence"
    assert len(subject.world.names.asked) == asked
    with anyio.fail_after(20):
        await subject.egress.ready()
    assert subject.egress.pid != first
    assert await works(subject)


async def test_orders_while_it_is_down(subject: Subject) -> None:
    assert subject.egress.pid
    os.kill(subject.egress.pid, signal.SIGKILL)
    await gone(subject)
    await subject.egress.change("ps0001", NetworkPolicy(Egress.LIST, allow=(Rule("other.test"),)), [])
    assert subject.egress.pid is None  # an order does not wait for the next process
    with anyio.fail_after(20):
        await subject.egress.ready()
    assert await anyio.to_thread.run_sync(get, subject.world) == "403"
    assert await anyio.to_thread.run_sync(get, subject.world, "other.test") == "200"


async def test_a_process_that_hangs_is_replaced(subject: Subject) -> None:
    first = subject.egress.pid
    assert first
    os.kill(first, signal.SIGSTOP)
    with anyio.fail_after(2):
        await subject.egress.change("ps0001", NetworkPolicy(Egress.DENY), [])
    with anyio.fail_after(20):
        while subject.egress.pid in (None, first):
            await subject.egress.settled()
    assert await anyio.to_thread.run_sync(get, subject.world) == "403"
    await subject.egress.change("ps0001", POLICY, [])
    assert await works(subject)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
async def test_a_close_never_waits_long(subject: Subject, number: signal.Signals) -> None:
    sock = await anyio.to_thread.run_sync(subject.world.connect, HERE, 80)
    with sock:
        sock.sendall(REQUEST)
        assert await anyio.to_thread.run_sync(sock.recv, 100)
        assert subject.egress.pid
        os.kill(subject.egress.pid, number)
        with anyio.fail_after(2):
            await subject.egress.close("ps0001")
        with pytest.raises((ConnectionError, EOFError)):
            if not await anyio.to_thread.run_sync(sock.recv, 100):
                raise EOFError
    with anyio.fail_after(20):
        await subject.egress.ready()
    assert await anyio.to_thread.run_sync(lookup, subject.world, LOOKUP) == "silence"


async def test_a_closed_slot(subject: Subject) -> None:
    sock = await anyio.to_thread.run_sync(subject.world.connect, HERE, 80)
    with sock:
        sock.sendall(REQUEST)
        assert await anyio.to_thread.run_sync(sock.recv, 100)
        await subject.egress.close("ps0001")
        with pytest.raises(ConnectionError):
            await anyio.to_thread.run_sync(sock.recv, 100)
    with pytest.raises(ConnectionError):  # nothing listens any more
        subject.world.connect(HERE, 80)
    await subject.egress.close("ps0001")
    with pytest.raises(NotFoundError):
        await subject.egress.change("ps0001", POLICY, [])


async def test_another_sandbox_in_the_slot_starts_anew(subject: Subject) -> None:
    await subject.egress.close("ps0001")
    listeners = subject.world.listeners()
    slot = type(subject.slot)("ps0001", "sbx-2", *(each.fileno() for each in listeners))
    await subject.egress.open(slot, NetworkPolicy())
    await subject.egress.open(slot, NetworkPolicy())  # again: nothing changes
    for each in listeners:
        each.close()
    assert await anyio.to_thread.run_sync(get, subject.world, "denied.test") == "200"
    name = await anyio.to_thread.run_sync(subject.world.lookup, "gateway.pandastack.internal")
    assert name == ("NOERROR", ["10.0.2.2"])


async def test_denied_decisions_come_within_a_second(subject: Subject) -> None:
    await anyio.to_thread.run_sync(get, subject.world, "denied.test")
    with anyio.fail_after(1):
        decision = await subject.decided(allowed=False, name="denied.test")
    assert (decision.via, decision.port, decision.rule) == ("http", 80, "default")
    assert abs(decision.time - time.time()) < 5
