"""What a machine's cable asks of the proxy, and that the end of a machine waits for nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import anyio
import pytest

from pandastack.egress.client import EgressProcess, Slot
from pandastack.engine.machines import cable as cables
from pandastack.engine.machines.cable import BROKERED_PORTS, Cable, Plug, proxied_ports
from pandastack.engine.machines.host_network import HostNetwork
from pandastack.errors import ServerError
from pandastack.model.network import OPEN, Egress, NetworkPolicy, Rule
from pandastack.network.pool import SlotPool
from pandastack.network.rules import ProxiedPorts
from pandastack.network.slot import Listeners, NetworkSlot

LIST = NetworkPolicy(Egress.LIST, allow=(Rule("203.0.113.0/24"),))
DENIED_NAME = NetworkPolicy(Egress.ALLOW, deny=(Rule("*.example.org"),))
DENIED_NETWORK = NetworkPolicy(Egress.ALLOW, deny=(Rule("203.0.113.0/24"),))


@pytest.mark.parametrize(
    ("policy", "has_hosts", "ports"),
    [
        (OPEN, False, frozenset()),
        (OPEN, True, BROKERED_PORTS),
        (DENIED_NETWORK, False, frozenset()),
        (DENIED_NAME, False, "all"),
        (LIST, False, "all"),
        (NetworkPolicy(Egress.DENY), True, "all"),
    ],
)
def test_what_goes_through_the_proxy(policy: NetworkPolicy, has_hosts: bool, ports: ProxiedPorts) -> None:
    assert proxied_ports(policy, has_hosts=has_hosts) == ports


class ScriptedEgress:
    """An egress process that remembers its orders."""

    def __init__(self, *, hangs: bool = False, fails: bool = False) -> None:
        self.orders: list[tuple[str, ...]] = []
        self.hangs = hangs
        self.fails = fails

    async def _take(self, *order: str) -> None:
        self.orders.append(order)
        if self.hangs:
            await anyio.sleep_forever()
        if self.fails:
            raise ServerError("it is down")

    async def open(self, slot: Slot, policy: NetworkPolicy, hosts: Sequence[str]) -> None:
        await self._take("open", slot.key, slot.sandbox, policy.egress)

    async def change(self, key: str, policy: NetworkPolicy, hosts: Sequence[str]) -> None:
        await self._take("change", key, policy.egress)

    async def close(self, key: str) -> None:
        await self._take("close", key)


class Rules:
    """A pool that remembers what was asked of it."""

    def __init__(self) -> None:
        self.done: list[tuple[object, ...]] = []

    async def apply(self, slot: NetworkSlot, policy: NetworkPolicy, ports: ProxiedPorts) -> None:
        self.done.append(("apply", policy.egress, ports))

    async def cut(self, slot: NetworkSlot) -> None:
        self.done.append(("cut",))

    def listeners(self, slot: NetworkSlot) -> Listeners:
        return Listeners(3, 4, 5, 6)


SLOT = NetworkSlot(7, "ps-00c0ffee0007", None)


def plugged(egress: ScriptedEgress, *, fresh: bool = True) -> tuple[Cable, Rules]:
    rules = Rules()
    plug = Plug(cast(SlotPool, rules), cast(EgressProcess, egress))
    return Cable(SLOT, plug, fresh=fresh), rules


async def test_a_create_with_the_default_policy_changes_no_rule() -> None:
    egress = ScriptedEgress()
    cable, rules = plugged(egress)
    await cable.connect("box", OPEN)
    assert (rules.done, egress.orders) == ([], [("open", SLOT.name, "box", "allow")])


async def test_nobody_knows_which_policy_holds_in_an_adopted_slot() -> None:
    cable, rules = plugged(ScriptedEgress(), fresh=False)
    await cable.connect("box", OPEN)
    assert rules.done == [("apply", Egress.ALLOW, frozenset())]


async def test_a_pause_silences_the_slot_and_a_resume_opens_it_again() -> None:
    egress = ScriptedEgress()
    cable, rules = plugged(egress)
    await cable.connect("box", LIST)
    await cable.disconnect()
    await cable.reconnect()
    await cable.reconnect()
    await cable.change(NetworkPolicy(Egress.NONE))
    assert not cable.link
    await cable.release()
    assert rules.done == [("apply", Egress.LIST, "all"), ("cut",), ("apply", Egress.NONE, frozenset())]
    assert [order[0] for order in egress.orders] == ["open", "close", "open", "change", "close"]


async def test_without_an_egress_process_a_machine_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    cable, _ = plugged(ScriptedEgress(fails=True))
    await cable.connect("box", OPEN)
    assert cable.link
    await cable.release()
    monkeypatch.setattr(cables, "CLOSE_DEADLINE", 0.05)
    egress = ScriptedEgress()
    cable, _ = plugged(egress)
    await cable.connect("box", OPEN)
    egress.hangs = True
    with anyio.fail_after(30):
        await cable.release()


async def test_a_cable_that_leads_nowhere_does_nothing() -> None:
    async with HostNetwork(None).cable() as cable:
        await cable.connect("box", LIST)
        await cable.disconnect()
        assert (await cable.counters(), cable.link) == ((0, 0), False)
