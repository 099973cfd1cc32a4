"""Which addresses slots have: pure arithmetic on the network of all slots of a host.

It is cut into blocks, which installations claim as they need them, and each block into networks of four addresses, one
for each slot: the host's end and the slot's end.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from ipaddress import IPv4Network

from pandastack.errors import BadRequestError

DEFAULT = "10.200.0.0/16"

BLOCK_PREFIX = 20
"""The size of what an installation claims at once: 1,024 slots."""

MOST_SLOTS = 16384
"""In one host's network, whatever its size."""

_LARGEST, _SMALLEST = 8, 28


@dataclass(frozen=True)
class Subnets:
    """The slots in ``network``."""

    network: IPv4Network

    @property
    def count(self) -> int:
        """How many slots there are."""
        return min(MOST_SLOTS, self.network.num_addresses // 4)

    @property
    def block_size(self) -> int:
        """How many slots a block has."""
        return min(self.count, 1 << (32 - BLOCK_PREFIX - 2))

    @property
    def blocks(self) -> int:
        return self.count // self.block_size

    def numbers(self, block: int) -> range:
        """The numbers of the slots in a block."""
        return range(block * self.block_size, (block + 1) * self.block_size)

    def block_of(self, number: int) -> int:
        return number // self.block_size

    def block_network(self, block: int) -> IPv4Network:
        first = int(self.network.network_address) + block * self.block_size * 4
        return IPv4Network((first, 32 - (self.block_size * 4 - 1).bit_length()))

    def addresses(self, number: int) -> tuple[str, str]:
        """The host's end and the slot's end of slot ``number``; both are in a /30."""
        first = self.network.network_address + 4 * number
        return str(first + 1), str(first + 2)


def parse_subnets(text: str, field: str) -> Subnets:
    """The slots in the network ``text``. Raises :class:`BadRequestError` that names ``field``."""
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise BadRequestError(f"{field}: {text[:64]!r} is not an IPv4 network: {error}", field=field) from error
    if not _LARGEST <= network.prefixlen <= _SMALLEST:
        message = f"{field} must be a network from /{_LARGEST} to /{_SMALLEST}, not {network}"
        raise BadRequestError(message, field=field, hint=f"the default is {DEFAULT}")
    return Subnets(network)
