"""What the host's own addresses and networks are, and who of it uses addresses that slots are to have."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise
from pathlib import Path

from pandastack.network.slot import PREFIX


@dataclass(frozen=True)
class Route:
    """A network, or one address, that the host reaches through ``device``."""

    network: IPv4Network
    device: str
    direct: bool = True
    """Whether no router is between: the network is the host's own."""

    @property
    def of_slot(self) -> bool:
        return self.device.startswith(PREFIX)


def read_routes() -> list[Route]:
    """The routes of the host's main table. Each line of the kernel's has its device's name, so no device can come or go
    between the two."""
    return parse_routes(Path("/proc/net/route").read_text())


def parse_routes(text: str) -> list[Route]:
    """The routes in proc(5)'s ``net/route``: a pure function."""
    found = []
    for line in text.splitlines()[1:]:
        device, destination, gateway, _, _, _, _, mask = line.split()[:8]
        network = IPv4Network((_address(destination), int(_address(mask)).bit_count()))
        found.append(Route(network, device, direct=gateway == "00000000"))
    return found


def read_addresses() -> list[IPv4Address]:
    """The host's own addresses, those of its ends of slots among them."""
    return parse_addresses(Path("/proc/net/fib_trie").read_text())


def parse_addresses(text: str) -> list[IPv4Address]:
    """The local addresses in ``net/fib_trie``, where each stands in the line before that which calls it so."""
    lines = text.splitlines()
    found = {
        IPv4Address(before.rpartition(" ")[2])
        for before, line in pairwise(lines)
        if line.strip() == "/32 host LOCAL" and before.strip().startswith("|--")
    }
    return sorted(found)


def _address(text: str) -> IPv4Address:
    """A number as ``net/route`` prints it: in the host's byte order."""
    return IPv4Address(int(text, 16).to_bytes(4, sys.byteorder))


def read_host_networks() -> list[str]:
    """What :func:`networks_of` says of this host. Blocks for a moment."""
    return networks_of(read_routes(), read_addresses())


def networks_of(routes: Sequence[Route], addresses: Iterable[IPv4Address] = ()) -> list[str]:
    """What no guest may reach, because it is the host's: a pure function."""
    slots = {int(route.network.network_address) for route in routes if route.of_slot}
    own = {route.network for route in routes if route.direct and not route.of_slot and route.network.prefixlen}
    own |= {IPv4Network(each) for each in addresses if not each.is_loopback and int(each) & ~3 not in slots}
    return [str(each) for each in sorted(own)]


def find_clash(network: IPv4Network, routes: Iterable[Route]) -> Route | None:
    """A route of the host, other than slots', to addresses in ``network``: a pure function."""
    for each in routes:
        if not each.of_slot and each.network.prefixlen and each.network.overlaps(network):
            return each
    return None
