"""The outside world of tests: a namespace that holds its addresses, public and private ones."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pandastack.network import links
from pandastack.network.thread import remove, run_in, run_in_new

T = TypeVar("T")

PUBLIC = "198.51.100.10"
OTHER = "198.51.100.11"

PRIVATE = ("10.99.0.1", "100.64.9.9", "169.254.169.254", "172.31.9.9", "192.168.77.9", "198.18.0.9")
"""Addresses that no guest may reach, although the host could: it has routes to them."""

_HOST, _WORLD = "10.253.251.1", "10.253.251.2"


class World:
    """``in_it`` does something there."""

    def __init__(self, netns: Path) -> None:
        self.netns = netns

    def in_it(self, work: Callable[[], T]) -> T:
        return run_in(self.netns, work)

    def datagrams(self, port: int, address: str = "0.0.0.0") -> socket.socket:
        """A socket for datagrams, by default to any of its addresses; reading gives up after a while."""
        return self.in_it(lambda: _bound(socket.SOCK_DGRAM, port, address))

    def connections(self, port: int) -> socket.socket:
        return self.in_it(lambda: _bound(socket.SOCK_STREAM, port))


def _bound(kind: int, port: int, address: str = "0.0.0.0") -> socket.socket:
    made = socket.socket(socket.AF_INET, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    made.settimeout(10)
    if kind == socket.SOCK_STREAM:
        made.listen()
    return made


@contextmanager
def open_world(*public: str) -> Iterator[World]:
    """The world, with the addresses ``public`` besides the usual."""
    name = f"ptw{os.getpid() % 10**5}{secrets.token_hex(2)}"
    netns = Path("/run/netns") / name
    addresses = (PUBLIC, OTHER, *public, *PRIVATE)
    host = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        run_in_new(netns, lambda: _furnish(name, host, addresses))
        try:
            _connect(name, addresses)
            links.wait_running(name, 5)
            run_in(netns, lambda: links.wait_running("out", 5))
            yield World(netns)
        finally:
            links.remove(name)
            remove(netns)
    finally:
        os.close(host)


def _furnish(name: str, host: int, addresses: tuple[str, ...]) -> None:
    links.make_pair("out", name, host, 1500)
    links.set_up("lo")
    for address in addresses:
        links.add_address("lo", address, 32)
    links.add_address("out", _WORLD, 30)
    links.set_up("out")
    links.add_route("out", _HOST)


def _connect(name: str, addresses: tuple[str, ...]) -> None:
    links.add_address(name, _HOST, 30)
    links.set_up(name)
    for address in addresses:
        links.add_route(name, _WORLD, address, 32)
