"""The place of one machine in the network of its host.

A slot is a network namespace with two devices: ``tap0``, at the other end of the guest's cable, and ``up0``, at the
other end of a device of the host. Every slot has the same addresses inside, so any guest fits it; the two ends of its
way to the host have a network of four addresses of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pandastack.errors import ServerError

PREFIX = "ps-"
"""What the names of slots begin with, those of all installations: device and namespace of a slot have one name."""

TAP, UPLINK = "tap0", "up0"
"""The devices in a slot's namespace."""

GATEWAY_MAC = "52:55:0a:00:02:02"
"""The hardware address of ``tap0`` in every slot: a restored guest knows it from where it was captured."""

DNS_PORT, PROXY_PORT = 53, 15001
"""Where the resolver and the proxy answer in every slot, at :data:`~pandastack.model.network.GUEST_GATEWAY`; the door
inward does so at :data:`~pandastack.model.network.INWARD_PORT`."""

_NUMBER_DIGITS = 4


@dataclass(frozen=True)
class NetworkSlot:
    """The network resources of one machine."""

    number: int
    """Its place in the network of all slots, counted in networks of four addresses; -1 without a network."""
    name: str
    netns: Path | None
    """Its namespace; where there are no slots the empty one, ``None`` where not even that can be made."""
    tap: int | None = None
    """The descriptor of the tap device; ``None``: it has no network, or a former engine gave the device away."""
    host_address: str = ""
    """The host's end of its way out."""
    address: str = ""
    """Its own end: the source of what leaves it."""

    @property
    def connected(self) -> bool:
        """Whether it is a slot at all."""
        return bool(self.name)


@dataclass(frozen=True)
class Listeners:
    """Descriptors of the sockets in a slot that the egress process answers at."""

    udp: int
    tcp: int
    proxy: int
    inward: int
    refused: int | None = None
    """Hears what the packet filter refuses; ``None``: this kernel does not report it."""

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All of them."""
        four = self.udp, self.tcp, self.proxy, self.inward
        return four if self.refused is None else (*four, self.refused)


def no_slot(netns: Path | None) -> NetworkSlot:
    """The place of a machine without a network, in a namespace that all of them share and that is empty."""
    return NetworkSlot(-1, "", netns)


def slot_name(tag: str, number: int) -> str:
    """The name of slot ``number`` of the installation ``tag`` (8 hex digits): as long as a device's may be."""
    return f"{PREFIX}{tag}{number:0{_NUMBER_DIGITS}x}"


def slot_number(tag: str, name: str) -> int | None:
    """The reverse of :func:`slot_name`; ``None`` for any other name."""
    digits = name.removeprefix(f"{PREFIX}{tag}")
    if len(digits) != _NUMBER_DIGITS or slot_name(tag, number := _hexadecimal(digits)) != name:
        return None
    return number


def get_slot_number(tag: str, name: str) -> int:
    """As :func:`slot_number`; raises :class:`ServerError` for a name that is no slot's."""
    number = slot_number(tag, name)
    if number is None:
        raise ServerError(f"{name!r} is no network slot of this installation")
    return number


def _hexadecimal(digits: str) -> int:
    try:
        return int(digits, 16)
    except ValueError:
        return 0
