"""A machine's connection to its slot: the one place where a policy becomes rules, orders to the egress process and the
state of the guest's link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import anyio
import structlog

from pandastack.egress.client import EgressProcess
from pandastack.egress.client import Slot as Served
from pandastack.errors import PandastackError
from pandastack.model.network import OPEN, Egress, NetworkPolicy
from pandastack.network.pool import SlotPool
from pandastack.network.rules import ProxiedPorts
from pandastack.network.slot import NetworkSlot, no_slot
from pandastack.vmm.driver import Machine

CLOSE_DEADLINE = 2.0
"""Seconds that the egress process gets to end a slot's connections, at most: it may be dead."""

BROKERED_PORTS = frozenset({80, 443})
"""Where secrets may be sent: these ports go through the proxy when a sandbox has any that are bound to hosts."""

log = structlog.get_logger(__name__)


class Secrets(Protocol):
    """Who knows the secrets of sandboxes."""

    async def plug(self, sandbox_id: str, slot: str) -> Sequence[str]:
        """The machine of a sandbox is in ``slot`` now. Returns the hosts to which its connections go to the broker."""
        ...

    async def unplug(self, slot: str) -> None:
        """Nobody is in ``slot`` any more."""
        ...


@dataclass
class Plug:
    """What a cable is plugged into."""

    pool: SlotPool
    egress: EgressProcess
    secrets: Secrets | None = None
    """``None`` until the engine has what it keeps of secrets."""


class Cable:
    """The cable of one machine. It comes with its slot, in which the default policy holds and the link is up; a
    machine without a network has one, too, that does nothing."""

    def __init__(self, slot: NetworkSlot, plug: Plug | None = None, *, fresh: bool = True) -> None:
        """``fresh``: the slot is a new one; else nobody knows which policy holds in it."""
        self.slot = slot
        self.policy = OPEN
        self.machine: Machine | None = None
        """Its other end, once there is one."""
        self._plug = plug
        self.sandbox = ""
        """Whose it is; empty while nobody's."""
        self._hosts: Sequence[str] = ()
        self._applied: tuple[NetworkPolicy, ProxiedPorts] | None = (OPEN, frozenset()) if fresh else None
        self._answered = False
        self._lock = anyio.Lock()

    @property
    def link(self) -> bool:
        """Whether the guest is to see a connected cable."""
        return self.slot.connected and self.policy.egress is not Egress.NONE

    async def connect(self, sandbox_id: str, policy: NetworkPolicy) -> None:
        """Become the cable of a sandbox, before its programs run. With the default policy the slot is as it is to be.

        Raises :class:`ServerError` when the rules cannot be made: then nothing may run.
        """
        async with self._lock:
            self.sandbox = sandbox_id
            if sandbox_id and self._plug is not None and self._plug.secrets is not None:
                self._hosts = await self._plug.secrets.plug(sandbox_id, self.slot.name)
            await self._enforce(policy)
            await self._answer()

    async def change(self, policy: NetworkPolicy, hosts: Sequence[str] = ()) -> None:
        """Another policy, effective when this returns: connections that it forbids are cut, others go on."""
        async with self._lock:
            self._hosts = hosts
            await self._enforce(policy)
            if self._plug is not None and self._answered:
                await self._plug.egress.change(self.slot.name, policy, hosts)
            else:
                await self._answer()

    async def disconnect(self) -> None:
        """End all connections on the host's side: what the guest still believes to be connected is refused."""
        if self._plug is None:
            return
        async with self._lock:
            await self._silence()
            try:
                await self._plug.pool.cut(self.slot)
            except OSError as error:
                log.warning("network.not_cut", sandbox_id=self.sandbox, reason=str(error))

    async def reconnect(self) -> None:
        """The reverse of :meth:`disconnect`; does nothing to a connected cable."""
        async with self._lock:
            if self.sandbox:
                await self._answer()

    async def counters(self) -> tuple[int, int]:
        """Bytes that the guest has received and sent since its machine began."""
        return (0, 0) if self._plug is None else await self._plug.pool.counters(self.slot)

    async def release(self) -> None:
        """The machine has ended."""
        owned, self.sandbox = bool(self.sandbox), ""
        await self._silence()
        if owned and self._plug is not None and self._plug.secrets is not None:
            with anyio.move_on_after(CLOSE_DEADLINE, shield=True):
                await self._plug.secrets.unplug(self.slot.name)

    async def _enforce(self, policy: NetworkPolicy) -> None:
        wanted = (policy, proxied_ports(policy, has_hosts=bool(self._hosts)))
        if self._plug is not None and wanted != self._applied:
            await self._plug.pool.apply(self.slot, *wanted)
            self._applied = wanted
        changed = (policy.egress is Egress.NONE) != (self.policy.egress is Egress.NONE)
        self.policy = policy
        if changed:
            await self.set_link()

    async def set_link(self) -> None:
        """Show the guest whether its cable is connected. The VMM sets what it has loaded, so it is repeated then."""
        if self.machine is not None:
            await self.machine.set_link(up=self.link)

    async def _answer(self) -> None:
        """Tell the egress process whose slot it is. Without it the sandbox runs, and reaches nothing by name."""
        plug = self._plug
        if plug is None or self._answered:
            return
        self._answered = True
        inside = plug.pool.listeners(self.slot)
        served = Served(
            self.slot.name,
            self.sandbox,
            inside.udp,
            inside.tcp,
            inside.proxy,
            inside.inward,
            refused=inside.refused,
        )
        try:
            await plug.egress.open(served, self.policy, self._hosts)
        except PandastackError as error:
            log.warning("network.no_egress", sandbox_id=self.sandbox, reason=str(error))

    async def _silence(self) -> None:
        plug = self._plug
        if plug is None or not self._answered:
            return
        self._answered = False
        with anyio.move_on_after(CLOSE_DEADLINE, shield=True):
            try:
                await plug.egress.close(self.slot.name)
            except PandastackError as error:
                log.warning("network.egress_not_closed", slot=self.slot.name, reason=str(error))


UNPLUGGED = Cable(no_slot(None))
"""For machines that nobody connects."""


def proxied_ports(policy: NetworkPolicy, *, has_hosts: bool) -> ProxiedPorts:
    """Which TCP ports the proxy gets. Also what such a policy denies altogether: the proxy says so, and logs it."""
    if policy.has_domains or policy.egress in (Egress.LIST, Egress.DENY):
        return "all"
    return BROKERED_PORTS if has_hosts else frozenset()
