"""Packets that the packet filter of a slot has refused, and the decisions that they are.

The messages are the kernel's (Linux, include/uapi/linux/netfilter/nfnetlink_log.h); of the packets in them, whose bytes
are the guest's, only the header of IPv4 and two ports are looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from pandastack.egress.decide import Verdict, decide
from pandastack.egress.log import Via
from pandastack.model.network import QUIC_PORT, NetworkPolicy, Protocol

_PACKET = 4 << 8  # NFNL_SUBSYS_ULOG, NFULNL_MSG_PACKET
_HEADER, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")
_FAMILY = 4
"""Bytes of ``struct nfgenmsg``, after the header of a message."""

_PAYLOAD, _KIND = 9, 0x3FFF
_PLAIN = 0x45
"""The first byte of an IPv4 header without options: the only one that a slot lets in."""

_ICMP, _TCP, _UDP = 1, 6, 17
_VIA: dict[int, Via] = {_ICMP: "icmp", _TCP: "tcp", _UDP: "udp"}
_PROTOCOLS = {_TCP: Protocol.TCP, _UDP: Protocol.UDP}


@dataclass(frozen=True, slots=True)
class Packet:
    """Where a refused packet was to go. ``protocol`` is its number in IPv4; ``port`` is 0 where there is none."""

    protocol: int
    address: str
    port: int

    @property
    def via(self) -> Via:
        if self.protocol == _UDP and self.port == QUIC_PORT:
            return "quic"
        return _VIA.get(self.protocol, "other")


def read_packets(data: bytes) -> Iterator[Packet]:
    """The packets in what was read from the socket at once. What is cut or of another form is left out."""
    while len(data) >= _HEADER.size:
        length, kind, _, _, _ = _HEADER.unpack_from(data)
        if not _HEADER.size <= length <= len(data):
            return
        if kind == _PACKET and (packet := _read_packet(_payload_of(data[_HEADER.size + _FAMILY : length]))):
            yield packet
        data = data[(length + 3) & ~3 :]


def _payload_of(attributes: bytes) -> bytes:
    while len(attributes) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(attributes)
        if not _ATTRIBUTE.size <= length <= len(attributes):
            break
        if kind & _KIND == _PAYLOAD:
            return attributes[_ATTRIBUTE.size : length]
        attributes = attributes[(length + 3) & ~3 :]
    return b""


def _read_packet(data: bytes) -> Packet | None:
    if len(data) < 20 or data[0] != _PLAIN:
        return None
    protocol, address = data[9], str(IPv4Address(data[16:20]))
    if protocol not in _PROTOCOLS:
        return Packet(protocol, address, 0)
    return Packet(protocol, address, int.from_bytes(data[22:24])) if len(data) >= 24 else None


def judge(policy: NetworkPolicy, packet: Packet, forbidden: Sequence[str]) -> Verdict:
    """Why it was refused, and what would allow it."""
    protocol = _PROTOCOLS.get(packet.protocol)
    verdict = decide(
        policy, name=None, address=packet.address, port=packet.port, protocol=protocol, forbidden=forbidden
    )
    if verdict.allowed:
        return Verdict(False, "filter", reason="the packet filter refused it; by the policy of now it is allowed")
    return verdict
