"""The devices of a slot, made and removed by netlink. Everything here blocks for milliseconds."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path

from pandastack.model.network import GUEST_ADDRESS, GUEST_GATEWAY, INWARD_PORT
from pandastack.network import links
from pandastack.network.refusals import open_reader
from pandastack.network.slot import DNS_PORT, GATEWAY_MAC, PREFIX, PROXY_PORT, TAP, UPLINK, Listeners

_TUNSETIFF = 0x400454CA  # Linux, if_tun.h
_IFF_TAP, _IFF_NO_PI = 0x2, 0x1000
_BACKLOG = 256

_SETTINGS = {
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
}

_TRACKING = {
    "net/netfilter/nf_conntrack_tcp_loose": "0",  # a connection that was cut is not picked up again in the middle
    "net/netfilter/nf_conntrack_tcp_timeout_established": "7200",
}


def set_up_namespace() -> None:
    """Give the present, new namespace the settings of a slot's."""
    for name, value in _SETTINGS.items():
        with suppress(FileNotFoundError):  # a kernel without IPv6
            Path("/proc/sys", name).write_text(value)


def set_up_tracking() -> None:
    """Settings that exist once rules have asked for connections to be tracked."""
    for name, value in _TRACKING.items():
        Path("/proc/sys", name).write_text(value)


def open_tap() -> int:
    """The descriptor of a new tap device in the present namespace; the device lives as long as it is open anywhere."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", TAP.encode(), _IFF_TAP | _IFF_NO_PI))
    except BaseException:
        os.close(fd)
        raise
    return fd


def set_up_tap(guest_mac: str, mtu: int) -> None:
    """Configure the tap device of the present namespace as the guest's gateway, which knows the guest beforehand."""
    links.add_address(TAP, GUEST_GATEWAY, 24)
    links.set_up(TAP, mtu=mtu, mac=GATEWAY_MAC)
    links.add_neighbour(TAP, GUEST_ADDRESS, guest_mac)


def make_way_out(name: str, host: int, host_address: str, address: str, mtu: int) -> None:
    """Connect the present namespace with that of the descriptor ``host``, where its device is called ``name``."""
    links.make_pair(UPLINK, name, host, mtu)
    links.add_address(UPLINK, address, 30)
    links.set_up(UPLINK)
    links.add_route(UPLINK, host_address)


def set_up_host_end(name: str, host_address: str) -> None:
    """Configure the host's end."""
    with suppress(FileNotFoundError):  # a kernel without IPv6
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
    links.add_address(name, host_address, 30)
    links.set_up(name)


def open_listeners(*, logs: bool) -> Listeners:
    """The sockets of the egress process in the present namespace; ``logs``: also one for what is refused."""
    opened: list[socket.socket] = []
    try:
        for kind, port in (
            (socket.SOCK_DGRAM, DNS_PORT),
            (socket.SOCK_STREAM, DNS_PORT),
            (socket.SOCK_STREAM, PROXY_PORT),
            (socket.SOCK_STREAM, INWARD_PORT),
        ):
            opened.append(each := socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK))
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind((GUEST_GATEWAY, port))
            if kind == socket.SOCK_STREAM:
                each.listen(_BACKLOG)
        refused = open_reader() if logs else None
    except BaseException:
        for each in opened:
            each.close()
        raise
    udp, tcp, proxy, inward = (each.detach() for each in opened)
    return Listeners(udp, tcp, proxy, inward, refused)


def find_devices(tag: str) -> list[str]:
    """The host's ends of all slots of the installation ``tag``."""
    return sorted(path.name for path in Path("/sys/class/net").glob(f"{PREFIX}{tag}*"))


def cable_bytes() -> tuple[int, int]:
    """Bytes that the guest has received and sent over its cable, in the present namespace."""
    for line in Path("/proc/thread-self/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == TAP:
            values = [int(number) for number in numbers.split()]
            return values[8], values[0]
    return 0, 0
