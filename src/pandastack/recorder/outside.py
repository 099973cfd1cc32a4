"""The proxy's way out: public addresses and what the operator has added, each host's certificate checked."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network

import anyio
from anyio.abc import ByteStream

from pandastack.broker.peer import GONE
from pandastack.broker.streams import open_tls
from pandastack.model.network import FORBIDDEN
from pandastack.network.host_networks import read_host_networks
from pandastack.recorder.urls import Url

CONNECT_SECONDS = 15.0


class Unreachable(Exception):
    """A host that gave no answer, and why."""


class Outside:
    """``hosts`` checks certificates; ``networks`` may be reached although they are private."""

    def __init__(self, hosts: ssl.SSLContext, networks: Sequence[str]) -> None:
        self._hosts = hosts
        self._networks = [IPv4Network(each) for each in networks]

    async def open(self, url: Url) -> ByteStream:
        """A connection to the host of ``url``, with TLS for https. Raises :class:`Unreachable`."""
        stream = await self._connect(url)
        if url.scheme == "http":
            return stream
        try:
            return await open_tls(stream, url.host, self._hosts)
        except ssl.SSLError as error:
            await anyio.aclose_forcefully(stream)
            raise Unreachable(f"the certificate of {url.host} is not accepted: {error.reason or error}") from error
        except (*GONE, TimeoutError) as error:
            await anyio.aclose_forcefully(stream)
            raise Unreachable(f"{url.host} does not answer TLS") from error

    async def _connect(self, url: Url) -> ByteStream:
        try:
            with anyio.fail_after(CONNECT_SECONDS):
                found = await anyio.getaddrinfo(url.host, url.port, family=socket.AF_INET, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError, UnicodeError) as error:
            raise Unreachable(f"the name {url.host} is not known") from error
        addresses = [str(each[4][0]) for each in found]
        reached = [each for each in addresses if self.may_reach(each)]
        if not reached:
            raise Unreachable(f"{url.host} is {addresses[0]}, which is not a public address")
        for address in reached:
            try:
                with anyio.fail_after(CONNECT_SECONDS):
                    return await anyio.connect_tcp(address, url.port)
            except (OSError, TimeoutError):
                continue
        raise Unreachable(f"{url.authority} does not answer")

    def may_reach(self, address: str) -> bool:
        """Whether builds may fetch from an address."""
        wanted = IPv4Address(address)
        if any(wanted in each for each in self._networks):
            return True
        return not any(wanted in IPv4Network(each) for each in (*FORBIDDEN, *read_host_networks()))
