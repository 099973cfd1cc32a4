"""The slots of one installation: made ahead, handed out, never used twice.

A used slot is removed rather than cleaned: what a kernel remembers of a guest (neighbours, connections, counters,
policy) is forgotten for sure with the namespace. That happens in the background.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
import structlog

from pandastack.errors import PandastackError, ServerError
from pandastack.host.tasks import beside
from pandastack.model.network import NetworkPolicy
from pandastack.network import conntrack, devices, nft
from pandastack.network.blocks import Numbers
from pandastack.network.forwarding import forwarding
from pandastack.network.host_networks import Route, find_clash, read_host_networks, read_routes
from pandastack.network.making import Made, Recipe, adopt_slot, find_slots, make_slot, remove_slots
from pandastack.network.policy_rules import plan_policy_rules
from pandastack.network.refusals import can_log
from pandastack.network.rules import ProxiedPorts, host_table, plan_forbidden, plan_host_rules
from pandastack.network.slot import Listeners, NetworkSlot, get_slot_number
from pandastack.network.subnets import Subnets
from pandastack.network.thread import run_in

READY = 16
"""How many slots wait: as many as the largest fork tree has machines."""

PAUSE = 1.0
"""Seconds after a slot could not be made until the next is tried."""

LOOK = 30.0
"""Seconds between looks at the host's networks, which may change."""

BATCH = 16
"""How many used slots are removed before anything else is looked at."""

END_DEADLINE = 10.0
"""Seconds that removing all slots may take at the end; what is left, the next server removes."""

T = TypeVar("T")

log = structlog.get_logger(__name__)


class SlotPool:
    """The pool. Made by :func:`open_slot_pool`; it lives as long as that block."""

    def __init__(self, recipe: Recipe, numbers: Numbers, ready: int) -> None:
        self._recipe = recipe
        self._numbers = numbers
        self._target = ready
        self._ready: deque[Made] = deque()
        self._held: dict[str, Made] = {}
        self._used: list[Made] = []
        self._short, self._dirty = anyio.Event(), anyio.Event()
        self._making = anyio.Lock()
        self.left = False
        """Whether a slot could not be removed: then the wall around all of them stays."""

    @property
    def forbidden(self) -> Sequence[str]:
        """What no guest of these slots reaches: networks."""
        return self._recipe.forbidden

    @property
    def ready(self) -> int:
        """How many slots wait."""
        return len(self._ready)

    @asynccontextmanager
    async def slot(self, name: str | None = None) -> AsyncIterator[NetworkSlot]:
        """A slot with the default policy, for as long as the block runs; with ``name`` one that a machine of a former
        server is in. Leaving the block waits for nothing.

        Raises :class:`CapacityError` when all addresses are in use, :class:`ServerError` when none can be made.
        """
        made = await (self._take() if name is None else self._adopt(name))
        self._held[made.slot.name] = made
        try:
            yield made.slot
        finally:
            del self._held[made.slot.name]
            made.close()
            self._used.append(made)
            self._dirty.set()

    async def _take(self) -> Made:
        self._short.set()
        return self._ready.popleft() if self._ready else await self._make()

    async def _adopt(self, name: str) -> Made:
        with anyio.CancelScope(shield=True):
            made = await anyio.to_thread.run_sync(adopt_slot, self._recipe, name)
        return made  # noqa: RET504  mypy takes a CancelScope for one that may swallow errors

    async def _make(self) -> Made:
        """One at a time: the kernel does not make devices faster in parallel."""
        async with self._making:
            number = await anyio.to_thread.run_sync(self._numbers.take)
            try:
                with anyio.CancelScope(shield=True):
                    made = await anyio.to_thread.run_sync(make_slot, self._recipe, number)
            except BaseException:
                self._numbers.give_back(number)
                raise
        return made

    def listeners(self, slot: NetworkSlot) -> Listeners:
        """The sockets in the slot that the egress process answers at: this process's descriptors."""
        return self._held[slot.name].listeners

    async def apply(self, slot: NetworkSlot, policy: NetworkPolicy, proxied_ports: ProxiedPorts) -> None:
        """Give the slot another policy, all of it at once. Connections that it allows go on, all others end with
        their next packet."""
        await _inside(slot, partial(nft.apply, plan_policy_rules(policy, proxied_ports, _new_mark())))

    async def counters(self, slot: NetworkSlot) -> tuple[int, int]:
        """Bytes that the guest has received and sent over its cable, refused ones included."""
        return await _inside(slot, devices.cable_bytes)

    async def cut(self, slot: NetworkSlot) -> None:
        """End all connections through the slot: what still comes for them is refused."""
        await _inside(slot, conntrack.forget_all)
        await anyio.to_thread.run_sync(conntrack.forget_from, slot.address)

    async def refill(self) -> None:
        """Make what is missing. Runs until cancelled."""
        while True:
            self._short = anyio.Event()
            try:
                while len(self._ready) < self._target:
                    self._ready.append(await self._make())
            except (PandastackError, OSError) as error:
                log.warning("network.no_slot", reason=str(error))
                await anyio.sleep(PAUSE)
                continue
            await self._short.wait()

    async def clean(self) -> None:
        """Remove what was used. Runs until cancelled."""
        while True:
            await self._dirty.wait()
            self._dirty = anyio.Event()
            while self._used:
                await self._remove_some()

    async def _remove_some(self) -> None:
        used, self._used = self._used[:BATCH], self._used[BATCH:]
        with anyio.CancelScope(shield=True):
            names, addresses = [each.slot.name for each in used], [each.slot.address for each in used]
            try:
                await anyio.to_thread.run_sync(remove_slots, names, addresses)
            except (PandastackError, OSError) as error:
                log.warning("network.slots_left", slots=names, reason=str(error))
                self.left = True
                return  # their numbers stay taken
        for each in used:
            self._numbers.give_back(each.slot.number)

    async def watch_host(self, forbidden: Sequence[str], known: Sequence[str]) -> None:
        """Follow the host's networks: what is new of them no guest may reach. Runs until cancelled."""
        while True:
            await anyio.sleep(LOOK)
            try:
                now = await anyio.to_thread.run_sync(read_host_networks)
                if now != known:
                    script = plan_forbidden(self._recipe.tag, [*forbidden, *now])
                    await anyio.to_thread.run_sync(nft.apply, script)
                    known = now
            except (PandastackError, OSError) as error:
                log.warning("network.host_unknown", reason=str(error))

    async def close(self) -> None:
        """Remove every slot."""
        while self._ready:
            made = self._ready.popleft()
            made.close()
            self._used.append(made)
        ends = anyio.current_time() + END_DEADLINE
        while self._used and anyio.current_time() < ends:
            await self._remove_some()
        self.left = self.left or bool(self._used)
        if self._used:
            log.warning("network.slots_left", slots=len(self._used), reason="removing them took too long")


@asynccontextmanager
async def open_slot_pool(
    tag: str,
    subnets: Subnets,
    forbidden: Sequence[str],
    *,
    guest_mac: str,
    mtu: int,
    locks: Path,
    keep: Collection[str] = (),
    ready: int = READY,
) -> AsyncIterator[SlotPool]:
    """The slots of the installation ``tag``, in ``subnets``. No guest reaches ``forbidden`` or the host's own networks.

    ``keep`` names the slots that living machines of a former server are in; all others of its are removed. ``locks`` is
    a directory that all installations of the host share. Raises :class:`ServerError` when the host uses the network
    itself, or allows no slots.
    """
    routes = await anyio.to_thread.run_sync(read_routes)
    refuse_clash(subnets, routes)
    known = await anyio.to_thread.run_sync(read_host_networks)
    everything = [*forbidden, *known, str(subnets.network)]
    logs = await anyio.to_thread.run_sync(can_log)
    if not logs:
        log.warning("network.refusals_unlogged", hint="use a kernel with nfnetlink_log and nft_log")
    recipe = Recipe(tag, subnets, everything, guest_mac, mtu, logs)
    with ExitStack() as claimed:
        numbers = Numbers(subnets, tag, locks, claimed, read_routes)
        for name in keep:
            numbers.adopt(get_slot_number(tag, name))
        await anyio.to_thread.run_sync(_sweep, tag, frozenset(keep))
        with forwarding(locks) as made_router:
            rules = plan_host_rules(tag, subnets.network, everything, routes=made_router)
            pool = SlotPool(recipe, numbers, ready)
            async with _host_wall(tag, rules, pool):
                try:
                    watch = partial(pool.watch_host, [*forbidden, str(subnets.network)], known)
                    async with beside(pool.refill, pool.clean, watch):
                        yield pool
                finally:
                    await pool.close()


@asynccontextmanager
async def _host_wall(tag: str, rules: str, pool: SlotPool) -> AsyncIterator[None]:
    """The wall around all slots. It falls only with the last slot: when the server is killed, it stays."""
    await anyio.to_thread.run_sync(nft.apply, rules)
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            if not pool.left:
                await anyio.to_thread.run_sync(_take_down, f"delete table inet {host_table(tag)}\n")


def _new_mark() -> int:
    return secrets.randbelow(2**31 - 2) + 2  # a new slot's policy has 1


def _take_down(script: str) -> None:
    try:
        nft.apply(script)
    except ServerError as error:
        log.warning("network.rules_left", reason=str(error))


def refuse_clash(subnets: Subnets, routes: Sequence[Route]) -> None:
    """Raise :class:`ServerError` when the host itself reaches addresses that slots are to have."""
    clash = find_clash(subnets.network, routes)
    if clash is not None:
        raise ServerError(
            f"the network of slots, {subnets.network}, is used by this host: {clash.network} on {clash.device}",
            hint="set PANDASTACK_NETWORK to a private network that this host does not use",
        )


def _sweep(tag: str, keep: Collection[str]) -> None:
    left = sorted(find_slots(tag) - set(keep))
    if left:
        remove_slots(left)
        log.warning("network.slots_swept", slots=len(left))


async def _inside(slot: NetworkSlot, work: Callable[[], T]) -> T:
    assert slot.netns is not None
    return await anyio.to_thread.run_sync(run_in, slot.netns, work)
