"""Devices, addresses, routes and neighbours of the namespace that the calling thread is in (rtnetlink(7))."""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
import time
from ipaddress import IPv4Address

from pandastack.network.netlink import CREATE, NESTED, ROUTE, attribute, request

_NEW_LINK, _DELETE_LINK, _NEW_ADDRESS, _NEW_ROUTE, _NEW_NEIGHBOUR = 16, 17, 20, 24, 28
_MAC, _NAME, _MTU, _LINKINFO, _NETNS = 1, 3, 4, 18, 28
_KIND, _DATA, _PEER = 1, 2, 1
_UP, _RUNNING = 1, 64
_GET_FLAGS = 0x8913  # SIOCGIFFLAGS, netdevice(7)
_MAIN, _STATIC, _UNIVERSE, _UNICAST = 254, 4, 0, 1
_PERMANENT = 0x80


def _link(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return struct.pack("=BBHiII", socket.AF_UNSPEC, 0, 0, index, flags, change)


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def make_pair(name: str, peer: str, peer_netns: int, mtu: int) -> None:
    """A veth pair: ``name`` here, ``peer`` in the namespace of the descriptor ``peer_netns``."""
    other = _link() + _text(_NAME, peer) + attribute(_MTU, mtu) + attribute(_NETNS, peer_netns)
    info = _text(_KIND, "veth") + attribute(_DATA | NESTED, attribute(_PEER | NESTED, other))
    body = _link() + _text(_NAME, name) + attribute(_MTU, mtu) + attribute(_LINKINFO | NESTED, info)
    request(ROUTE, _NEW_LINK, body, CREATE)


def set_up(name: str, *, mtu: int | None = None, mac: str = "") -> None:
    """Switch a device on, with another MTU or hardware address."""
    body = _link(socket.if_nametoindex(name), _UP, _UP)
    if mac:
        body += attribute(_MAC, bytes.fromhex(mac.replace(":", "")))
    if mtu is not None:
        body += attribute(_MTU, mtu)
    request(ROUTE, _NEW_LINK, body)


def wait_running(name: str, seconds: float) -> None:
    """Wait until a device that was set up carries packets: the kernel activates it a little after its other end is up,
    and drops packets until then. Raises :class:`TimeoutError`."""
    ends = time.monotonic() + seconds
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        while not _flags(any_socket, name) & _RUNNING:
            if time.monotonic() > ends:
                raise TimeoutError(f"{name} does not come up")
            time.sleep(0.001)


def _flags(any_socket: socket.socket, name: str) -> int:
    answer = fcntl.ioctl(any_socket, _GET_FLAGS, struct.pack("16s24x", name.encode()))
    return int(struct.unpack_from("=H", answer, 16)[0])


def remove(name: str) -> None:
    """Remove a device. Does nothing if it is gone."""
    try:
        index = socket.if_nametoindex(name)
    except OSError:  # it has no number: the kernel was faster
        return
    try:
        request(ROUTE, _DELETE_LINK, _link(index))
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.ENXIO):
            raise


def add_address(name: str, address: str, prefix: int) -> None:
    body = struct.pack("=BBBBI", socket.AF_INET, prefix, 0, _UNIVERSE, socket.if_nametoindex(name))
    packed = IPv4Address(address).packed
    request(ROUTE, _NEW_ADDRESS, body + attribute(2, packed) + attribute(1, packed), CREATE)


def add_route(name: str, gateway: str, to: str = "0.0.0.0", prefix: int = 0) -> None:
    """A route through a router; by default to everywhere."""
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, prefix, 0, 0, _MAIN, _STATIC, _UNIVERSE, _UNICAST, 0)
    if prefix:
        body += attribute(1, IPv4Address(to).packed)
    body += attribute(5, IPv4Address(gateway).packed) + attribute(4, socket.if_nametoindex(name))
    request(ROUTE, _NEW_ROUTE, body, CREATE)


def add_neighbour(name: str, address: str, mac: str) -> None:
    """A neighbour that is never asked for its hardware address."""
    body = struct.pack("=BBHiHBB", socket.AF_INET, 0, 0, socket.if_nametoindex(name), _PERMANENT, 0, 0)
    body += attribute(1, IPv4Address(address).packed) + attribute(2, bytes.fromhex(mac.replace(":", "")))
    request(ROUTE, _NEW_NEIGHBOUR, body, CREATE)
