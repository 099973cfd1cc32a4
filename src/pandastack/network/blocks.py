"""Sharing the network of all slots out among the installations of a host: each claims blocks of it as it needs them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from pandastack.errors import CapacityError
from pandastack.host.leases import exclusive_file
from pandastack.network.host_networks import Route
from pandastack.network.slot import PREFIX
from pandastack.network.subnets import Subnets


class Numbers:
    """The free slot numbers of one installation. ``routes`` reads the host's routes: machines outlive a server that was
    killed, so a block is not free while another installation's slots are in it."""

    def __init__(
        self, subnets: Subnets, tag: str, locks: Path, claimed: ExitStack, routes: Callable[[], list[Route]]
    ) -> None:
        self._subnets = subnets
        self._tag = tag
        self._locks = locks
        self._claimed = claimed
        self._routes = routes
        self._blocks: set[int] = set()
        self._free: list[int] = []
        self._taken: set[int] = set()

    def take(self) -> int:
        """The lowest free number; blocks when it has to claim a block. Raises :class:`CapacityError`."""
        while True:
            if not self._free:
                self._claim_any()
            number = heapq.heappop(self._free)
            if number not in self._taken:
                self._taken.add(number)
                return number

    def adopt(self, number: int) -> None:
        """Take the number of a slot that a former server has left, with its block if that can be had."""
        self._taken.add(number)
        if number < self._subnets.count:
            self._claim(self._subnets.block_of(number))

    def give_back(self, number: int) -> None:
        self._taken.discard(number)
        if number < self._subnets.count and self._subnets.block_of(number) in self._blocks:
            heapq.heappush(self._free, number)

    def _claim_any(self) -> None:
        foreign = foreign_blocks(self._subnets, self._tag, self._routes())
        first = int(self._tag, 16)  # each installation begins elsewhere, so they seldom meet
        for step in range(self._subnets.blocks):
            block = (first + step) % self._subnets.blocks
            if block not in foreign and self._claim(block):
                return
        hint = "PANDASTACK_NETWORK names a larger network"
        raise CapacityError(f"no network slot available: all of {self._subnets.network} is in use", hint=hint)

    def _claim(self, block: int) -> bool:
        if block in self._blocks:
            return False
        network = self._subnets.block_network(block)
        path = self._locks / f"network-{network.network_address}-{network.prefixlen}.lock"
        with ExitStack() as stack:
            if not stack.enter_context(exclusive_file(path)):
                return False
            self._claimed.enter_context(stack.pop_all())
        self._blocks.add(block)
        for number in self._subnets.numbers(block):
            heapq.heappush(self._free, number)
        return True


def foreign_blocks(subnets: Subnets, tag: str, routes: Iterable[Route]) -> set[int]:
    """The blocks in which slots of other installations are, used or left behind: a pure function."""
    found = set()
    for route in routes:
        if route.of_slot and not route.device.startswith(f"{PREFIX}{tag}") and _inside(subnets.network, route.network):
            offset = int(route.network.network_address) - int(subnets.network.network_address)
            found.add(subnets.block_of(offset // 4))
    return found


def _inside(outer: IPv4Network, inner: IPv4Network) -> bool:
    return IPv4Address(inner.network_address) in outer and inner.prefixlen >= outer.prefixlen
