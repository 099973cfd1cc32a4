"""Who the client is when reverse proxies stand in front of the API or the gateway. Pure.

Anyone can send ``X-Forwarded-For`` and ``X-Forwarded-Proto``, so they are believed only from the peers that the
operator named. ``Forwarded``, ``X-Forwarded-Host``, ``X-Forwarded-Port`` and ``X-Real-IP`` are believed from nobody.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MOST_HOPS = 16
"""How many addresses of ``X-Forwarded-For`` are looked at, from the last one on."""

_SCHEMES = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}


@dataclass(frozen=True, slots=True)
class Client:
    """The client's address and what it speaks: ``http`` or ``https``."""

    address: str
    scheme: str


def parse_networks(text: str) -> tuple[Network, ...]:
    """The networks and addresses in ``text``, separated by commas. Raises ``ValueError``."""
    return tuple(ipaddress.ip_network(each.strip()) for each in text.split(",") if each.strip())


def client_of(headers: Iterable[tuple[bytes, bytes]], peer: Client, trusted: Sequence[Network]) -> Client:
    """The client of a request that ``peer`` sent; names of headers are in lower case.

    Each proxy appends the address that it got the request from. So the last one is what the peer says, and the one
    before it what that address says: each is believed as long as the one that says it is ``trusted``.
    """
    if not trusted or not _is_trusted(_address(peer.address), trusted):
        return peer
    given = list(headers)
    named = _last(given, b"x-forwarded-proto")
    scheme = _SCHEMES.get(named.rpartition(b",")[2].strip().lower(), peer.scheme)
    address = _address(peer.address)
    said = b",".join(value for name, value in given if name == b"x-forwarded-for")
    for each in reversed(said.rsplit(b",", MOST_HOPS)[-MOST_HOPS:]):
        before = _address(each.decode("latin-1").strip())
        if before is None or not _is_trusted(address, trusted):
            break
        address = before
    return Client(str(address), scheme)


def _last(headers: Sequence[tuple[bytes, bytes]], wanted: bytes) -> bytes:
    return next((value for name, value in reversed(headers) if name == wanted), b"")


def _address(text: str) -> Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped) or found


def _is_trusted(address: Address | None, trusted: Sequence[Network]) -> bool:
    return address is not None and any(address in network for network in trusted)
