"""Forgetting tracked connections (Linux, include/uapi/linux/netfilter/nfnetlink_conntrack.h)."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address

from pandastack.network.netlink import NESTED, NETFILTER, attribute, request

_DELETE = 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE
_TUPLE_ORIGINAL, _TUPLE_IP, _IPV4_SOURCE = 1, 1, 1
_FILTER, _FILTER_ORIGINAL = 25, 1
_BY_SOURCE = 1


def forget_all() -> None:
    """Forget every connection of the namespace that the calling thread is in. Raises :class:`OSError`."""
    _delete(b"")


def forget_from(address: str) -> None:
    """Forget those that began at ``address``. Raises :class:`OSError`; Linux knows this since 5.8."""
    source = attribute(_IPV4_SOURCE, IPv4Address(address).packed)
    connection = attribute(_TUPLE_ORIGINAL | NESTED, attribute(_TUPLE_IP | NESTED, source))
    _delete(connection + attribute(_FILTER | NESTED, attribute(_FILTER_ORIGINAL, _BY_SOURCE)))


def _delete(attributes: bytes) -> None:
    request(NETFILTER, _DELETE, struct.pack("=BBH", socket.AF_INET, 0, 0) + attributes)
